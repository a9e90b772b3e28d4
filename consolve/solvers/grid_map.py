"""Where the rows of a matrix lie on a grid: from a DMDA, a size, a cell-type image, or what is attached.

Two orders of numbers meet here, and this is the only file that turns one into the other.  PETSc, its DMDA,
``-pc_cnn_grid`` and ``consolve solve --grid`` name the fastest running index first: NX,NY[,NZ].  NumPy
shapes, cell images and everything else in consolve name it last: (NZ, NY, NX).  The numbering of the cells
is the same in both, x fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consolve.pde import FLUID, GridOperator
from consolve.solvers.errors import MatrixError, OptionError, SystemFileError
from consolve.solvers.petsc import PETSc, wrap_pointer

CELLS, SHAPE = "consolve_cells", "consolve_shape"
"""Names of the index sets that ``attach_grid`` composes with a matrix."""

_ADVICE = (
    "attach a DMDA to the KSP, give the grid by -pc_cnn_grid NX,NY[,NZ] (rows number all cells, x fastest), "
    "give a cell-type image by -pc_cnn_mask FILE (rows number its fluid cells), or call "
    "consolve.solvers.attach_grid"
)


@dataclass(frozen=True)
class GridMap:
    """Place of each row on a grid.

    Parameters
    ----------
    shape
        Cells along each axis, in NumPy's order: (NY, NX) or (NZ, NY, NX).
    cells
        C-order cell index of each local row: int64 on several ranks and from 2^31 cells on, else int32.
    origin
        What it came from, for messages.
    periodic
        For each axis: the last cell is a neighbour of the first; default: none is.
    """

    shape: tuple[int, ...]
    cells: NDArray[np.int32] | NDArray[np.int64]
    origin: str
    periodic: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.periodic:
            object.__setattr__(self, "periodic", (False,) * len(self.shape))


def find_grid(
    mat: PETSc.Mat, dm: PETSc.DM | None = None, grid: str | None = None, mask: str | Path | None = None
) -> GridMap:
    """The grid of a matrix.

    Looked for in this order: ``mask``, ``grid``, index sets attached to ``mat``, the DMDA ``dm``, the DMDA
    that made ``mat``.

    Raises
    ------
    MatrixError
        If none is there, or the one found does not fit the matrix.
    OptionError
        If ``grid`` is not NX,NY[,NZ], or both ``grid`` and ``mask`` are given.
    SystemFileError
        If ``mask`` cannot be read as a cell-type image.
    """
    rows = mat.getSize()[0]
    if grid and mask:
        raise OptionError(
            "-pc_cnn_grid and -pc_cnn_mask are both given; a mask has a grid of its own: give one"
        )
    if mask:
        return _from_mask(mask, rows)
    if grid:
        return _all_cells(parse_grid(grid), rows, f"-pc_cnn_grid {grid}")
    if mat.query(CELLS):
        return _from_attached(mat)
    for candidate in (dm, mat.getDM()):
        if candidate and candidate.getType() == "da":
            return _from_dmda(candidate, rows)
    raise MatrixError(f"the grid of this matrix of {rows} rows is not known; {_ADVICE}")


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
    (local, rows), (start, stop) = mat.getSizes()[0], mat.getOwnershipRange()
    if cells is None:
        if isinstance(grid, GridOperator) and grid.unknowns == rows:
            cells = grid.cells[start:stop]
        elif math.prod(shape) == rows:
            cells = np.arange(start, stop, dtype=np.int32)
        else:
            active = f", {grid.unknowns} of them active" if isinstance(grid, GridOperator) else ""
            raise ValueError(
                f"the matrix has {rows} rows, the grid {_size(shape)} = {math.prod(shape)} cells{active}; "
                "give cells, the cell index of each row"
            )
    if len(cells) != local:
        raise ValueError(f"cells has {len(cells)} entries, the matrix {local} local rows")
    as_index_set = PETSc.IS().createGeneral
    mat.compose(CELLS, as_index_set(np.ascontiguousarray(cells, PETSc.IntType), comm=mat.comm))
    mat.compose(SHAPE, as_index_set(np.array(shape[::-1], PETSc.IntType), comm=PETSc.COMM_SELF))


def parse_grid(text: str) -> tuple[int, ...]:
    """``"NX,NY[,NZ]"`` (fastest index first) as a shape in NumPy's order: (NY, NX) or (NZ, NY, NX)."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise OptionError(
            f"grid {text!r}: expected two or three positive sizes NX,NY[,NZ], the fastest running index first"
        )
    return sizes[::-1]


