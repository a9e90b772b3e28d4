"""The cells of points on a tensor grid: lines of any spacing along each axis, x fastest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import raise_together
from consolve.base.errors import MatrixError
from consolve.base.exchange import first_shared_cell

TOLERANCE = 1e-6
"""Coordinates that differ by less than this fraction of the longest side of the grid lie on one line."""
SPARSEST = 64
"""Cells a point up to which points make a grid."""


def cells_of_points(
    points: NDArray[np.floating], rows: int, comm: Any
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Shape of the tensor grid that points lie on, in NumPy's order, and the cell of each; collective.

    Axes on which all points agree are dropped while more than two are left.

    Parameters
    ----------
    points
        float (local rows, dim), dim 1, 2 or 3: x, y, z of each local row.
    rows
        Local rows of the matrix.
    comm
        mpi4py communicator, or None on one rank.

    Raises
    ------
    MatrixError
        On all ranks: if there is not one point a row, the points lie on no lattice, or two share a cell.
    """
    error = None
    if points.ndim != 2 or len(points) != rows or not 1 <= points.shape[1] <= 3:
        error = MatrixError(
            f"the coordinates are an array of shape {points.shape}, expected ({rows}, 2) or ({rows}, 3): one "
            "point for each local row"
        )
    elif points.dtype.kind not in "fiu":
        error = MatrixError(f"the coordinates are {points.dtype}, expected real numbers")
    elif not np.isfinite(points).all():
        error = MatrixError("some coordinates are not finite")
    raise_together(comm, error)
    dim = points.shape[1]
    points = points.astype(np.float64, copy=False)
    low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
    total = rows
    if comm is not None:
        from mpi4py import MPI

        comm.Allreduce(MPI.IN_PLACE, low, MPI.MIN)
        comm.Allreduce(MPI.IN_PLACE, high, MPI.MAX)
        total = comm.allreduce(rows)
    if total == 0:
        raise MatrixError("the matrix has no rows")
    tolerance = TOLERANCE * float((high - low).max())
    lines = [_lines(points[:, axis], tolerance) for axis in range(dim)]
    counts = np.array([max(x.size, 1) for x in lines])
    if comm is not None:
        # Points of no lattice have as many lines as points: that is seen before lines are gathered.
        comm.Allreduce(MPI.IN_PLACE, counts, MPI.MAX)
        _check_filling(counts, total)
        lines = [_lines(np.concatenate(comm.allgather(x)), tolerance) for x in lines]
    counts = np.array([x.size for x in lines])
    _check_filling(counts, total)
    axes = list(range(dim))[::-1]
    while len(axes) > 2 and any(counts[a] == 1 for a in axes):
        axes.remove(next(a for a in axes if counts[a] == 1))
    shape = (1,) * (2 - len(axes)) + tuple(int(counts[a]) for a in axes)
    cells = np.zeros(rows, np.int64)
    for axis in axes:
        middles = 0.5 * (lines[axis][1:] + lines[axis][:-1])
        cells = cells * counts[axis] + np.searchsorted(middles, points[:, axis])
    shared = first_shared_cell(comm, math.prod(shape), cells)
    if shared >= 0:
        where = tuple(int(i) for i in np.unravel_index(shared, shape))
        raise MatrixError(
            f"two rows have coordinates in one cell, {where} of a {' x '.join(map(str, shape[::-1]))} (NX x "
            f"NY...) grid: points of a grid lie more than {TOLERANCE:g} of its length apart, one for each row"
        )
    return shape, cells


def _lines(values: NDArray[np.floating], tolerance: float) -> NDArray[np.floating]:
    """Ascending values, one for each cluster of those that differ by no more than ``tolerance``."""
    values = np.sort(values)
    return values[np.append(True, np.diff(values) > tolerance)] if values.size else values


def _check_filling(counts: NDArray[np.integer], rows: int) -> None:
    if math.prod(int(n) for n in counts) > SPARSEST * (rows + 1):
        raise MatrixError(
            f"the {rows} coordinates have {' x '.join(map(str, counts))} different values along x, y...: "
            "they lie on no tensor grid"
        )
