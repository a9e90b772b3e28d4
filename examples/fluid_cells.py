"""A pressure system whose rows number only the fluid cells of an image, as flow solvers assemble it.

    python examples/fluid_cells.py

The image tells the learned preconditioner where each row lies: here through ``attach_grid``, from a file by
``-pc_cnn_mask image.npy``, on the command line by ``consolve solve A.npz --mask image.npy``.
"""

import numpy as np
from petsc4py import PETSc

from consolve.pde import FLUID, SOLID, GridOperator
from consolve.solvers import attach_grid


def pipe_with_cylinders(ny: int = 192, nx: int = 384) -> np.ndarray:
    """Cell types of a channel with three round obstacles."""
    y, x = np.mgrid[:ny, :nx] + 0.5
    image = np.full((ny, nx), FLUID, np.uint8)
    for centre_y, centre_x, radius in ((0.3, 0.5, 0.12), (0.65, 0.9, 0.15), (0.4, 1.4, 0.1)):
        image[(y - centre_y * ny) ** 2 + (x - centre_x * ny) ** 2 < (radius * ny) ** 2] = SOLID
    return image


def solve(image: np.ndarray, pc_type: str = "cnn") -> tuple[int, float]:
    """Iterations of CG, and the true relative residual."""
    solid, air = SOLID, 2
    operator = GridOperator.from_cell_types(image, outside=((solid, solid), (solid, air)))
    csr = operator.to_csr()  # any AIJ matrix over the fluid cells in this order will do
    A = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data))
    attach_grid(A, image.shape, np.flatnonzero(image == FLUID))

    x, b = A.createVecs()
    b.array = np.random.default_rng(0).standard_normal(b.size)
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.getPC().setType(pc_type)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-6)
    ksp.setFromOptions()
    ksp.solve(b, x)
    residual = b - A * x
    return ksp.getIterationNumber(), residual.norm() / b.norm()


if __name__ == "__main__":
    image = pipe_with_cylinders()
    for pc_type in ("none", "cnn"):
        iterations, residual = solve(image, pc_type)
        print(f"-pc_type {pc_type:5} {iterations:5} iterations, true relative residual {residual:.1e}")
