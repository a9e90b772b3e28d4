"""Numba kernels between a caller's vectors and the colour-split arrays of the finest level."""

import numpy as np
from numba import njit, prange

from consolve.learned.cycle_kernels import OPTIONS


@njit(**OPTIONS)
def _absolute_sum(r):
    s = 0.0
    for i in range(r.size):
        s += abs(r[i])
    return s


@njit(parallel=True, **OPTIONS)
def absolute_sum(r, threads):
    """Sum of |r|; NaN or Inf if r holds any (a sum that overflows counts as well)."""
    part = np.zeros(threads, np.float64)
    for q in prange(threads):  # the loop has a function of its own: inside prange it would not vectorise
        part[q] = _absolute_sum(r[r.size * q // threads : r.size * (q + 1) // threads])
    return part.sum()


@njit(**OPTIONS)
def _rows_of_run(split, line, k, n0, n1):
    """Rows of cells k, k + 2, ... and k + 1, k + 3, ... of a line, from those cells on."""
    i, j = line // n1, line % n1
    r = (i + (1 if n0 > 1 else 0)) * (n1 + 2) + j + 1
    c = (i + j + k) % 2
    return split[c, r][k // 2 + 1 :], split[1 - c, r][(k + 1) // 2 + 1 :]


@njit(**OPTIONS)
def _scatter_runs(r, runs, scale, b, n0, n1, start, stop):
    for m in range(start, stop):
        first, length, line, k = runs[m, 0], runs[m, 1], runs[m, 2], runs[m, 3]
        if line >= 0:
            near, beside = _rows_of_run(b, line, k, n0, n1)
            source = r[first : first + length]
            for h in range(length // 2):
                near[h] = scale * source[2 * h]
                beside[h] = scale * source[2 * h + 1]
            if length % 2 == 1:
                near[length // 2] = scale * source[length - 1]


@njit(**OPTIONS)
def _gather_runs(x, runs, scale, z, n0, n1, start, stop):
    for m in range(start, stop):
        first, length, line, k = runs[m, 0], runs[m, 1], runs[m, 2], runs[m, 3]
        target = z[first : first + length]
        if line < 0:
            target[:] = 0
        else:
            near, beside = _rows_of_run(x, line, k, n0, n1)
            for h in range(length // 2):
                target[2 * h] = scale * near[h]
                target[2 * h + 1] = scale * beside[h]
            if length % 2 == 1:
                target[length - 1] = scale * near[length // 2]


@njit(parallel=True, **OPTIONS)
def scatter(r, runs, scale, b, n0, n1, threads):
    """b = scale * r at the cells of the entries; see layout.runs_of.  Bytes per entry: 8 + 4."""
    n = runs.shape[0]
    for q in prange(threads):
        _scatter_runs(r, runs, scale, b, n0, n1, n * q // threads, n * (q + 1) // threads)


@njit(parallel=True, **OPTIONS)
def gather(x, runs, scale, z, n0, n1, threads):
    """z = scale * x at the cells of the entries, 0 at cells that are not active.  Bytes per entry: 4 + 8."""
    n = runs.shape[0]
    for q in prange(threads):
        _gather_runs(x, runs, scale, z, n0, n1, n * q // threads, n * (q + 1) // threads)


@njit(**OPTIONS)
def _add_runs(z, weights, runs, x, n0, n1, start, stop):
    for m in range(start, stop):
        first, length, line, k = runs[m, 0], runs[m, 1], runs[m, 2], runs[m, 3]
        if line < 0:
            continue
        target = x[first : first + length]
        for q in range(weights.size):
            near, beside = _rows_of_run(z[q], line, k, n0, n1)
            weight = weights[q]
            for h in range(length // 2):
                target[2 * h] += weight * near[h]
                target[2 * h + 1] += weight * beside[h]
            if length % 2 == 1:
                target[length - 1] += weight * near[length // 2]


@njit(parallel=True, **OPTIONS)
def gather_combination(z, weights, runs, x, n0, n1, threads):
    """x += sum of weights[q] z[q] at active cells; z is a tuple of colour-split arrays.

    Bytes per entry: 4 q + 16.
    """
    n = runs.shape[0]
    for q in prange(threads):
        _add_runs(z, weights, runs, x, n0, n1, n * q // threads, n * (q + 1) // threads)
