"""Numba kernel that looks for periodic axes; arguments as in row_kernels."""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT


@njit(**STRICT)
def wrapping_couplings(
    own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, cells, shape, wraps, diagonals
):
    """Count couplings that tell of periodic axes.

    ``wraps`` int64 (3,): those from the last cells of one axis of more than two to the first, or back.
    ``diagonals`` int64 (2, 3, 2): those along the two diagonals of each plane, by the axis across it; apart
    for couplings that wrap and for others.
    """
    rows = own_start.size - 1
    ghosts = ghost_start.size > 1
    n1, n2 = shape[1], shape[2]
    d = np.empty(3, np.int64)
    for row in range(rows):
        line = np.int64(cells[row]) // n2
        i, j, k = line // n1, line % n1, np.int64(cells[row]) - line * n2
        stop = own_start[row + 1] - own_start[row]
        entries = stop + (ghost_start[row + 1] - ghost_start[row] if ghosts else 0)
        for e in range(entries):
            if e < stop:
                q = own_start[row] + e
                column, value = np.int64(own_column[q]), own_value[q]
            else:
                q = ghost_start[row] + e - stop
                column, value = rows + np.int64(ghost_column[q]), ghost_value[q]
            if value == 0 or column == row:
                continue
            there = np.int64(cells[column]) // n2
            d[0], d[1] = there // n1 - i, there % n1 - j
            d[2] = np.int64(cells[column]) - there * n2 - k
            nonzero, wrapped, last, far = 0, 0, 0, False
            for axis in range(3):
                if abs(d[axis]) > 1:
                    far |= abs(d[axis]) != shape[axis] - 1
                    wrapped, last = wrapped + 1, axis
                    d[axis] = -1 if d[axis] > 0 else 1
                nonzero += d[axis] != 0
            if far:
                continue
            if wrapped == 1:
                wraps[last] += 1
            if nonzero == 2:
                a, b = (0 if d[0] != 0 else 1), (2 if d[2] != 0 else 1)
                diagonals[1 if wrapped > 0 else 0, 3 - a - b, 1 if d[a] == d[b] else 0] += 1
