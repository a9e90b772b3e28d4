"""How far down single precision inside a float64 Krylov method carries, and what breaks first.

    python benchmarks/precision.py                                   a few minutes
    python benchmarks/precision.py --dim 3 --cells 64 --solver dcd --rtol 1e-8 1e-12
    python benchmarks/precision.py --report                          the tables of what there is

Each system is solved to falling tolerances by a fresh KSP from zero, on one rank with all threads; the true
residual is computed anew from the matrix.  No solver brings |b - A x| under about eps |A| |x| in float64,
the rounding of A x itself: the floor that each table names.  `hypre`, in float64 throughout, stands beside
ours.  Rows go to benchmarks/results/precision.json one by one; the tables to docs/speed.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from dcdm_report import write_into
from dcdm_sizes import database
from numpy.typing import NDArray
from row_file import RowFile
from scaling_report import short, systems

RESULTS = Path(__file__).parent / "results" / "precision.json"
DOCS = Path(__file__).parent.parent / "docs"
SIZES = {2: 1024, 3: 128}
SYSTEMS = (("spheres", "noise"), ("box", "noise"), ("box", "smooth"))
SOLVERS = ("cnn", "dcd", "hypre")
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
KEY = ("solver", "dim", "cells", "domain", "rhs", "seed", "rtol")
SEED = 7
MOST_ITERATIONS = 100
PACE = 1.5
"""Iterations a decimal that are so many times those to the first tolerance are called slower."""
Row = dict[str, Any]


def main() -> int:
    """Measure and report; 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--dim", type=int, choices=(2, 3), action="append", help="default both")
    add("--cells", type=int, help="on each axis; default 1024 in 2D, 128 in 3D")
    add("--solver", action="append", help=f"of the roster; default {', '.join(SOLVERS)}")
    add("--rtol", type=float, nargs="+", default=TOLERANCES, help="default 1e-4 to 1e-14")
    add("--seed", type=int, default=SEED, help="of domains and right-hand sides")
    add("--again", action="store_true", help="measure rows anew that are there already")
    add("--report", action="store_true", help="measure nothing")
    add("--out", type=Path, default=RESULTS, help="JSON of results")
    add("--docs", type=Path, default=DOCS, help="folder of speed.md")
    add("--no-docs", action="store_true", help="print only")
    chosen = parser.parse_args()
    try:
        found = RowFile(chosen.out, KEY)
    except ValueError as error:
        print(f"precision.py: {error}", file=sys.stderr)
        return 2
    code = 0
    if not chosen.report:
        try:
            for row in rows(chosen, found):
                found.put(row)
                print(" ".join(str(row[name]) for name in KEY), verdict(row), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"interrupted: what is done is in {chosen.out}", file=sys.stderr)
            code = 130
    if found.rows:
        text = tables(found.rows)
        print(text)
        if not chosen.no_docs:
            write_into(chosen.docs / "speed.md", text, "precision")
    return code


def rows(chosen: argparse.Namespace, found: RowFile) -> Iterator[Row]:
    """One row a system, solver and tolerance."""
    import petsc4py

    petsc4py.init(["consolve"])
    from petsc4py import PETSc

    import consolve.solvers  # noqa: F401  (registers -pc_type cnn and -ksp_type dcd)
    from consolve.bench.roster import find_solver
    from consolve.pde.poisson.domains import make_domain
    from consolve.solvers.pressure import assemble_matrix

    for dim in chosen.dim or (2, 3):
        n = chosen.cells or SIZES[dim]
        for domain, kind in SYSTEMS:
            place = {"dim": dim, "cells": n, "domain": domain, "rhs": kind, "seed": chosen.seed}
            wanted = [
                {"solver": solver, "rtol": rtol} | place
                for solver in chosen.solver or SOLVERS
                for rtol in sorted(chosen.rtol, reverse=True)
            ]
            wanted = [key for key in wanted if chosen.again or found.find(**key) is None]
            if not wanted:
                continue
            operator = make_domain(domain, (n,) * dim, chosen.seed).operator()
            A = assemble_matrix(operator, PETSc.COMM_SELF)
            x, b = A.createVecs()
            b.array = right_hand_side_of(kind, operator, chosen.seed).ravel()[operator.cells]
            for key in wanted:
                yield key | solve(A, b, x, find_solver(key["solver"]).options(dim, 1), key["rtol"])
            for thing in (A, x, b):
                thing.destroy()


