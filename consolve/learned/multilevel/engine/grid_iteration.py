"""Solving by conjugate directions in grid space: when to stop, when to compute the residual anew."""

from __future__ import annotations

from typing import Protocol

from consolve.learned.multilevel.engine.grid_directions import LEAST_REDUCTION

MOST_DISAGREEMENT = 2.0
"""Between the residual norm that the iteration foretells and the matrix's own, beyond round-off."""
PATIENCE = 10
"""Iterations in which the residual norm has to halve."""


class GridIteration(Protocol):
    """A x = b, and an iteration in grid space for it."""

    def begin(self, norm: float) -> None:
        """Start from the residual as it is, of this norm."""

    def step(self) -> float:
        """One iteration; returns the norm of the residual after it, NaN if there is no direction."""

    def finish(self) -> float:
        """Bring x up to date, and the residual by the matrix, in float64; returns its norm."""

    def test(self, iteration: int, norm: float) -> int:
        """The reason to stop at this norm, or 0."""

    def report(self, iteration: int, norm: float) -> None:
        """Take note of an iteration that is not the last."""


def iterate(system: GridIteration, norm: float, most: int, every: int = 0) -> tuple[int, float, int]:
    """Iterate until the system's test is met.

    The norms tested on the way are the iteration's own; before an end is declared, the residual is computed
    with the matrix.  It is computed anew, too, when it has fallen as far as single precision tells, and the
    iteration starts from it again.  Where the two norms part, or the iteration leads nowhere, the rest is
    left to the caller.

    Parameters
    ----------
    system
        Its residual is b - A x.
    norm
        Of that.
    most
        Iterations at most.
    every
        Iterations after which the residual is computed anew in any case; 0: never.

    Returns
    -------
    Iterations, the norm of the residual after them, and the reason to stop; 0: ``most`` iterations are done,
    or another method has to go on.
    """
    k = 0
    while True:
        first, start, lowest, lowest_at = k, norm, norm, k
        is_sound, reason = True, 0
        system.begin(norm)
        while k < most:
            after = system.step()
            if not after < 1e3 * start:
                is_sound = False
                break
            k, norm = k + 1, after
            if norm <= 0.5 * lowest:
                lowest, lowest_at = norm, k
            is_sound = k - lowest_at < PATIENCE
            reason = system.test(k, norm)
            ends = reason or not is_sound or norm <= LEAST_REDUCTION * start or k == most
            if ends or (every and k - first == every):
                break
            system.report(k, norm)
        foretold, norm = norm, system.finish()
        reason = system.test(max(k, 1), norm)  # that of iteration 0 may set what a tolerance is relative to
        agree = norm <= MOST_DISAGREEMENT * foretold + LEAST_REDUCTION * start
        if reason or k == most or not (is_sound and agree and norm < 0.5 * start):
            return k, norm, reason
        system.report(k, norm)
