"""KSP ``dcd``: the deep conjugate direction method (see ``consolve.solvers.dcd`` for the algorithm).

Solves A x = b for a symmetric, positive or negative (semi)definite A with any preconditioner f, nonlinear
ones included; for a symmetric linear f it is the preconditioned conjugate gradient method.  Where f is PC
``cnn`` with a multilevel network, on one rank, and the matrix is that of an image of fluid, solid and air,
the same iteration (with m = 1) runs in grid space, its products and updates within the sweeps of the
network: see ``consolve.learned.multilevel.engine.grid_directions``.  The residual that ends a solve is the
matrix's own in either case.

==============================  =======  ===========================================================
option                          default  meaning
==============================  =======  ===========================================================
-ksp_dcd_directions M           2        earlier directions that a new one is made A-orthogonal to
-ksp_dcd_true_residual_every N  50       iterations between recomputations of b - A x (0: only
                                         before convergence is declared)
-ksp_dcd_fused BOOL             true     with PC cnn on one rank: iterate in grid space where the
                                         matrix allows it
==============================  =======  ===========================================================
"""

from __future__ import annotations

from math import inf, isfinite

from consolve.base.options_table import DCD
from consolve.learned.dcdm.model import is_dcdm
from consolve.learned.multilevel.engine.grid_iteration import iterate
from consolve.solvers.dcd import Breakdown, ConjugateDirections
from consolve.solvers.grid_route import GivenUp, GridRoute, GridSystem
from consolve.solvers.pc_cnn import PCCNN
from consolve.solvers.petsc import events, live_contexts
from consolve.solvers.petsc.options import read_options
from consolve.solvers.petsc.reporting import reported
from consolve.solvers.petsc.versions import (
    PETSc,
    call,
    handle,
    support_only_true_residual,
)
from consolve.solvers.safeguard import Safeguard, Stagnation

MOST_DISAPPOINTMENTS = 3
"""Times in a row that the recurrence meets the tolerance and the residual computed anew has not halved."""

FOREIGN = ("cnn", "python", "shell", "composite", "ksp")
"""Types of preconditioners that may do anything; others are linear, and theory vouches for them."""

Reason = PETSc.KSP.ConvergedReason


