"""Where the rows of a matrix lie on a grid: told by arguments, or by the matrix alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.pde.matrix.bands import find_bands
from consolve.pde.matrix.lattice import Placement, find_lattice
from consolve.pde.poisson.grid import FLUID

Place = tuple[tuple[int, ...], NDArray[np.integer]]
"""Shape of a grid, and the C-order cell index of each row."""

LOOKED_FOR = (
    "looked for rows that number all cells of a grid, x fastest (couplings at distances 1, NX, NX NY and "
    "their sums)"
)
LOOKED_FOR_LATTICE = (
    "and for a lattice whose neighbours are what couplings join, whatever the numbering (5-, 7-, 9-, "
    "15- and 27-point stencils; passages one cell wide leave too many ways)"
)

_CERTAIN = 0.9
"""Fraction of the neighbours in a box stencil that are coupled from which its bands are not doubted."""


def find_placement(
    indptr: NDArray,
    indices: NDArray,
    values: NDArray,
    first_row: int = 0,
    rows: int | None = None,
    comm: Any = None,
) -> Placement | None:
    """A cell for each row, such that every significant coupling joins neighbours; None if none is found.

    Bands come first (``find_bands``), then the graph of the couplings (``find_lattice``, on one rank only).
    A box stencil found by bands with many neighbours uncoupled has to stand back behind a lattice with
    couplings along the axes only: it may be a small 5-point matrix that happens to fit.

    Parameters
    ----------
    indptr, indices, values, first_row, rows, comm
        As for ``find_bands``.
    """
    alone = comm is None or comm.size == 1
    if alone and indptr.size <= 1:
        return Placement((1, 1), np.empty(0, np.int64), (False, False), False)  # no rows: a cell without one
    bands = find_bands(indptr, indices, values, first_row, rows, comm)
    if bands is not None and (not bands[0].box or bands[1] >= _CERTAIN or not alone):
        return bands[0]
    lattice = find_lattice(indptr, indices, values) if alone else None
    if bands is not None and (lattice is None or lattice.box):
        return bands[0]
    return lattice


def given_place(
    rows: int, grid: Sequence[int] | None, mask: ArrayLike | None, cells: ArrayLike | None
) -> Place | None:
    """The place of ``rows`` rows that the arguments name, if they name one.

    Parameters
    ----------
    rows
        Of the matrix.
    grid
        Shape, last axis fastest; rows number all its cells in C order, or else ``cells``.
    mask
        Cell-type image (0 fluid, 1 solid, 2 air): rows number its fluid cells in C order.
    cells
        C-order cell index of each row.

    Raises
    ------
    ValueError
        If they do not fit each other or the rows.
    """
    if mask is not None and not (grid is None and cells is None):
        raise ValueError("mask is given with grid or cells; a mask has a grid of its own: give one")
    if cells is not None and grid is None:
        raise ValueError("cells is given without grid, the shape (NY, NX) or (NZ, NY, NX) that they index")
    if mask is not None:
        image = np.asarray(mask)
        if image.ndim not in (2, 3) or image.dtype.kind not in "iu":
            raise ValueError(
                f"mask is {image.dtype}{image.shape}, expected an integer image of 2 or 3 axes with 0 fluid, "
                "1 solid, 2 air"
            )
        fluid = np.flatnonzero(image == FLUID)
        if fluid.size != rows:
            raise ValueError(f"mask has {fluid.size} fluid cells (type 0), the matrix {rows} rows")
        return image.shape, fluid
    if grid is None:
        return None
    shape = tuple(int(n) for n in grid)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"grid is {shape}, expected 2 or 3 positive sizes: (NY, NX) or (NZ, NY, NX)")
    size = math.prod(shape)
    if cells is None:
        if size != rows:
            raise ValueError(f"grid {shape} has {size} cells, the matrix {rows} rows; give mask or cells")
        return shape, np.arange(rows)
    given = np.asarray(cells)
    if given.shape != (rows,) or given.dtype.kind not in "iu":
        raise ValueError(f"cells is {given.dtype}{given.shape}, expected ({rows},) integers")
    if rows and not (0 <= given.min() and given.max() < size and np.unique(given).size == rows):
        raise ValueError(f"cells must lie in 0..{size - 1}, each row in a cell of its own")
    return shape, given
