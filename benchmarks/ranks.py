"""Ranks against threads: one system by -ksp_type cg -pc_type cnn on one core, two threads, two ranks.

    python benchmarks/ranks.py [CELLS [ROUNDS]]     default: 256 5 (a cube with spheres, white noise, 1e-6)

The variants take turns, each time in fresh processes, since times of one process on a virtual machine depend
on the memory that it happens to get.  Prints the median and the shortest total of each, and ratios to
one core.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from statistics import median

from consolve.bench.launch import run_worker
from consolve.bench.measure import cpu_model
from consolve.bench.poisson import PoissonProblem
from consolve.bench.roster import SOLVERS, stopping_options

VARIANTS = {"one core": (1, 1), "two threads": (1, 2), "two ranks": (2, 1)}
SEED, REPEAT = 7, 2


def main(cells: int, rounds: int) -> None:
    problem = PoissonProblem(3, (cells,) * 3, "spheres", SEED, "noise", 1e-6)
    task = {
        "task": "poisson",
        "problem": asdict(problem) | {"cells": list(problem.cells)},
        "options": stopping_options(problem.rtol) | SOLVERS["cnn"].options(3, 1),
        "repeat": REPEAT,
        "history": False,
    }
    rows: dict[str, list[dict]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, (ranks, threads) in VARIANTS.items():
            row = run_worker(task | {"ranks": ranks, "threads": threads}, ranks=ranks, threads=threads)
            rows[name].append(row)
            print(
                f"{name:12} set-up {row['setup_s']:.3f}  solve {row['solve_s']:.3f}  "
                f"total {row['total_s']:.3f}  "
                f"iterations {row['iterations']}  residual {row['relative_residual']:.1e}  "
                f"{row['peak_memory_mb']:.0f} MiB",
                flush=True,
            )
    print(
        f"\n| {cells}^3 | iterations | set-up s | solve s | total s, median | shortest | one core over it |"
    )
    print("|---|---|---|---|---|---|---|")
    alone = median(row["total_s"] for row in rows["one core"])
    for name, found in rows.items():
        middle = {key: median(row[key] for row in found) for key in ("setup_s", "solve_s", "total_s")}
        print(
            f"| {name} | {found[0]['iterations']} | {middle['setup_s']:.2f} | {middle['solve_s']:.2f} | "
            f"{middle['total_s']:.2f} | {min(row['total_s'] for row in found):.2f} | "
            f"{alone / middle['total_s']:.2f} |"
        )
    print(f"\n{cpu_model()}")


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:], *("256", "5")[len(sys.argv) - 1 :])))
