"""Errors, with and without PETSc.  Each message says what came, what was expected and what to do."""

from __future__ import annotations

from typing import Any

_ADVICE = {
    "DIVERGED_MAX_IT": "raise maxiter (-ksp_max_it), loosen rtol, or choose another method",
    "DIVERGED_DTOL": "the residual grew: begin without the guess, or check that the matrix is definite",
    "DIVERGED_NANORINF": "a number is not finite, of the matrix, the right-hand side, the guess or the "
    "solution itself: check them, and scale them to sizes near 1",
    "DIVERGED_INDEFINITE_MAT": "the matrix is not definite, which conjugate gradients need",
    "DIVERGED_INDEFINITE_PC": "the preconditioner is not definite: coefficients may span more than single "
    "precision; use another -pc_type, such as gamg",
    "DIVERGED_BREAKDOWN": "the residual falls no further: products with the matrix are no more exact",
}
"""What to do, by the reason."""


class InconsistentRightHandSide(ValueError):
    """A right-hand side outside the range of a singular operator: the system has no solution."""


class NotConverged(RuntimeError):
    """A solve that ended without reaching its tolerance.

    Attributes
    ----------
    reason
        Name of the ``KSPConvergedReason``, such as ``DIVERGED_MAX_IT``.
    iterations
        Iterations done.
    relative_residual
        ``|b - A x| / |b|`` at the end.
    """

    def __init__(self, reason: str, iterations: int, relative_residual: float, advice: str = "") -> None:
        self.reason, self.iterations, self.relative_residual = reason, iterations, relative_residual
        self.advice = advice or _ADVICE.get(reason, "")
        text = f"{reason} after {iterations} iterations, true relative residual {relative_residual:.2e}"
        super().__init__(f"{text}; {self.advice}" if self.advice else text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.iterations, self.relative_residual, self.advice)


class MatrixError(ValueError):
    """A matrix that is no Poisson operator of a structured grid, or not of the grid that was given."""


ZERO_MATRIX = (
    "the matrix is zero, no entry is another number: assemble it before it is set up, and take unknowns "
    "without an equation out of the system"
)


class OptionError(ValueError):
    """An option with a value that it cannot take."""


class SystemFileError(ValueError):
    """A file of a matrix, vector or mask that is missing, damaged or does not fit the others."""
