"""SciPy's conjugate gradients with the learned preconditioner, on a matrix that says nothing of its grid.

    python examples/scipy_cg.py

``consolve.aspreconditioner(A)`` needs no PETSc.  Where the rows lie is read from the pattern of the matrix,
even where the unknowns are numbered at random as here; ``grid=``, ``mask=`` or ``cells=`` say it outright.
"""

import inspect

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg

import consolve
from consolve.pde.poisson.domains import make_domain

TOLERANCE = "rtol" if "rtol" in inspect.signature(cg).parameters else "tol"  # as SciPy calls it, new or old


def flow_around_obstacles(ny: int = 300, nx: int = 400) -> sp.csr_matrix:
    """The pressure matrix of a channel with obstacles, its unknowns in random order."""
    matrix = make_domain("spheres", (ny, nx)).operator().to_csr()
    order = np.random.default_rng(0).permutation(matrix.shape[0])
    return sp.csr_matrix(matrix[order][:, order])


def iterations(A: sp.csr_matrix, b: np.ndarray, M: LinearOperator | None = None) -> tuple[int, float]:
    """Iterations of CG, and the true relative residual."""
    count: list[np.ndarray] = []
    stop = {TOLERANCE: 1e-8, "atol": 0.0, "maxiter": 20_000}
    x, _ = cg(A, b, M=M, callback=lambda x: count.append(x[:1]), **stop)
    return len(count), float(np.linalg.norm(b - A @ x) / np.linalg.norm(b))


def main(ny: int = 300, nx: int = 400) -> dict[str, tuple[int, float]]:
    """Both ways of solving the same system."""
    A = flow_around_obstacles(ny, nx)
    b = np.random.default_rng(1).standard_normal(A.shape[0])
    M = consolve.aspreconditioner(A)
    print(M, "\n")
    return {"cg": iterations(A, b), "cg with consolve": iterations(A, b, M)}


if __name__ == "__main__":
    for name, (count, residual) in main().items():
        print(f"{name:18} {count:5} iterations, true relative residual {residual:.1e}")
