"""Program for several ranks: KSP dcd against one rank's solution, and its reductions per iteration."""

# ruff: noqa: E402

import json

import numpy as np
import petsc4py

petsc4py.init(["dcd_ranks", "-log_view", ":/dev/null"])
from petsc4py import PETSc

import consolve.solvers  # noqa: F401  (registers the types)
from consolve.pde import GridOperator
from consolve.solvers import assemble_matrix

COMM = PETSc.COMM_WORLD


class Proposals:
    """A poor preconditioner: useless at times, the same on any number of ranks."""

    def __init__(self):
        self.calls = 0

    def apply(self, pc, r, z):
        self.calls += 1
        if self.calls % 5 == 0:
            z.set(np.nan if self.calls % 2 else 0.0)
        else:
            r.copy(z)
            z.scale((1e200, 1e-200, -1.0, 1.0)[self.calls % 4])
            if self.calls % 3 == 0 and z.comm.rank == z.comm.size - 1 and z.getLocalSize():
                z.array_w[-1] += 1e-3 * abs(z.array_r[-1])


def solve(operator, pc, comm, directions):
    mat = assemble_matrix(operator, comm)
    b, x = mat.createVecs()
    noise = np.random.default_rng(0).standard_normal(operator.unknowns)
    b.array_w[:] = noise[slice(*b.getOwnershipRange())]
    if mat.getNullSpace():
        mat.getNullSpace().remove(b)
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPythonContext().directions = directions
    if pc == "proposals":
        ksp.getPC().setType("python")
        ksp.getPC().setPythonContext(Proposals())
    else:
        ksp.getPC().setType(pc)
    ksp.setTolerances(rtol=1e-9, max_it=4000)
    event = PETSc.Log.Event("KSPSolve")
    ksp.setUp()
    before = event.getPerfInfo()["numReductions"]
    ksp.solve(b, x)
    reductions = event.getPerfInfo()["numReductions"] - before
    r = b.duplicate()
    mat.mult(x, r)
    r.aypx(-1.0, b)
    relative = r.norm() / b.norm()
    own = (ksp.getConvergedReason(), ksp.getIterationNumber(), ksp.getPythonContext().fallbacks)
    same = comm.tompi4py().allgather(own)
    scatter, whole = PETSc.Scatter.toAll(x)
    scatter.scatter(x, whole)
    facts = {
        "reason": own[0],
        "iterations": own[1],
        "fallbacks": own[2],
        "ranks_agree": all(other == own for other in same),
        "relative": relative,
        "reductions": reductions,
        "x": whole.array_r.tolist(),
    }
    for thing in (ksp, mat, b, x, r, scatter, whole):
        thing.destroy()
    return facts


CELLS = np.zeros((13, 11), int)
CELLS[3:5, 2:6] = 1
OPERATORS = {
    "open": GridOperator.from_cell_types(CELLS, outside=2),
    "closed": GridOperator.from_cell_types(CELLS, outside=1),
}

found = {}
for name, operator in OPERATORS.items():
    for pc in ("none", "jacobi", "bjacobi", "proposals"):
        for directions in (1, 2, 4):
            many, one = (solve(operator, pc, comm, directions) for comm in (COMM, PETSc.COMM_SELF))
            found[f"{name} {pc} {directions}"] = {"many": many, "one": one}
if COMM.rank == 0:
    print("RESULT " + json.dumps(found))
