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
