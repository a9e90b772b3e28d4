"""Which operators need the graph: a cheap look at a sample of blocks of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.learned.multilevel.format import SHIPPED
from consolve.learned.multilevel.graph.widths import estimate_widths
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.kernels import root_of
from consolve.pde.poisson.uniform import DirichletParts, UniformOperator

SIDE = {2: 16, 3: 8}
"""Cells along the side of a sampled block, by dimension."""
BLOCKS = 96
"""Blocks of a sample."""
JUMP = 10.0
"""Neighbouring faces of a cell that differ by more than this factor are a jump."""
MOST_STRETCH, MOST_JUMPS, MOST_SPLIT = 1.8, 0.003, 0.05
"""What halving along every axis with one unknown a coarse cell still serves."""
MOST_CELLS = 300_000_000
"""Of a grid that the graph takes: its edges are counted in 32 bits."""


@dataclass(frozen=True)
class Difficulty:
    """What makes an operator hard for coarse cells that halve every axis and hold one unknown each.

    Parameters
    ----------
    stretch
        Widest over narrowest cell width, over all axes.
    jumps
        Share of the cells of the sample with a jump between two open faces of one axis.
    split
        Share of the blocks of the sample with several parts of at least an eighth of their fluid, that are
        not all held by Dirichlet parts.
    """

    stretch: float
    jumps: float
    split: float

    @property
    def is_hard(self) -> bool:
        """The graph serves better."""
        return self.stretch > MOST_STRETCH or self.jumps > MOST_JUMPS or self.split > MOST_SPLIT


@njit(**STRICT)
def _join(is_open, steps, part):
    """part[c] = first cell of the part of cell c; it hangs together with c - steps[a] where is_open[a, c]."""
    for c in range(part.size):
        part[c] = c
        for a in range(steps.size):
            if is_open[a, c]:
                p, q = root_of(part, c), root_of(part, c - steps[a])
                part[max(p, q)] = min(p, q)
    for c in range(part.size):
        part[c] = root_of(part, c)


def needs_graph(model: str, operator: GridOperator) -> bool:
    """True where a shipped multilevel model is to work on the graph; a weights file never does."""
    return model in ("auto", *SHIPPED) and operator.active.size <= MOST_CELLS and difficulty(operator).is_hard


def difficulty(operator: GridOperator) -> Difficulty:
    """Look at an operator: widths of its cells, and a sample of blocks that is the same each time."""
    volume = as_volume(operator.active)
    sample = _Sample(volume.shape, SIDE[operator.ndim])
    active, pairs, jumps, stretch = sample.of(volume), 0, 0, 1.0
    is_open = np.zeros((3, *active.shape), np.bool_)
    if isinstance(operator, UniformOperator):
        for axis in range(3):
            low, up = _along(axis)
            is_open[axis][up] = active[low] & active[up]
        held = sample.listed(operator.fixed)
    else:
        faces = operator._volumes[:3]
        for axis in range(3 - operator.ndim, 3):
            low, up = _along(axis)
            face = sample.of(faces[axis])
            is_open[axis][up] = face[low] > 0
            both = is_open[axis][up] & (face[up] > 0)
            pairs += np.count_nonzero(both)
            far = (face[up] > JUMP * face[low]) | (face[low] > JUMP * face[up])
            jumps += np.count_nonzero(both & far)
        held = sample.of(as_volume(operator.dirichlet)) > 0
        widths = estimate_widths(faces)
        stretch = max(float(w.max()) for w in widths) / min(float(w.min()) for w in widths)
    blocks, split = _split_blocks(active, is_open, held)
    return Difficulty(stretch, jumps / max(pairs, 1), split / max(blocks, 1))


def _along(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The cells of blocks that have an upper neighbour along an axis, and those neighbours."""
    before = (slice(None),) * (axis + 1)
    return (*before, slice(-1)), (*before, slice(1, None))


def _split_blocks(active: NDArray, is_open: NDArray, held: NDArray) -> tuple[int, int]:
    """Blocks with fluid, and those of them that are split."""
    blocks, *shape = active.shape
    part = np.empty(active.size, np.int32)
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    _join(is_open.reshape(3, -1), steps, part)
    size = np.bincount(part[active.reshape(-1)], minlength=part.size).reshape(blocks, -1)
    is_held = np.zeros(part.size, np.bool_)
    is_held[part[held.reshape(-1)]] = True
    fluid = size.sum(axis=1)
    large = (8 * size >= fluid[:, None]) & (size > 0)
    bound = np.count_nonzero(large & is_held.reshape(blocks, -1), axis=1)
    free = np.count_nonzero(large, axis=1) - bound
    split = (free > 1) | ((free == 1) & (bound > 0))
    return np.count_nonzero(fluid), np.count_nonzero(split)


class _Sample:
    """Blocks of cells of a volume, scattered evenly; what lies outside it is 0."""

    def __init__(self, shape: tuple[int, ...], side: int) -> None:
        grid = tuple(-(-n // side) for n in shape)
        total = int(np.prod(grid))
        chosen = np.arange(total)
        if total > BLOCKS:
            chosen = np.unique(np.random.default_rng(0).integers(0, total, BLOCKS))
        self._shape, self._cells = shape, []
        self._inside: NDArray[np.bool_] = np.ones((1, 1, 1, 1), np.bool_)
        for axis, corner in enumerate(np.unravel_index(chosen, grid)):
            place = side * corner[:, None] + np.arange(min(side, shape[axis]))
            place = place.reshape(chosen.size, *(-1 if a == axis else 1 for a in range(3)))
            self._inside = self._inside & (place < shape[axis])
            self._cells.append(np.minimum(place, shape[axis] - 1))

    def of(self, volume: NDArray) -> NDArray:
        """The values of the cells, (blocks, cells along each of three axes)."""
        values = volume[tuple(self._cells)]
        values[~self._inside] = 0
        return values

    def listed(self, fixed: DirichletParts) -> NDArray[np.bool_]:
        """Which cells have a Dirichlet part."""
        i, j, k = self._cells
        line = np.reshape(i * self._shape[1] + j, -1)
        first, count = fixed.start[line], fixed.start[line + 1] - fixed.start[line]
        owner = np.repeat(np.arange(line.size), count)
        entry = np.arange(owner.size) + np.repeat(first - np.cumsum(count) + count, count)
        at = fixed.place[entry] - k[owner // (line.size // len(k)), 0, 0, 0]
        held = np.zeros((line.size, k.shape[-1]), np.bool_)
        here = (at >= 0) & (at < k.shape[-1])
        held[owner[here], at[here]] = True
        return held.reshape(self._inside.shape) & self._inside
