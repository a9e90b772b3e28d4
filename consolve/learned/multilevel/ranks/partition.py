"""How the cells of a level are shared among ranks: boxes of a tensor grid of cuts.

Boxes are int64 arrays (2, 3): first cell, and one past the last, along each axis of a volume (n0, n1, n2);
an empty box has a size of 0.  A 2D grid is a volume with n0 = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_IMBALANCE = 1.15
"""Largest box over the mean box, up to which cuts are moved so that more levels can keep them."""


@dataclass(frozen=True)
class Partition:
    """Boxes of one level.

    Parameters
    ----------
    shape
        Cells of the level (n0, n1, n2).
    cuts
        For each axis the ascending boundaries of the boxes, from 0 to n.
    ranks
        Rank of each box, in C order of the boxes.
    size
        Ranks of the communicator; those without a box have an empty one.
    """

    shape: tuple[int, int, int]
    cuts: tuple[tuple[int, ...], ...]
    ranks: tuple[int, ...]
    size: int

    @property
    def grid(self) -> tuple[int, ...]:
        """Boxes along each axis."""
        return tuple(len(cuts) - 1 for cuts in self.cuts)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """Box of each rank, (size, 2, 3)."""
        boxes = np.zeros((self.size, 2, 3), np.int64)
        for rank, place in zip(self.ranks, np.ndindex(*self.grid)):
            for axis, q in enumerate(place):
                boxes[rank, :, axis] = self.cuts[axis][q], self.cuts[axis][q + 1]
        return boxes

    def owner(self, coordinates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rank that holds each cell; ``coordinates`` is (3, cells)."""
        place = [np.searchsorted(cuts, x, "right") - 1 for cuts, x in zip(self.cuts, coordinates)]
        return np.asarray(self.ranks, np.int64)[np.ravel_multi_index(place, self.grid)]

    def halved(self) -> Partition:
        """The same boxes on the next coarser level; all inner cuts must be even."""
        shape = halve(self.shape)
        cuts = tuple(tuple(-(-c // 2) if n > 1 else c for c in cut) for n, cut in zip(self.shape, self.cuts))
        return Partition(shape, cuts, self.ranks, self.size)

    @property
    def imbalance(self) -> float:
        """Cells of the largest box over those of the mean one."""
        largest = math.prod(max(np.diff(cuts)) for cuts in self.cuts)
        return float(largest * math.prod(self.grid) / math.prod(self.shape))

    def aligned(self, levels: int) -> Partition | None:
        """Cuts moved to the nearest multiples of 2^levels; None if a box would be lost."""
        step = 2**levels
        cuts = []
        for n, cut in zip(self.shape, self.cuts):
            moved = [0, *((c + step // 2) // step * step for c in cut[1:-1]), n]
            if min(np.diff(moved)) <= 0:
                return None
            cuts.append(tuple(moved))
        return Partition(self.shape, tuple(cuts), self.ranks, self.size)


def halve(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Cells of the next coarser level."""
    n0, n1, n2 = ((n + 1) // 2 for n in shape)
    return n0, n1, n2


def whole(shape: tuple[int, int, int], size: int, rank: int = 0) -> Partition:
    """Everything on one rank."""
    return Partition(shape, tuple((0, n) for n in shape), (rank,), size)


def even_partition(shape: tuple[int, int, int], ranks: tuple[int, ...], size: int) -> Partition:
    """Boxes of about equal size for some ranks; fewer where the grid cannot be cut so often."""
    best: tuple[float, tuple[int, int, int]] = (math.inf, (1, 1, 1))
    count = len(ranks)
    for p0 in (q for q in range(1, count + 1) if count % q == 0):
        for p1 in (q for q in range(1, count // p0 + 1) if (count // p0) % q == 0):
            grid = (p0, p1, count // (p0 * p1))
            if all(n >= 4 * p or p == 1 for n, p in zip(shape, grid)):
                sides = [n / p for n, p in zip(shape, grid)]
                area = sum(min(p - 1, 2) * math.prod(sides) / s for p, s in zip(grid, sides))
                best = min(best, (area, (-grid[0], -grid[1], -grid[2])))  # cuts across the slow axes first
    if math.isinf(best[0]):
        return even_partition(shape, ranks[: count // 2], size) if count > 1 else whole(shape, size, ranks[0])
    boxes = [-p for p in best[1]]
    cuts = tuple(tuple(n * q // p for q in range(p + 1)) for n, p in zip(shape, boxes))
    return Partition(shape, cuts, ranks[: math.prod(boxes)], size)


def partition_of_rows(shape: tuple[int, int, int], bounds: NDArray[np.int64]) -> Partition:
    """Boxes close to where the rows of each rank lie, so that little of a vector has to move.

    Parameters
    ----------
    shape
        Cells of the level.
    bounds
        (size, 2, 3): box around the cells of each rank's rows, empty for a rank without rows.
    """
    size = len(bounds)
    holders = np.flatnonzero((bounds[:, 1] > bounds[:, 0]).all(1))
    if holders.size <= 1:
        return whole(shape, size, int(holders[0]) if holders.size else 0)
    first, last = bounds[holders, 0], bounds[holders, 1]
    starts = [np.unique(first[:, axis]) for axis in range(3)]
    if math.prod(len(s) for s in starts) == holders.size:
        cuts = tuple((0, *(int(c) for c in s[1:]), n) for s, n in zip(starts, shape))
        place = [np.searchsorted(s, first[:, axis]) for axis, s in enumerate(starts)]
        number = np.ravel_multi_index(place, [len(s) for s in starts])
        upper = np.array([np.asarray(cuts[axis])[place[axis] + 1] for axis in range(3)]).T
        if np.unique(number).size == holders.size and (last <= upper).all():
            return Partition(shape, cuts, tuple(int(r) for r in holders[np.argsort(number)]), size)
    axis = next(a for a in range(3) if shape[a] > 1 or a == 2)
    slabs = _slabs(shape, axis, holders, first[:, axis], last[:, axis], size)
    return slabs or even_partition(shape, tuple(int(r) for r in holders), size)


def _slabs(
    shape: tuple[int, int, int],
    axis: int,
    holders: NDArray,
    first: NDArray,
    last: NDArray,
    size: int,
) -> Partition | None:
    """Slabs across the slowest axis for rows in natural order, where two ranks may share a layer."""
    if (np.diff(first) < 0).any() or (last[:-1] > first[1:] + 1).any():
        return None
    starts, at = np.unique(first, return_index=True)
    cuts: list[tuple[int, ...]] = [(0, n) for n in shape]
    cuts[axis] = (0, *(int(c) for c in starts[1:]), shape[axis])
    return Partition(shape, tuple(cuts), tuple(int(r) for r in holders[at]), size)


def with_levels(wanted: Partition, most: int) -> tuple[Partition, int]:
    """A partition near ``wanted`` whose cuts some levels of halving keep, and how many.

    As many levels, up to ``most``, as leave the boxes balanced; on fewer ranks where the boxes are too small
    for even one.
    """
    limit = max(MOST_IMBALANCE, 1.05 * wanted.imbalance)
    for levels in range(most, 0, -1):
        moved = wanted.aligned(levels)
        if moved is not None and (moved.imbalance <= limit or levels == 1):
            return moved, levels
    fewer = wanted.ranks[: (len(wanted.ranks) + 1) // 2]
    return with_levels(even_partition(wanted.shape, fewer, wanted.size), most)
