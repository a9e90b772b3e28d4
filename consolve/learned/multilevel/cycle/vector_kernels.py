"""Numba kernels between a caller's vectors and the colour-split arrays of the finest level."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import FAST
from consolve.base.threads import run_lines


@njit(**FAST)
def _absolute_sums(r, parts, total, first, end):
    """total[q] = sum of |r| over part q of ``parts``."""
    for q in range(first, end):
        s = 0.0
        for i in range(r.size * q // parts, r.size * (q + 1) // parts):
            s += abs(r[i])
        total[q] = s


def absolute_sum(r: NDArray[np.float64], threads: int) -> float:
    """Sum of |r|; NaN or Inf if r holds any (a sum that overflows counts as well)."""
    total = np.zeros(threads)
    run_lines(_absolute_sums, threads, threads, r, threads, total)
    return float(total.sum())


@njit(**FAST)
def _rows_of_run(split, line, k, n0, n1):
    """Rows of cells k, k + 2, ... and k + 1, k + 3, ... of a line, from those cells on."""
    i, j = line // n1, line % n1
    r = (i + (1 if n0 > 1 else 0)) * (n1 + 2) + j + 1
    c = (i + j + k) % 2
    return split[c, r][k // 2 + 1 :], split[1 - c, r][(k + 1) // 2 + 1 :]


@njit(**FAST)
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


@njit(**FAST)
def _gather_runs(x, runs, scale, z, n0, n1, start, stop):
    for m in range(start, stop):
        first, length, line, k = runs[m, 0], runs[m, 1], runs[m, 2], runs[m, 3]
        target = z[first : first + length]
        if line < 0:
            for h in range(length):
                target[h] = 0
        else:
            near, beside = _rows_of_run(x, line, k, n0, n1)
            for h in range(length // 2):
                target[2 * h] = scale * near[h]
                target[2 * h + 1] = scale * beside[h]
            if length % 2 == 1:
                target[length - 1] = scale * near[length // 2]


def scatter(
    r: NDArray[np.float64], runs: NDArray[np.int32], scale: float, b: NDArray[np.float32], n0: int, n1: int,
    threads: int,
) -> None:  # fmt: skip
    """b = scale * r at the cells of the entries; see layout.runs_of.  Bytes per entry: 8 + 4."""
    run_lines(_scatter_runs, runs.shape[0], threads, r, runs, float(scale), b, n0, n1)


def gather(
    x: NDArray[np.float32], runs: NDArray[np.int32], scale: float, z: NDArray[np.float64], n0: int, n1: int,
    threads: int,
) -> None:  # fmt: skip
    """z = scale * x at the cells of the entries, 0 at cells that are not active.  Bytes per entry: 4 + 8."""
    run_lines(_gather_runs, runs.shape[0], threads, x, runs, float(scale), z, n0, n1)


@njit(**FAST)
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


def gather_combination(
    z: tuple[NDArray[np.float32], ...],
    weights: NDArray[np.float64],
    runs: NDArray[np.int32],
    x: NDArray[np.float64],
    n0: int,
    n1: int,
    threads: int,
) -> None:
    """x += sum of weights[q] z[q] at active cells; z is a tuple of colour-split arrays.

    Bytes per entry: 4 q + 16.
    """
    run_lines(_add_runs, runs.shape[0], threads, z, weights, runs, x, n0, n1)
