"""r = b - A x in float64 for the operator of an image, from one byte a cell."""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT


@njit(**STRICT)
def _add_differences(here, there, active, sums):
    """sums += here - there where ``there`` is an active cell."""
    for k in range(sums.size):
        sums[k] += active[k] * (here[k] - there[k])


@njit(**STRICT)
def _close(b, active, coefficient, sums, r):
    """r = b - coefficient * sums at active cells, 0 elsewhere; returns the sum of squares."""
    square = 0.0
    for k in range(r.size):
        r[k] = b[k] - coefficient * sums[k] if active[k] != 0 else 0.0
    for k in range(r.size):
        square += r[k] * r[k]
    return square


@njit(parallel=True, **STRICT)
def residual(active, coefficient, start, place, part, b, x, r):
    """r = b - A x; returns the sum of its squares.  Bytes per cell: 1 + 24.

    Parameters
    ----------
    active
        uint8 (n0, n1, n2): 1 at active cells.
    coefficient
        Of each face between two active cells.
    start, place, part
        Dirichlet parts, see uniform.DirichletParts.
    b, x, r
        float64 (n0, n1, n2); cells that are not active are ignored, and get r = 0.
    """
    n0, n1, n2 = active.shape
    square = np.zeros(n0 * n1)
    for line in prange(n0 * n1):
        i, j = line // n1, line % n1
        sums, here = np.zeros(n2), x[i, j]
        if i > 0:
            _add_differences(here, x[i - 1, j], active[i - 1, j], sums)
        if i < n0 - 1:
            _add_differences(here, x[i + 1, j], active[i + 1, j], sums)
        if j > 0:
            _add_differences(here, x[i, j - 1], active[i, j - 1], sums)
        if j < n1 - 1:
            _add_differences(here, x[i, j + 1], active[i, j + 1], sums)
        _add_differences(here[1:], here[:-1], active[i, j, :-1], sums[1:])
        _add_differences(here[:-1], here[1:], active[i, j, 1:], sums[:-1])
        for q in range(start[line], start[line + 1]):
            sums[place[q]] += part[q] / coefficient * here[place[q]]
        square[line] = _close(b[i, j], active[i, j], coefficient, sums, r[i, j])
    return square.sum()
