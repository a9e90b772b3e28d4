"""A Poisson problem in DOLFINx, solved by ``LinearProblem`` with the learned preconditioner.

    python examples/dolfinx_poisson.py
    mpirun -n 2 python examples/dolfinx_poisson.py

P1 elements on a structured mesh of the unit square.  DOLFINx numbers the unknowns in an order of its own.  On
one rank the preconditioner finds their places in the graph of the matrix; on several it is told them.  Works
with DOLFINx 0.5 and later.
"""

import inspect

import numpy as np
import ufl
from dolfinx import fem, mesh
from dolfinx.fem.petsc import LinearProblem
from mpi4py import MPI
from petsc4py import PETSc

from consolve.solvers import attach_grid  # the import also registers -pc_type cnn and -ksp_type dcd


def linear_problem(a: ufl.Form, L: ufl.Form, bcs: list, options: dict) -> LinearProblem:
    """``LinearProblem``, which asks for a prefix of the options from DOLFINx 0.10 on."""
    new = "petsc_options_prefix" in inspect.signature(LinearProblem).parameters
    prefix = {"petsc_options_prefix": "poisson_"} if new else {}
    return LinearProblem(a, L, bcs=bcs, petsc_options=options, **prefix)


def function_space(domain: mesh.Mesh) -> fem.FunctionSpace:
    """Continuous piecewise linear functions; the name of the maker changed in DOLFINx 0.7."""
    make = getattr(fem, "functionspace", None) or fem.FunctionSpace
    return make(domain, ("Lagrange", 1))


def solve(cells: int = 128, boundary: str = "dirichlet", pc_type: str = "cnn") -> tuple[int, float]:
    """Solve -Laplace u = f for a known u.

    Parameters
    ----------
    cells
        Of the mesh, along each side.
    boundary
        ``dirichlet``: u is given on all sides, and its rows stay in the matrix as identity rows.
        ``neumann``: no flux through any side, so u is known up to a constant.
    pc_type
        Any PETSc preconditioner.

    Returns
    -------
    Iterations of CG, and the L2 error of u.
    """
    domain = mesh.create_unit_square(MPI.COMM_WORLD, cells, cells)
    V = function_space(domain)
    u, v, x = ufl.TrialFunction(V), ufl.TestFunction(V), ufl.SpatialCoordinate(domain)
    wave = ufl.cos if boundary == "neumann" else ufl.sin
    exact = wave(np.pi * x[0]) * wave(2 * np.pi * x[1])
    if boundary == "dirichlet":
        exact += x[0] + 2 * x[1]  # not 0 on the boundary
    a = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
    L = ufl.inner(-ufl.div(ufl.grad(exact)), v) * ufl.dx

    bcs = []
    if boundary == "dirichlet":
        domain.topology.create_connectivity(1, 2)
        facets = mesh.exterior_facet_indices(domain.topology)
        value = fem.Function(V)
        value.interpolate(lambda x: x[0] + 2 * x[1])
        bcs = [fem.dirichletbc(value, fem.locate_dofs_topological(V, 1, facets))]

    options = {"ksp_type": "cg", "ksp_rtol": 1e-8, "ksp_norm_type": "unpreconditioned", "pc_type": pc_type}
    problem = linear_problem(a, L, bcs, options)
    if boundary == "neumann":
        constants = PETSc.NullSpace().create(constant=True, comm=domain.comm)
        problem.A.setNullSpace(constants)
        problem.A.setTransposeNullSpace(constants)  # the solver takes it out of the right-hand side
    if domain.comm.size > 1:
        own = V.tabulate_dof_coordinates()[: V.dofmap.index_map.size_local]
        column, row = np.rint(cells * own[:, :2]).astype(int).T
        attach_grid(problem.A, (cells + 1, cells + 1), row * (cells + 1) + column)
    found = problem.solve()

    dx = ufl.dx(metadata={"quadrature_degree": 6})
    shift = mean(exact - found, dx, domain.comm) if boundary == "neumann" else 0.0
    error = mean((found + shift - exact) ** 2, dx, domain.comm) ** 0.5
    return problem.solver.getIterationNumber(), error


def mean(expression: ufl.core.expr.Expr, dx: ufl.Measure, comm: MPI.Comm) -> float:
    """Integral over the unit square."""
    return float(comm.allreduce(fem.assemble_scalar(fem.form(expression * dx)), op=MPI.SUM))


if __name__ == "__main__":
    for boundary in ("dirichlet", "neumann"):
        for pc_type in ("jacobi", "cnn"):
            iterations, error = solve(128, boundary, pc_type)
            PETSc.Sys.Print(f"{boundary:9} -pc_type {pc_type:6} {iterations:4} iterations, error {error:.2e}")
