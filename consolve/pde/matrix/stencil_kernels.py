"""Numba kernels that read a CSR matrix as a 5-point or 7-point operator (a 2D grid is a volume of one layer).

``cells[row]`` is the C-order cell index of a row.  Off-diagonal zeros that are stored count as absent.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT

_CHUNKS = 64

COUPLED, DIAGONAL_ONLY = 0, 1
"""Kinds of rows: with a nonzero off-diagonal entry, and without."""

(
    SOUND,
    NOT_FINITE,
    NO_DIAGONAL,
    WRONG_SIGN,
    POSITIVE_COUPLING,
    OFF_STENCIL,
    NOT_SYMMETRIC,
    NOT_DOMINANT,
) = range(8)
"""Faults of a row, in the order in which they are looked for."""

ROUND_OFF = 1e-13
"""A row sum under this fraction of the diagonal is 0, and a coupling under it may have either sign."""
SYMMETRY_TOLERANCE = 1e-6
DOMINANCE_TOLERANCE = 1e-6


@njit(**STRICT)
def sign_of_diagonal(indptr, indices, values):
    """Sign of the diagonal entry of the first row that has a coupling: 1, -1, or 0 where there is none."""
    for row in range(indptr.size - 1):
        diagonal, coupled = 0.0, False
        for q in range(indptr[row], indptr[row + 1]):
            if indices[q] == row:
                diagonal = values[q]
            elif values[q] != 0:
                coupled = True
        if coupled and diagonal != 0:
            return 1 if diagonal > 0 else -1
    return 0


@njit(inline="always")
def entry_of(indptr, indices, values, row, column):
    """values[row, column], 0 if it is not stored; searched from the end that is nearer in a sorted row."""
    if column < row:
        for q in range(indptr[row], indptr[row + 1]):
            if indices[q] == column:
                return values[q]
    else:
        for q in range(indptr[row + 1] - 1, indptr[row] - 1, -1):
            if indices[q] == column:
                return values[q]
    return 0 * values[0]


@njit(parallel=True, **STRICT)
def read_regular_rows(
    indptr, indices, values, cells, sign, round_off, f0, f1, f2, dirichlet, active, kind, diagonal, chunks
):
    """Read all rows of a matrix without peculiarities; False, with the arrays in disorder, if there are any.

    Peculiar are all faults, stored zeros, couplings that differ by round-off or point to a diagonal-only row,
    and cells out of order: RowReader knows what to do with them.  Each of ``chunks`` parts of the rows is
    swept once: the faces come from the entries above the diagonal, those below are compared with what an
    earlier row of the part has left; what leads out of the part is compared afterwards.
    """
    _, n1, n2 = active.shape
    layer = n1 * n2
    rows = indptr.size - 1
    flat0, flat1, flat2 = f0.reshape(-1), f1.reshape(-1), f2.reshape(-1)
    flat_dirichlet, flat_active = dirichlet.reshape(-1), active.reshape(-1)
    peculiar = np.zeros(chunks, np.bool_)
    balance, left = np.zeros(chunks, np.int64), np.zeros(chunks, np.int64)  # left: one past the last such row
    for chunk in prange(chunks):
        odd, above, below, later = False, 0, 0, np.int64(0)
        first = rows * chunk // chunks
        last, j, k = np.int64(-2), np.int64(0), np.int64(0)
        for row in range(first, rows * (chunk + 1) // chunks):
            cell = np.int64(cells[row])
            if cell == last + 1 and k + 1 < n2:
                k += 1  # divisions are slow
            else:
                line = cell // n2
                k = cell - line * n2
                j = line % n1
            last = cell
            a_ii, total, entries = 0.0, 0.0, 0
            for q in range(indptr[row], indptr[row + 1]):
                column, value = indices[q], sign * values[q]
                total += value
                if column == row:
                    a_ii = value
                    continue
                entries += 1
                odd |= not value < 0
                beside = np.int64(cells[column])
                step = beside - cell
                if column > row:
                    above += 1
                    if step == 1 and k + 1 < n2:
                        flat2[cell] = -value
                    elif step == n2 and j + 1 < n1:
                        flat1[cell] = -value
                    elif step == layer:
                        flat0[cell] = -value
                    else:
                        odd = True
                else:
                    below += 1
                    if column >= first:
                        known = 0.0
                        if step == -1:
                            known = flat2[beside]
                        elif step == -n2:
                            known = flat1[beside]
                        elif step == -layer:
                            known = flat0[beside]
                        odd |= known != -value
                    else:
                        later = np.int64(row + 1)
            diagonal[row] = sign * a_ii
            kind[row] = COUPLED if entries > 0 else DIAGONAL_ONLY
            if entries > 0:
                odd |= not a_ii > 0 or not total >= -round_off * a_ii or not np.isfinite(a_ii)
                flat_dirichlet[cell] = total if total > round_off * a_ii else 0.0
                flat_active[cell] = True
            else:
                odd |= not np.isfinite(a_ii)
        peculiar[chunk] = odd
        balance[chunk] = above - below
        left[chunk] = later
    if peculiar.any() or balance.sum() != 0:
        return False
    for chunk in prange(chunks):
        odd = False
        first = rows * chunk // chunks
        for row in range(first, left[chunk]):
            cell = np.int64(cells[row])
            for q in range(indptr[row], indptr[row + 1]):
                column = indices[q]
                if column < first:
                    beside = np.int64(cells[column])
                    step = cell - beside
                    known = 0.0
                    if step == 1:
                        known = flat2[beside]
                    elif step == n2:
                        known = flat1[beside]
                    elif step == layer:
                        known = flat0[beside]
                    odd |= known != -sign * values[q]
        peculiar[chunk] = odd
    return not peculiar.any()


@njit(**STRICT)
def scale_entries(entries, factor, source, target):
    """target[i] = factor * source[i] at the listed entries."""
    for q in range(entries.size):
        target[entries[q]] = factor[q] * source[entries[q]]
