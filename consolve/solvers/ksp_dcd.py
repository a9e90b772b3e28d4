"""KSP ``dcd``: the deep conjugate direction method.

A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran: A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems, ICML 2023, algorithm 1.  Solves A x = b for a symmetric positive
(semi)definite A with any preconditioner, nonlinear ones included: with r the residual and f the
preconditioner, each iteration is ::

    d     = f(r / |r|)
    d    -= (d, A d_j) / (d_j, A d_j) d_j     for the last m directions d_j
    alpha = (r, d) / (d, A d)
    x    += alpha d
    r    -= alpha A d

For a symmetric linear f and m >= 1 it is the preconditioned conjugate gradient method.

==========================  =======  ==================================================================
option                      default  meaning
==========================  =======  ==================================================================
-ksp_dcd_directions M       2        earlier directions that a new one is made A-orthogonal to
-ksp_dcd_true_residual_every N  50   iterations between recomputations of b - A x (0: never; it is always
                                     recomputed before convergence is declared)
==========================  =======  ==================================================================
"""

from __future__ import annotations

from collections import deque
from math import isfinite
from typing import NamedTuple

from consolve.solvers import live_contexts
from consolve.solvers.errors import OptionError
from consolve.solvers.petsc import PETSc, options_of, reported, support_only_true_residual
from consolve.solvers.safeguard import Safeguard, Step

SMALLEST_COSINE = 1e-10
"""Between the residual and a proposal: under it a proposal points nowhere."""
SMALLEST_PART = 1e-20
"""Squared energy norm of a direction over that of what was removed from it: under it nothing is left."""

Reason = PETSc.KSP.ConvergedReason


