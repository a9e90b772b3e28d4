"""Numba kernels between a vector's rows and the boxes of the finest level.  ``cells`` is int64: C-order index
of each row's cell in a grid of n1 x n2 cells a layer."""

import numpy as np
from numba import njit, prange

from consolve.base.jit import FAST

_CHUNKS = 16


@njit(parallel=True, **FAST)
def box_around(cells, n1, n2):
    """int64 (2, 3): first cell, and one past the last, of the box around some cells; zeros for none."""
    low = np.full((_CHUNKS, 3), np.int64(2) ** 62)
    high = np.full((_CHUNKS, 3), np.int64(-1))
    for chunk in prange(_CHUNKS):
        a0, a1, a2 = low[chunk, 0], low[chunk, 1], low[chunk, 2]
        b0, b1, b2 = high[chunk, 0], high[chunk, 1], high[chunk, 2]
        last, i, j, k = np.int64(-2), np.int64(0), np.int64(0), np.int64(0)
        for q in range(cells.size * chunk // _CHUNKS, cells.size * (chunk + 1) // _CHUNKS):
            if cells[q] == last + 1 and k + 1 < n2:
                k += 1  # divisions are slow
            else:
                line = cells[q] // n2
                k = cells[q] - line * n2
                i = line // n1
                j = line - i * n1
            last = cells[q]
            a0, a1, a2 = min(a0, i), min(a1, j), min(a2, k)
            b0, b1, b2 = max(b0, i), max(b1, j), max(b2, k)
        low[chunk, 0], low[chunk, 1], low[chunk, 2] = a0, a1, a2
        high[chunk, 0], high[chunk, 1], high[chunk, 2] = b0, b1, b2
    box = np.zeros((2, 3), np.int64)
    if cells.size > 0:
        for axis in range(3):
            box[0, axis], box[1, axis] = low[:, axis].min(), high[:, axis].max() + 1
    return box


@njit(parallel=True, **FAST)
def locate(cells, n1, n2, box, low, m1, m2, outside, local):
    """local[q] = C-order index of row q's cell in a volume of m1 x m2 cells a layer that begins at ``low``.

    ``outside`` for the rows whose cell does not lie in ``box``; returns how many these are.
    """
    missing = np.zeros(_CHUNKS, np.int64)
    for chunk in prange(_CHUNKS):
        count = 0
        last, i, j, k = np.int64(-2), np.int64(0), np.int64(0), np.int64(0)
        for q in range(cells.size * chunk // _CHUNKS, cells.size * (chunk + 1) // _CHUNKS):
            if cells[q] == last + 1 and k + 1 < n2:
                k += 1
            else:
                line = cells[q] // n2
                k = cells[q] - line * n2
                i = line // n1
                j = line - i * n1
            last = cells[q]
            inside = box[0, 0] <= i < box[1, 0] and box[0, 1] <= j < box[1, 1] and box[0, 2] <= k < box[1, 2]
            if inside:
                local[q] = ((i - low[0]) * m1 + j - low[1]) * m2 + k - low[2]
            else:
                local[q] = outside
                count += 1
        missing[chunk] = count
    return missing.sum()


@njit(parallel=True, **FAST)
def fill_volume(values, scale, local, outside, volume):
    """volume[local[q]] = scale * values[q] for the rows of this rank's box; ``volume`` is flat."""
    for q in prange(values.size):
        if local[q] < outside:
            volume[local[q]] = scale * values[q]


@njit(**FAST)
def count_unknowns(diagonal, n0, n1, begin, end):
    """Nonzero entries of a colour-split array within a box of its cells."""
    pad = 1 if n0 > 1 else 0
    count = 0
    for i in range(begin[0], end[0]):
        for j in range(begin[1], end[1]):
            r = (i + pad) * (n1 + 2) + j + 1
            for k in range(begin[2], end[2]):
                count += diagonal[(i + j + k) % 2, r, k // 2 + 1] != 0
    return count
