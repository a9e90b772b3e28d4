"""A sample of an operator, on one rank or several: blocks of cells, and cells scattered over the grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.learned.multilevel.graph.widths import sampled_cells, sampled_faces
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.periodic import PeriodicOperator
from consolve.pde.poisson.uniform import UniformOperator

SIDE = {2: 16, 3: 8}
"""Cells along the side of a sampled block, by dimension."""
BLOCKS = 96
"""Blocks of a sample."""


@dataclass(frozen=True)
class Sample:
    """What is looked at of an operator.

    Parameters
    ----------
    shape
        Cells of the grid along three axes.
    active, held
        Of the cells of each sampled block, (blocks, s0, s1, s2): they carry an unknown, have a Dirichlet
        part.  Cells beyond the grid are not active.
    faces
        Coefficient of the upper faces of these cells, by axis; None: 1 between active cells, 0 elsewhere.
    scattered
        Coefficients of the faces above and below the cells of widths.sampled_cells, (cells, 3) each; None
        where all open faces are alike.
    """

    shape: tuple[int, ...]
    active: NDArray[np.bool_]
    held: NDArray[np.bool_]
    faces: tuple[NDArray[np.float64], ...] | None = None
    scattered: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


@lru_cache(2)
def _cells_of_blocks(
    shape: tuple[int, ...], ndim: int
) -> tuple[tuple[int, ...], NDArray[np.int64], NDArray[np.bool_]]:
    """Shape (blocks, s0, s1, s2) of the sample, the cells of its blocks, and which of these lie in the grid;
    others are named 0.  Blocks are scattered evenly, the same each time."""
    side = SIDE[ndim]
    sides = (side if ndim == 3 else 1, side, side)
    grid = tuple(-(-n // s) for n, s in zip(shape, sides))
    total = int(np.prod(grid))
    chosen = np.arange(total)
    if total > BLOCKS:
        chosen = np.unique(np.random.default_rng(0).integers(0, total, BLOCKS))
    inside, cells = np.ones((chosen.size, *sides), np.bool_), np.zeros((chosen.size, *sides), np.int64)
    for axis, corner in enumerate(np.unravel_index(chosen, grid)):
        along = [1, 1, 1]
        along[axis] = sides[axis]
        index = (corner[:, None] * sides[axis] + np.arange(sides[axis])).reshape(chosen.size, *along)
        inside &= index < shape[axis]
        cells = cells * shape[axis] + index
    return cells.shape, np.where(inside, cells, 0).reshape(-1), inside.reshape(-1)


@njit(**STRICT)
def _mark(start, place, cells, n2, held):
    """Which of some cells have one of the DirichletParts."""
    for q in range(cells.size):
        line, k = cells[q] // n2, cells[q] % n2
        for p in range(start[line], start[line + 1]):
            held[q] |= place[p] == k


def sample_of_grid(operator: GridOperator | PeriodicOperator) -> Sample:
    """Of an operator in one place."""
    active = as_volume(operator.active)
    shape, cells, inside = _cells_of_blocks(active.shape, operator.ndim)

    def blocks(volume: NDArray) -> NDArray:
        return (volume.reshape(-1)[cells] * inside).reshape(shape)

    if isinstance(operator, UniformOperator):
        held = np.zeros(cells.size, np.bool_)
        _mark(operator.fixed.start, operator.fixed.place, cells, active.shape[2], held)
        return Sample(active.shape, blocks(active), held.reshape(shape))
    *faces, dirichlet, _ = operator._volumes
    coefficients = tuple(blocks(f).astype(np.float64, copy=False) for f in faces)
    return Sample(active.shape, blocks(active), blocks(dirichlet) > 0, coefficients, sampled_faces(faces))


class _Rows:
    """Values of rows, wherever they are, on the first rank."""

    def __init__(self, operator: RowOperator, comm: Any) -> None:
        own = operator.cells
        self._comm = comm
        self._order = None if bool((own[1:] > own[:-1]).all()) else np.argsort(own)
        self._own = own if self._order is None else own[self._order]

    def gather(self, cells: NDArray[np.int64], *values: NDArray) -> list[NDArray] | None:
        """For each of ``cells`` the entries of its row, 0 without one; None on other ranks.  Collective."""
        own, size = self._own, self._own.size
        at = np.flatnonzero((cells >= own[0]) & (cells <= own[-1])) if size else np.empty(0, np.int64)
        if size and own[-1] - own[0] + 1 == size:
            row = cells[at] - own[0]
        else:
            row = np.searchsorted(own, cells[at])
            at, row = (a[own[row] == cells[at]] for a in (at, row)) if size else (at, row)
        if self._order is not None:
            row = self._order[row]
        found = at, [v[row] for v in values]
        parts = [found] if self._comm is None else self._comm.gather(found)
        if parts is None:
            return None
        whole = [np.zeros(cells.size, v.dtype) for v in values]
        for places, parts_of in parts:
            for target, part in zip(whole, parts_of):
                target[places] = part
        return whole


def sample_of_rows(operator: RowOperator, comm: Any) -> Sample | None:
    """Of an operator whose rows lie on several ranks, or whose axes close to rings; the same that
    ``sample_of_grid`` takes of the whole.

    Parameters
    ----------
    operator
        The local rows.
    comm
        mpi4py communicator, or None: one rank.

    Returns
    -------
    On the first rank; None on others.  Collective.
    """
    flat = (1,) * (3 - operator.ndim)
    volume: Any = *flat, *operator.shape
    shape, cells, inside = _cells_of_blocks(volume, operator.ndim)
    rows = _Rows(operator, comm)
    # A single cell has no face to itself.
    faces = [f * (n > 1) if n == 1 else f for n, f in zip(operator.shape, operator.face_coefficient)]
    blocks = rows.gather(cells, operator.active, operator.dirichlet, *faces)
    place, index = sampled_cells(volume)
    above = rows.gather(index[0], *faces)
    below = [rows.gather(c, f) for c, f in zip(index[1 + len(flat) :], faces)]
    if blocks is None or above is None:
        return None
    active, dirichlet, *of_faces = ((b * inside).reshape(shape) for b in blocks)
    both = np.zeros((2, *place.shape))
    for axis, (up, low) in enumerate(zip(above, below), len(flat)):
        assert low is not None
        both[0, :, axis], both[1, :, axis] = up, low[0]
    coefficients: Any = (*([of_faces[0]] * len(flat)), *of_faces)
    return Sample(volume, active, dirichlet > 0, coefficients, (both[0], both[1]))
