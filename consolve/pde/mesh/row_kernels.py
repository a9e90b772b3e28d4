"""Numba kernels that read the rows of a mesh's matrix.

The six arrays of a matrix are row pointers, columns and values of this rank's columns, then of ghosts (one
pointer: none), as in LocalRows.  Ghosts are numbered after the local rows in ``kind`` and ``diagonal``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT
from consolve.pde.matrix.stencil_kernels import (
    COUPLED,
    NO_DIAGONAL,
    NOT_DOMINANT,
    NOT_SYMMETRIC,
    SOUND,
    SYMMETRY_TOLERANCE,
    WRONG_SIGN,
    entry_of,
)
from consolve.pde.poisson.kernels import root_of

NEGLIGIBLE = 1e-10
"""Entries under this fraction of the diagonal may differ from their transposed ones."""
_CHUNKS = 64


@njit(inline="always")
def _fault(value, back, a_ii, a_jj):
    """Of a coupling, beside its transposed entry and both diagonals."""
    size = max(abs(value), abs(back))
    if abs(value - back) > SYMMETRY_TOLERANCE * size + NEGLIGIBLE * a_ii:
        return NOT_SYMMETRIC
    if a_jj > 0 and size > np.sqrt(a_ii) * np.sqrt(a_jj) * (1 + SYMMETRY_TOLERANCE):
        return NOT_DOMINANT
    return SOUND


@njit(parallel=True, **STRICT)
def check_rows(
    own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, back, kind, diagonal, sign,
    round_off, row_sum,
):  # fmt: skip
    """Fill ``row_sum``, 0 where it is round-off, and find the lowest row at fault but for its couplings to
    rows of this rank.

    Returns
    -------
    (row, fault, entry): the row is -1 if there is none.
    """
    rows = own_start.size - 1
    ghosts = ghost_start.size > 1
    found = np.full((_CHUNKS, 3), rows, np.int64)
    for chunk in prange(_CHUNKS):
        for row in range(rows * chunk // _CHUNKS, rows * (chunk + 1) // _CHUNKS):
            row_sum[row] = 0.0
            if kind[row] != COUPLED:
                continue
            fault, entry = SOUND, -1
            a_ii = sign * diagonal[row]
            if a_ii <= 0:
                fault = NO_DIAGONAL if a_ii == 0 else WRONG_SIGN
            total, size = 0.0, 0.0
            for q in range(own_start[row], own_start[row + 1]):
                if own_value[q] != 0 and kind[own_column[q]] == COUPLED:
                    total += own_value[q]
                    size += abs(own_value[q])
            if ghosts:
                for q in range(ghost_start[row], ghost_start[row + 1]):
                    j = rows + ghost_column[q]
                    if ghost_value[q] == 0 or kind[j] != COUPLED:
                        continue
                    total += ghost_value[q]
                    size += abs(ghost_value[q])
                    if fault == SOUND:
                        fault = _fault(ghost_value[q], back[q], a_ii, sign * diagonal[j])
                        entry = own_value.size + q
            if abs(total) > round_off[row] * size:
                row_sum[row] = sign * total
            if fault != SOUND and found[chunk, 0] == rows:
                found[chunk, 0], found[chunk, 1], found[chunk, 2] = row, fault, entry
    first = np.argmin(found[:, 0])
    return (found[first, 0] if found[first, 0] < rows else -1), found[first, 1], found[first, 2]


@njit(parallel=True, **STRICT)
def check_couplings(start, column, value, kind, diagonal, sign, next_entry):
    """The lowest row whose couplings to rows of this rank are at fault, as ``check_rows``.

    Where columns ascend, the entries left of a row's diagonal come in the order in which the rows above are
    looked through: ``next_entry``, first the start of each row, leads to the transposed entry at once, among
    the rows of one chunk.
    """
    rows = start.size - 1
    found = np.full((_CHUNKS, 3), rows, np.int64)
    for chunk in prange(_CHUNKS):
        begin, end = rows * chunk // _CHUNKS, rows * (chunk + 1) // _CHUNKS
        best, kept, where = rows, SOUND, -1
        for row in range(begin, end):
            if row >= best:
                break
            if kind[row] != COUPLED:
                continue
            for q in range(start[row], start[row + 1]):
                j = column[q]
                if value[q] == 0 or kind[j] != COUPLED or j == row:
                    continue
                if row < j < end:
                    at = next_entry[j]
                    while at < start[j + 1] and column[at] < row:
                        i = column[at]
                        if value[at] != 0 and kind[i] == COUPLED and j < best:  # not met in row i
                            back = entry_of(start, column, value, i, j)
                            fault = _fault(value[at], back, sign * diagonal[j], sign * diagonal[i])
                            if fault != SOUND:
                                best, kept, where = j, fault, at
                        at += 1
                    if at < start[j + 1] and column[at] == row:
                        back = value[at]
                        at += 1
                    else:
                        back = entry_of(start, column, value, j, row)
                    next_entry[j] = at
                elif q < next_entry[row]:
                    continue  # seen from the other row
                else:
                    back = entry_of(start, column, value, j, row)
                fault = _fault(value[q], back, sign * diagonal[row], sign * diagonal[j])
                if fault != SOUND and row < best:
                    best, kept, where = row, fault, q
                    break
        found[chunk, 0], found[chunk, 1], found[chunk, 2] = best, kept, where
    first = np.argmin(found[:, 0])
    return (found[first, 0] if found[first, 0] < rows else -1), found[first, 1], found[first, 2]


@njit(**STRICT)
def label_components(start, column, value, kind, label):
    """Number the connected components of the coupled rows of this rank; -1 elsewhere.  Returns how many."""
    rows = start.size - 1
    parent = np.arange(rows).astype(np.int32)
    for row in range(rows):
        if kind[row] != COUPLED:
            continue
        root = row
        for q in range(start[row], start[row + 1]):
            j = column[q]
            if j < row and value[q] != 0 and kind[j] == COUPLED:
                other = root_of(parent, j)
                parent[max(root, other)] = min(root, other)
                root = min(root, other)
    count = 0
    for row in range(rows):
        if kind[row] != COUPLED:
            label[row] = -1
        elif parent[row] == row:
            label[row] = count
            count += 1
        else:
            label[row] = label[parent[row]]  # an earlier row of the component
    return count


@njit(**STRICT)
def sum_distances(own_start, own_column, own_value, kind, place, step, sums):
    """Add |x_i - x_j| along each axis over couplings of this rank in every ``step``-th row, and at the end
    their number."""
    for row in range(0, own_start.size - 1, step):
        if kind[row] != COUPLED:
            continue
        for q in range(own_start[row], own_start[row + 1]):
            j = own_column[q]
            if j != row and own_value[q] != 0 and kind[j] == COUPLED:
                for axis in range(place.shape[1]):
                    sums[axis] += abs(place[row, axis] - place[j, axis])
                sums[-1] += 1
