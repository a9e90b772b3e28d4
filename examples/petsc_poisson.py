"""A petsc4py program that solves a Poisson problem on a DMDA, with the learned preconditioner.

    python examples/petsc_poisson.py -ksp_monitor
    python examples/petsc_poisson.py -da_grid_x 256 -da_grid_y 256 -pc_type gamg

Nothing but the import of ``consolve.solvers`` and ``-pc_type cnn`` is special to consolve: the grid is read
from the DMDA, the stencil from the matrix.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)

import numpy as np
from petsc4py import PETSc

import consolve.solvers  # noqa: F401  (registers -pc_type cnn and -ksp_type dcd)


def assemble(da: PETSc.DMDA) -> PETSc.Mat:
    """-Laplace u on the unit square, cell-centred; u = 0 on the left side, no flow through the others."""
    (nx, ny), A = da.getSizes(), da.createMatrix()
    (x0, x1), (y0, y1) = da.getRanges()
    row, column = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    for j in range(y0, y1):
        for i in range(x0, x1):
            row.index = (i, j)
            diagonal = 2.0 if i == 0 else 0.0  # the wall is half a cell away
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < nx and 0 <= m < ny:
                    column.index = (k, m)
                    A.setValueStencil(row, column, -1.0)
                    diagonal += 1.0
            A.setValueStencil(row, row, diagonal)
    A.assemble()
    A.scale(float(nx * nx))
    return A


def solve(cells: int = 128) -> tuple[int, float]:
    """Solve for u = sin(pi x / 2), so that -u'' = (pi / 2)^2 u.

    Returns
    -------
    Iterations, and the greatest error of u.
    """
    da = PETSc.DMDA().create([cells, cells], stencil_width=1, setup=False)
    da.setFromOptions()
    da.setUp()
    A, b = assemble(da), da.createGlobalVec()
    nx = da.getSizes()[0]
    exact = np.sin(0.5 * np.pi * (np.arange(nx) + 0.5) / nx)
    (x0, x1), _ = da.getRanges()
    da.getVecArray(b)[:, :] = (0.5 * np.pi) ** 2 * exact[x0:x1, None]

    ksp = PETSc.KSP().create(da.comm)
    ksp.getPC().setDM(da)
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.getPC().setType("cnn")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-8)
    ksp.setFromOptions()
    u = b.duplicate()
    ksp.solve(b, u)
    error = float(np.abs(da.getVecArray(u)[:, :] - exact[x0:x1, None]).max())
    return ksp.getIterationNumber(), error


if __name__ == "__main__":
    iterations, error = solve()
    PETSc.Sys.Print(f"{iterations} iterations, greatest error of u {error:.2e}")
