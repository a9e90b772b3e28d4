"""Numba kernels that read a CSR matrix as a 5-point or 7-point operator (a 2D grid is a volume of one layer).

``cells[row]`` is the C-order cell index of a row.  Off-diagonal zeros that are stored count as absent.
"""

from numba import njit

from consolve.base.jit import STRICT

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


@njit(**STRICT)
def scale_entries(entries, factor, source, target):
    """target[i] = factor * source[i] at the listed entries."""
    for q in range(entries.size):
        target[entries[q]] = factor[q] * source[entries[q]]
