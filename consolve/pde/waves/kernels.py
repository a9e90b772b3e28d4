"""Numba kernels of the leap-frog on structured grids.

Layout
------
All arrays have a frame of one vertex that holds zeros: [1 + j, 1 + i] is vertex (j, i) of n x n.  More zeros
at the end of the rows make their inner length a multiple of 32 (``WIDTH``): vectors then have no remainder.
``east`` is the coupling to the next vertex along x, ``north`` to the next one along y; outside the grid both
are 0, so the stencil needs no cases.  One step is

    u+ = 2 u - u- - w K u - beta (u - u-) + w M f,    w = dt² / (M + dt C / 2),  beta = dt C / (M + dt C / 2),

where w = 0 keeps u = 0 outside the mesh and at fixed vertices, and beta, being 0 but at absorbing sides, is
read there only.  A step writes u+ over u-.  From memory come, per
vertex, u, u-, w, east and north, and u+ goes there: 6 numbers.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import FAST

WIDTH = 32
"""The rows of framed arrays have 2 entries more than a multiple of it."""


@njit(**FAST)
def _row(old, u, east, north, w, j):
    """u+ over u- for row j, without damping.  The loop vectorises as long as rows are read from 2D arrays."""
    two = u.dtype.type(2)
    for i in range(1, u.shape[1] - 1):
        v = u[j, i]
        flow = east[j, i] * (u[j, i + 1] - v) + east[j, i - 1] * (u[j, i - 1] - v)
        flow += north[j, i] * (u[j + 1, i] - v) + north[j - 1, i] * (u[j - 1, i] - v)
        old[j, i] = two * v - old[j, i] + w[j, i] * flow


@njit(**FAST)
def _damp(new, u, old, beta):
    for i in range(new.size):
        new[i] -= beta[i] * (u[i] - old[i])


@njit(**FAST)
def _drag(new, old, drag):
    """Sum of drag (u+ - u-)² over a row; drag is C / (4 dt)."""
    total = 0.0
    for i in range(new.size):
        change = np.float64(new[i]) - np.float64(old[i])
        total += drag[i] * change * change
    return total


@njit(**FAST)
def _add(row, profile, force):
    for i in range(row.size):
        row[i] += force * profile[i]


@njit(**FAST)
def _moment(row, weight):
    total = 0.0
    for i in range(row.size):
        total += np.float64(row[i]) * weight[i]
    return total


@njit(**FAST)
def step(old, u, east, north, w, beta, drag, profile, load, j0, i0, force, scratch):
    """One step: u+ over u-.

    Parameters
    ----------
    old, u, east, north, w, beta
        Framed arrays of the dtype of the run.
    drag
        float64, framed: C / (4 dt).
    profile, load
        Of the source's window, whose first vertex is [j0, i0] of the framed arrays: w M times its profile, in
        the dtype of the run, and M times it, float64.
    force
        The signal at the time of ``u``.
    scratch
        A row of the dtype of the run.

    Returns
    -------
    Energy that the absorbing sides took, and work that the source did, in this step.
    """
    n = u.shape[0] - 2
    lost, work = 0.0, 0.0
    high, wide = profile.shape
    f = u.dtype.type(force)
    for j in range(1, n + 1):
        shone = force != 0 and j0 <= j < j0 + high
        left, right = old[j, 1], old[j, n]
        side = j == 1 or j == n
        if shone:
            work -= _moment(old[j, i0 : i0 + wide], load[j - j0])
        if side:
            scratch[:] = old[j]
        _row(old, u, east, north, w, j)
        if side:
            _damp(old[j], u[j], scratch, beta[j])
        else:
            old[j, 1] -= beta[j, 1] * (u[j, 1] - left)
            old[j, n] -= beta[j, n] * (u[j, n] - right)
        if shone:
            row = old[j, i0 : i0 + wide]
            _add(row, profile[j - j0], f)
            work += _moment(row, load[j - j0])
        if side:
            lost += _drag(old[j], scratch, drag[j])
        else:
            a, b = np.float64(old[j, 1] - left), np.float64(old[j, n] - right)
            lost += drag[j, 1] * a * a + drag[j, n] * b * b
    return lost, 0.5 * force * work


@njit(**FAST)
def _store(out, u, every):
    for j in range(out.shape[0]):
        source, target = u[1 + j * every], out[j]
        for i in range(out.shape[1]):
            target[i] = source[1 + i * every]


@njit(**FAST)
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


@njit(**FAST)
def _row_product(out, x, east, north, inverse, j):
    for i in range(1, x.shape[1] - 1):
        v = x[j, i]
        total = east[j, i] * (x[j, i + 1] + v) + east[j, i - 1] * (x[j, i - 1] + v)
        total += north[j, i] * (x[j + 1, i] + v) + north[j - 1, i] * (x[j - 1, i] + v)
        out[j, i] = inverse[j, i] * total


@njit(**FAST)
def power_steps(out, x, east, north, inverse, count):
    """(M⁻¹ |K|)^count x by turns in both arrays: in ``out`` for an odd count, in ``x`` for an even one."""
    for _ in range(count):
        for j in range(1, x.shape[0] - 1):
            _row_product(out, x, east, north, inverse, j)
        x, out = out, x


@njit(parallel=True, **FAST)
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
