"""The experiment of the deep conjugate direction paper: pressure systems of two running flows, each solved by
every solver from a zero guess.

    python benchmarks/dcdm.py
    python benchmarks/dcdm.py --dim 2 --cells 64 --solver cg --solver dcdm --model dcdm=my.h5
    python benchmarks/dcdm.py --report

A smoke plume in an empty box, and one past a body from a mesh file, in 2D and 3D, run with the default
solver; the systems of chosen frames (time steps) are kept.  Then each solver solves them in processes of its
own, on all cores in its own best way, once down to the last tolerance; the tolerances before it are noted on
the way, by the true residual.  Adds to ``benchmarks/results/dcdm.json`` (a row replaces an older one of the
same solver and problem), writes ``docs/dcdm-*.png`` and the tables of ``docs/dcdm-experiment.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import dcdm_report
import dcdm_scenes

from consolve.bench import result_file
from consolve.bench.captured import capture, read_systems
from consolve.bench.launch import WorkerError, run_worker
from consolve.bench.poisson import machine
from consolve.bench.roster import SOLVERS, Solver, find_solver, stopping_options

RESULTS = Path(__file__).parent / "results" / "dcdm.json"
DOCS = Path(__file__).parent.parent / "docs"
SOLVER_NAMES = ("cg", "icc", "dpcg", "dpcg-ritz", "dcdm", "dcdm-deep", "dcd", "cnn", "hypre")
NETWORKS = ("dcdm", "dcdm-deep")
SIZES = {2: (64, 128, 256), 3: (64, 128)}
FRAMES = {2: (10, 50, 120), 3: (5, 15, 30)}
TOLERANCES = (1e-4, 1e-6)
LARGE = 1_000_000


@dataclass(frozen=True)
class Case:
    """Systems of one flow: the scene on a grid of n^dim cells."""

    dim: int
    n: int
    scene: str

    @property
    def name(self) -> str:
        """For file names and tables."""
        return f"{self.scene}-{self.dim}d-{self.n}"


def main() -> int:
    """Run what the command line asks for; 2 for wrong usage."""
    chosen = arguments()
    document = result_file.read(chosen.out) if chosen.out.exists() else {"cases": []}
    if not chosen.report:
        try:
            cases, solvers = cases_of(chosen), solvers_of(chosen)
        except (ValueError, dcdm_scenes.MissingMesh) as error:
            print(f"dcdm.py: {error}", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="consolve-dcdm-") as temporary:
            folder = chosen.systems or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            for (dim, n), scenes in groupby(cases, key=lambda case: (case.dim, case.n)):
                paths = {case: systems_of(case, chosen, folder) for case in scenes}
                parts = {case: part_of(document, case, path, chosen) for case, path in paths.items()}
                for solver in solvers[dim]:
                    say(f"{n}^{dim}: {solver.name}")
                    for case, row in measure(paths, solver, chosen).items():
                        keep(parts[case], row)
                    dcdm_report.drop_histories(document["cases"])
                    result_file.write(chosen.out, document)
    text = dcdm_report.tables(document)
    print(text)
    if not chosen.no_docs and document["cases"]:
        dcdm_report.write_into(chosen.docs / "dcdm-experiment.md", text)
        dcdm_report.pictures(document, chosen.docs)
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dim", type=int, choices=(2, 3), action="append", help="default both")
    add(
        "--cells", type=int, action="append", help="N, for each --dim given; default 64 128 256 in 2D, 64 128"
    )
    add("--scene", choices=dcdm_scenes.SCENES, action="append", help="default both")
    add("--solver", action="append", help=f"default {' '.join(SOLVER_NAMES)}; or 'LABEL=PETSC OPTIONS'")
    add("--model", action="append", default=[], metavar="NAME=FILE",
        help="weights of dcdm, dcdm-deep or a further solver of this name; once a dimension")  # fmt: skip
    add("--frames", type=int, nargs="+", help="time steps; default 10 50 120 in 2D, 5 15 30 in 3D")
    add("--network-frames", type=int, default=1,
        help=f"last frames that DCDM networks solve over {LARGE:,} cells (default 1)")  # fmt: skip
    add("--network-iterations", type=int, default=500, help="bound of DCDM networks (default 500)")
    add("--network-seconds", type=float, default=240, help="the same for each solve (default 240)")
    add("--tolerance", type=float, nargs="+", default=TOLERANCES, help="falling; default 1e-4 1e-6")
    add("--mesh", type=Path, help="of the body; default the bunny of pymeshfix")
    add("--mesh-up", type=int, choices=(0, 1, 2), default=2, help="axis of the file that points up")
    add("--cores", type=int, default=os.cpu_count() or 1)
    add("--repeat", type=int, default=1, help="set-ups and solves of each system; the fastest counts")
    add("--timeout", type=float, default=900, help="seconds for a solver on one grid (default 900)")
    add("--systems", type=Path, help="folder that keeps the systems for further runs")
    add("--out", type=Path, default=RESULTS, help="JSON of results")
    add("--docs", type=Path, default=DOCS, help="folder of tables and plots")
    add("--no-docs", action="store_true", help="print the tables only")
    add(
        "--report",
        action="store_true",
        help="measure nothing: tables and plots of the results that there are",
    )
    return parser.parse_args()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def cases_of(chosen: argparse.Namespace) -> list[Case]:
    """The flows asked for; a body that cannot be read is an error before any work."""
    dims = chosen.dim or [2, 3]
    scenes = chosen.scene or list(dcdm_scenes.SCENES)
    if "body" in scenes:
        dcdm_scenes.body(chosen.mesh or dcdm_scenes.bunny(), chosen.mesh_up, 3)
    if list(chosen.tolerance) != sorted(chosen.tolerance, reverse=True):
        raise ValueError(f"tolerances must fall, got {chosen.tolerance}")
    return [Case(d, n, scene) for d in dims for n in chosen.cells or SIZES[d] for scene in scenes]


def solvers_of(chosen: argparse.Namespace) -> dict[int, list[Solver]]:
    """Solvers for each dimension; one whose weights are not there is left out, with a line that says so."""
    files: dict[str, list[str]] = {}
    for text in chosen.model:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ValueError(f"--model {text!r}: expected NAME=FILE.h5")
        files.setdefault(name, []).append(file)
    names = list(chosen.solver or SOLVER_NAMES)
    names += [name for name in files if name not in names]
    solvers: dict[int, list[Solver]] = {}
    for dim in chosen.dim or [2, 3]:
        solvers[dim] = []
        for name in names:
            if name in files or name in NETWORKS:
                solver = network(name, files.get(name, [name]), dim)
            else:
                solver = find_solver(name)
            if solver is not None:
                solvers[dim].append(solver)
    return solvers


def network(name: str, sources: Sequence[str], dim: int) -> Solver | None:
    """A solver with the first of the weights that are for this dimension."""
    from consolve.learned.dcdm.format import load_dcdm_weights
    from consolve.learned.weights.file import WeightsError

    reasons = []
    for source in sources:
        try:
            load_dcdm_weights(source, dim)
        except (WeightsError, OSError) as error:
            reasons.append(str(error))
            continue
        return replace(SOLVERS["dcdm"], name=name, options=partial(with_model, source))
    say(f"{name} is left out in {dim}D: {'; '.join(reasons)}")
    return None


def with_model(source: str, ndim: int, ranks: int) -> dict[str, str]:
    """Options of the solver dcdm with other weights."""
    return SOLVERS["dcdm"].options(ndim, ranks) | {"pc_cnn_model": source}


def systems_of(case: Case, chosen: argparse.Namespace, folder: Path) -> Path:
    """The file of a flow's systems; it is kept from an earlier run if that had the same frames."""
    from consolve.solvers.pressure import PressureSolver

    frames = tuple(chosen.frames or FRAMES[case.dim])
    mesh = f"-{chosen.mesh.stem}" if chosen.mesh and case.scene == "body" else ""
    path = folder / f"{case.name}{mesh}-{'-'.join(map(str, frames))}.npz"
    if path.exists():
        return path
    say(f"{case.name}: the flow, {max(frames)} steps")
    scene = dcdm_scenes.make(case.scene, case.dim, case.n, chosen.mesh, chosen.mesh_up)
    flow = capture(scene, frames, PressureSolver(), path)
    if case.scene == "body" and not chosen.no_docs:
        from consolve.pde.flow.picture import save_picture

        save_picture(flow, chosen.docs / f"dcdm-body-{case.dim}d.png", pixels=480)
    return path


