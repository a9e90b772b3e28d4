"""Numba kernels of the leap-frog on structured grids.

Layout
------
All arrays have a frame of one vertex that is never written and holds zeros: [1 + j, 1 + i] is vertex (j, i).
``east`` is the coupling to the next vertex along x, ``north`` to the next one along y; outside the grid both
are 0, so the stencil needs no cases.  One step is

    u+ = u + (1 - beta) (u - u-) - w K u + dt² f (1 - beta / 2),   w = dt² / (M + dt C / 2),
                                                                   beta = dt C / (M + dt C / 2),

where w = 0 keeps u = 0 outside the mesh and at fixed vertices, and beta is 0 but at absorbing sides: rows and
columns at the sides take it, the vertices inside do not.  A step writes u+ over u-.  From memory come, per
vertex, u, u-, w, east and north, and u+ goes there: 6 numbers.
"""

import numpy as np
from numba import njit, prange

# Sums may be reordered and contracted; NaN and Inf keep their meaning, since results are checked for them.
OPTIONS = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}


@njit(**OPTIONS)
def _row_inside(old, u, below, above, east, south, north, w):
    """u+ over u- for one row, without damping."""
    two = u.dtype.type(2)
    for i in range(1, u.size - 1):
        v = u[i]
        flow = east[i] * (u[i + 1] - v) + east[i - 1] * (u[i - 1] - v)
        flow += north[i] * (above[i] - v) + south[i] * (below[i] - v)
        old[i] = two * v - old[i] + w[i] * flow


@njit(**OPTIONS)
def _row_damped(old, u, below, above, east, south, north, w, beta):
    for i in range(1, u.size - 1):
        v = u[i]
        flow = east[i] * (u[i + 1] - v) + east[i - 1] * (u[i - 1] - v)
        flow += north[i] * (above[i] - v) + south[i] * (below[i] - v)
        change = v - old[i]
        old[i] = v + (change - beta[i] * change) + w[i] * flow


@njit(**OPTIONS)
def _drag(new, old, drag):
    """Sum of drag (u+ - u-)² over a row; drag is C / (4 dt)."""
    total = 0.0
    for i in range(new.size):
        change = np.float64(new[i]) - np.float64(old[i])
        total += drag[i] * change * change
    return total


@njit(**OPTIONS)
def _end_of_row(j, i, old, u, east, north, w, beta):
    """u+ of a vertex at the left or right side, from the u- that the row's sweep has not seen."""
    v = u[j, i]
    flow = east[j, i] * (u[j, i + 1] - v) + east[j, i - 1] * (u[j, i - 1] - v)
    flow += north[j, i] * (u[j + 1, i] - v) + north[j - 1, i] * (u[j - 1, i] - v)
    change = v - old
    return v + (change - beta[j, i] * change) + w[j, i] * flow


@njit(**OPTIONS)
def _add(row, profile, force):
    for i in range(row.size):
        row[i] += force * profile[i]


@njit(**OPTIONS)
def _moment(row, weight):
    total = 0.0
    for i in range(row.size):
        total += np.float64(row[i]) * weight[i]
    return total


@njit(**OPTIONS)
def step(old, u, east, north, w, beta, drag, profile, load, j0, i0, force, scratch):
    """One step: u+ over u-.

    Parameters
    ----------
    old, u, east, north, w, beta
        Framed arrays of the dtype of the run.
    drag
        float64, framed: C / (4 dt).
    profile, load
        Of the source's window, whose first vertex is [j0, i0] of the framed arrays: dt² times its profile
        (times 1 - beta / 2), in the dtype of the run, and M times the profile, float64.
    force
        The signal at the time of ``u``.
    scratch
        A row of the dtype of the run.

    Returns
    -------
    Energy that the absorbing sides took, and work that the source did, in this step.
    """
    rows, columns = u.shape[0] - 2, u.shape[1] - 2
    lost, work = 0.0, 0.0
    high, wide = profile.shape
    f = u.dtype.type(force)
    for j in range(1, rows + 1):
        shone = force != 0 and j0 <= j < j0 + high
        left, right = old[j, 1], old[j, columns]
        side = j == 1 or j == rows
        if shone:
            work -= _moment(old[j, i0 : i0 + wide], load[j - j0])
        if side:
            scratch[:] = old[j]
            _row_damped(old[j], u[j], u[j - 1], u[j + 1], east[j], north[j - 1], north[j], w[j], beta[j])
        else:
            _row_inside(old[j], u[j], u[j - 1], u[j + 1], east[j], north[j - 1], north[j], w[j])
            old[j, 1] = _end_of_row(j, 1, left, u, east, north, w, beta)
            old[j, columns] = _end_of_row(j, columns, right, u, east, north, w, beta)
        if shone:
            row = old[j, i0 : i0 + wide]
            _add(row, profile[j - j0], f)
            work += _moment(row, load[j - j0])
        if side:
            lost += _drag(old[j], scratch, drag[j])
        else:
            a, b = np.float64(old[j, 1] - left), np.float64(old[j, columns] - right)
            lost += drag[j, 1] * a * a + drag[j, columns] * b * b
    return lost, 0.5 * force * work


@njit(**OPTIONS)
def _store(out, u, every):
    for j in range(out.shape[0]):
        source, target = u[1 + j * every], out[j]
        for i in range(out.shape[1]):
            target[i] = source[1 + i * every]


@njit(**OPTIONS)
def march(old, u, east, north, w, beta, drag, profile, load, j0, i0, signal, marks, every, out):
    """Steps until all snapshots are stored; ``u`` holds step 0 and ``old`` the step before.

    Parameters
    ----------
    signal
        float64: the source's signal at steps 0, 1, ...
    marks
        int64, ascending: steps whose u go to ``out``.
    every
        Each how manieth vertex is stored.
    out
        (marks, rows, columns) of the dtype of the run.

    Returns
    -------
    Energy lost at the sides, work of the source.  After an odd number of steps the last u is in ``old``.
    """
    lost, work = 0.0, 0.0
    scratch = np.empty(u.shape[1], u.dtype)
    now = 0
    for k in range(marks.size):
        while now < marks[k]:
            a, b = step(old, u, east, north, w, beta, drag, profile, load, j0, i0, signal[now], scratch)
            lost += a
            work += b
            old, u = u, old
            now += 1
        _store(out[k], u, every)
    return lost, work


@njit(parallel=True, **OPTIONS)
def march_many(
    old, u, grid, east, north, w, beta, drag, profile, load, corner, signal, marks, every, out, account
):
    """:func:`march` of many runs at once, each by one thread.

    ``grid[r]`` is the place of run r's arrays in the stacks ``east`` to ``drag``; ``old``, ``u``,
    ``profile``, ``load``, ``corner`` (j0, i0), ``signal``, ``marks``, ``out`` and ``account`` (lost, work)
    have one entry a run.
    """
    for r in prange(u.shape[0]):
        g = grid[r]
        lost, work = march(
            old[r], u[r], east[g], north[g], w[g], beta[g], drag[g], profile[r], load[r], corner[r, 0],
            corner[r, 1], signal[r], marks[r], every, out[r],
        )  # fmt: skip
        account[r, 0] = lost
        account[r, 1] = work
