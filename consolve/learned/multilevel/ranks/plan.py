"""Which ranks hold what on every level of a distributed hierarchy, and what an application then sends.

Nothing here communicates: a plan follows from sizes alone, so every rank makes the same one, and the traffic
of any number of ranks can be foretold on one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.format import COARSEST
from consolve.learned.multilevel.ranks.partition import Partition, even_partition, halve, whole, with_levels

HALO = 4
"""Layers around a box.  A multiple of 4, so that the coarse halo begins at an even cell, too."""

Periodic = tuple[bool, bool, bool]


@dataclass(frozen=True)
class Plan:
    """Who holds what.

    Parameters
    ----------
    levels
        Partition of each distributed level, finest first.
    last
        The level below them, on one rank.
    periodic
        For each axis.
    """

    levels: tuple[Partition, ...]
    last: Partition
    periodic: Periodic


def make_plan(wanted: Partition, periodic: Periodic, gathered: int) -> Plan:
    """The plan of a hierarchy.

    The finest levels keep the cuts of ``wanted``, moved to where the levels' halving keeps them.  A level of
    at most ``gathered`` cells goes to one rank, and so does one that cannot be halved because a periodic axis
    is odd; levels whose boxes would have less than a quarter of ``gathered`` cells go to fewer ranks.
    """
    planner = _Planner(periodic, gathered)
    levels: list[Partition] = []
    if math.prod(wanted.shape) <= gathered:
        wanted = whole(wanted.shape, wanted.size, wanted.ranks[0])
    while not planner.is_last(wanted):
        partition, keep = with_levels(wanted, planner.levels_to_keep(wanted))
        if planner.is_last(partition):
            wanted = partition
            break
        for _ in range(keep):
            levels.append(partition)
            partition = partition.halved()
        wanted = planner.fewer_ranks(partition)
    return Plan(tuple(levels), whole(wanted.shape, wanted.size, wanted.ranks[0]), periodic)


@dataclass(frozen=True)
class _Planner:
    periodic: Periodic
    gathered: int

    def cannot_be_halved(self, shape: tuple[int, ...]) -> bool:
        odd = any(p and (n % 2 or n < HALO) for n, p in zip(shape, self.periodic))
        return odd or max(shape) <= COARSEST

    def is_last(self, partition: Partition) -> bool:
        """True if this level is the tail: gathered on one rank, or solved directly."""
        if any(self.periodic):
            return self.cannot_be_halved(partition.shape)
        return len(partition.ranks) == 1

    def levels_to_keep(self, wanted: Partition) -> int:
        """Levels until boxes are too small to be worth their messages."""
        shape, ranks, levels = wanted.shape, len(wanted.ranks), 0
        while not self.cannot_be_halved(shape):
            cells = math.prod(shape)
            if levels and ranks > 1 and (cells <= self.gathered or 4 * cells < ranks * self.gathered):
                break
            shape, levels = halve(shape), levels + 1
        return max(levels, 1)

    def fewer_ranks(self, partition: Partition) -> Partition:
        """Who holds the first level of the next stage."""
        shape, cells, ranks = partition.shape, math.prod(partition.shape), partition.ranks
        if cells <= self.gathered or self.cannot_be_halved(shape):
            return whole(shape, partition.size, ranks[0])
        count = max(1, min(len(ranks), 4 * cells // max(self.gathered, 1)))
        return even_partition(shape, ranks[:: -(-len(ranks) // count)], partition.size)


def with_halo(boxes: NDArray, depth: int, shape: tuple[int, ...], periodic: Periodic) -> NDArray[np.int64]:
    """Boxes grown by ``depth`` cells a side, clipped where the grid ends; empty boxes stay empty."""
    grown = boxes.copy()
    full = (boxes[:, 1] > boxes[:, 0]).all(1)
    for axis in range(3):
        if shape[axis] == 1:
            continue
        low, high = boxes[:, 0, axis] - depth, boxes[:, 1, axis] + depth
        if not periodic[axis]:
            low, high = np.maximum(low, 0), np.minimum(high, shape[axis])
        grown[full, 0, axis], grown[full, 1, axis] = low[full], high[full]
    return grown


@dataclass(frozen=True)
class Cost:
    """What a rank receives in one application of the preconditioner, level by level.

    Parameters
    ----------
    messages, values
        int64 (levels, ranks): messages, and float32 values in them.
    """

    messages: NDArray[np.int64]
    values: NDArray[np.int64]

    def seconds(self, latency: float, bandwidth: float) -> float:
        """Time of the busiest rank of each level, summed: latency a message, 4 bytes a value."""
        slowest = latency * self.messages + 4 / bandwidth * self.values
        return float(slowest.max(axis=1, initial=0).sum())


def cost_of_application(plan: Plan) -> Cost:
    """Messages and values of one V-cycle with up to HALO half-sweeps on each side.

    With a box of s cells an axis, its halo of g layers has S(g) cells: the product over the axes of s + 2 g,
    less that of s.  A level receives S(4) values of b and S(4) of x, S(1) of the residual and, in cells of
    the next level, S(1) of the correction; cells of b and x that the next level keeps on another rank travel
    besides.
    """
    messages, values = [], []
    for number, partition in enumerate(plan.levels):
        finer_owner = plan.levels[number - 1].halved() if number else None
        following = plan.levels[number + 1] if number + 1 < len(plan.levels) else plan.last
        coarse, own = partition.halved(), partition.boxes
        near, wide = (with_halo(own, depth, partition.shape, plan.periodic) for depth in (1, HALO))
        coarse_near = with_halo(coarse.boxes, 1, coarse.shape, plan.periodic)
        b_from = own if finer_owner is None else finer_owner.boxes
        moves = (
            (b_from, wide, partition.shape),
            (own, wide, partition.shape),
            (own, near, partition.shape),
            (following.boxes, coarse_near, coarse.shape),
        )
        counts = [_received(source, region, shape, plan.periodic) for source, region, shape in moves]
        messages.append(sum(c[0] for c in counts))
        values.append(sum(c[1] for c in counts))
    if plan.levels:
        finer = plan.levels[-1].halved()
        count, total = _received(finer.boxes, plan.last.boxes, finer.shape, plan.periodic)
        messages.append(count)
        values.append(total)
    shape = (len(messages), plan.last.size)
    return Cost(np.array(messages).reshape(shape), np.array(values).reshape(shape))


def _received(
    source: NDArray, region: NDArray, shape: tuple[int, ...], periodic: Periodic
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Messages and values that each rank receives when its region is filled by the owners of the cells."""
    size = len(source)
    messages, values = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for rank in np.flatnonzero((region[:, 1] > region[:, 0]).all(1)):
        cells = np.zeros(size, np.int64)
        for shift in np.ndindex(*(3 if p else 1 for p in periodic)):
            offset = (np.array(shift) - np.array(periodic, int)) * np.array(shape)
            low = np.maximum(region[rank, 0], source[:, 0] + offset)
            high = np.minimum(region[rank, 1], source[:, 1] + offset)
            cells += np.maximum(high - low, 0).prod(axis=1)
        cells[rank] = 0
        messages[rank], values[rank] = np.count_nonzero(cells), cells.sum()
    return messages, values
