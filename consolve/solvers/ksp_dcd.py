"""KSP ``dcd``: the deep conjugate direction method.

A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran: A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems, ICML 2023, algorithm 1.  Solves A x = b for a symmetric, positive or
negative (semi)definite A with any preconditioner, nonlinear ones included: with r the residual and f the
preconditioner, each iteration is ::

    d     = f(r / |r|)
    d    -= (d, A d_j) / (d_j, A d_j) d_j     for the last m directions d_j
    alpha = (r, d) / (d, A d)
    x    += alpha d
    r    -= alpha A d

For a symmetric linear f and m >= 1 it is the preconditioned conjugate gradient method.  Where f is PC ``cnn``
with a multilevel network, on one rank, and the matrix is that of an image of fluid, solid and air, the same
iteration (with m = 1) runs in grid space, its products and updates within the sweeps of the network: see
``consolve.learned.multilevel.engine.grid_directions``.  The residual that ends a solve is the matrix's own
in either case.

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

from collections import deque
from math import isfinite, nan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consolve.base.options_table import DCD
from consolve.learned.multilevel.engine.grid_iteration import iterate
from consolve.solvers.grid_route import GridRoute, GridSystem
from consolve.solvers.pc_cnn import PCCNN
from consolve.solvers.petsc import events, live_contexts
from consolve.solvers.petsc.options import read_options
from consolve.solvers.petsc.versions import (
    PETSc,
    call,
    dot_products,
    handle,
    reported,
    support_only_true_residual,
)
from consolve.solvers.safeguard import Safeguard, Step

SMALLEST_COSINE = 1e-10
"""Between the residual and a proposal: under it a proposal points nowhere."""
SMALLEST_PART = 1e-20
"""Squared energy norm of a direction over that of what was removed from it: under it nothing is left."""
SMALLEST_SIZE = 1e-100
"""Norm of a proposal under which, and over whose inverse, squares of its entries may be out of range."""

Reason = PETSc.KSP.ConvergedReason


class Direction(NamedTuple):
    """A direction d, its product A d, (d, A d), |A d|, and (r, d) with the residual as it was."""

    d: PETSc.Vec
    Ad: PETSc.Vec
    dAd: float
    size: float
    rd: float


class Breakdown(Exception):
    """No direction can be made; carries the reason to give."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


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
        Those of them in which a proposal was no direction; in the others conjugate gradients were tried.
    trials
        Times that the last solve went over to conjugate gradients.
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
            self.fallbacks, self.refusals = solver.fallbacks, solver.refusals
            self.trials, self.sign = solver.safeguard.trials, solver.sign
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
            f"refused, {self.fallbacks - self.refusals} in {self.trials} trials of CG\n"
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
    """One solve: the iteration of the module's head, in its symbols."""

    def __init__(self, context: KSPDCD, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        self.context, self.ksp, self.b, self.x = context, ksp, b, x
        self.A, _ = ksp.getOperators()
        self.f = ksp.getPC()
        attached = self.A.getNullSpace()
        self.null_space = attached if attached else None
        self.r, self.unit = context.borrow(b), context.borrow(b)
        self.window: deque[Direction] = deque()  # newest first
        self.safeguard = Safeguard()
        self.fallbacks = self.refusals = self.grid_iterations = 0
        self.route: GridRoute | None = None
        self.sign = context.sign
        self.is_sign_known = False

    def run(self) -> None:
        self.compute_residual(x_is_zero=not self.ksp.getInitialGuessNonzero())
        norm, begin = self.r.norm(), 0
        self.route = _grid_route(self.ksp) if self.context.fused else None
        if self.route is not None and self.ksp.max_it > 0 and not self.test(0, norm):
            self.report(0, norm)
            most = self.ksp.max_it
            begin, norm, reason = iterate(GridSystem(self), norm, most, self.context.true_residual_every)
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
        self.safeguard.start(norm)
        for k in range(begin, ksp.max_it + 1):
            reason = self.test(k, norm)
            if reason > 0 and not exact:
                self.compute_residual()
                norm, exact = self.r.norm(), True
                reason = self.test(k, norm)
            self.report(k, norm)
            if not reason and k == ksp.max_it:
                reason = Reason.DIVERGED_MAX_IT
            if reason:
                break
            try:
                new, step = self.direction(norm)
            except Breakdown as breakdown:
                reason = breakdown.reason
                break
            alpha = new.rd / new.dAd
            self.x.axpy(alpha, new.d)
            self.r.axpy(-alpha, new.Ad)
            self.remember(new)
            exact = bool(every) and (k + 1) % every == 0
            if exact:
                self.compute_residual()
            norm = self.r.norm()
            if self.safeguard.after(step._replace(residual_norm=norm)):
                self.forget_directions()
        return reason

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

    def compute_residual(self, x_is_zero: bool = False) -> None:
        """r = b - A x, without its part in the null space."""
        if x_is_zero:
            self.b.copy(self.r)
        else:
            self.A.mult(self.x, self.r)
            self.r.aypx(-1.0, self.b)
        if self.null_space is not None:
            self.null_space.remove(self.r)

    def direction(self, norm: float) -> tuple[Direction, Step]:
        """The next direction: the preconditioner's if it is of use, else the residual's."""
        d, Ad = self.context.borrow(self.r), self.context.borrow(self.r)
        self.unit.axpby(1 / norm, 0.0, self.r)
        negative: float | None = None
        if self.safeguard.trusting:
            self.f.apply(self.unit, d)
            cosine, overlaps = self.look_at(d)
            if abs(cosine) > SMALLEST_COSINE:
                new, removed = self.orthogonalise(d, Ad, overlaps)
                energy = self.sign * new.dAd
                if energy > SMALLEST_PART * removed and isfinite(energy):
                    is_new = abs(cosine) < 1 - 1e-12
                    self.is_sign_known = True
                    return new, Step(0.0, is_new, self.asymmetry(overlaps) / abs(cosine))
                negative = energy / d.dot(d) if energy < 0 else None
        self.unit.copy(d)
        new, _ = self.orthogonalise(d, Ad, dot_products(d, [old.Ad for old in self.window]))
        energy = self.sign * new.dAd
        if energy < 0 and not self.is_sign_known and isfinite(energy):
            self.sign, self.is_sign_known = -self.sign, True  # A is of the other sign: both directions say so
            self.context.keep(d, Ad)
            return self.direction(norm)
        self.fallbacks += 1
        self.refusals += self.safeguard.trusting
        if energy > 0 and isfinite(energy):
            if negative is None or negative > -1e-8 * energy / d.dot(d):
                self.is_sign_known = True
                return new, Step(0.0, False, 0.0)
        self.context.keep(d, Ad)
        if not isfinite(energy):
            raise Breakdown(Reason.DIVERGED_NANORINF)
        raise Breakdown(Reason.DIVERGED_BREAKDOWN if energy == 0 else Reason.DIVERGED_INDEFINITE_MAT)

    def look_at(self, d: PETSc.Vec) -> tuple[float, NDArray[np.float64]]:
        """Scale a proposal to unit size, less its null-space part.

        Returns
        -------
        The cosine of its angle to r, 0 if it is no direction; (d, A d_j) for each direction of the window.
        All come from one reduction over the ranks, on a singular system from three.
        """
        none = 0.0, np.empty(0)
        smallest = 0.0
        if self.null_space is not None:
            size = usable_size(d, d.norm())
            if size == 0:
                return none
            d.scale(1 / size)
            self.null_space.remove(d)
            smallest = SMALLEST_COSINE
        others = [d, self.unit, *(old.Ad for old in self.window)]
        square, *products = dot_products(d, others)
        if smallest == 0 and not SMALLEST_SIZE**2 < square < SMALLEST_SIZE**-2:
            size = usable_size(d, sqrt(square) if square > 0 else square)
            if size == 0:
                return none
            d.scale(1 / size)
            square, *products = dot_products(d, others)
        if not (isfinite(square) and square > smallest**2):
            return none
        size = sqrt(square)
        d.scale(1 / size)
        cosine, *overlaps = np.array(products) / size
        return (float(cosine), np.array(overlaps)) if isfinite(cosine) else none

    def orthogonalise(
        self, d: PETSc.Vec, Ad: PETSc.Vec, overlaps: NDArray[np.float64]
    ) -> tuple[Direction, float]:
        """Make d A-orthogonal to the window, and Ad = A d.

        The window's directions are A-orthogonal to each other, so that one pass removes all parts.

        Parameters
        ----------
        overlaps
            (d, A d_j) for each direction of the window.

        Returns
        -------
        The direction, and the squared energy norm of what was removed from it.
        """
        removed = 0.0
        if self.window:
            with events.DCD_ORTHOGONALISATION:
                energies = np.array([old.dAd for old in self.window])
                beta = overlaps / energies
                d.maxpy(-beta, [old.d for old in self.window])
                removed = abs(float(beta @ (beta * energies)))
        self.A.mult(d, Ad)
        d.dotBegin(Ad)  # three products, one reduction
        self.r.dotBegin(d)
        Ad.dotBegin(Ad)
        dAd, rd, square = d.dotEnd(Ad), self.r.dotEnd(d), Ad.dotEnd(Ad)
        return Direction(d, Ad, dAd, sqrt(square) if square >= 0 else nan, rd), removed

    def asymmetry(self, overlaps: NDArray[np.float64]) -> float:
        """Largest cosine between the unit proposal, as it came, and an A d_j other than the newest."""
        sizes = np.array([old.size for old in self.window])
        return float((np.abs(overlaps) / sizes)[1:].max(initial=0.0))

    def remember(self, new: Direction) -> None:
        self.window.appendleft(new)
        while len(self.window) > self.context.directions:
            oldest = self.window.pop()
            self.context.keep(oldest.d, oldest.Ad)

    def forget_directions(self) -> None:
        while self.window:
            oldest = self.window.pop()
            self.context.keep(oldest.d, oldest.Ad)


def usable_size(d: PETSc.Vec, norm: float) -> float:
    """``norm`` of d, its largest entry instead if squares are out of range; 0 if d cannot be scaled by it."""
    if not SMALLEST_SIZE < norm < 1 / SMALLEST_SIZE:
        norm = d.norm(PETSc.NormType.NORM_INFINITY)
    return norm if isfinite(norm) and norm > 0 else 0.0


def _grid_route(ksp: PETSc.KSP) -> GridRoute | None:
    """The route of a KSP whose PC is a multilevel network of the very matrix that is solved; else None."""
    pc = ksp.getPC()
    if pc.comm.size > 1 or pc.getType() not in ("cnn", "python"):
        return None
    context = pc.getPythonContext()
    return context.grid_route(pc) if isinstance(context, PCCNN) else None
