"""Where the rows of a matrix lie on a grid, told by the matrix alone."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from consolve.pde.band_pattern import find_bands
from consolve.pde.lattice import Placement, find_lattice

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
    bands = find_bands(indptr, indices, values, first_row, rows, comm)
    alone = comm is None or comm.size == 1
    if bands is not None and (not bands[0].box or bands[1] >= _CERTAIN or not alone):
        return bands[0]
    lattice = find_lattice(indptr, indices, values) if alone else None
    if bands is not None and (lattice is None or lattice.box):
        return bands[0]
    return lattice
