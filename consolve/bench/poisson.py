"""``consolve bench poisson``: one Poisson system through several solvers, each in processes of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from consolve.base.memory import NotEnoughMemory, require
from consolve.bench.launch import WorkerError, run_worker
from consolve.bench.measure import cpu_model
from consolve.bench.roster import Solver, stopping_options
from consolve.pde.poisson.grid import operator_bytes

Document = dict[str, Any]
Progress = Callable[[str], None]

EMPTY_ROW: dict[str, Any] = {
    "iterations": None,
    "setup_s": None,
    "solve_s": None,
    "total_s": None,
    "relative_residual": None,
    "reason": "",
    "matvecs": None,
    "peak_memory_mb": None,
    "baseline_memory_mb": None,
    "system_memory_mb": None,
    "first_use_s": None,
}


LEAST_FLUID = {"box": 1.0, "closed-box": 1.0, "two-phase": 1.0, "spheres": 0.8, "closed-spheres": 0.8}
"""Share of fluid cells, at least; 0.2 of domains that are not named."""


@dataclass(frozen=True)
class PoissonProblem:
    """A system by name; ``cells`` is the NumPy shape of the grid, slowest axis first."""

    dim: int
    cells: tuple[int, ...]
    domain: str = "box"
    seed: int = 0
    rhs: str = "noise"
    rtol: float = 1e-6

    def as_json(self, unknowns: int | None = None) -> dict[str, Any]:
        """As the document shows it: ``cells`` is NX, NY[, NZ], as on the command line."""
        return asdict(self) | {"cells": list(self.cells[::-1]), "unknowns": unknowns}


@dataclass(frozen=True)
class Conditions:
    """On what, how often and within which limits each solver runs.

    Attributes
    ----------
    cores
        Ranks of the solvers, threads of those that run on one rank.
    repeat
        Set-ups and solves; the fastest counts.
    repeat_within_s
        No repetition begins later than so many seconds after the first began; None for no limit.
    timeout, memory_limit_mb
        Limits of each solver: seconds, and MiB over all ranks.
    history
        Keep residual norms for plots.
    """

    cores: int = 1
    repeat: int = 1
    timeout: float | None = None
    memory_limit_mb: float | None = None
    history: bool = False
    repeat_within_s: float | None = None


def run_poisson(
    problem: PoissonProblem,
    solvers: Sequence[Solver],
    conditions: Conditions,
    while_waiting: Callable[[], None] = lambda: None,
    on_start: Progress = lambda name: None,
    on_result: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Document:
    """The document of the benchmark: problem, machine, one result a solver in the order given.

    A solver that fails, runs out of time or memory, or cannot solve this problem has a row with None for
    every number and why under ``reason``.

    Raises
    ------
    NotEnoughMemory
        If the system alone needs more memory than there is, with any of the solvers.
    """
    task = {"problem": asdict(problem) | {"cells": list(problem.cells)}}
    size = " x ".join(map(str, problem.cells[::-1]))
    needs = [system_bytes(problem, solver, conditions.cores) for solver in solvers]
    require(min(needs, default=0), f"a system of {size} cells")

    def run(solver: Solver) -> tuple[dict[str, Any], dict[str, Any]]:
        needed = system_bytes(problem, solver, conditions.cores)
        try:
            require(needed, f"its system, without the solver's own memory, on {_ranks(solver, conditions)},")
        except NotEnoughMemory as error:
            return refused(solver, EMPTY_ROW, f"out of memory: {error}")
        return run_solver(
            task | {"task": solver.own_task or "poisson"},
            solver, problem.dim, problem.rtol, EMPTY_ROW, conditions, while_waiting,
        )  # fmt: skip

    return one_after_the_other(problem, solvers, conditions, run, on_start, on_result)


def refused(solver: Solver, empty_row: dict[str, Any], reason: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Row and facts of a solver that is not run."""
    return {"solver": solver.name} | empty_row | {"reason": reason}, {}


def one_after_the_other(
    problem: Any,
    solvers: Sequence[Solver],
    conditions: Conditions,
    run: Callable[[Solver], tuple[dict[str, Any], dict[str, Any]]],
    on_start: Progress,
    on_result: Callable[[dict[str, Any]], None],
) -> Document:
    """The document of a benchmark whose solvers ``run`` runs; it returns row and facts, as `run_solver`."""
    results: list[dict[str, Any]] = []
    known: dict[str, Any] = {"versions": {}, "unknowns": None}
    for solver in solvers:
        on_start(solver.name)
        row, facts = run(solver)
        known |= facts
        results.append(row)
        on_result(row)
    return {
        "problem": problem.as_json(known["unknowns"]),
        "machine": machine(conditions.cores, known["versions"]),
        "results": results,
    }


def system_bytes(problem: PoissonProblem, solver: Solver, cores: int) -> int:
    """What the system of a benchmark takes at least, over all ranks, before any solver.

    Each rank makes the whole operator and right-hand side, and keeps its rows of the matrix: 12 bytes an
    entry and 4 a row, and two vectors.  How many cells are fluid is known exactly only once they are made.
    """
    cells, ranks = math.prod(problem.cells), 1 if solver.one_rank else cores
    whole = ranks * (operator_bytes(problem.cells) + 8 * cells)
    if solver.own_task:
        return whole
    entries = 2 * problem.dim + 1
    return whole + int(LEAST_FLUID.get(problem.domain, 0.2) * cells) * (12 * entries + 4 + 16)


def _ranks(solver: Solver, conditions: Conditions) -> str:
    return "one rank" if solver.one_rank or conditions.cores == 1 else f"{conditions.cores} ranks"


def run_solver(
    task: dict[str, Any],
    solver: Solver,
    dim: int,
    rtol: float,
    empty_row: dict[str, Any],
    conditions: Conditions,
    while_waiting: Callable[[], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One row of a document, and facts that belong elsewhere in it (versions, unknowns)."""
    ranks, threads = (1, conditions.cores) if solver.one_rank else (conditions.cores, 1)
    options = solver.options(dim, ranks)
    head = {"solver": solver.name}
    tail = {
        "ranks": ranks,
        "threads": threads,
        "options": " ".join(f"-{name} {value}".strip() for name, value in options.items()),
    }
    try:
        result = run_worker(
            task | {
                "options": stopping_options(rtol) | options,
                "deflation": solver.deflation,
                "ranks": ranks,
                "threads": threads,
                "repeat": conditions.repeat,
                "repeat_within_s": conditions.repeat_within_s,
                "history": conditions.history,
            },
            ranks=ranks,
            threads=threads,
            timeout=conditions.timeout,
            memory_limit_mb=conditions.memory_limit_mb,
            while_waiting=while_waiting,
        )  # fmt: skip
    except WorkerError as error:
        return head | empty_row | {"reason": str(error)} | tail, {}
    facts = {name: result.pop(name) for name in ("versions", "unknowns")}
    return head | empty_row | result | tail, facts


def machine(cores: int, versions: dict[str, str]) -> dict[str, Any]:
    """The ``machine`` part of a document; ``ranks`` and ``threads`` are the most that a solver had."""
    return {"threads": cores, "ranks": cores, "cpu": cpu_model(), "versions": versions}


def converged(row: dict[str, Any]) -> bool:
    """True if the solver reached the tolerance, by its true residual."""
    return row["relative_residual"] is not None and row["reason"] in CONVERGED


CONVERGED = ("CONVERGED_RTOL", "CONVERGED_ATOL", "DIRECT")
