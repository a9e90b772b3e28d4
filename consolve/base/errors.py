"""Errors, with and without PETSc.  Each message says what came, what was expected and what to do."""

from __future__ import annotations


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
        text = f"{reason} after {iterations} iterations, true relative residual {relative_residual:.2e}"
        super().__init__(f"{text}; {advice}" if advice else text)


class MatrixError(ValueError):
    """A matrix that is no Poisson operator of a structured grid, or not of the grid that was given."""


class OptionError(ValueError):
    """An option with a value that it cannot take."""


class SystemFileError(ValueError):
    """A file of a matrix, vector or mask that is missing, damaged or does not fit the others."""
