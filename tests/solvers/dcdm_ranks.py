"""Program for mpirun: a network of the deep conjugate direction method on the rows of several ranks."""

# ruff: noqa: E402

import json
import sys

import numpy as np
import petsc4py

petsc4py.init(["dcdm_ranks", "-options_left", "no"])
from petsc4py import PETSc

import consolve.solvers  # noqa: F401  (registers the types)
from consolve.learned.dcdm.format import load_dcdm_weights
from consolve.pde import GridOperator
from consolve.solvers import assemble_matrix

COMM = PETSc.COMM_WORLD
MPI = COMM.tompi4py()


def solver(operator, kind, model, comm):
    mat = assemble_matrix(operator, comm)
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(mat)
    ksp.setType(kind)
    ksp.getPC().setType("cnn")
    ksp.getPC().getPythonContext().model = model
    ksp.setTolerances(rtol=1e-8, max_it=3000)
    return mat, ksp


def whole(x, comm):
    """All values of a vector, on each rank."""
    parts = comm.tompi4py().allgather(x.array_r.copy())
    return np.concatenate(parts)


def run(operator, model, comm):
    """z = M r, what a solve gave, and what the PC says of itself."""
    mat, ksp = solver(operator, "dcd", model, comm)
    r, z = mat.createVecs()
    r.array_w[:] = np.random.default_rng(0).standard_normal(operator.unknowns)[slice(*r.getOwnershipRange())]
    if mat.getNullSpace():
        mat.getNullSpace().remove(r)
    ksp.setUp()
    ksp.getPC().apply(r, z)
    proposal = whole(z, comm)
    ksp.setConvergenceHistory()
    ksp.solve(r, z)
    residual = r.duplicate()
    mat.mult(z, residual)
    residual.aypx(-1.0, r)
    components = ksp.getPC().getPythonContext().components
    found = {
        "proposal": proposal.tolist(),
        "history": ksp.getConvergenceHistory()[:4].tolist(),
        "relative": residual.norm() / r.norm(),
        "closed": [] if components is None else components.size.tolist(),
    }
    for thing in (ksp, mat, r, z, residual):
        thing.destroy()
    return found


def error_on_each_rank(operator, kind, model):
    mat, ksp = solver(operator, kind, model, COMM)
    b, x = mat.createVecs()
    b.set(1.0)
    try:
        ksp.solve(b, x)
        text = "none"
    except Exception as error:
        text = str(error.__cause__ if isinstance(error, PETSc.Error) else error)
    MPI.Barrier()
    for thing in (ksp, mat, b, x):
        thing.destroy()
    return MPI.allgather(text)


model, other_dimension = sys.argv[1:3]
rng = np.random.default_rng(2)
types = (rng.random((14, 15)) < 0.2).astype(int)
types[:, 7] = 1
operators = {
    "open": GridOperator.from_cell_types(types, outside=2),
    "closed": GridOperator.from_cell_types(types, outside=1),
}
findings = {"parameters": load_dcdm_weights(model, 2).parameters}
for name, operator in operators.items():
    findings[name] = {"ranks": run(operator, model, COMM), "one": run(operator, model, PETSc.COMM_SELF)}
findings["cg"] = error_on_each_rank(operators["open"], "cg", model)
findings["dimension"] = error_on_each_rank(operators["open"], "dcd", other_dimension)
if COMM.rank == 0:
    print("RESULT " + json.dumps(findings))
