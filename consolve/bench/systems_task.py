"""The task of a benchmark process that solves systems from files: each once, down to several tolerances."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from petsc4py import PETSc

from consolve.bench.captured import System, read_systems
from consolve.bench.deflation import deflate
from consolve.bench.measure import peak_mb, reset_peak
from consolve.bench.timing import (
    SLACK,
    Stopwatch,
    judged,
    largest,
    relative,
    timed_solve,
    total,
    true_residual,
)
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.right_hand_sides import right_hand_side
from consolve.solvers.pressure import assemble_matrix

Task = dict[str, Any]


def systems(task: Task) -> dict[str, Any]:
    """The systems of ``task["files"]`` by the KSP that the options name, from zero initial guesses.

    ``task["problem"]["tolerances"]`` fall; the options hold the last.  One solve serves them all: ``reached``
    says at which iteration, and after how many seconds, the true residual went under each.  A solve ends
    after ``limit_s``; where ``budget_s`` runs out, the systems left are not begun.
    """
    problem = task["problem"]
    tolerances = [float(t) for t in problem["tolerances"]]
    if tolerances != sorted(tolerances, reverse=True):
        raise ValueError(f"tolerances must fall, got {tolerances}")
    begun = time.perf_counter()
    rows: list[dict[str, Any]] = []
    operator: GridOperator | None = None
    for file, system in _systems(task):
        elapsed = time.perf_counter() - begun
        if task.get("budget_s") and rows and total(elapsed) / PETSc.COMM_WORLD.size > task["budget_s"]:
            rows.append({"file": file, "frame": system.frame, "reason": "not begun: out of time"})
            continue
        if system.operator is not operator:
            operator = system.operator
            A = assemble_matrix(operator, PETSc.COMM_WORLD)
            x, b = A.createVecs()
        low, high = b.getOwnershipRange()
        b.array = system.rhs.ravel()[operator.cells[low:high]]
        row = solve_captured(task, A, b, x, operator, tolerances)
        rows.append({"file": file, "frame": system.frame} | row)
    return {"systems": rows}


def _systems(task: Task) -> Iterator[tuple[str, System]]:
    """Those of the files, or for the warm-up of a process one of a small box."""
    if task.get("files") is None:
        domain = make_domain("spheres", tuple(task["problem"]["cells"]))
        operator = domain.operator()
        yield "", System(1, operator, right_hand_side("noise", operator, 0))
        return
    frames = task.get("frames")
    for file in task["files"]:
        for system in read_systems(file):
            if frames is None or system.frame in frames:
                yield file, system


def solve_captured(
    task: Task,
    A: PETSc.Mat,
    b: PETSc.Vec,
    x: PETSc.Vec,
    operator: GridOperator,
    tolerances: Sequence[float],
) -> dict[str, Any]:
    """The best of ``repeat`` set-ups and solves of one system, by the KSP that the options name."""
    kind = task.get("deflation")
    prepare = partial(deflate, kind=kind, b=b, shape=operator.shape, cells=operator.cells) if kind else None
    size = b.norm()
    best: dict[str, Any] = {}
    for _ in range(task["repeat"]):
        reset_peak()
        watch = Crossings(A, b, tolerances, task.get("limit_s"))
        row, _ = timed_solve(A, b, x, watch, prepare)
        row["matvecs"] -= watch.looks
        if not best or row["total_s"] < best["total_s"]:
            reached = {
                repr(t): {"iterations": i, "solve_s": s, "relative_residual": r}
                for t, (i, s, r) in watch.reached.items()
            }
            best = row | {"reached": reached}
            if watch.is_late and row["reason"] == "DIVERGED_MAX_IT":
                best["reason"] = f"DIVERGED_MAX_IT: ended after {task['limit_s']:g} s"
            if task["history"]:
                best["history"] = {"residual": relative(watch.norms, size), "seconds": watch.seconds}
    residual = true_residual(A, b, x)
    return best | {
        "relative_residual": residual,
        "reason": judged(best["reason"], residual, tolerances[-1]),
        "unknowns": operator.unknowns,
        "peak_memory_mb": total(peak_mb()),
    }


class Crossings(Stopwatch):
    """A stopwatch that notes when the true residual first went under each of several tolerances.

    It looks at the true residual once the solver's own norm is under a tolerance, and stands still meanwhile.

    Parameters
    ----------
    A, b
        The system.
    tolerances
        Falling.
    limit_s
        Seconds after which the iteration is ended as if at its last; None for no limit.

    Attributes
    ----------
    reached
        For each tolerance reached: iteration, seconds since the start, and the true relative residual.
    looks
        Matrix products spent on looking.
    is_late
        The limit was met.
    """

    def __init__(
        self, A: PETSc.Mat, b: PETSc.Vec, tolerances: Sequence[float], limit_s: float | None = None
    ) -> None:
        super().__init__()
        self.limit_s, self.is_late = limit_s, False
        self.A, self.b, self.size = A, b, b.norm()
        self.waiting = list(tolerances)
        self.reached: dict[float, tuple[int, float, float]] = {}
        self.looks = 0

    def __call__(self, ksp: PETSc.KSP, iteration: int, norm: float) -> None:
        super().__call__(ksp, iteration, norm)
        arrived = time.perf_counter()
        if self.limit_s is not None and largest(self.seconds[-1]) > self.limit_s:
            ksp.max_it = iteration
            self.is_late = True
        if not self.waiting or norm > self.waiting[0] * self.size:
            return
        residual = true_residual(self.A, self.b, ksp.buildSolution())
        self.looks += 1
        while self.waiting and residual <= SLACK * self.waiting[0]:
            self.reached[self.waiting.pop(0)] = (iteration, self.seconds[-1], residual)
        self.start += time.perf_counter() - arrived
