"""A petsc4py program that knows nothing of consolve: Poisson on a DMDA, solution 1 everywhere."""

from petsc4py import PETSc

nx, ny = 40, 30
da = PETSc.DMDA().create([nx, ny], stencil_width=1)
A = da.createMatrix()
for row in range(nx * ny):
    i, j = row % nx, row // nx
    beside = [row - 1] * (i > 0) + [row + 1] * (i + 1 < nx) + [row - nx] * (j > 0) + [row + nx] * (j + 1 < ny)
    A.setValues(row, [row, *beside], [4.0, *[-1.0] * len(beside)])
A.assemble()
x, b = A.createVecs()
x.set(1.0)
A.mult(x, b)
x.set(0.0)
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.getPC().setDM(da)
ksp.setFromOptions()
ksp.solve(b, x)
x.shift(-1.0)
error = x.norm(PETSc.NormType.INFINITY)
print(f"pc {ksp.getPC().getType()} iterations {ksp.getIterationNumber()}", end=" ")
print(f"reason {int(ksp.getConvergedReason())} error {error:.3e}")
