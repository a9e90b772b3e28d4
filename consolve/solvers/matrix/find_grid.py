"""Where the rows of a matrix lie on a grid: from a DMDA, a size, a cell-type image, or what is attached.

Two orders of numbers meet here, and this is the only file that turns one into the other.  PETSc, its DMDA,
``-pc_cnn_grid`` and ``consolve solve --grid`` name the fastest running index first: NX,NY[,NZ].  NumPy
shapes, cell images and everything else in consolve name it last: (NZ, NY, NX).  The numbering of the cells
is the same in both, x fastest.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import raise_together, together
from consolve.base.errors import MatrixError, OptionError
from consolve.base.exchange import first_shared_cell
from consolve.base.options_table import parse_grid
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.mesh.tensor_grid import cells_of_points
from consolve.solvers.matrix.attached import CELLS, SHAPE, size_of
from consolve.solvers.matrix.cell_images import fluid_cells
from consolve.solvers.matrix.infer_grid import infer_grid
from consolve.solvers.matrix.local_matrix import communicator
from consolve.solvers.petsc.versions import PETSc, row_range, wrap_pointer


def find_grid(
    mat: PETSc.Mat,
    dm: PETSc.DM | None = None,
    grid: str | None = None,
    mask: str | Path | None = None,
    coordinates: NDArray[np.floating] | None = None,
) -> GridMap:
    """The grid of a matrix; collective.

    Looked for in this order: ``mask``, ``grid``, index sets attached to ``mat``, the DMDA ``dm``, the DMDA
    that made ``mat``, ``coordinates``, the pattern of ``mat``.  A matrix without rows, such as the block of
    a rank that owns none, has a grid of one cell that no row lies in.

    Parameters
    ----------
    mat
        A square matrix on any number of ranks.
    dm
        What the solver carries, if anything.
    grid, mask
        Options ``-pc_cnn_grid`` and ``-pc_cnn_mask``.
    coordinates
        float (local rows, dim): the point of each local row, on a tensor grid.  All ranks give it, or none.

    Raises
    ------
    MatrixError
        On all ranks, if none is there, or the one found does not fit the matrix.
    OptionError
        If ``grid`` is not NX,NY[,NZ], or both ``grid`` and ``mask`` are given.
    SystemFileError
        If ``mask`` cannot be read as a cell-type image.
    """
    if grid and mask:
        raise OptionError(
            "-pc_cnn_grid and -pc_cnn_mask are both given; a mask has a grid of its own: give one"
        )
    if mat.getSize() == (0, 0):
        return GridMap((1, 1), np.empty(0, _cell_type(mat, (1, 1))), "no rows")
    if mask:
        return _from_mask(mat, mask)
    if grid:
        return _all_cells(mat, parse_grid(grid), f"-pc_cnn_grid {grid}")
    if mat.query(CELLS):
        return _from_attached(mat)
    for candidate in (dm, mat.getDM()):
        if candidate and candidate.getType() == "da":
            return _from_dmda(mat, candidate)
    if coordinates is not None:
        return _from_coordinates(mat, coordinates)
    return infer_grid(mat)


def _all_cells(mat: PETSc.Mat, shape: tuple[int, ...], origin: str) -> GridMap:
    count, rows = math.prod(shape), mat.getSize()[0]
    if count != rows:
        raise MatrixError(
            f"{origin}: the grid {size_of(shape)} has {count} cells, the matrix {rows} rows; sizes are "
            "NX,NY[,NZ], one row for each cell (where rows number fluid cells only, use -pc_cnn_mask FILE)"
        )
    start, stop = row_range(mat)
    return GridMap(shape, np.arange(start, stop, dtype=_cell_type(mat, shape)), origin)


def _from_mask(mat: PETSc.Mat, path: str | Path) -> GridMap:
    shape, cells = fluid_cells(path, communicator(mat), *row_range(mat))
    return GridMap(shape, cells.astype(_cell_type(mat, shape), copy=False), f"-pc_cnn_mask {path}")


def _from_attached(mat: PETSc.Mat) -> GridMap:
    comm = communicator(mat)
    with together(comm):
        if not mat.query(SHAPE):
            raise MatrixError(
                f"the matrix carries {CELLS!r} but no {SHAPE!r}; compose both, or use attach_grid"
            )
        shape = tuple(int(n) for n in wrap_pointer("IS", mat.query(SHAPE).handle).getIndices()[::-1])
        cells = wrap_pointer("IS", mat.query(CELLS).handle).getIndices()
        rows = mat.getLocalSize()[0]
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise MatrixError(f"{SHAPE!r} holds {shape[::-1]}, expected NX, NY[, NZ], all positive")
        if cells.size != rows:
            where = "" if comm is None else f" on rank {comm.rank}"
            raise MatrixError(f"{CELLS!r} has {cells.size} entries{where}, the matrix {rows} rows")
        count = math.prod(shape)
        if cells.size and (cells.min() < 0 or cells.max() >= count):
            raise MatrixError(
                f"{CELLS!r} has cells {cells.min()}..{cells.max()}, the grid {size_of(shape)} 0..{count - 1}"
            )
    shared = first_shared_cell(comm, count, cells)
    if shared >= 0:
        raise MatrixError(f"{CELLS!r} names a cell twice ({shared}); each row needs a cell of its own")
    return GridMap(shape, cells.astype(_cell_type(mat, shape)), "the attached grid")


def _from_dmda(mat: PETSc.Mat, dm: PETSc.DM) -> GridMap:
    sizes, dof = tuple(int(n) for n in dm.getSizes()), dm.getDof()
    if dof != 1:
        raise MatrixError(f"the DMDA has {dof} unknowns a node, expected 1: PC cnn solves scalar equations")
    boundary = tuple(dm.getBoundaryType()[: len(sizes)])
    starts, counts = (tuple(corner[: len(sizes)]) for corner in dm.getCorners())
    if len(sizes) == 1:  # a grid of one line
        sizes, starts, counts = (*sizes, 1), (*starts, 0), (*counts, 1)
        boundary = (*boundary, PETSc.DM.BoundaryType.NONE)
    if PETSc.DM.BoundaryType.TWIST in boundary:
        raise MatrixError("the DMDA has a twisted boundary, which is no grid's: use -pc_type gamg")
    shape, comm = sizes[::-1], communicator(mat)
    grid = _all_cells(mat, shape, "the DMDA")
    periodic = tuple(kind == PETSc.DM.BoundaryType.PERIODIC for kind in boundary[::-1])
    if comm is None:
        return replace(grid, periodic=periodic)
    nodes, rows = math.prod(counts), mat.getLocalSize()[0]
    error = None
    if nodes != rows:
        error = MatrixError(
            f"the DMDA gives rank {comm.rank} {nodes} nodes, the matrix {rows} rows; both must be split "
            "alike (DMCreateMatrix does that)"
        )
    raise_together(comm, error)
    cells = np.zeros(1, np.int64)  # rows number the nodes of the rank's box, x fastest
    for start, count, size in zip(starts[::-1], counts[::-1], shape):
        cells = (cells[:, None] * size + np.arange(start, start + count)).reshape(-1)
    return GridMap(shape, cells, "the DMDA", periodic)


def _from_coordinates(mat: PETSc.Mat, coordinates: NDArray[np.floating]) -> GridMap:
    points = np.asarray(coordinates)
    shape, cells = cells_of_points(points, mat.getLocalSize()[0], communicator(mat))
    return GridMap(shape, cells.astype(_cell_type(mat, shape), copy=False), "the coordinates")


def _cell_type(mat: PETSc.Mat, shape: tuple[int, ...]) -> type:
    return np.int32 if mat.comm.size == 1 and math.prod(shape) < 2**31 else np.int64
