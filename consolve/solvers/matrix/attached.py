"""Grids that are attached to a matrix."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from consolve.pde.poisson.grid import GridOperator
from consolve.solvers.petsc.versions import PETSc, row_range

CELLS, SHAPE = "consolve_cells", "consolve_shape"
"""Names of the index sets that ``attach_grid`` composes with a matrix."""


def attach_grid(
    mat: PETSc.Mat, grid: GridOperator | tuple[int, ...], cells: NDArray[np.integer] | None = None
) -> None:
    """Tell ``-pc_type cnn`` where the rows of ``mat`` lie.

    Composes two index sets with the matrix, as a C program can by ``PetscObjectCompose``: ``consolve_cells``
    (for each local row, the index of its cell, x fastest) and ``consolve_shape`` (NX, NY[, NZ]: the fastest
    index first, as in ``-pc_cnn_grid``).

    Parameters
    ----------
    mat
        Any matrix; on several ranks each gives the cells of its own rows.
    grid
        A GridOperator, whose active cells the rows number, or else the shape in NumPy's order: (NY, NX) or
        (NZ, NY, NX).
    cells
        C-order cell index of each local row; default: the operator's active cells where their number is that
        of the rows, else all cells in order.

    Raises
    ------
    ValueError
        If the number of cells does not fit the rows.
    """
    shape = tuple(int(n) for n in (grid.shape if isinstance(grid, GridOperator) else grid))
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"a grid has 2 or 3 positive sizes, got {shape}")
    (local, rows), (start, stop) = mat.getSizes()[0], row_range(mat)
    if cells is None:
        if isinstance(grid, GridOperator) and grid.unknowns == rows:
            cells = grid.cells[start:stop]
        elif math.prod(shape) == rows:
            cells = np.arange(start, stop)
        else:
            active = f", {grid.unknowns} of them active" if isinstance(grid, GridOperator) else ""
            raise ValueError(
                f"the matrix has {rows} rows, the grid {size_of(shape)} = {math.prod(shape)} cells{active}; "
                "give cells, the cell index of each row"
            )
    if len(cells) != local:
        raise ValueError(f"cells has {len(cells)} entries, the matrix {local} local rows")
    if math.prod(shape) - 1 > np.iinfo(PETSc.IntType).max:
        raise ValueError(
            f"the grid {size_of(shape)} has more cells than an index set of this PETSc can number"
        )
    as_index_set = PETSc.IS().createGeneral
    mat.compose(CELLS, as_index_set(np.ascontiguousarray(cells, PETSc.IntType), comm=mat.comm))
    mat.compose(SHAPE, as_index_set(np.array(shape[::-1], PETSc.IntType), comm=PETSc.COMM_SELF))


def size_of(shape: tuple[int, ...]) -> str:
    """NX x NY[ x NZ], for messages."""
    return " x ".join(map(str, shape[::-1]))
