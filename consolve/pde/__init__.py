"""The problems: grids, operators, domains, right-hand sides and flows.  Needs NumPy, SciPy and Numba only."""

import consolve.base.kernel_cache  # noqa: F401  (before the first kernel)
from consolve.pde.poisson.grid import AIR, FLUID, SOLID, GridOperator

__all__ = ["AIR", "FLUID", "SOLID", "GridOperator"]
