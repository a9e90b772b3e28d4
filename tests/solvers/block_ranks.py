"""Program for mpirun: PETSc's block methods with cnn in the block of each rank; one JSON line of findings."""

import json
import sys

import numpy as np
import petsc4py

petsc4py.init(["blocks", "-options_left", "no"])

from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402
from scipy.sparse.linalg import spsolve  # noqa: E402

import consolve.solvers  # noqa: E402, F401
from consolve.pde import GridOperator  # noqa: E402

COMM = MPI.COMM_WORLD
SHAPE = (18, 20)
METHODS = {
    "bjacobi cg": {"pc_type": "bjacobi", "ksp_type": "cg"},
    "asm cg": {"pc_type": "asm", "ksp_type": "cg", "pc_asm_type": "basic"},
    "asm fgmres": {"pc_type": "asm", "ksp_type": "fgmres"},
    "bjacobi dcd": {"pc_type": "bjacobi", "ksp_type": "dcd", "sub_ksp_type": "dcd", "sub_ksp_rtol": "1e-2"},
}


def rows_of_ranks(split, size):
    """Rows of each rank; ``idle`` leaves the last rank without any, ``one`` all but the last."""
    busy = {"even": range(COMM.size), "idle": range(COMM.size - 1), "one": [COMM.size - 1]}[split]
    rows = [0] * COMM.size
    for number, rank in enumerate(busy):
        rows[rank] = size // len(busy) + (number < size % len(busy))
    return rows


def solve(csr, split, options):
    """Relative error against the direct solution, iterations and reason."""
    size, rows = csr.shape[0], rows_of_ranks(split, csr.shape[0])
    start = sum(rows[: COMM.rank])
    mine = slice(start, start + rows[COMM.rank])
    local = csr[mine]
    parts = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    mat = PETSc.Mat().createAIJ(((local.shape[0], size),) * 2, csr=parts, comm=PETSc.COMM_WORLD)
    chosen = options | {"sub_pc_type": "cnn", "ksp_rtol": "1e-9", "ksp_norm_type": "unpreconditioned"}
    if options["ksp_type"] == "fgmres":
        chosen["ksp_pc_side"] = "right"
    database = PETSc.Options()
    for name, value in chosen.items():
        database[name] = value
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setOperators(mat)
    ksp.setFromOptions()
    b, x = mat.createVecs()
    right = np.random.default_rng(4).standard_normal(size)
    b.array_w[:] = right[mine]
    ksp.solve(b, x)
    expected = spsolve(csr.tocsc(), right)
    found = np.concatenate(COMM.allgather(x.array))
    facts = {
        "error": float(np.abs(found - expected).max() / np.abs(expected).max()),
        "iterations": ksp.getIterationNumber(),
        "reason": ksp.getConvergedReason(),
    }
    for name in chosen:
        database.delValue(name)
    for thing in (ksp, mat, b, x):
        thing.destroy()
    return facts


def main():
    csr = GridOperator.from_cell_types(np.zeros(SHAPE, int), outside=2).to_csr()
    found = {
        f"{name} | {split}": solve(csr, split, options)
        for name, options in METHODS.items()
        for split in ("even", "idle", "one")
    }
    if COMM.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.exit(0)
