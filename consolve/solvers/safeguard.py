"""When the deep conjugate direction method should stop to listen to its preconditioner."""

from __future__ import annotations

from typing import NamedTuple

PATIENCE = 50
"""Iterations in which proposals must halve the residual norm, else conjugate gradients are tried."""
PATIENCE_IF_SYMMETRIC = 5
"""Factor on it while the proposals behave as those of a symmetric linear map, for which theory vouches."""
ASYMMETRY = 1e-2
"""Above it, proposals do not come from a symmetric linear map."""


class Step(NamedTuple):
    """What a safeguard is told of an iteration.

    Parameters
    ----------
    residual_norm
        After the iteration.
    proposed
        The direction came from the preconditioner, and was not the residual itself.
    asymmetry
        Cosine between the proposal and A d_j of an older direction than the last, over that between the
        proposal and the residual.  For a symmetric linear preconditioner it is 0: this is why conjugate
        gradients need one direction only.
    """

    residual_norm: float
    proposed: bool
    asymmetry: float


class Safeguard:
    """Decides between the preconditioner's proposals and plain conjugate gradients (CG).

    Single proposals that are no directions at all are caught where they arise.  This class catches those
    that look well and lead nowhere, as random ones do.  While proposals halve the residual norm within
    ``patience`` iterations, nothing happens.  When they do not, CG is given twice as many iterations.  If it
    then reduces the residual faster per iteration, CG goes on to the end of the solve; else the proposals
    are trusted again, with twice the patience.  As the phases double, the iterations are within a small
    factor of those of CG, whatever the preconditioner does.
    """

    def __init__(self) -> None:
        self.trusting = True
        self.trials = 0
        self._patience = PATIENCE
        self._for_good = False
        self._rate_of_proposals = 1.0

    def start(self, residual_norm: float) -> None:
        """Begin a phase at this residual norm."""
        self._first = self._lowest = residual_norm
        self._iterations = self._proposals = 0
        self._asymmetry = 0.0

    def after(self, step: Step) -> bool:
        """Take note of an iteration; True if the method must restart with another kind of directions."""
        self._iterations += 1
        self._proposals += step.proposed
        self._asymmetry = max(self._asymmetry, step.asymmetry)
        self._lowest = min(self._lowest, step.residual_norm)
        if self._for_good:
            return False
        if self.trusting:
            return self._judge_proposals(step.residual_norm)
        return self._judge_conjugate_gradients(step.residual_norm)

    def _rate(self) -> float:
        """Mean reduction of the residual norm per iteration of this phase."""
        return (self._lowest / self._first) ** (1 / self._iterations)

    def _judge_proposals(self, residual_norm: float) -> bool:
        if self._lowest <= 0.5 * self._first or self._proposals == 0:
            self.start(self._lowest)
            return False
        symmetric = self._asymmetry < ASYMMETRY
        if self._iterations < self._patience * (PATIENCE_IF_SYMMETRIC if symmetric else 1):
            return False
        self._rate_of_proposals = self._rate()
        self._trial_length = 2 * self._iterations
        self.trials += 1
        self.trusting = False
        self.start(residual_norm)
        return True

    def _judge_conjugate_gradients(self, residual_norm: float) -> bool:
        if self._iterations < self._trial_length:
            return False
        if self._rate() < self._rate_of_proposals:
            self._for_good = True
            return False
        self.trusting = True
        self._patience *= 2
        self.start(residual_norm)
        return True
