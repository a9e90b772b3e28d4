"""Numba kernels of cell codes: what a byte a cell says of the rows of a uniform operator.

A code is 128 if the cell is active, plus its open faces in the lower bits, plus 64 if it has a Dirichlet
part.
"""

import numpy as np
from numba import njit

from consolve.base.jit import FAST

ACTIVE, FIXED, FACES, NONE = np.uint8(128), np.uint8(64), np.uint8(7), np.uint8(0)


@njit(**FAST)
def _add(row, other):
    for k in range(row.size):
        row[k] = np.uint8(row[k] + other[k])


@njit(**FAST)
def _codes_of_line(active, i, j, row):
    """Codes of a line, without those of Dirichlet parts."""
    n0, n1, n2 = active.shape
    own = active[i, j]
    for k in range(n2):
        row[k] = 0
    if n2 > 1:
        _add(row[1:], own)
        _add(row[: n2 - 1], own[1:])
    if j > 0:
        _add(row, active[i, j - 1])
    if j + 1 < n1:
        _add(row, active[i, j + 1])
    if i > 0:
        _add(row, active[i - 1, j])
    if i + 1 < n0:
        _add(row, active[i + 1, j])
    for k in range(n2):
        row[k] = np.uint8(np.uint8(row[k] | ACTIVE) * own[k])


@njit(**FAST)
def write_codes(active, start, place, code, first, end):
    """Code of each cell of lines first..end - 1; ``active`` is uint8, 1 or 0.  2 bytes a cell."""
    n1 = active.shape[1]
    for line in range(first, end):
        row = code[line // n1, line % n1]
        _codes_of_line(active, line // n1, line % n1, row)
        for q in range(start[line], start[line + 1]):
            row[place[q]] |= FIXED


@njit(**FAST)
def neighbour_codes(code, a, b, c, d, k, out):
    """Codes of the six neighbours of cell k (lower and upper by axis) and its own; True if any has a
    Dirichlet part."""
    n = code.size
    out[0], out[1], out[2], out[3] = a[k], b[k], c[k], d[k]
    out[4] = code[k - 1] if k > 0 else NONE
    out[5] = code[k + 1] if k + 1 < n else NONE
    out[6] = code[k]
    return ((out[0] | out[1] | out[2] | out[3] | out[4] | out[5] | out[6]) & FIXED) != 0


@njit(**FAST)
def key_of(codes, i, j, k):
    """A number for the codes around a cell without Dirichlet parts and for the sides on which its block
    lies."""
    key = np.int64((i % 2) * 4 + (j % 2) * 2 + k % 2)
    for q in range(7):
        key = key * 8 + np.int64(codes[q] & FACES if codes[q] >= ACTIVE else FACES)
    return key
