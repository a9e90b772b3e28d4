"""Numba kernels that read the rows of one rank, on any grid: periodic axes, ghost columns, box stencils.

Common arguments, see LocalMatrix:

own_start, own_column, own_value, ghost_start, ghost_column, ghost_value
    CSR arrays of the local columns and of the ghosts (``ghost_start`` of size 1: no ghosts).
back
    For each ghost entry its transposed one.
cells
    C-order cell index of each local row, then of each ghost.
kind
    uint8 of each local row, then of each ghost: COUPLED or DIAGONAL_ONLY.
shape, periodic
    int64 (3,) and bool (3,); a 2D grid is a volume of one layer.

Coefficients of row r are written to ``f[place]``, where ``place`` is r, or its cell if ``by_cell``.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT
from consolve.pde.matrix.stencil_kernels import (
    COUPLED,
    DIAGONAL_ONLY,
    DOMINANCE_TOLERANCE,
    NO_DIAGONAL,
    NOT_DOMINANT,
    NOT_SYMMETRIC,
    OFF_STENCIL,
    ROUND_OFF,
    SOUND,
    SYMMETRY_TOLERANCE,
    WRONG_SIGN,
    entry_of,
)

_CHUNKS = 16

ABSENT = 9
"""Component of an offset that is no neighbour's."""
LEAST_ROW_SUM = 1.5
"""Flat Q1 elements beside eliminated nodes reach a row sum of -1.25 diagonals."""