def right_hand_side_of(kind: str, operator: Any, seed: int) -> NDArray[np.float64]:
    """``smooth``: products of half waves along the axes; else of the package's own kinds."""
    from consolve.pde.poisson.right_hand_sides import right_hand_side

    if kind != "smooth":
        return right_hand_side(kind, operator, seed)
    b = np.ones(operator.shape)
    for axis, n in enumerate(operator.shape):
        wave = np.cos(np.pi * (axis + 1) * (np.arange(n) + 0.5) / n)
        b *= wave.reshape([-1 if a == axis else 1 for a in range(operator.ndim)])
    return operator.remove_null_space(b)


def solve(A: Any, b: Any, x: Any, options: dict[str, str], rtol: float) -> Row:
    """One solve: what the KSP says, and what is so."""
    from petsc4py import PETSc

    from consolve.bench.roster import stopping_options
    from consolve.bench.timing import timed_solve, true_residual

    given = stopping_options(rtol) | {"ksp_max_it": str(MOST_ITERATIONS)} | options
    with database(given):
        row, watch = timed_solve(A, b, x)
    size = b.norm()
    norm = A.norm(PETSc.NormType.NORM_INFINITY)
    return row | {
        "true_residual": true_residual(A, b, x),
        "claimed_residual": watch.norms[-1] / size if watch.norms else None,
        "floor": float(np.finfo(np.float64).eps / 2 * norm * x.norm() / size),
    }


def holds(row: Row) -> bool:
    """The tolerance is met by the true residual, and the solver says so."""
    from consolve.bench.timing import SLACK

    return (
        row["reason"].startswith("CONVERGED")
        and row["true_residual"] is not None
        and row["true_residual"] <= SLACK * row["rtol"]
    )


def verdict(row: Row) -> str:
    """In a word: held; or what went wrong."""
    if holds(row):
        return "held"
    under = ", under the floor of float64" if row["rtol"] < row["floor"] else ""
    if row["reason"].startswith("CONVERGED"):
        return f"claimed, but the true residual is {row['true_residual']:.1e}{under}"
    return f"{row['reason']}{under}"


def tables(found: Sequence[Row]) -> str:
    """Markdown: a table for each system, and what breaks first."""
    blocks = []
    for here in systems(found, "dim", "cells", "domain", "rhs", "seed"):
        first = here[0]
        floor = max(row["floor"] for row in here if row["floor"] is not None)
        power = "²" if first["dim"] == 2 else "³"
        names = list(dict.fromkeys(row["solver"] for row in here))
        lines = [
            f"{first['cells']}{power}, {first['domain']}, {first['rhs']} right-hand side; floor of float64 "
            f"about {floor:.0e}",
            "",
            "| rtol | " + " | ".join(f"{name}: iterations, true residual" for name in names) + " |",
            "|---:|" + "---|" * len(names),
        ]
        for rtol in sorted({row["rtol"] for row in here}, reverse=True):
            cells = []
            for name in names:
                row = next((r for r in here if (r["solver"], r["rtol"]) == (name, rtol)), None)
                cells.append("" if row is None else cell(row))
            lines.append(f"| {short(rtol)} | " + " | ".join(cells) + " |")
        lines += ["", *(f"- {name}: {breaks([r for r in here if r['solver'] == name])}" for name in names)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def cell(row: Row) -> str:
    """Iterations and residual; the reason where it did not hold."""
    residual = "" if row["true_residual"] is None else f", {row['true_residual']:.1e}"
    return f"{row['iterations']}{residual}" + ("" if holds(row) else f" ({row['reason']})")


def breaks(own: Sequence[Row]) -> str:
    """What goes first as the tolerance falls: the pace of the iterations, or the residual."""
    ordered = sorted(own, key=lambda row: -row["rtol"])
    pace = None
    said = []
    for row in ordered:
        if not holds(row):
            said.append(f"at {short(row['rtol'])} {verdict(row)}")
            break
        each = row["iterations"] / -np.log10(row["rtol"])
        pace = pace or each
        if each > PACE * pace and not said:
            said.append(
                f"from {short(row['rtol'])} on slower, {each:.2f} iterations a decimal after {pace:.2f}"
            )
    return "; ".join(said) or f"holds down to {short(ordered[-1]['rtol'])}"


if __name__ == "__main__":
    sys.exit(main())
