"""Linear finite elements on a mesh, without PETSc and without a finite-element package: a matrix and points.

    python examples/mesh_scipy.py

SciPy's conjugate gradients on a triangulation of random points in a disc, alone and with
``consolve.aspreconditioner(A, points=x)``.  A matrix of scikit-fem is given in the same way, with
``points=basis.doflocs.T``.
"""

from __future__ import annotations

import inspect

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg
from scipy.spatial import Delaunay

import consolve

TOLERANCE = "rtol" if "rtol" in inspect.signature(cg).parameters else "tol"


def disc(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of the unit disc at a distance of about 1 / n, triangles, and which points lie on its edge."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(-n, n + 1) / n] * 2), -1).reshape(-1, 2)
    inner = grid + random.uniform(-0.25, 0.25, grid.shape) / n
    inner = inner[np.hypot(*inner.T) < 1 - 0.6 / n]
    angle = np.linspace(0, 2 * np.pi, 6 * n, endpoint=False)
    points = np.concatenate((np.stack((np.cos(angle), np.sin(angle)), 1), inner))
    return points, Delaunay(points).simplices, np.arange(len(points)) < angle.size


def stiffness(points: np.ndarray, triangles: np.ndarray) -> sp.csr_matrix:
    """Integrals of grad phi_i . grad phi_j."""
    corner = points[triangles]
    side = np.roll(corner, -1, 1) - np.roll(corner, -2, 1)  # opposite of each vertex
    area = 0.5 * np.abs(side[:, 0, 0] * side[:, 1, 1] - side[:, 0, 1] * side[:, 1, 0])
    local = np.einsum("tik,tjk->tij", side, side) / (4 * area)[:, None, None]
    rows, columns = np.repeat(triangles, 3, 1).reshape(-1), np.tile(triangles, 3).reshape(-1)
    return sp.csr_matrix((local.reshape(-1), (rows, columns)), shape=(len(points), len(points)))


def solve(n: int = 100) -> dict[str, int]:
    """Iterations to 1e-8 of -Laplace u = 1 with u = 0 on the edge, alone and preconditioned."""
    points, triangles, edge = disc(n)
    free = np.flatnonzero(~edge)
    A = stiffness(points, triangles)[free][:, free].tocsr()
    b = np.full(free.size, np.pi / len(points))
    iterations = {}
    for name, M in (("cg", None), ("cnn", consolve.aspreconditioner(A, points=points[free]))):
        residuals: list[np.ndarray] = []
        x, failed = cg(A, b, M=M, **{TOLERANCE: 1e-8}, atol=0, callback=residuals.append)
        iterations[name] = len(residuals)
        assert failed == 0 and np.linalg.norm(b - A @ x) < 1.1e-8 * np.linalg.norm(b)
    return iterations


if __name__ == "__main__":
    for n in (50, 100, 200):
        found = solve(n)
        print(f"mesh width 1/{n}: {found['cg']:4} iterations of cg alone, {found['cnn']:2} with the network")
