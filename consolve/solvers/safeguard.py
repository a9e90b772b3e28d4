"""Plain conjugate gradients beside a network that is not worth listening to, and when to give it up."""

from __future__ import annotations

from collections.abc import Callable

from consolve.solvers.dcd import Breakdown, ConjugateDirections

HALVINGS = 10
"""Iterations, in each of which on average a network that is beyond doubt halves the residual norm."""
EVERY = 3
"""Iterations for each of conjugate gradients beside them."""
AHEAD = 0.5
"""Conjugate gradients take over when their residual norm is under this part of the network's."""
WINDOW, LITTLE, FLOOR = 20, 1e-2, 1e-6
"""A solve stagnates when so many iterations do not bring the residual norm to this part, unless it has come
near the end of precision: to ``FLOOR`` times the first."""


class Stagnation:
    """Sees a solve that gains little with each iteration."""

    def __init__(self, iteration: int, norm: float) -> None:
        self._iteration, self._norm, self._first = iteration, norm, norm

    def after(self, iteration: int, norm: float) -> str:
        """Take note of an iteration; if the last ``WINDOW`` gained little, words that say so, else empty."""
        if iteration - self._iteration < WINDOW:
            return ""
        before, self._iteration, self._norm = self._norm, iteration, norm
        if not (norm > LITTLE * before and norm > FLOOR * self._first):
            return ""
        return f"{WINDOW} iterations with PC cnn left {norm / before:.1g} of the residual"


class Safeguard:
    """Decides between the network's proposals and the method of conjugate gradients (CG).

    Single proposals that are no directions at all are caught where they arise.  This class catches those
    that look well and lead nowhere, as random ones do.  While the residual norm falls by 2^10 in every ten
    iterations, the network is beyond doubt.  Otherwise CG is started from where the iteration stands, on
    vectors of its own, and does one iteration for every three.  When its residual is clearly the smaller one,
    the solve goes on with CG, which loses nothing that it has done: if CG needs n iterations from there, they
    are over after 3 n more, whatever the network does.  The network then runs beside CG in the same way, and
    takes over again when it is ahead: residual norms of good methods, too, grow for a while where
    coefficients jump.  A network that is worth its cost never sees CG ahead, and pays a third of a product
    with A, and one reduction, an iteration.

    Parameters
    ----------
    norm
        Of the residual at first.
    twin
        Makes the method with f = 1 from copies of x and r.
    """

    def __init__(self, norm: float, twin: Callable[[], ConjugateDirections]) -> None:
        self._first, self._make = norm, twin
        self._twin: ConjugateDirections | None = None
        self._iterations, self._norm = 0, 0.0
        self._is_over = False

    def after(self, norm: float) -> ConjugateDirections | None:
        """Take note of an iteration that led to a residual of this norm; the state of the other method if
        that is to go on in its place, after which ``exchanged`` tells of the change."""
        self._iterations += 1
        if self._is_over:
            return None
        if self._twin is None:
            if self._iterations % HALVINGS == 0:
                if norm > 0.5**HALVINGS * self._first:
                    self._twin, self._norm = self._make(), norm
                self._first = norm
            return None
        if self._iterations % EVERY:
            return None
        try:
            self._norm = self._twin.step(self._norm) if self._norm > 0 else 0.0
        except Breakdown:
            self._is_over = True
            return None
        return self._twin if self._norm <= AHEAD * norm else None

    def exchanged(self, behind: ConjugateDirections, norm: float) -> None:
        """The method that runs beside from now on, and the norm of its residual."""
        self._twin, self._norm = behind, norm
