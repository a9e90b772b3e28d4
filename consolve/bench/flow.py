"""``consolve bench flow``: the pressure projections of one flow through several solvers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from consolve.bench.poisson import Conditions, Document, Progress, one_after_the_other, refused, run_solver
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

    def run(solver: Solver) -> tuple[dict[str, Any], dict[str, Any]]:
        if solver.own_task:
            return refused(solver, EMPTY_ROW, "for single systems, not for flows")
        if solver.deflation:
            return refused(solver, EMPTY_ROW, "deflated solvers are for single systems")
        return run_solver(task, solver, problem.dim, problem.rtol, EMPTY_ROW, conditions, while_waiting)

    return one_after_the_other(problem, solvers, conditions, run, on_start, on_result)