class Direction(NamedTuple):
    """A direction d, its product A d, (d, A d) and |A d|."""

    d: PETSc.Vec
    Ad: PETSc.Vec
    dAd: float
    size: float


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
    directions, true_residual_every
        As the options ``-ksp_dcd_*``.
    fallbacks
        Iterations of the last solve that used the residual in place of a proposal.
    """

    def __init__(self) -> None:
        self.directions = 2
        self.true_residual_every = 50
        self.fallbacks = 0
        self._trials = 0
        self._spare: list[PETSc.Vec] = []

    @reported
    def create(self, ksp: PETSc.KSP) -> None:
        live_contexts.add(self, "KSP", ksp)
        support_only_true_residual(ksp)

    @reported
    def destroy(self, ksp: PETSc.KSP) -> None:
        live_contexts.discard(self)
        self._spare.clear()

    @reported
    def reset(self, ksp: PETSc.KSP) -> None:
        self._spare.clear()

    @reported
    def setFromOptions(self, ksp: PETSc.KSP) -> None:
        options = options_of(ksp)
        for name, least in (("directions", 1), ("true_residual_every", 0)):
            text = options.getString(f"ksp_dcd_{name}", str(getattr(self, name)))
            if not text.isdigit() or int(text) < least:
                raise OptionError(f"-ksp_dcd_{name} {text!r}: expected a whole number, {least} or more")
            setattr(self, name, int(text))

    @reported
    def solveTranspose(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        raise NotImplementedError(
            "KSP dcd is for symmetric matrices: KSPSolve solves the transposed system too"
        )

    @reported
    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        solver = _Solve(self, ksp, b, x)
        try:
            solver.run()
        finally:
            self.fallbacks, self._trials = solver.fallbacks, solver.safeguard.trials
            solver.give_back()

    @reported
    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        if viewer.getType() != "ascii":
            return
        every = self.true_residual_every or "the end only"
        viewer.printfASCII(f"  directions kept {self.directions}, true residual every {every}\n")
        viewer.printfASCII(
            f"  last solve: {self.fallbacks} iterations along the residual, {self._trials} trials of CG\n"
        )

    def borrow(self, like: PETSc.Vec) -> PETSc.Vec:
        """A work vector, kept between solves."""
        return self._spare.pop() if self._spare else like.duplicate()

    def keep(self, *vectors: PETSc.Vec) -> None:
        """Take work vectors back."""
        self._spare.extend(vectors)


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
        self.fallbacks = 0

    def give_back(self) -> None:
        self.forget_directions()
        self.context.keep(self.r, self.unit)

    def run(self) -> None:
        ksp, every = self.ksp, self.context.true_residual_every
        self.compute_residual(x_is_zero=not ksp.getInitialGuessNonzero())
        norm, exact = self.r.norm(), True
        self.safeguard.start(norm)
        for k in range(ksp.max_it + 1):
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
            alpha = self.r.dot(new.d) / new.dAd
            self.x.axpy(alpha, new.d)
            self.r.axpy(-alpha, new.Ad)
            self.remember(new)
            exact = bool(every) and (k + 1) % every == 0
            if exact:
                self.compute_residual()
            norm = self.r.norm()
            if self.safeguard.after(step._replace(residual_norm=norm)):
                self.forget_directions()
        ksp.setConvergedReason(reason)

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
        self.r.copy(self.unit)
        self.unit.scale(1 / norm)
        negative: float | None = None
        if self.safeguard.trusting:
            self.f.apply(self.unit, d)
            cosine = self.cosine(d)
            if abs(cosine) > SMALLEST_COSINE:
                dAd, removed, older = self.orthogonalise(d, Ad)
                if dAd > SMALLEST_PART * removed and isfinite(dAd):
                    is_new = abs(cosine) < 1 - 1e-12
                    return Direction(d, Ad, dAd, Ad.norm()), Step(0.0, is_new, older / abs(cosine))
                negative = dAd / d.dot(d) if dAd < 0 else None
        self.fallbacks += 1
        self.unit.copy(d)
        dAd, removed, _ = self.orthogonalise(d, Ad)
        if dAd > 0 and isfinite(dAd):
            curvature = dAd / d.dot(d)
            if negative is None or negative > -1e-8 * curvature:
                return Direction(d, Ad, dAd, Ad.norm()), Step(0.0, False, 0.0)
        self.context.keep(d, Ad)
        if not isfinite(dAd):
            raise Breakdown(Reason.DIVERGED_NANORINF)
        raise Breakdown(Reason.DIVERGED_BREAKDOWN if dAd == 0 else Reason.DIVERGED_INDEFINITE_MAT)

    def cosine(self, d: PETSc.Vec) -> float:
        """Of the angle between r and a proposal, less its null-space part; 0 if that is no direction."""
        size = d.norm()
        if not (isfinite(size) and size > 0):
            return 0.0
        d.scale(1 / size)
        if self.null_space is not None:
            self.null_space.remove(d)
            rest = d.norm()
            if not rest > SMALLEST_COSINE:
                return 0.0
            d.scale(1 / rest)
        cosine = self.unit.dot(d)
        return cosine if isfinite(cosine) else 0.0

    def orthogonalise(self, d: PETSc.Vec, Ad: PETSc.Vec) -> tuple[float, float, float]:
        """Make d A-orthogonal to the window, and Ad = A d.

        Returns
        -------
        (d, A d), the squared energy norm of what was removed, and the largest cosine between the unit vector
        d, as it came, and an A d_j other than the newest.
        """
        removed = older = 0.0
        for age, (d_j, Ad_j, dAd_j, size_j) in enumerate(self.window):
            beta = d.dot(Ad_j) / dAd_j
            d.axpy(-beta, d_j)
            removed += beta * beta * dAd_j
            if age:
                older = max(older, abs(beta) * dAd_j / size_j)
        self.A.mult(d, Ad)
        return d.dot(Ad), removed, older

    def remember(self, new: Direction) -> None:
        self.window.appendleft(new)
        while len(self.window) > self.context.directions:
            oldest = self.window.pop()
            self.context.keep(oldest.d, oldest.Ad)

    def forget_directions(self) -> None:
        while self.window:
            oldest = self.window.pop()
            self.context.keep(oldest.d, oldest.Ad)
