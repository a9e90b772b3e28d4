"""How the preconditioner scales on paper: what an application sends on many ranks, and what that costs.

    python benchmarks/communication.py [--latency S] [--bandwidth BYTES_PER_S] [--cell-ns NS]

Prints a Markdown table.  Messages and bytes follow from the plan that the ranks themselves make
(consolve.learned.multilevel.ranks.plan); tests/learned/multilevel/test_ranks.py holds them against what is
sent.  The time of the computation is a given number of nanoseconds per cell of a rank's box and halo; latency
and bandwidth are per message and rank, as of a common cluster network.  No MPI is needed.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from traffic import cost_of_application

from consolve.learned.multilevel.ranks.partition import even_partition
from consolve.learned.multilevel.ranks.plan import HALO, make_plan, with_halo
from consolve.learned.multilevel.ranks.preconditioner import GATHERED_CELLS

CASES = (
    *((256, ranks) for ranks in (1, 2, 8, 64, 512)),
    *((1024, ranks) for ranks in (64, 512, 4096)),
)


def computation(plan, cell_ns: float) -> float:
    """Seconds of the busiest rank of each level, halos included; the gathered level is one rank's alone."""
    total = float(math.prod(plan.last.shape))
    for partition in plan.levels:
        boxes = with_halo(partition.boxes, HALO, partition.shape, plan.periodic)
        total += 7 / 8 * int((boxes[:, 1] - boxes[:, 0]).prod(axis=1).max())
    return 1e-9 * cell_ns * total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=2e-6, help="seconds a message")
    parser.add_argument("--bandwidth", type=float, default=5e9, help="bytes per second and rank")
    parser.add_argument("--cell-ns", type=float, default=8.0, help="nanoseconds per cell of one application")
    given = parser.parse_args()
    print("| grid | ranks | ranks on each level | messages | MB received | compute | exchange | efficiency |")
    print("|---|---|---|---|---|---|---|---|")
    alone: dict[int, float] = {}
    for n, ranks in CASES:
        wanted = even_partition((n, n, n), tuple(range(ranks)), ranks)
        plan = make_plan(wanted, (False,) * 3, GATHERED_CELLS)
        cost = cost_of_application(plan)
        work = computation(plan, given.cell_ns)
        exchange = cost.seconds(given.latency, given.bandwidth)
        alone[n] = 1e-9 * given.cell_ns * n**3
        holders = [len(p.ranks) for p in plan.levels] + [1]
        steps = " ".join(map(str, holders))
        messages = int(cost.messages.max(axis=1, initial=0).sum())
        received = 4e-6 * float(np.max(cost.values.sum(axis=0), initial=0))
        efficiency = alone[n] / (ranks * (work + exchange))
        print(
            f"| {n}^3 | {ranks} | {steps} | {messages} | {received:.2f} | {1e3 * work:.1f} ms | "
            f"{1e3 * exchange:.2f} ms | {100 * efficiency:.0f} % |"
        )


if __name__ == "__main__":
    main()
