"""The Poisson operator of a structured grid, row by row: what one rank of a parallel program knows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowOperator:
    """Coefficients at the cells of some rows; all ranks' rows together make the operator.

    As a GridOperator, ``A = sum over open faces + dirichlet``.  Cells without a row are not active.

    Parameters
    ----------
    shape
        Cells of the whole grid along each axis, in NumPy's order: (NY, NX) or (NZ, NY, NX).
    periodic
        For each axis: the last cell is a neighbour of the first.
    cells
        int64 (rows,): C-order index of each row's cell in the whole grid.
    face_coefficient
        One float64 array (rows,) per axis: coefficient of the face towards the next cell of the axis (the
        first one beyond the last where periodic), 0 where it is closed.
    dirichlet
        float64 (rows,): what eliminated Dirichlet neighbours add to the diagonal.
    active
        bool (rows,): the row is coupled; all coefficients of others are 0.
    """

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    cells: NDArray[np.int64]
    face_coefficient: tuple[NDArray[np.float64], ...]
    dirichlet: NDArray[np.float64]
    active: NDArray[np.bool_]

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def rows(self) -> int:
        """Rows held here."""
        return self.cells.size
