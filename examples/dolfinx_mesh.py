"""Finite elements on an unstructured mesh in DOLFINx: a Poisson problem, heat in time, and Newton's method.

    python examples/dolfinx_mesh.py
    mpirun -n 2 python examples/dolfinx_mesh.py

The mesh is a plate with holes, triangulated by Gmsh and read from ``plate.xdmf``.  One call,
``attach_points(A, V)``, tells the preconditioner where the rows lie.  Works with DOLFINx 0.5 and later.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import dolfinx.fem.petsc  # not imported by dolfinx.fem from 0.6 on
import numpy as np
import ufl
from dolfinx import fem, io, mesh
from dolfinx.fem.petsc import LinearProblem
from mpi4py import MPI
from petsc4py import PETSc

from consolve.solvers import attach_points  # the import also registers -pc_type cnn and -ksp_type dcd

OPTIONS = {"ksp_type": "cg", "ksp_rtol": 1e-8, "ksp_norm_type": "unpreconditioned", "pc_type": "cnn"}


def plate() -> mesh.Mesh:
    """The mesh of ``plate.xdmf``: 2 x 1, with four round holes and a square one."""
    name, text = Path(__file__).with_name("plate.xdmf"), io.XDMFFile.Encoding.ASCII
    with io.XDMFFile(MPI.COMM_WORLD, str(name), "r", encoding=text) as file:
        return file.read_mesh(name="plate")


def function_space(domain: mesh.Mesh, degree: int) -> fem.FunctionSpace:
    """Continuous functions; the name of the maker changed in DOLFINx 0.7."""
    make = getattr(fem, "functionspace", None) or fem.FunctionSpace
    return make(domain, ("Lagrange", degree))


def fixed_left(V: fem.FunctionSpace) -> Any:
    """u = 0 on the left side."""
    dofs = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0))
    return fem.dirichletbc(PETSc.ScalarType(0), dofs, V)


def poisson(degree: int = 1, pc_type: str = "cnn") -> tuple[int, float]:
    """-div(k grad u) = 1 with two materials; iterations, and the mean of u."""
    domain = plate()
    V = function_space(domain, degree)
    u, v, x = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.SpatialCoordinate(domain)
    k = ufl.conditional(ufl.lt(x[0], 1), 1.0, 20.0)
    a = k * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
    new = "petsc_options_prefix" in inspect.signature(LinearProblem).parameters
    prefix = {"petsc_options_prefix": "plate_"} if new else {}
    one = fem.Constant(domain, PETSc.ScalarType(1))
    problem = LinearProblem(
        a, one * v * ufl.dx, bcs=[fixed_left(V)], petsc_options=OPTIONS | {"pc_type": pc_type}, **prefix
    )
    attach_points(problem.A, V)
    found = problem.solve()
    return problem.solver.getIterationNumber(), mean(found, domain)


def heat(steps: int = 5, dt: float = 0.02) -> list[int]:
    """u' = div grad u + 1 by implicit Euler: the iterations of each step."""
    domain = plate()
    V = function_space(domain, 1)
    u, v, before = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    a = fem.form((u * v + dt * ufl.inner(ufl.grad(u), ufl.grad(v))) * ufl.dx)
    L = fem.form((before + dt) * v * ufl.dx)
    bc = fixed_left(V)
    A = dolfinx.fem.petsc.assemble_matrix(a, bcs=[bc])
    A.assemble()
    attach_points(A, V)
    solver = make_solver(A)
    iterations = []
    for _ in range(steps):
        b = assembled(L, a, bc)
        solver.solve(b, vector(before))
        before.x.scatter_forward()
        iterations.append(solver.getIterationNumber())
    return iterations


def newton(steps: int = 10) -> tuple[list[int], float]:
    """-div grad u + u^3 = 1 by Newton's method.

    Returns
    -------
    Iterations of CG in each step, and the norm of the last step over that of the first.
    """
    domain = plate()
    V = function_space(domain, 1)
    u, v, at = ufl.TrialFunction(V), ufl.TestFunction(V), fem.Function(V)
    a = fem.form((ufl.inner(ufl.grad(u), ufl.grad(v)) + 3 * at**2 * u * v) * ufl.dx)
    one = fem.Constant(domain, PETSc.ScalarType(1))
    L = fem.form((one * v - ufl.inner(ufl.grad(at), ufl.grad(v)) - at**3 * v) * ufl.dx)
    bc = fixed_left(V)
    A = dolfinx.fem.petsc.assemble_matrix(a, bcs=[bc])
    A.assemble()
    attach_points(A, V)
    solver, change = make_solver(A), fem.Function(V)
    iterations, norms = [], []
    for _ in range(steps):
        A.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(A, a, bcs=[bc])
        A.assemble()
        solver.solve(assembled(L, a, bc), vector(change))
        change.x.scatter_forward()
        at.x.array[:] += change.x.array
        iterations.append(solver.getIterationNumber())
        norms.append(vector(change).norm())
    return iterations, norms[-1] / norms[0]


def make_solver(A: PETSc.Mat) -> PETSc.KSP:
    """A KSP with the options above."""
    solver = PETSc.KSP().create(A.comm)
    solver.setOperators(A)
    solver.setOptionsPrefix("plate_solver_")
    database = PETSc.Options("plate_solver_")
    for name, value in OPTIONS.items():
        database[name] = value
    solver.setFromOptions()
    return solver


def assembled(L: fem.Form, a: fem.Form, bc: Any) -> PETSc.Vec:
    """The right-hand side, with 0 in the rows of ``bc``."""
    b = dolfinx.fem.petsc.assemble_vector(L)
    b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    dofs = bc.dof_indices()[0]
    b.array_w[dofs[dofs < b.getLocalSize()]] = 0.0
    return b


def vector(function: fem.Function) -> PETSc.Vec:
    """The PETSc vector of a function; ``vector`` until DOLFINx 0.8."""
    return function.x.petsc_vec if hasattr(function.x, "petsc_vec") else function.vector


def mean(u: fem.Function, domain: mesh.Mesh) -> float:
    """Integral of u over the plate."""
    return float(domain.comm.allreduce(fem.assemble_scalar(fem.form(u * ufl.dx)), op=MPI.SUM))


if __name__ == "__main__":
    for degree in (1, 2):
        for pc_type in ("jacobi", "cnn"):
            iterations, value = poisson(degree, pc_type)
            PETSc.Sys.Print(f"P{degree} -pc_type {pc_type:6} {iterations:4} iterations, integral {value:.6f}")
    PETSc.Sys.Print(f"heat, iterations of each step: {heat()}")
    iterations, last = newton()
    PETSc.Sys.Print(f"Newton, iterations of each step: {iterations}; last step {last:.1e} of the first")
