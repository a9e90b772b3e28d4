"""``consolve bench flow``: the pressure projections of one flow through several solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from consolve.bench.poisson import Conditions, Document, Progress, machine, run_solver
from consolve.bench.roster import Solver

EMPTY_ROW: dict[str, Any] = {
    "iterations_mean": None,
    "iterations_max": None,
    "setup_s": None,
    "solve_s": None,
    "total_s": None,
    "relative_residual": None,
    "divergence_max": None,
    "reason": "",
    "peak_memory_mb": None,
    "first_use_s": None,
}


@dataclass(frozen=True)
class FlowProblem:
    """A run of a scene; ``cells`` is the NumPy shape of the grid, slowest axis (height) first."""

    scene: str
    dim: int
    cells: tuple[int, ...]
    steps: int
    seed: int = 0
    rtol: float = 1e-6

    def as_json(self, unknowns: int | None = None) -> dict[str, Any]:
        """As the document shows it: ``cells`` is NX, NY[, NZ], as on the command line."""
        return asdict(self) | {"cells": list(self.cells[::-1]), "unknowns": unknowns}


def run_flow(
    problem: FlowProblem,
    solvers: Sequence[Solver],
    conditions: Conditions,
    while_waiting: Callable[[], None] = lambda: None,
    on_start: Progress = lambda name: None,
    on_result: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Document:
    """The document of the benchmark, as of :func:`consolve.bench.poisson.run_poisson`.

    Each row sums set-ups and solves over all steps.  ``setup_s`` holds one set-up for each time that the
    geometry changed (``setups``); assembling the matrix is apart (``assembly_s``).
    """
    task = {"task": "flow", "problem": asdict(problem) | {"cells": list(problem.cells)}}
    results: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    unknowns = None
    for solver in solvers:
        on_start(solver.name)
        if solver.own_task:
            row = {"solver": solver.name} | EMPTY_ROW | {"reason": "for single systems, not for flows"}
        elif solver.deflation:
            row = {"solver": solver.name} | EMPTY_ROW | {"reason": "deflated solvers are for single systems"}
        else:
            row, facts = run_solver(
                task, solver, problem.dim, problem.rtol, EMPTY_ROW, conditions, while_waiting
            )
            versions = facts.get("versions", versions)
            unknowns = facts.get("unknowns", unknowns)
        results.append(row)
        on_result(row)
    return {
        "problem": problem.as_json(unknowns),
        "machine": machine(conditions.cores, versions),
        "results": results,
    }
