"""A sparse direct solver for small systems: the reference that iterative solvers are compared with."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from consolve.pde.poisson.grid import GridOperator


class DirectSolver:
    """Solves A x = b by sparse LU (SciPy's SuperLU), and keeps the factors while the operator stays the same.

    On each component without Dirichlet part, the solution of zero mean is returned.  Memory and time grow
    fast with the size in 3D: meant for up to about 300,000 unknowns in 2D and 30,000 in 3D.
    """

    def __init__(self) -> None:
        self._operator: GridOperator | None = None

    def __call__(self, operator: GridOperator, rhs: NDArray) -> NDArray[np.float64]:
        """Solution on all cells, 0 where not active; ``rhs`` alike, and in the range of A."""
        if operator is not self._operator:
            pinned = np.zeros(operator.unknowns)
            pinned[operator.null_space.first_entries()] = 1.0  # any constant will do
            matrix = operator.to_csr() + sp.diags(pinned)
            self._factors = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            self._operator = operator
        x = np.zeros(operator.shape)
        x[operator.active] = self._factors.solve(np.asarray(rhs, np.float64)[operator.active])
        return operator.remove_null_space(x)