def part_of(document: dict[str, Any], case: Case, path: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The document's part of a case; begun anew if frames or tolerances are others than before."""
    systems = list(read_systems(path))
    head = {
        "name": case.name,
        "dim": case.dim,
        "cells": case.n,
        "scene": case.scene,
        "unknowns": systems[-1].operator.unknowns,
        "frames": [system.frame for system in systems],
        "tolerances": [repr(t) for t in chosen.tolerance],
    }
    for part in document["cases"]:
        if part["name"] == case.name:
            if {name: part[name] for name in head} != head:
                part.clear()
                part.update(head, results=[])
            return part
    document["cases"].append(head | {"results": []})
    document["cases"].sort(
        key=lambda part: (part["dim"], dcdm_scenes.SCENES.index(part["scene"]), part["cells"])
    )
    return next(part for part in document["cases"] if part["name"] == case.name)


def keep(part: dict[str, Any], row: dict[str, Any]) -> None:
    """Put a row into its part, in place of an older one of the same solver."""
    part["results"] = [old for old in part["results"] if old["solver"] != row["solver"]] + [row]
    order = {name: number for number, name in enumerate(SOLVER_NAMES)}
    part["results"].sort(key=lambda r: order.get(r["solver"], len(order)))


def measure(
    paths: dict[Case, Path], solver: Solver, chosen: argparse.Namespace
) -> dict[Case, dict[str, Any]]:
    """One row for each case, all on one grid: a solver on the systems of the flows, in one process."""
    dim, n = next((case.dim, case.n) for case in paths)
    ranks, threads = (1, chosen.cores) if solver.one_rank else (chosen.cores, 1)
    options = stopping_options(chosen.tolerance[-1]) | solver.options(dim, ranks)
    frames = sorted(chosen.frames or FRAMES[dim])
    limit = None
    if solver.one_rank:
        options["ksp_max_it"] = str(chosen.network_iterations)
        limit = chosen.network_seconds
        if n**dim > LARGE:
            frames = frames[-chosen.network_frames :]
    task: dict[str, Any] = {
        "task": "systems",
        "problem": {"dim": dim, "cells": [n] * dim, "tolerances": list(chosen.tolerance)},
        "files": [str(path) for path in paths.values()],
        "frames": frames,
        "options": options,
        "deflation": solver.deflation,
        "ranks": ranks,
        "threads": threads,
        "repeat": chosen.repeat,
        "history": True,
        "limit_s": limit,
        "budget_s": chosen.timeout / 2,
    }
    head: dict[str, Any] = {
        "solver": solver.name,
        "options": " ".join(f"-{name} {value}" for name, value in solver.options(dim, ranks).items()),
        "ranks": ranks,
        "threads": threads,
    }
    try:
        result = run_worker(task, ranks=ranks, threads=threads, timeout=chosen.timeout)
    except WorkerError as error:
        say(f"  {error}")
        return {case: head | {"reason": str(error), "systems": []} for case in paths}
    head |= {"machine": machine(chosen.cores, result["versions"]), "first_use_s": result["first_use_s"]}
    rows = {case: head | {"systems": []} for case in paths}
    case_of = {str(path): case for case, path in paths.items()}
    for system in result["systems"]:
        case = case_of[system.pop("file")]
        history = system.pop("history", None)
        if history and system["frame"] == frames[-1]:
            system["history"] = [float(f"{value:.4g}") for value in history["residual"]]
        rows[case]["systems"].append(system)
    return rows


if __name__ == "__main__":
    sys.exit(main())
