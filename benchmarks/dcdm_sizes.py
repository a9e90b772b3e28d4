"""Iterations and time against the size of the grid, for deep conjugate directions by several networks and CG.

    python benchmarks/dcdm_sizes.py
    python benchmarks/dcdm_sizes.py --dim 2 --model dcdm --model mine=my.h5 --domain spheres
    python benchmarks/dcdm_sizes.py --report

White-noise right-hand sides on the domains ``box`` and ``spheres`` of the gallery, of seeds that no training
has seen, from a zero guess; all in this process, networks on all threads, CG on one.  One solve goes down to
the last tolerance, those before it are noted on the way by the true residual.  Adds to
``benchmarks/results/dcdm_sizes.json`` (a row replaces an older one of the same solver and system), prints
Markdown, and writes ``docs/dcdm-sizes.png`` and its tables of ``docs/dcdm-experiment.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import dcdm_report
import numpy as np

from consolve.base.files import whole_file
from consolve.bench import plots, result_file
from consolve.bench.measure import cpu_model

RESULTS = Path(__file__).parent / "results" / "dcdm_sizes.json"
DOCS = Path(__file__).parent.parent / "docs"
SIZES = {2: (64, 128, 256, 512, 1024), 3: (32, 64, 128)}
MODELS = ("dcdm", "dcdm-image", "dcdm-deep")
PLAIN = ("cg", "dcd")
KEY = ("solver", "dim", "domain", "cells", "seed")
Row = dict[str, Any]


def main() -> int:
    """Run what the command line asks for; 2 for wrong usage."""
    chosen = arguments()
    document = result_file.read(chosen.out) if chosen.out.exists() else {"rows": []}
    if not chosen.report:
        try:
            models = models_of(chosen.model or MODELS)
        except ValueError as error:
            print(f"dcdm_sizes.py: {error}", file=sys.stderr)
            return 2
        document["machine"] = {"cpu": cpu_model(), "cores": os.cpu_count()}
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        for row in rows(chosen, models):
            document["rows"] = [r for r in document["rows"] if any(r[k] != row[k] for k in KEY)] + [row]
            result_file.write(chosen.out, document)
    text = tables(document["rows"])
    print(text)
    if not chosen.no_docs and document["rows"]:
        dcdm_report.write_into(chosen.docs / "dcdm-experiment.md", text, "sizes")
        picture(document["rows"], chosen.docs / "dcdm-sizes.png")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dim", type=int, choices=(2, 3), action="append", help="default both")
    add("--cells", type=int, nargs="+", help="N; default 64 to 1024 in 2D, 32 to 128 in 3D, by doubling")
    add("--domain", action="append", help="of the gallery; default box, spheres")
    add("--model", action="append", metavar="NAME[=FILE]",
        help="shipped name, or a name and its weights, once a dimension; default the shipped")  # fmt: skip
    add("--solver", action="append", choices=PLAIN, help="default both")
    add("--no-plain", action="store_true", help="networks only: leave out cg and dcd")
    add("--seed", type=int, nargs="+", default=[1001], help="of domains and right-hand sides (default 1001)")
    add("--tolerance", type=float, nargs="+", default=[1e-4, 1e-6], help="falling; default 1e-4 1e-6")
    add("--max-iterations", type=int, default=1000, help="of networks (default 1000)")
    add("--directions", type=int, help="-ksp_dcd_directions of networks (default 2)")
    add("--seconds", type=float, default=120, help="limit of each solve by a network (default 120)")
    add("--repeat", type=int, default=1, help="set-ups and solves; the fastest counts")
    add("--out", type=Path, default=RESULTS, help="JSON of results")
    add("--docs", type=Path, default=DOCS, help="folder of tables and plot")
    add("--no-docs", action="store_true", help="print the tables only")
    add(
        "--report", action="store_true", help="measure nothing: tables and plot of the results that there are"
    )
    return parser.parse_args()


def models_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """Weights by name: files, or the shipped name itself."""
    models: dict[str, list[str]] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not name or (equals and not file) or name in PLAIN:
            raise ValueError(
                f"--model {text!r}: expected NAME or NAME=FILE.h5, with another name than {PLAIN}"
            )
        models.setdefault(name, []).append(file or name)
    return models


def rows(chosen: argparse.Namespace, models: dict[str, list[str]]) -> Iterator[Row]:
    """One row a solver and system, small systems first."""
    import petsc4py

    petsc4py.init(["consolve"])
    from consolve.pde.poisson.domains import make_domain
    from consolve.pde.poisson.right_hand_sides import right_hand_side

    for dim in chosen.dim or [2, 3]:
        solvers = options_of(dim, models, [] if chosen.no_plain else chosen.solver or PLAIN)
        small = make_domain("spheres", (16,) * dim).operator()
        for name, options in solvers.items():  # loads libraries, compiles kernels
            solve(small, right_hand_side("noise", small, 0), options, name in models, chosen)
        for n in chosen.cells or SIZES[dim]:
            for domain in chosen.domain or ("box", "spheres"):
                for seed in chosen.seed:
                    operator = make_domain(domain, (n,) * dim, seed).operator()
                    rhs = right_hand_side("noise", operator, seed)
                    place = {"dim": dim, "domain": domain, "cells": n, "seed": seed}
                    for name, options in solvers.items():
                        row = {"solver": name} | place | solve(operator, rhs, options, name in models, chosen)
                        counts = [f"{t}: {found['iterations']}" for t, found in row["reached"].items()]
                        print(f"{n}^{dim} {domain} {name}: {', '.join(counts) or row['reason']}",
                              file=sys.stderr, flush=True)  # fmt: skip
                        yield row


def options_of(dim: int, models: dict[str, list[str]], plain: Sequence[str]) -> dict[str, dict[str, str]]:
    """PETSc options of each solver; a model without weights for this dimension is left out with a line."""
    from consolve.bench.roster import SOLVERS
    from consolve.learned.dcdm.format import load_dcdm_weights
    from consolve.learned.weights.file import WeightsError

    solvers = {name: SOLVERS[name].options(dim, 1) for name in plain}
    for name, sources in models.items():
        reasons = []
        for source in sources:
            try:
                load_dcdm_weights(source, dim)
            except (WeightsError, OSError) as error:
                reasons.append(str(error))
                continue
            solvers[name] = SOLVERS["dcdm"].options(dim, 1) | {"pc_cnn_model": source}
            break
        else:
            print(f"{name} is left out in {dim}D: {'; '.join(reasons)}", file=sys.stderr, flush=True)
    return solvers


def solve(
    operator: Any, rhs: np.ndarray, options: dict[str, str], bounded: bool, chosen: argparse.Namespace
) -> Row:
    """Iterations and seconds to each tolerance of one system, by a fresh KSP."""
    from petsc4py import PETSc

    import consolve.solvers  # noqa: F401  (registers -pc_type cnn and -ksp_type dcd)
    from consolve.bench.roster import stopping_options
    from consolve.bench.systems_task import solve_captured
    from consolve.solvers.pressure import assemble_matrix

    given = stopping_options(chosen.tolerance[-1]) | options
    if bounded:
        given["ksp_max_it"] = str(chosen.max_iterations)
        if chosen.directions:
            given["ksp_dcd_directions"] = str(chosen.directions)
    A = assemble_matrix(operator, PETSc.COMM_SELF)
    x, b = A.createVecs()
    b.array = rhs.ravel()[operator.cells]
    task = {"repeat": chosen.repeat, "history": False, "limit_s": chosen.seconds if bounded else None}
    with database(given):
        row = solve_captured(task, A, b, x, operator, chosen.tolerance)
    for thing in (A, x, b):
        thing.destroy()
    return row


@contextmanager
def database(options: dict[str, str]) -> Iterator[None]:
    """Options in PETSc's database for the time of a block."""
    from petsc4py import PETSc

    given = PETSc.Options()
    for name, value in options.items():
        given.setValue(name, value)
    try:
        yield
    finally:
        for name in options:
            given.delValue(name)


