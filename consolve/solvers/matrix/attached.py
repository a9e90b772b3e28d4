"""Grids and points that are attached to a matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.pde.poisson.grid import GridOperator
from consolve.solvers.petsc.versions import PETSc, row_range, wrap_pointer

CELLS, SHAPE = "consolve_cells", "consolve_shape"
"""Names of the index sets that ``attach_grid`` composes with a matrix."""
POINTS = "consolve_points"
"""Name of the vector that ``attach_points`` composes with a matrix."""


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


def attach_points(mat: PETSc.Mat, points: Any) -> None:
    """Tell ``-pc_type cnn`` at which points the rows of ``mat`` lie, as ``PCSetCoordinates`` does.

    Composes a vector ``consolve_points`` with the matrix: x, y[, z] of each local row, as a C program can by
    ``PetscObjectCompose``.

    Parameters
    ----------
    mat
        Any matrix of scalar unknowns; on several ranks each gives the points of its own rows.
    points
        (local rows, 2 or 3), or a function space of DOLFINx with one unknown a point.

    Raises
    ------
    ValueError
        If there is not one point of real, finite coordinates for each local row.
    """
    if hasattr(points, "tabulate_dof_coordinates"):
        points = _points_of_space(points)
    array, rows = np.asarray(points), mat.getLocalSize()[0]
    if (
        array.ndim != 2
        or len(array) != rows
        or array.shape[1] not in (1, 2, 3)
        or array.dtype.kind not in "fiu"
    ):
        raise ValueError(
            f"points are {array.dtype}{array.shape}, the matrix has {rows} local rows: expected real numbers "
            f"of shape ({rows}, 2) or ({rows}, 3)"
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"the point of local row {row} is {array[row]}; coordinates must be finite")
    vector = PETSc.Vec().create(mat.comm)
    vector.setSizes((array.size, PETSc.DETERMINE), array.shape[1])
    vector.setType(PETSc.Vec.Type.STANDARD)
    vector.array_w[:] = array.reshape(-1)
    mat.compose(POINTS, vector)


def attached_points(mat: PETSc.Mat) -> NDArray[np.float64] | None:
    """What ``attach_points`` attached, (local rows, dim); None if nothing is."""
    held = mat.query(POINTS)
    if not held:
        return None
    vector = wrap_pointer("Vec", held.handle)
    return vector.array_r.reshape(-1, vector.getBlockSize()).copy()


def _points_of_space(space: Any) -> NDArray[np.float64]:
    """The points of this rank's unknowns of a DOLFINx function space."""
    dofs, size = space.dofmap, space.dofmap.index_map_bs
    if size > 1:
        raise ValueError(
            f"the function space has {size} unknowns a point, and PC cnn solves scalar equations: solve each "
            "component by itself, or split the system (-pc_type fieldsplit with -fieldsplit_pc_type cnn)"
        )
    return space.tabulate_dof_coordinates()[: dofs.index_map.size_local, : space.mesh.geometry.dim]


def size_of(shape: tuple[int, ...]) -> str:
    """NX x NY[ x NZ], for messages."""
    return " x ".join(map(str, shape[::-1]))