def read_cell_types(path: str | Path) -> NDArray[np.uint8]:
    """A cell-type image (FLUID 0, SOLID 1, AIR 2) of 2 or 3 axes from ``.npy``, ``.npz`` or ``.h5``.

    In ``.npz`` and ``.h5`` the array is the one named ``cell_type``, or the only one.

    Raises
    ------
    SystemFileError
        If the file is missing, damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise SystemFileError(f"no cell-type image at {str(path)!r}")
    try:
        if path.suffix == ".npy":
            image = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                image = archive[_only_array(list(archive.files), path)]
        elif path.suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path, "r") as file:
                names = [name for name in file if isinstance(file[name], h5py.Dataset)]
                image = np.asarray(file[_only_array(names, path)])
        else:
            raise SystemFileError(
                f"{path}: a cell-type image is a .npy, .npz or .h5 file, not {path.suffix!r}"
            )
    except SystemFileError:
        raise
    except Exception as error:  # damaged archives raise whatever their reader trips over
        raise SystemFileError(f"{path}: cannot be read ({error}); write it again") from error
    if image.ndim not in (2, 3) or image.dtype.kind not in "iub" or image.size == 0:
        raise SystemFileError(
            f"{path}: holds {image.dtype}{image.shape}, expected an integer image of 2 or 3 axes "
            "with FLUID 0, SOLID 1, AIR 2"
        )
    if image.min() < 0 or image.max() > 2:
        raise SystemFileError(
            f"{path}: cell types lie in {image.min()}..{image.max()}, expected FLUID 0, SOLID 1, AIR 2"
        )
    return image.astype(np.uint8)


def _only_array(names: list[str], path: Path) -> str:
    if "cell_type" in names:
        return "cell_type"
    if len(names) == 1:
        return names[0]
    raise SystemFileError(f"{path}: holds arrays {sorted(names)}, expected one named 'cell_type'")


def _all_cells(shape: tuple[int, ...], rows: int, origin: str) -> GridMap:
    count = math.prod(shape)
    if count != rows:
        raise MatrixError(
            f"{origin}: the grid {_size(shape)} has {count} cells, the matrix {rows} rows; sizes are "
            "NX,NY[,NZ], one row for each cell (where rows number fluid cells only, use -pc_cnn_mask FILE)"
        )
    return GridMap(shape, np.arange(rows, dtype=np.int32), origin)


def _from_mask(path: str | Path, rows: int) -> GridMap:
    image = read_cell_types(path)
    cells = np.flatnonzero(image == FLUID).astype(np.int32)
    if cells.size != rows:
        raise MatrixError(
            f"-pc_cnn_mask {path}: the image has {cells.size} fluid cells of {image.size}, the matrix {rows} "
            "rows; rows must number the fluid cells (type 0), last axis fastest"
        )
    return GridMap(image.shape, cells, f"-pc_cnn_mask {path}")


def _from_attached(mat: PETSc.Mat) -> GridMap:
    rows = mat.getSize()[0]
    if not mat.query(SHAPE):
        raise MatrixError(f"the matrix carries {CELLS!r} but no {SHAPE!r}; compose both, or use attach_grid")
    shape = tuple(int(n) for n in wrap_pointer("IS", mat.query(SHAPE).handle).getIndices()[::-1])
    cells = wrap_pointer("IS", mat.query(CELLS).handle).getIndices()
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise MatrixError(f"{SHAPE!r} holds {shape[::-1]}, expected NX, NY[, NZ], all positive")
    if cells.size != rows:
        raise MatrixError(f"{CELLS!r} has {cells.size} entries, the matrix {rows} rows")
    count = math.prod(shape)
    if cells.size and (cells.min() < 0 or cells.max() >= count):
        raise MatrixError(
            f"{CELLS!r} has cells {cells.min()}..{cells.max()}, the grid {_size(shape)} has 0..{count - 1}"
        )
    ascending = bool((np.diff(cells) > 0).all())
    if not ascending and np.bincount(cells, minlength=count).max() > 1:
        raise MatrixError(f"{CELLS!r} names a cell twice; each row needs a cell of its own")
    return GridMap(shape, cells.astype(np.int32), "the attached grid")


def _from_dmda(dm: PETSc.DM, rows: int) -> GridMap:
    sizes, dof = tuple(int(n) for n in dm.getSizes()), dm.getDof()
    if dof != 1:
        raise MatrixError(f"the DMDA has {dof} unknowns a node, expected 1: PC cnn solves scalar equations")
    if len(sizes) == 1:
        raise MatrixError(
            "the DMDA is 1D; PC cnn is for 2D and 3D grids: use -pc_type icc or lu, exact in 1D"
        )
    periodic = PETSc.DM.BoundaryType.PERIODIC
    boundary = dm.getBoundaryType()
    if periodic in boundary[: len(sizes)]:
        axis = "xyz"[boundary.index(periodic)]
        raise MatrixError(
            f"the DMDA is periodic along {axis}; PC cnn needs walls on all sides: use -pc_type gamg"
        )
    return _all_cells(sizes[::-1], rows, "the DMDA")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[::-1]))
