"""The deep conjugate direction method, algorithm 1 of

A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran: A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems, ICML 2023.  With r the residual and f the network, each iteration is ::

    d     = f(r / |r|)
    d    -= (d, A d_j) / (d_j, A d_j) d_j     for the last m directions d_j
    alpha = (r, d) / (d, A d)
    x    += alpha d
    r    -= alpha A d

A is symmetric, positive or negative (semi)definite.  A proposal of f is replaced by the residual itself if it
is not finite, zero, orthogonal to r or within the span of the last directions; with f = 1 and m = 1 this is
the method of conjugate gradients.
"""

from __future__ import annotations

from collections import deque
from math import isfinite, sqrt
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from consolve.solvers.petsc import events
from consolve.solvers.petsc.versions import PETSc, dot_products

SMALLEST_COSINE = 1e-10
"""Between the residual and a proposal: under it a proposal points nowhere."""
SMALLEST_PART = 1e-20
"""Squared energy norm of a direction over that of what was removed from it: under it nothing is left."""
SMALLEST_SIZE = 1e-100
"""Norm of a proposal under which, and over whose inverse, squares of its entries may be out of range."""

Reason = PETSc.KSP.ConvergedReason


class Direction(NamedTuple):
    """A direction d, its product A d, (d, A d), and (r, d) with the residual as it was."""

    d: PETSc.Vec
    Ad: PETSc.Vec
    dAd: float
    rd: float


class Breakdown(Exception):
    """No direction can be made; carries the reason to give."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


class Vectors(Protocol):
    """Work vectors."""

    def borrow(self, like: PETSc.Vec) -> PETSc.Vec:
        """One of the layout of another."""

    def keep(self, *vectors: PETSc.Vec) -> None:
        """Take them back."""


class ConjugateDirections:
    """The state of the iteration for A x = b, and its steps.

    Parameters
    ----------
    A
        The matrix.
    f
        The network; None: f = 1, conjugate gradients.
    x, r
        The iterate and its residual b - A x; both are changed.
    m
        Directions kept.
    null_space
        Of A, or None.
    sign
        1 or -1 where A is thought positive or negative definite; the first direction that tells decides.
    vectors
        Work vectors.

    Attributes
    ----------
    fallbacks, refusals
        Iterations along the residual, and those of them in which a proposal was no direction.
    """

    def __init__(
        self,
        A: PETSc.Mat,
        f: PETSc.PC | None,
        x: PETSc.Vec,
        r: PETSc.Vec,
        m: int,
        null_space: PETSc.NullSpace | None,
        sign: int,
        vectors: Vectors,
    ) -> None:
        self.A, self.f, self.x, self.r, self.m = A, f, x, r, m
        self.null_space, self.sign, self.vectors = null_space, sign, vectors
        self.is_sign_known = False
        self.unit = vectors.borrow(r)
        self.window: deque[Direction] = deque()  # newest first
        self.fallbacks = self.refusals = 0

    def step(self, norm: float) -> float:
        """One iteration from a residual of this norm; returns the norm of the next.

        Raises
        ------
        Breakdown
            If there is no direction: A is not definite, or a product is not finite.
        """
        new = self.direction(norm)
        alpha = new.rd / new.dAd
        self.x.axpy(alpha, new.d)
        self.r.axpy(-alpha, new.Ad)
        self.window.appendleft(new)
        while len(self.window) > self.m:
            oldest = self.window.pop()
            self.vectors.keep(oldest.d, oldest.Ad)
        return float(self.r.norm())

    def compute_residual(self, b: PETSc.Vec, x_is_zero: bool = False) -> float:
        """r = b - A x, without its part in the null space; returns its norm."""
        if x_is_zero:
            b.copy(self.r)
        else:
            self.A.mult(self.x, self.r)
            self.r.aypx(-1.0, b)
        if self.null_space is not None:
            self.null_space.remove(self.r)
        return float(self.r.norm())

    def direction(self, norm: float) -> Direction:
        """The next direction: the network's if it is of use, else the residual's."""
        d, Ad = self.vectors.borrow(self.r), self.vectors.borrow(self.r)
        self.unit.axpby(1 / norm, 0.0, self.r)
        negative: float | None = None
        if self.f is not None:
            self.f.apply(self.unit, d)
            cosine, overlaps = self.look_at(d)
            if abs(cosine) > SMALLEST_COSINE:
                new, removed = self.orthogonalise(d, Ad, overlaps)
                energy = self.sign * new.dAd
                if energy > SMALLEST_PART * removed and isfinite(energy):
                    self.is_sign_known = True
                    return new
                negative = energy / d.dot(d) if energy < 0 else None
        self.unit.copy(d)
        new, _ = self.orthogonalise(d, Ad, dot_products(d, [old.Ad for old in self.window]))
        energy = self.sign * new.dAd
        if energy < 0 and not self.is_sign_known and isfinite(energy):
            self.sign, self.is_sign_known = -self.sign, True  # A is of the other sign: both directions say so
            self.vectors.keep(d, Ad)
            return self.direction(norm)
        self.fallbacks += 1
        self.refusals += self.f is not None
        if energy > 0 and isfinite(energy):
            if negative is None or negative > -1e-8 * energy / d.dot(d):
                self.is_sign_known = True
                return new
        self.vectors.keep(d, Ad)
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
        d.dotBegin(Ad)  # two products, one reduction
        self.r.dotBegin(d)
        return Direction(d, Ad, d.dotEnd(Ad), self.r.dotEnd(d)), removed


def usable_size(d: PETSc.Vec, norm: float) -> float:
    """``norm`` of d, its largest entry instead if squares are out of range; 0 if d cannot be scaled by it."""
    if not SMALLEST_SIZE < norm < 1 / SMALLEST_SIZE:
        norm = d.norm(PETSc.NormType.NORM_INFINITY)
    return norm if isfinite(norm) and norm > 0 else 0.0
