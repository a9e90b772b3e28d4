"""Couplings to rows with a diagonal only, as MatZeroRows leaves them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consolve.pde.matrix.local_rows import LocalRows
from consolve.pde.matrix.stencil_kernels import DIAGONAL_ONLY


class Couplings(NamedTuple):
    """Entries of the local rows: local row, global column, value; by row, then by column."""

    row: NDArray[np.integer]
    column: NDArray[np.integer]
    value: NDArray[np.float64]


def couplings_to_boundary(matrix: LocalRows, kind: NDArray[np.uint8]) -> Couplings:
    """A_ib: the entries of coupled rows in the columns of rows with a diagonal only.

    Parameters
    ----------
    matrix
        The local rows.
    kind
        Of each local row, then of each ghost.
    """
    rows, columns, values = [], [], []
    for (pointers, column, value), first in ((matrix.own, 0), (matrix.others, matrix.rows)):
        at = np.flatnonzero((kind[first:][column] == DIAGONAL_ONLY) & (value != 0))
        row = np.searchsorted(pointers, at, "right") - 1
        beside = first + column[at] != row
        rows.append(row[beside])
        number = column[at[beside]]
        columns.append(matrix.ghosts[number] if first else number + matrix.start)
        values.append(value[at[beside]])
    found = Couplings(np.concatenate(rows), np.concatenate(columns), np.concatenate(values))
    order = np.lexsort((found.column, found.row))
    return Couplings(*(part[order] for part in found))