def tables(found: Sequence[Row]) -> str:
    """Markdown: for each dimension and domain, iterations and seconds by N."""
    if not found:
        return "No results yet: run `python benchmarks/dcdm_sizes.py`.\n"
    blocks = []
    for dim in sorted({row["dim"] for row in found}):
        for domain in dict.fromkeys(row["domain"] for row in found if row["dim"] == dim):
            here = [row for row in found if (row["dim"], row["domain"]) == (dim, domain)]
            sizes = sorted({row["cells"] for row in here})
            power = "²" if dim == 2 else "³"
            head = (
                f"| {domain} | {' | '.join(f'{n}{power}' for n in sizes)} |\n"
                + "|---|" * 1
                + "---|" * len(sizes)
            )
            for title, cell in (
                ("Iterations to {} of the true residual", iterations_cell),
                ("Seconds, set-up + solve to {}", seconds_cell),
            ):
                bounds = " / ".join(dcdm_report.short(t) for t in tolerances_of(here))
                lines = [title.format(bounds) + ":", "", head]
                for name in dict.fromkeys(row["solver"] for row in here):
                    own = [[r for r in here if (r["solver"], r["cells"]) == (name, n)] for n in sizes]
                    lines.append(f"| {name} | {' | '.join(cell(rs, tolerances_of(here)) for rs in own)} |")
                blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def tolerances_of(found: Sequence[Row]) -> list[str]:
    """All tolerances that some row has reached, falling."""
    return sorted({t for row in found for t in row["reached"]}, key=float, reverse=True)