class KSPDCD:
    """Python context of the KSP type ``dcd``.

    The norm tested is that of the true residual b - A x.  A direction that the preconditioner proposes is
    replaced by the residual if it is not finite, zero, orthogonal to the residual or within the span of the
    last directions; if proposals as a whole lead nowhere, see :class:`Safeguard`.  So the method converges
    where conjugate gradients do, with any preconditioner.

    Attributes
    ----------
    directions, true_residual_every, fused
        As the options ``-ksp_dcd_*``.
    sign
        1 or -1: A was positive or negative definite in the last solve.
    fallbacks
        Iterations of the last solve that used the residual in place of a proposal.
    refusals
        Those of them in which a proposal was no direction; the others are of conjugate gradients.
    trials
        Times that the last solve went over to conjugate gradients, or back.
    grid_iterations
        Iterations of the last solve in grid space.
    """

    def __init__(self) -> None:
        self.directions = 2
        self.true_residual_every = 50
        self.fused = True
        self.fallbacks = self.refusals = self.trials = self.grid_iterations = 0
        self.sign = 1
        self._running: _Solve | None = None
        self._work: list[PETSc.Vec] = []
        self._free: list[PETSc.Vec] = []

    @reported
    def create(self, ksp: PETSc.KSP) -> None:
        events.register()
        live_contexts.add("KSP", ksp)
        support_only_true_residual(ksp)

    @reported
    def destroy(self, ksp: PETSc.KSP) -> None:
        live_contexts.discard("KSP", ksp)
        self._release()

    @reported
    def reset(self, ksp: PETSc.KSP) -> None:
        self._release()

    def _release(self) -> None:
        self._free.clear()
        while self._work:
            self._work.pop().destroy()  # PETSc 3.18 would keep what Python alone lets go

    @reported
    def setFromOptions(self, ksp: PETSc.KSP) -> None:
        read_options(self, ksp, DCD, "KSP dcd")

    @reported
    def solveTranspose(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        raise NotImplementedError(
            "KSP dcd is for symmetric matrices: KSPSolve solves the transposed system too"
        )

    @reported
    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        solver = self._running = _Solve(self, ksp, b, x)
        try:
            solver.run()
        finally:
            self._running = None
            used = [s for s in (solver.state, solver.beside) if s is not None]
            self.fallbacks, self.refusals = sum(s.fallbacks for s in used), sum(s.refusals for s in used)
            self.trials, self.sign = solver.trials, solver.state.sign
            self.grid_iterations = solver.grid_iterations
            # The next solve takes each in the role that it had in this one: sums may depend on alignment.
            self._free = self._work[::-1]

    @reported
    def buildSolution(self, ksp: PETSc.KSP, v: PETSc.Vec) -> None:
        """For monitors: the iterate, which in grid space is only put together when it is asked for."""
        ksp.getSolution().copy(v)
        route = None if self._running is None else self._running.route
        if route is not None and route.is_ahead:
            route.add_to(v)

    @reported
    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        kind = viewer.getType()
        if kind == "string":
            text = f"directions {self.directions}".encode()
            call("PetscViewerStringSPrintf", handle(viewer), b" %s", text)
        if kind != "ascii":
            return
        every = self.true_residual_every or "the end only"
        viewer.printfASCII(f"  directions kept {self.directions}, true residual every {every}\n")
        viewer.printfASCII(
            f"  last solve: {self.fallbacks} iterations along the residual: {self.refusals} proposals "
            f"refused, {self.fallbacks - self.refusals} of conjugate gradients\n"
        )
        if self.grid_iterations:
            viewer.printfASCII(f"  last solve: {self.grid_iterations} iterations in grid space\n")

    def borrow(self, like: PETSc.Vec) -> PETSc.Vec:
        """A work vector, kept between solves."""
        if self._free:
            return self._free.pop()
        self._work.append(like.duplicate())
        return self._work[-1]

    def keep(self, *vectors: PETSc.Vec) -> None:
        """Take work vectors back before the end of a solve, which takes all."""
        self._free.extend(vectors)


class _Solve:
    """One solve: PETSc's tests and reports around the iteration."""

    def __init__(self, context: KSPDCD, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        self.context, self.ksp, self.b, self.x = context, ksp, b, x
        self.A, _ = ksp.getOperators()
        attached = self.A.getNullSpace()
        self.null_space = attached if attached else None
        self.r = context.borrow(b)
        self.state = self._method(ksp.getPC(), x, self.r, context.directions, context.sign)
        self.beside: ConjugateDirections | None = None  # of those that the solve went on with
        self.may_mislead = ksp.getPC().getType() in FOREIGN
        self.trials = self.grid_iterations = 0
        self.route: GridRoute | None = None
        self.cnn = _pc_cnn(ksp)
        self.stagnation = Stagnation(0, inf)

    def _method(
        self, f: PETSc.PC | None, x: PETSc.Vec, r: PETSc.Vec, m: int, sign: int
    ) -> ConjugateDirections:
        return ConjugateDirections(self.A, f, x, r, m, self.null_space, sign, self.context)

    def run(self) -> None:
        norm, begin = self.compute_residual(x_is_zero=not self.ksp.getInitialGuessNonzero()), 0
        self.stagnation = Stagnation(0, norm)
        self.route = _grid_route(self.ksp) if self.context.fused else None
        if self.route is not None and self.ksp.max_it > 0 and not self.test(0, norm):
            self.report(0, norm)
            most, first = self.ksp.max_it, norm
            system = GridSystem(self)
            try:
                begin, norm, reason = iterate(system, norm, most, self.context.true_residual_every)
                if begin == 0 and norm != first:
                    begin = 1  # rows without couplings alone; iteration 0 sets what tolerances refer to
            except GivenUp as given_up:
                begin, norm, reason = given_up.iteration, given_up.norm, 0
                if self.route.is_ahead:
                    norm = system.finish()
                self.taken_over()
            self.grid_iterations = begin
            if reason or begin == most:
                self.report(begin, norm)
                self.ksp.setConvergedReason(reason or Reason.DIVERGED_MAX_IT)
                return
        self.ksp.setConvergedReason(self.iterate(begin, norm))

    def iterate(self, begin: int, norm: float) -> int:
        """The iteration from number ``begin`` on, r being true and of norm ``norm``; returns the reason to
        stop."""
        ksp, exact, reason = self.ksp, True, 0
        every = self.context.true_residual_every
        safeguard, precision = Safeguard(norm, self._conjugate_gradients), Precision()
        for k in range(begin, ksp.max_it + 1):
            reason = self.test(k, norm)
            if reason > 0 and not exact:
                foretold, norm, exact = reason, self.compute_residual(), True
                reason = self.test(k, norm)
                if not reason and precision.is_reached(norm):
                    # Finite differences are no linear function of x: their recurrence is all that there is.
                    reason = foretold if self.A.getType() == "mffd" else Reason.DIVERGED_BREAKDOWN
            self.report(k, norm)
            if not reason and k == ksp.max_it:
                reason = Reason.DIVERGED_MAX_IT
            if reason:
                break
            if self.gives_up(k, norm):
                self.taken_over()
                norm, exact = self.compute_residual(), True
            try:
                norm = self.state.step(norm)
            except Breakdown as breakdown:
                reason = breakdown.reason
                break
            exact = bool(every) and (k + 1) % every == 0
            if exact:
                norm = self.compute_residual()
            ahead = safeguard.after(norm) if self.may_mislead else None
            if ahead is not None:
                safeguard.exchanged(self.state, norm)
                norm, exact = self._go_over(ahead), True
        return reason or Reason.DIVERGED_MAX_IT  # a monitor may have lowered the limit to less than begin

    def gives_up(self, k: int, norm: float) -> bool:
        """Whether another PC has just taken over from PC cnn, with which the solve gains little."""
        if self.cnn is None:
            return False
        why = self.stagnation.after(k, norm)
        return bool(why) and not is_dcdm(self.cnn.model) and self.cnn.give_up(self.ksp.getPC(), why)

    def taken_over(self) -> None:
        """Start anew from x and r, with a PC of PETSc."""
        self.state = self._method(self.ksp.getPC(), self.x, self.r, self.context.directions, self.state.sign)
        self.may_mislead = False

    def _conjugate_gradients(self) -> ConjugateDirections:
        """The same method from the same x and r without the network, on vectors of its own."""
        x, r = self.context.borrow(self.x), self.context.borrow(self.r)
        self.x.copy(x)
        self.r.copy(r)
        return self._method(None, x, r, 1, self.state.sign)

    def _go_over(self, ahead: ConjugateDirections) -> float:
        """Go on where the other method stands; returns the norm of the residual there."""
        self.trials += 1
        spare = self.context.borrow(self.x)
        self.x.copy(spare)
        ahead.x.copy(self.x)
        self.context.keep(ahead.x)
        self.state.x, ahead.x = spare, self.x
        self.beside, self.state = self.state, ahead
        return self.compute_residual()

    def compute_residual(self, x_is_zero: bool = False) -> float:
        """r = b - A x, without its part in the null space; returns its norm."""
        return self.state.compute_residual(self.b, x_is_zero)

    def test(self, k: int, norm: float) -> int:
        """PETSc's convergence test; a residual of 0 or NaN ends the solve whatever the test says."""
        if not isfinite(norm):
            return Reason.DIVERGED_NANORINF
        reason = self.ksp.callConvergenceTest(k, norm)
        return reason or (Reason.CONVERGED_ATOL if norm == 0 else 0)

    def report(self, k: int, norm: float) -> None:
        """Iteration number, residual norm, history and monitors; PETSc takes no NaN as a norm."""
        self.ksp.setIterationNumber(k)
        if norm == norm:
            self.ksp.setResidualNorm(norm)
            self.ksp.logConvergenceHistory(norm)
            self.ksp.monitor(k, norm)


class Precision:
    """Whether the residual has fallen as far as products with A are exact.

    The recurrence of r can meet a tolerance that b - A x never will.  Each time that it does, the residual
    computed anew is looked at: when it has not halved in ``MOST_DISAPPOINTMENTS`` such times, it will not.
    """

    def __init__(self) -> None:
        self._lowest, self._disappointments = inf, 0

    def is_reached(self, norm: float) -> bool:
        """Take note of a residual norm, computed anew, that fails the test which the recurrence met."""
        self._disappointments = 0 if norm <= 0.5 * self._lowest else self._disappointments + 1
        self._lowest = min(self._lowest, norm)
        return self._disappointments >= MOST_DISAPPOINTMENTS


def _grid_route(ksp: PETSc.KSP) -> GridRoute | None:
    """The route of a KSP whose PC is a multilevel network of the very matrix that is solved; else None."""
    context = None if ksp.comm.size > 1 else _pc_cnn(ksp)
    return None if context is None else context.grid_route(ksp.getPC())


def _pc_cnn(ksp: PETSc.KSP) -> PCCNN | None:
    """The context of its PC cnn, if it has one."""
    pc = ksp.getPC()
    context = pc.getPythonContext() if pc.getType() in ("cnn", "python") else None
    return context if isinstance(context, PCCNN) else None
