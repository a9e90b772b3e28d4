"""The flow task of a benchmark process: every pressure projection of a flow through one solver.

With several ranks each of them steps the whole flow alike, and shares in the solves; only these are timed.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from consolve.bench.measure import reset_peak, resident_mb
from consolve.bench.timing import judged, largest, memory, reason_name, true_residual
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.scenes import make_scene
from consolve.pde.poisson.grid import GridOperator
from consolve.solvers.pressure import assemble_matrix


def flow(task: dict[str, Any]) -> dict[str, Any]:
    """Iterations and seconds of the projections of ``steps`` time steps."""
    problem = task["problem"]
    baseline = resident_mb()
    simulation = Flow(make_scene(problem["scene"], tuple(problem["cells"]), problem["seed"]))
    projection = TimedProjection(problem["rtol"])
    with_flow = resident_mb()
    reset_peak()
    divergence = 0.0
    start = time.perf_counter()
    for _ in range(problem["steps"]):
        report = simulation.step(projection)
        divergence = max(divergence, report.divergence_after)
    flow_s = largest(time.perf_counter() - start)
    iterations = projection.iterations
    return {
        "iterations_mean": float(np.mean(iterations)),
        "iterations_max": max(iterations),
        "iterations": iterations,
        "assembly_s": projection.assembly_s,
        "setup_s": projection.setup_s,
        "setups": projection.setups,
        "solve_s": projection.solve_s,
        "total_s": projection.setup_s + projection.solve_s,
        "flow_s": flow_s,
        "relative_residual": projection.worst_residual,
        "divergence_max": divergence,
        "reason": projection.reason,
        "unknowns": simulation.operator.unknowns,
        **memory(baseline, with_flow),
    }


class TimedProjection:
    """A pressure solver for :class:`~consolve.pde.flow.flow.Flow` that times its set-ups and solves.

    The KSP is kept; the matrix is assembled and the preconditioner set up again when the operator changes.
    """

    def __init__(self, rtol: float) -> None:
        self.rtol = rtol
        self.assembly_s = self.setup_s = self.solve_s = self.worst_residual = 0.0
        self.setups = 0
        self.iterations: list[int] = []
        self.reason = "CONVERGED_RTOL"
        self._operator: GridOperator | None = None
        self._A: PETSc.Mat | None = None
        self._ksp = _new_ksp()

    def __call__(self, operator: GridOperator, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pressure on all cells, gathered on every rank."""
        if operator is not self._operator:
            self._set_operator(operator)
        b, x = self._b, self._x
        low, high = b.getOwnershipRange()
        b.array = rhs.ravel()[operator.cells[low:high]]
        x.set(0)
        self._ksp.comm.barrier()
        start = time.perf_counter()
        self._ksp.solve(b, x)
        self.solve_s += largest(time.perf_counter() - start)
        self.iterations.append(self._ksp.getIterationNumber())
        self._judge(b, x)
        self._gather.scatter(x, self._whole)
        pressure = np.zeros(operator.shape)
        pressure.ravel()[operator.cells] = self._whole.array_r
        return pressure

    def _set_operator(self, operator: GridOperator) -> None:
        start = time.perf_counter()
        A = assemble_matrix(operator, PETSc.COMM_WORLD)
        # A KSP takes no matrix of another size, and GAMG none that gives it coarse levels of another size.
        begins_anew = self._A is not None and (
            A.getSizes() != self._A.getSizes() or self._ksp.getPC().getType() == "gamg"
        )
        self._A = A
        self._x, self._b = A.createVecs()
        self._gather, self._whole = PETSc.Scatter.toAll(self._x)
        self._operator = operator
        self.assembly_s += largest(time.perf_counter() - start)
        A.comm.barrier()
        start = time.perf_counter()
        if begins_anew:
            self._ksp.destroy()
            self._ksp = _new_ksp()
        self._ksp.setOperators(A)
        self._ksp.setUp()
        self._ksp.setUpOnBlocks()
        self.setup_s += largest(time.perf_counter() - start)
        self.setups += 1

    def _judge(self, b: PETSc.Vec, x: PETSc.Vec) -> None:
        if b.norm() == 0:
            return
        residual = true_residual(self._A, b, x)
        self.worst_residual = max(self.worst_residual, residual)
        reason = judged(reason_name(self._ksp.getConvergedReason()), residual, self.rtol)
        if reason.startswith("DIVERGED") or "," in reason:
            self.reason = f"{reason} (projection {len(self.iterations)})"


def _new_ksp() -> PETSc.KSP:
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setFromOptions()
    return ksp
