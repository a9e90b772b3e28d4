"""The tables of the README: iterations and time of every solver on unseen domains, all in one run on an idle
machine.

    python benchmarks/tables.py iterations          counts over sizes, domains and right-hand sides (ours
    only) python benchmarks/tables.py time                time against all peers at 1024^2 and 128^3 python
    benchmarks/tables.py hard                maze, plates, channels and the like, however bad

Each writes benchmarks/results/NAME.json and prints a Markdown table.
"""

from __future__ import annotations

import os
import sys
from itertools import product
from pathlib import Path

from consolve.bench import result_file
from consolve.bench.poisson import Conditions, PoissonProblem, run_poisson
from consolve.bench.roster import find_solver

RESULTS = Path(__file__).parent / "results"
CORES = os.cpu_count() or 1
SEED = 7
SIZES = {2: (512, 1024), 3: (64, 128)}
DOMAINS = ("box", "spheres", "boxes", "free-surface", "rotor", "closed-spheres")
HARD = ("porous", "plates", "maze", "channels", "two-phase")


def run(
    dim: int, n: int, domain: str, rhs: str, solvers: tuple[str, ...], repeat: int = 1, timeout: float = 600
) -> dict:
    """One document of ``consolve bench poisson``."""
    problem = PoissonProblem(dim, (n,) * dim, domain, SEED, rhs, 1e-6)
    conditions = Conditions(cores=CORES, repeat=repeat, timeout=timeout)
    return run_poisson(problem, [find_solver(s) for s in solvers], conditions)


def iterations() -> list[dict]:
    """Counts of cg, mg and cnn over dimensions, sizes, domains and right-hand sides."""
    documents = []
    for dim in (2, 3):
        print(f"\n| {dim}D domain | rhs | " + " | ".join(f"{n}^{dim} mg / cnn" for n in SIZES[dim]) + " |")
        print("|---|---|" + "---|" * len(SIZES[dim]))
        for domain, rhs in product(DOMAINS, ("noise", "divergence")):
            row = []
            for n in SIZES[dim]:
                document = run(dim, n, domain, rhs, ("mg", "cnn"))
                documents.append(document)
                row.append(" / ".join(str(r["iterations"]) for r in document["results"]))
            print(f"| {domain} | {rhs} | " + " | ".join(row) + " |", flush=True)
    return documents


def _time_table(document: dict) -> None:
    p = document["problem"]
    print(f"\n{p['domain']}, {' x '.join(map(str, p['cells']))}, {p['rhs']}, {p['unknowns']:,} unknowns")
    print("\n| solver | iterations | setup s | solve s | total s | true residual | memory MiB |")
    print("|---|---|---|---|---|---|---|")
    for r in document["results"]:
        if r["total_s"] is None:
            print(f"| {r['solver']} | | | | | {r['reason']} | |")
            continue
        times = f"{r['setup_s']:.3f} | {r['solve_s']:.3f} | {r['total_s']:.3f}"
        memory = f"{r['peak_memory_mb']:.0f}"
        print(f"| {r['solver']} | {r['iterations']} | {times} | {r['relative_residual']:.1e} | {memory} |")
    sys.stdout.flush()


def time() -> list[dict]:
    """Time of every solver at 1024^2 and 128^3."""
    documents = []
    for dim, n, domain in ((2, 1024, "spheres"), (3, 128, "spheres"), (3, 128, "free-surface")):
        solvers = ("cg", "icc", "gamg", "hypre", "mg", "cnn", "dcd")
        documents.append(run(dim, n, domain, "noise", solvers, repeat=3))
        _time_table(documents[-1])
    return documents


def large() -> list[dict]:
    """Sixteen million cells."""
    documents = []
    for dim, n in ((2, 4096), (3, 256)):
        documents.append(run(dim, n, "spheres", "noise", ("hypre", "mg", "cnn")))
        _time_table(documents[-1])
    return documents


def hard() -> list[dict]:
    """The domains on which one unknown per coarse cell is not enough."""
    documents = []
    for dim, n in ((2, 256), (3, 64)):
        for domain in HARD:
            documents.append(run(dim, n, domain, "noise", ("cg", "hypre", "mg", "cnn"), timeout=60))
            _time_table(documents[-1])
    return documents


def main() -> int:
    """Run the parts named on the command line."""
    parts = {"iterations": iterations, "time": time, "large": large, "hard": hard}
    names = sys.argv[1:] or list(parts)
    unknown = [name for name in names if name not in parts]
    if unknown:
        print(f"unknown part {unknown[0]!r}; known: {', '.join(parts)}", file=sys.stderr)
        return 2
    for name in names:
        result_file.write(RESULTS / f"{name}.json", parts[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
