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


@njit(**STRICT)
def _find(own, cells, at, row):
    """Which of some cells stand in an ascending array, and where; returns how many do."""
    found, next_ = 0, 0
    for q in range(cells.size):
        cell = cells[q]
        if cell < own[0] or cell > own[own.size - 1]:
            continue
        if next_ >= own.size or own[next_] != cell:  # most stand where the one before leads to
            next_ = np.searchsorted(own, cell)
        if own[next_] == cell:
            at[found], row[found] = q, next_
            found, next_ = found + 1, next_ + 1
    return found


class _Rows:
    """Where cells stand among the rows of this rank."""

    def __init__(self, own: NDArray[np.int64]) -> None:
        self._order = None if bool((own[1:] > own[:-1]).all()) else np.argsort(own)
        self._own = own if self._order is None else own[self._order]

    def find(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which of some cells have a row here, and that row."""
        at, row = np.empty((2, cells.size), np.intp)
        found = _find(self._own, cells, at, row) if self._own.size else 0
        at, row = at[:found], row[:found]
        return at, row if self._order is None else self._order[row]


def _on_first(comm: Any, places: NDArray[np.intp], values: NDArray, size: int) -> NDArray:
    """An array on the first rank of what all ranks know of its places, 0 where none does.  Collective."""
    mine = np.zeros(size, values.dtype)
    mine[places] = values
    if comm is None:
        return mine
    whole = np.empty_like(mine)
    comm.Reduce(mine, whole if comm.rank == 0 else None)  # each place is known to one rank: a sum is exact
    return whole


def sample_of_rows(operator: RowOperator, comm: Any) -> Sample | None:
    """Of an operator whose rows lie on several ranks, or whose axes close to rings: ``difficulty`` sees in it
    what it sees in the sample that ``sample_of_grid`` takes of the whole.

    Where all open faces have one coefficient, only a byte a cell is sent.

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
    flat = 3 - operator.ndim
    volume = (1,) * flat + operator.shape
    shape, cells, inside = _cells_of_blocks(volume, operator.ndim)
    place, index = sampled_cells(volume)
    rows = _Rows(operator.cells)
    # A single cell has no face to itself.
    axes = [axis for axis in range(flat, 3) if volume[axis] > 1]
    faces = [operator.face_coefficient[axis - flat] for axis in axes]
    at, row = rows.find(cells)
    seen = [(at, f[row]) for f in faces]
    code = operator.active[row].astype(np.uint8) + 2 * (operator.dirichlet[row] > 0)
    for axis, (_, values) in zip(axes, seen):
        code += np.uint8(4 << axis) * (values > 0)
    code = _on_first(comm, at, code, cells.size) * inside
    scattered = None
    if _are_alike(faces, comm):
        of_blocks = [(code >> (2 + axis) & 1).astype(np.float64) for axis in axes]
    else:
        of_blocks = [np.where(inside, _on_first(comm, *part, cells.size), 0.0) for part in seen]
        own, both = rows.find(index[0]), np.zeros((2, *place.shape))
        for axis, face in zip(axes, faces):
            for side, (at, row) in enumerate((own, rows.find(index[1 + axis]))):
                both[side, :, axis] = _on_first(comm, at, face[row], len(place))
        scattered = both[0], both[1]
    if comm is not None and comm.rank > 0:
        return None
    coefficients = [np.zeros(shape)] * 3
    for axis, face in zip(axes, of_blocks):
        coefficients[axis] = face.reshape(shape)
    code = code.reshape(shape)
    return Sample(volume, (code & 1).astype(np.bool_), (code & 2) > 0, tuple(coefficients), scattered)


@njit(**STRICT)
def _common(values, known):
    """The one positive value, with ``known`` among them if that is not 0; 0: there is none, -1: several."""
    for value in values:
        if value > 0 and value != known:
            if known != 0:
                return -1.0
            known = value
    return known


def _are_alike(values: list[NDArray[np.float64]], comm: Any) -> bool:
    """All positive values, on all ranks, are one.  Collective."""
    common = 0.0
    for some in values:
        common = _common(some, common)
    known = [common] if comm is None else comm.allgather(common)
    return min(known) >= 0 and len(set(known) - {0.0}) <= 1
