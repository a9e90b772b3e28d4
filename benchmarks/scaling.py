"""Time, iterations, set-up and memory against the size of the grid: our solvers and their peers in one run.

    python benchmarks/scaling.py                                     everything: several hours
    python benchmarks/scaling.py --dim 3 --cells 64 128 --domain spheres --solver dcd --solver hypre
    python benchmarks/scaling.py --report                            tables and plots of what there is

Each solver runs in processes of its own on all cores, as `consolve bench poisson` runs it; set-up and solve
are repeated, and the fastest of the repetitions counts.  Rows go to benchmarks/results/scaling.json one by
one, so that Ctrl-C loses none: the same command goes on with those that are missing (`--again` measures all
anew).  Writes the tables of docs/speed.md and the plots docs/speed-*.png.  Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scaling_report
from row_file import RowFile

from consolve.base.memory import NotEnoughMemory
from consolve.bench.poisson import EMPTY_ROW, Conditions, PoissonProblem, run_poisson
from consolve.bench.roster import Solver, find_solver

RESULTS = Path(__file__).parent / "results" / "scaling.json"
DOCS = Path(__file__).parent.parent / "docs"
SIZES = {2: (256, 512, 1024, 2048, 4096), 3: (32, 64, 128, 256, 320)}
DOMAINS = ("spheres", "box", "free-surface")
SOLVERS = ("cnn", "mg", "dcd", "dcd-mg", "grid", "hypre", "gamg", "cg", "fft")
SEED = 7
KEY = ("solver", "dim", "cells", "domain", "rhs", "rtol", "seed", "cores")
Row = dict[str, Any]


def main() -> int:
    """Measure and report; 2 for wrong usage, 130 for Ctrl-C."""
    chosen = arguments()
    try:
        found = RowFile(chosen.out, KEY)
        solvers = [find_solver(text) for text in chosen.solver or SOLVERS]
    except ValueError as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 2
    code = 0
    if not chosen.report:
        try:
            for row in rows(chosen, solvers, found):
                found.put(row)
                print(scaling_report.one_line(row), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"interrupted: what is done is in {chosen.out}", file=sys.stderr)
            code = 130
    if found.rows:
        print(scaling_report.tables(found.rows))
        if not chosen.no_docs:
            scaling_report.write(found.rows, chosen.docs)
    return code


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--dim", type=int, choices=(2, 3), action="append", help="repeat for both, which is the default")
    add(
        "--cells",
        type=int,
        nargs="+",
        metavar="N",
        help="on each axis; all of the default sizes if not given",
    )
    add(
        "--domain",
        action="append",
        help=f"of the gallery; repeat for several; {', '.join(DOMAINS)} if not given",
    )
    add("--solver", action="append", metavar="NAME",
        help=f"or 'LABEL=-ksp_type ...'; repeat for several; {', '.join(SOLVERS)} if not given")  # fmt: skip
    add("--rhs", choices=("noise", "divergence", "point"), default="noise", help="right-hand side")
    add("--rtol", type=float, default=1e-6, help="of the true residual")
    add("--seed", type=int, default=SEED, help="of domains and right-hand sides")
    add("--cores", type=int, default=len(os.sched_getaffinity(0)), help="for every solver")
    add("--repeat", type=int, default=5, help="set-ups and solves at most; the fastest counts")
    add("--repeat-within", type=float, default=30.0, metavar="S", help="begin no repetition later")
    add("--timeout", type=float, default=600.0, metavar="S", help="limit of each solver on each system")
    add("--again", action="store_true", help="measure rows anew that are there already")
    add("--report", action="store_true", help="measure nothing")
    add("--out", type=Path, default=RESULTS, help="JSON of results")
    add("--docs", type=Path, default=DOCS, help="folder of speed.md and the plots")
    add("--no-docs", action="store_true", help="print the tables only")
    return parser.parse_args()


def rows(chosen: argparse.Namespace, solvers: list[Solver], found: RowFile) -> Iterator[Row]:
    """One row a solver and system; small systems first, all solvers of a system one after the other."""
    run = time.strftime("%Y-%m-%dT%H:%M:%S")
    conditions = Conditions(
        cores=chosen.cores, repeat=chosen.repeat, timeout=chosen.timeout, repeat_within_s=chosen.repeat_within
    )
    for dim in chosen.dim or (2, 3):
        for n in sorted(chosen.cells or SIZES[dim]):
            for domain in chosen.domain or DOMAINS:
                problem = PoissonProblem(dim, (n,) * dim, domain, chosen.seed, chosen.rhs, chosen.rtol)
                for solver in solvers:
                    place = {
                        "solver": solver.name, "dim": dim, "cells": n, "domain": domain, "rhs": chosen.rhs,
                        "rtol": chosen.rtol, "seed": chosen.seed, "cores": chosen.cores,
                    }  # fmt: skip
                    if solver.own_task == "direct" and domain.removeprefix("closed-") != "box":
                        continue
                    if not chosen.again and found.find(**place) is not None:
                        continue
                    row = hopeless(found, place, chosen.timeout) or measure(problem, solver, conditions)
                    yield place | row | {"run": run, "timeout_s": chosen.timeout}


def measure(problem: PoissonProblem, solver: Solver, conditions: Conditions) -> Row:
    """What `consolve bench poisson` says of one solver; a reason instead of numbers where it cannot run."""
    try:
        document = run_poisson(problem, [solver], conditions)
    except NotEnoughMemory as error:
        return EMPTY_ROW | {"unknowns": None, "reason": f"out of memory: {error}"}
    (row,) = document["results"]
    machine = {name: document["machine"][name] for name in ("cpu", "versions")}
    return row | {"unknowns": document["problem"]["unknowns"], "machine": machine}


def hopeless(found: RowFile, place: Row, timeout: float) -> Row | None:
    """A row without numbers where the solver has run out of this time on a smaller grid already."""
    others = {name: place[name] for name in KEY if name != "cells"}
    for row in found.rows:
        if (
            all(row[name] == value for name, value in others.items())
            and row["cells"] < place["cells"]
            and row["reason"].startswith("timeout")
            and row["timeout_s"] >= timeout
        ):
            reason = f"timeout: not begun, since it was over {row['timeout_s']:g} s at {row['cells']}"
            return EMPTY_ROW | {"unknowns": None, "reason": reason}
    return None


if __name__ == "__main__":
    sys.exit(main())
