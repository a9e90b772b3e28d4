"""Timing one PETSc solve over all ranks, and judging what it says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from petsc4py import PETSc

from consolve.bench.measure import peak_mb

SLACK = 1.01
"""A true residual up to this factor over the tolerance still counts: solvers test a recurrence for it."""


@dataclass
class Stopwatch:
    """Residual norms of one solve with the seconds at which each was known."""

    start: float = 0.0
    norms: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __call__(self, ksp: PETSc.KSP, iteration: int, norm: float) -> None:
        self.norms.append(norm)
        self.seconds.append(time.perf_counter() - self.start)


def timed_solve(
    A: PETSc.Mat,
    b: PETSc.Vec,
    x: PETSc.Vec,
    watch: Stopwatch | None = None,
    prepare: Callable[[PETSc.KSP], None] | None = None,
) -> tuple[dict[str, Any], Stopwatch]:
    """Set up a fresh KSP and solve from a zero guess; seconds are those of the slowest rank.

    ``prepare`` is called with the KSP before its set-up, as a part of it.
    """
    watch = watch or Stopwatch()
    ksp = PETSc.KSP().create(A.comm)
    ksp.setOperators(A)
    ksp.setFromOptions()
    ksp.setMonitor(watch)
    x.set(0)
    PETSc.Log.begin()
    A.comm.barrier()
    start = time.perf_counter()
    if prepare is not None:
        prepare(ksp)
    ksp.setUp()
    ksp.setUpOnBlocks()
    A.comm.barrier()
    watch.start = ready = time.perf_counter()
    products = _products()
    ksp.solve(b, x)
    end = time.perf_counter()
    setup_s, solve_s = largest(ready - start), largest(end - watch.start)
    row = {
        "iterations": ksp.getIterationNumber(),
        "setup_s": setup_s,
        "solve_s": solve_s,
        "total_s": setup_s + solve_s,
        "reason": reason_name(ksp.getConvergedReason()),
        "matvecs": _products() - products,
    }
    if ksp.getType() == "dcd":
        row["fallbacks"] = ksp.getPythonContext().fallbacks
    ksp.destroy()
    return row, watch


def true_residual(A: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec) -> float:
    """|b - A x| / |b| in float64, from the assembled matrix."""
    residual = b.duplicate()
    A.mult(x, residual)
    residual.aypx(-1, b)
    size = b.norm()
    return float(residual.norm() / size) if size else float(residual.norm())


def judged(reason: str, relative_residual: float, rtol: float) -> str:
    """The solver's reason, contradicted where the residual does not bear it out."""
    if reason.startswith("DIVERGED") or relative_residual <= SLACK * rtol:
        return reason
    return f"{reason}, but the true residual {relative_residual:.1e} is over the tolerance"


def reason_name(code: int) -> str:
    """PETSc's name of a converged reason."""
    for name, value in vars(PETSc.KSP.ConvergedReason).items():
        if value == code and name.startswith(("CONVERGED", "DIVERGED")):
            return name
    return f"reason {code}"


def relative(norms: list[float], scale: float) -> list[float]:
    """Residual norms over the norm of the right-hand side."""
    return [norm / (scale or 1) for norm in norms]


def memory(baseline: float, before_setup: float) -> dict[str, float]:
    """Memory of all ranks, MiB: the peak of set-up and solve, and what stood before."""
    return {
        "peak_memory_mb": total(max(peak_mb(), before_setup)),
        "baseline_memory_mb": total(baseline),
        "system_memory_mb": total(before_setup - baseline),
    }


def total(value: float) -> float:
    """Sum over ranks."""
    return _reduce(value).sum()


def largest(value: float) -> float:
    """Maximum over ranks."""
    return _reduce(value).max()[1]


def _reduce(value: float) -> PETSc.Vec:
    comm = PETSc.COMM_WORLD
    one_each = PETSc.Vec().createMPI((1, comm.size), comm=comm)
    one_each.array = value
    return one_each


def _products() -> int:
    return int(PETSc.Log.Event("MatMult").getPerfInfo()["count"])
