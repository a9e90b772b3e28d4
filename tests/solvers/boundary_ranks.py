"""Program for mpirun: boundary rows as MatZeroRows leaves them, cnn within other solvers; one JSON line."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import petsc4py

petsc4py.init(["boundary", "-options_left", "no"])

from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402

import consolve.solvers  # noqa: E402, F401
from consolve.pde import GridOperator  # noqa: E402

cases = runpy.run_path(str(Path(__file__).parents[1] / "matrix_cases.py"))
COMM = MPI.COMM_WORLD
NONE = {"pc_type": "cnn", "ksp_norm_type": "none", "ksp_max_it": 7}
MG = {"pc_type": "mg", "pc_mg_levels": 2, "mg_levels_pc_type": "cnn", "mg_levels_ksp_max_it": 1}
METHODS = {
    "outermost": {"pc_type": "cnn"},
    "cr": {"ksp_type": "cr", "ksp_norm_type": "preconditioned", "pc_type": "cnn"},
    "stcg": {"ksp_type": "stcg", "pc_type": "cnn"},
    "minres": {"ksp_type": "minres", "ksp_norm_type": "preconditioned", "pc_type": "cnn"},
    "redundant": {"pc_type": "redundant", "redundant_pc_type": "cnn"},
    "telescope": {"pc_type": "telescope", "telescope_pc_type": "cnn"},
    "dcd, redundant": {"ksp_type": "dcd", "pc_type": "redundant", "redundant_pc_type": "cnn"},
    "ksp": {"pc_type": "ksp", "ksp_ksp_type": "cg", "ksp_ksp_rtol": 1e-3, "ksp_pc_type": "cnn"},
    "none, cg": NONE,
    "none, cr": NONE | {"ksp_type": "cr"},
    "none, stcg": NONE | {"ksp_type": "stcg"},
    "none, minres": NONE | {"ksp_type": "minres"},
    "none, small": NONE | {"boundary": 1e-3},
    "mg, richardson": MG | {"mg_levels_ksp_type": "richardson"},
    "mg, cg": MG | {"mg_levels_ksp_type": "cg", "mg_levels_ksp_norm_type": "none"},
}
if COMM.size == 1:
    METHODS["bjacobi"] = {"pc_type": "bjacobi", "sub_pc_type": "cnn"}


def kept_boundary(shape, value):
    """The Laplacian on all nodes, the rows of the outermost ones ``value`` on the diagonal."""
    csr = GridOperator.from_cell_types(np.zeros(shape, int), 2).to_csr()
    inside = np.zeros(shape, bool)
    inside[(slice(1, -1),) * len(shape)] = True
    return cases["keep_dirichlet_rows"](csr, np.flatnonzero(~inside.reshape(-1)), value)


def fill(dm, mat, value):
    """Set ``mat`` to the matrix on the nodes of ``dm``."""
    csr = kept_boundary(dm.getSizes()[::-1], value)
    order = dm.getAO().app2petsc(np.arange(csr.shape[0], dtype=PETSc.IntType))
    natural = np.empty(csr.shape[0], int)
    natural[order] = np.arange(csr.shape[0])
    for number in range(*mat.getOwnershipRange()):
        i = natural[number]
        span = slice(csr.indptr[i], csr.indptr[i + 1])
        mat.setValues(number, order[csr.indices[span]], csr.data[span])
    mat.assemble()


def solve(shape, options):
    """True relative residual, iterations and reason."""
    chosen = {"ksp_type": "cg", "ksp_rtol": 1e-6, "ksp_norm_type": "unpreconditioned"} | options
    value = chosen.pop("boundary", 4.0)
    database = PETSc.Options()
    for name, text in chosen.items():
        database[name] = text
    dm = PETSc.DMDA().create(shape[::-1], stencil_width=1)
    A = dm.createMatrix()
    fill(dm, A, value)
    ksp = PETSc.KSP().create()
    ksp.setDM(dm)
    if chosen["pc_type"] == "mg":
        ksp.setComputeOperators(lambda ksp, J, P: fill(ksp.getDM(), P, value))
    else:
        ksp.setDMActive(False)
        ksp.setOperators(A)
    ksp.setFromOptions()
    b, x = A.createVecs()
    start, stop = b.getOwnershipRange()
    b.array_w[:] = np.random.default_rng(4).standard_normal(b.getSize())[start:stop]
    ksp.setComputeRHS(lambda ksp, vector: b.copy(vector))
    ksp.solve(b, x)
    r = b.duplicate()
    A.mult(x, r)
    r.aypx(-1.0, b)
    facts = {
        "residual": r.norm() / b.norm(),
        "iterations": ksp.getIterationNumber(),
        "reason": ksp.getConvergedReason(),
    }
    for name in chosen:
        database.delValue(name)
    for thing in (ksp, A, b, x, r, dm):
        thing.destroy()
    return facts


def main():
    found = {
        f"{name} | {len(s)}D": solve(s, options)
        for name, options in METHODS.items()
        for s in ((25, 33), (9, 13, 17))
    }
    if COMM.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.exit(0)
