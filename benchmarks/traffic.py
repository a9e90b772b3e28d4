"""What the preconditioner sends in one application on many ranks, foretold from its plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.ranks.plan import HALO, Periodic, Plan, with_halo


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
