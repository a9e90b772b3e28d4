"""Numba kernels of explicit runs in a zone; layout of :mod:`consolve.pde.waves.kernels`, of rows x columns.

The mass, stiffness and damping are symmetric, so the same step backwards in time is its transpose: with
``P u[n+1] = Q u[n] - R u[n-1] + F[n]`` and a cost r[n]·u[n], the multipliers obey
``P l[n-1] = Q l[n] - R l[n+1] + r[n]``, and l[n] is the derivative of the cost by F[n].
"""

from numba import njit

from consolve.base.jit import FAST


@njit(**FAST)
def _row(old, u, east, north, w, beta, j):
    two = u.dtype.type(2)
    for i in range(1, u.shape[1] - 1):
        v = u[j, i]
        flow = east[j, i] * (u[j, i + 1] - v) + east[j, i - 1] * (u[j, i - 1] - v)
        flow += north[j, i] * (u[j + 1, i] - v) + north[j - 1, i] * (u[j - 1, i] - v)
        old[j, i] = two * v - old[j, i] - beta[j, i] * (v - old[j, i]) + w[j, i] * flow


@njit(**FAST)
def _add(new, w, nodes, force):
    for k in range(nodes.shape[0]):
        j, i = nodes[k, 0], nodes[k, 1]
        new[j, i] += w[j, i] * force[k]


@njit(**FAST)
def _set(new, nodes, value):
    for k in range(nodes.shape[0]):
        new[nodes[k, 0], nodes[k, 1]] = value[k]


@njit(**FAST)
def _read(u, nodes, out):
    for k in range(nodes.shape[0]):
        out[k] = u[nodes[k, 0], nodes[k, 1]]


@njit(**FAST)
def march_zone(old, u, east, north, w, beta, driven, forces, held, values, read, out):
    """Steps of a zone; ``u`` holds the present state, ``old`` the one before.

    Parameters
    ----------
    old, u, east, north, w, beta
        Framed (rows + 2, ...): states, couplings, dt² / (M + dt C / 2) and dt C / (M + dt C / 2).
    driven, forces
        int64 (k, 2) nodes [j, i] of the framed arrays, and F at them in the first ``len(forces)`` steps.
    held, values
        Nodes, and the u that each step gives them, (steps, k).
    read, out
        Nodes, and where u at them goes after each step, (steps, k); its length is the number of steps.

    After an odd number of steps the last u is in ``old``.
    """
    for n in range(out.shape[0]):
        for j in range(1, u.shape[0] - 1):
            _row(old, u, east, north, w, beta, j)
        if n < forces.shape[0]:
            _add(old, w, driven, forces[n])
        if held.shape[0]:
            _set(old, held, values[n])
        _read(old, read, out[n])
        old, u = u, old
