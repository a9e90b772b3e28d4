"""Errors of the PETSc side.  Each message says what came, what was expected and what to do."""

from __future__ import annotations

from consolve.errors import InconsistentRightHandSide as InconsistentRightHandSide
from consolve.errors import NotConverged as NotConverged


class MatrixError(ValueError):
    """A matrix that is no Poisson operator of a structured grid, or not of the grid that was given."""


class OptionError(ValueError):
    """An option with a value that it cannot take."""


class SystemFileError(ValueError):
    """A file of a matrix, vector or mask that is missing, damaged or does not fit the others."""