@njit(parallel=True, **STRICT)
def kinds_of_rows(own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, kind, diagonal):
    """Fill ``kind`` and ``diagonal`` of the local rows.

    Returns
    -------
    (row, entry, sign): the lowest row with an entry that is not finite (-1: none) and that entry; sign of the
    diagonal of the first coupled row, 0 if there is none.
    """
    rows = own_start.size - 1
    ghosts = ghost_start.size > 1
    fault_row, fault_entry = np.full(_CHUNKS, rows, np.int64), np.full(_CHUNKS, -1, np.int64)
    sign = np.zeros(_CHUNKS, np.int64)
    for chunk in prange(_CHUNKS):
        for row in range(rows * chunk // _CHUNKS, rows * (chunk + 1) // _CHUNKS):
            a_ii, coupled, fault = 0.0, False, -1
            for q in range(own_start[row], own_start[row + 1]):
                if not np.isfinite(own_value[q]):
                    fault = q
                if own_column[q] == row:
                    a_ii = own_value[q]
                elif own_value[q] != 0:
                    coupled = True
            if ghosts:
                for q in range(ghost_start[row], ghost_start[row + 1]):
                    if not np.isfinite(ghost_value[q]):
                        fault = own_value.size + q
                    coupled |= ghost_value[q] != 0
            diagonal[row] = a_ii
            kind[row] = COUPLED if coupled else DIAGONAL_ONLY
            if fault >= 0 and fault_row[chunk] == rows:
                fault_row[chunk], fault_entry[chunk] = row, fault
            if sign[chunk] == 0 and coupled and a_ii != 0:
                sign[chunk] = 1 if a_ii > 0 else -1
    first_sign = 0
    for chunk in range(_CHUNKS):
        if first_sign == 0:
            first_sign = sign[chunk]
    first = np.argmin(fault_row)
    return (fault_row[first] if fault_row[first] < rows else -1), fault_entry[first], first_sign


@njit(inline="always")
def offset_of(there, cell, i, j, k, shape, periodic):
    """Offset (d0, d1, d2) from ``cell``, at (i, j, k), to the cell ``there``; each -1, 0, 1 or ABSENT.

    On a periodic axis of two cells both directions lead to the same cell; the one that does not wrap counts.
    """
    n0, n1, n2 = shape[0], shape[1], shape[2]
    step = there - cell
    if step == 1 and k + 1 < n2:
        return 0, 0, 1
    if step == -1 and k > 0:
        return 0, 0, -1
    if step == n2 and j + 1 < n1:
        return 0, 1, 0
    if step == -n2 and j > 0:
        return 0, -1, 0
    line = there // n2
    d2 = there - line * n2 - k
    layer = line // n1
    d1 = line - layer * n1 - j
    d0 = layer - i
    if periodic[0] and abs(d0) == n0 - 1 and n0 > 2:
        d0 = -1 if d0 > 0 else 1
    if periodic[1] and abs(d1) == n1 - 1 and n1 > 2:
        d1 = -1 if d1 > 0 else 1
    if periodic[2] and abs(d2) == n2 - 1 and n2 > 2:
        d2 = -1 if d2 > 0 else 1
    return (
        d0 if abs(d0) <= 1 else ABSENT,
        d1 if abs(d1) <= 1 else ABSENT,
        d2 if abs(d2) <= 1 else ABSENT,
    )


@njit(parallel=True, **STRICT)
def read_any(
    own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, back, cells, shape, periodic,
    sign, round_off, by_cell, f0, f1, f2, dirichlet, active, kind, diagonal,
):  # fmt: skip
    """Read rows of any sort; ``kind`` and ``diagonal`` are known.

    A face gets the mean of -a_ij and -a_ji (half of it, on each of the two faces, where a periodic axis has
    two cells); the Dirichlet part is the row sum over couplings to coupled rows, so what leads to a
    diagonal-only row counts as eliminated.  Couplings along a diagonal go into no face, and are counted.

    Returns
    -------
    (row, fault, entry): the lowest row at fault (-1: none).
    (one_sided, mixed, row_sums, diagonals): whether a row couples to a diagonal-only one; the number of
    diagonal couplings; the sums over coupled rows of their row sums, 1' A 1, and of their diagonals.
    (positive_row, positive_entry, loose_row): the lowest rows (-1: none) with a coupling of the diagonal's
    sign and without diagonal dominance, which a box stencil may have.
    """
    rows = own_start.size - 1
    ghosts = ghost_start.size > 1
    n0, n1, n2 = shape[0], shape[1], shape[2]
    twice0, twice1, twice2 = periodic[0] and n0 == 2, periodic[1] and n1 == 2, periodic[2] and n2 == 2
    fault_row = np.full(_CHUNKS, rows, np.int64)
    fault_code = np.zeros(_CHUNKS, np.int64)
    fault_entry = np.full(_CHUNKS, -1, np.int64)
    positive_row = np.full(_CHUNKS, rows, np.int64)
    positive_entry = np.full(_CHUNKS, -1, np.int64)
    one_sided = np.zeros(_CHUNKS, np.bool_)
    mixed = np.zeros(_CHUNKS, np.int64)
    loose_row = np.full(_CHUNKS, rows, np.int64)
    row_sums, diagonals = np.zeros(_CHUNKS), np.zeros(_CHUNKS)
    for chunk in prange(_CHUNKS):
        for row in range(rows * chunk // _CHUNKS, rows * (chunk + 1) // _CHUNKS):
            if kind[row] == DIAGONAL_ONLY:
                continue
            cell = np.int64(cells[row])
            line = cell // n2
            k = cell - line * n2
            i = line // n1
            j = line - i * n1
            place = cell if by_cell else row
            a_ii = diagonal[row]
            size = abs(a_ii)
            fault, entry, total = SOUND, -1, 0.0
            if a_ii == 0:
                fault = NO_DIAGONAL
            elif a_ii * sign < 0:
                fault = WRONG_SIGN
            stop = own_start[row + 1] - own_start[row]
            entries = stop + (ghost_start[row + 1] - ghost_start[row] if ghosts else 0)
            for e in range(entries):
                if fault != SOUND:
                    break
                if e < stop:
                    q = own_start[row] + e
                    column, value, entry = np.int64(own_column[q]), own_value[q], q
                else:
                    q = ghost_start[row] + e - stop
                    column, value, entry = (
                        rows + np.int64(ghost_column[q]),
                        ghost_value[q],
                        own_value.size + q,
                    )
                if value == 0 or column == row:
                    continue
                c = -sign * value
                d0, d1, d2 = offset_of(np.int64(cells[column]), cell, i, j, k, shape, periodic)
                if d0 == ABSENT or d1 == ABSENT or d2 == ABSENT or d0 == d1 == d2 == 0:
                    if abs(c) <= ROUND_OFF * size:
                        continue
                    fault = OFF_STENCIL
                    break
                steps = abs(d0) + abs(d1) + abs(d2)
                if steps > 1 and abs(c) <= ROUND_OFF * size:
                    continue  # what assembly leaves of couplings that cancel
                transposed = entry_of(own_start, own_column, own_value, column, row) if e < stop else back[q]
                if transposed == 0 and kind[column] == DIAGONAL_ONLY:
                    one_sided[chunk] = True
                    continue
                if c < -ROUND_OFF * size and positive_row[chunk] == rows:
                    positive_row[chunk], positive_entry[chunk] = row, entry
                other = -sign * transposed
                if not abs(c - other) <= SYMMETRY_TOLERANCE * max(abs(c), abs(other)) + ROUND_OFF * size:
                    fault = NOT_SYMMETRIC
                    break
                c = 0.5 * (c + other)
                total += c
                if steps > 1:
                    mixed[chunk] += 1
                elif d2 != 0:
                    if twice2:
                        f2[place] = 0.5 * c
                    elif d2 > 0:
                        f2[place] = c
                elif d1 != 0:
                    if twice1:
                        f1[place] = 0.5 * c
                    elif d1 > 0:
                        f1[place] = c
                elif twice0:
                    f0[place] = 0.5 * c
                elif d0 > 0:
                    f0[place] = c
            if fault == SOUND:
                rest = sign * a_ii - total
                row_sums[chunk] += rest
                diagonals[chunk] += size
                if rest < -LEAST_ROW_SUM * size:
                    fault, entry = NOT_DOMINANT, -1
                elif rest < -DOMINANCE_TOLERANCE * size and loose_row[chunk] == rows:
                    loose_row[chunk] = row
                dirichlet[place] = rest if rest > round_off * size else 0.0
                active[place] = True
            elif fault == NO_DIAGONAL or fault == WRONG_SIGN:
                entry = -1
            if fault != SOUND:
                fault_row[chunk], fault_code[chunk], fault_entry[chunk] = row, fault, entry
                break
    first, positive, loose = np.argmin(fault_row), np.argmin(positive_row), loose_row.min()
    return (
        (fault_row[first] if fault_row[first] < rows else -1, fault_code[first], fault_entry[first]),
        (one_sided.any(), mixed.sum(), row_sums.sum(), diagonals.sum()),
        (
            positive_row[positive] if positive_row[positive] < rows else -1,
            positive_entry[positive],
            loose if loose < rows else -1,
        ),
    )