def mean_of(found: Sequence[Row], tolerance: str, key: str) -> float | None:
    """Mean over seeds; None if there are none, or one did not get there."""
    if not found or any(tolerance not in row["reached"] for row in found):
        return None
    return float(np.mean([row["reached"][tolerance][key] for row in found]))


def iterations_cell(found: Sequence[Row], tolerances: Sequence[str]) -> str:
    if not found:
        return ""
    most = max(row["iterations"] for row in found)
    counts = [mean_of(found, t, "iterations") for t in tolerances]
    return " / ".join(f"over {most}" if count is None else f"{count:.0f}" for count in counts)


def seconds_cell(found: Sequence[Row], tolerances: Sequence[str]) -> str:
    if not found:
        return ""
    seconds = [mean_of(found, t, "solve_s") for t in tolerances]
    setup = np.mean([row["setup_s"] for row in found])
    return f"{setup:.3f} + " + " / ".join("–" if s is None else f"{s:.3f}" for s in seconds)


def picture(found: Sequence[Row], path: Path) -> None:
    """Iterations and seconds against N, a row of panels a dimension; what was not reached has no mark."""
    import matplotlib.pyplot as plt

    tolerance = tolerances_of(found)[0]
    dims = sorted({row["dim"] for row in found})
    names = list(dict.fromkeys(row["solver"] for row in found))
    domains = list(dict.fromkeys(row["domain"] for row in found))
    with plt.style.context(plots.STYLE):
        size = (10.4, 3.7 * len(dims))
        canvas, panels = plt.subplots(len(dims), 2, figsize=size, layout="constrained", squeeze=False)
        for dim, (iterations, seconds) in zip(dims, panels):
            sizes = sorted({row["cells"] for row in found if row["dim"] == dim})
            for number, name in enumerate(names):
                marker = plots.MARKERS.get(name, "o")
                style = plots.line_style(name, number) | {"linestyle": "-", "marker": marker, "ms": 5}
                for rank, domain in enumerate(domains):
                    own = {n: [r for r in found if key_of(r) == (name, dim, domain, n)] for n in sizes}
                    look = style if rank == 0 else style | {"linestyle": ":", "label": None, "mfc": "white"}
                    for panel, key, setup in ((iterations, "iterations", 0), (seconds, "solve_s", 1)):
                        values = {n: mean_of(rs, tolerance, key) for n, rs in own.items()}
                        points = [
                            (n, value + setup * float(np.mean([r["setup_s"] for r in own[n]])))
                            for n, value in values.items()
                            if value
                        ]
                        if points:
                            panel.loglog(*zip(*points), **look)
            for panel in (iterations, seconds):
                panel.set_xticks(sizes, [str(n) for n in sizes])
                panel.set_xticks([], minor=True)
                panel.set_xlabel(f"N, of N{'²' if dim == 2 else '³'} cells")
            iterations.set_ylabel(f"iterations to {dcdm_report.short(tolerance)}")
            seconds.set_ylabel("seconds, set-up + solve")
            iterations.set_title(f"{dim}D: {', dotted: '.join(domains[:2])}")
        handles, labels = {}, {}
        for panel in panels.ravel():
            for handle, label in zip(*panel.get_legend_handles_labels()):
                handles[label], labels[label] = handle, label
        canvas.legend(handles.values(), labels.values(), loc="outside right center", handlelength=1.8)
        with whole_file(path) as part:
            canvas.savefig(part)
        plt.close(canvas)


def key_of(row: Row) -> tuple[str, int, str, int]:
    return row["solver"], row["dim"], row["domain"], row["cells"]


if __name__ == "__main__":
    sys.exit(main())
