"""Program for mpirun: faults that one rank alone sees; prints one JSON line with what each rank was told."""

import json
import sys
import traceback

import numpy as np
import petsc4py

petsc4py.init(["faults", "-options_left", "no"])

from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402

import consolve.solvers  # noqa: E402, F401
from consolve.pde import GridOperator  # noqa: E402

COMM = MPI.COMM_WORLD
SHAPE = (16, 18)


def system(outside, change=lambda csr: None):
    csr = GridOperator.from_cell_types(np.zeros(SHAPE, int), outside).to_csr()
    change(csr)
    cuts = [csr.shape[0] * q // COMM.size for q in range(COMM.size + 1)]
    local = csr[cuts[COMM.rank] : cuts[COMM.rank + 1]]
    parts = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    return PETSc.Mat().createAIJ(((local.shape[0], csr.shape[0]),) * 2, csr=parts, comm=PETSc.COMM_WORLD)


def told(mat, kind, change=lambda b, last: None, **options):
    """Reason, or text of the error, of each rank."""
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    database = PETSc.Options()
    chosen = {"pc_cnn_grid": "18,16", "pc_cnn_gathered_cells": 30} | options
    for name, value in chosen.items():
        database[name] = value
    ksp.setOperators(mat)
    ksp.setType(kind)
    ksp.getPC().setType("cnn")
    ksp.setTolerances(max_it=40)
    try:
        ksp.setFromOptions()
        b, x = mat.createVecs()
        b.set(1.0)
        values = b.array
        change(values, COMM.rank == COMM.size - 1)
        b.array = values
        ksp.solve(b, x)
        result = ksp.getConvergedReason()
    except Exception as error:
        cause = error.__cause__ or error.__context__ or error
        result = str(cause if not isinstance(error, ValueError) else error)
        if "During handling of" in "".join(traceback.format_exception(error)):
            result += " (and another error)"
    for name in chosen:
        database.delValue(name)
    return COMM.allgather(result)


def spoil(row, value):
    def change(csr):
        csr.data[csr.indptr[row]] = value

    return change


def put(value):
    def change(b, last):
        if last:
            b[-1] = value

    return change


def zeroed():
    """One plane of nodes for each of three ranks, the first and the last of them boundary rows only."""
    operator = GridOperator.from_cell_types(np.zeros((3, 18), int), 2)
    csr = operator.to_csr()
    cuts = [54 * q // COMM.size for q in range(COMM.size + 1)]
    local = csr[cuts[COMM.rank] : cuts[COMM.rank + 1]]
    parts = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    mat = PETSc.Mat().createAIJ(((local.shape[0], 54),) * 2, csr=parts, comm=PETSc.COMM_WORLD)
    boundary = [row for row in range(54) if row // 18 in (0, 2) or row % 18 in (0, 17)]
    mat.zeroRows([row for row in boundary if cuts[COMM.rank] <= row < cuts[COMM.rank + 1]], 1.0)
    return mat


def main():
    good, closed = system(2), system(1)
    found = {}
    PETSc.Log.begin()
    told(good, "cg")
    found["exchanges"] = COMM.allgather(PETSc.Log.Event("CNNHalo").getPerfInfo()["count"])
    for kind in ("cg", "dcd", "fgmres"):
        found[f"fine {kind}"] = told(good, kind)
        found[f"nan {kind}"] = told(good, kind, put(np.nan))
        found[f"inf {kind}"] = told(good, kind, put(np.inf))
        found[f"nan closed {kind}"] = told(closed, kind, put(np.nan))
        found[f"inconsistent {kind}"] = told(closed, kind, put(5.0))
    for kind in ("cg", "dcd"):
        found[f"zeroed {kind}"] = told(zeroed(), kind, pc_cnn_grid="18,3")
    last = int(np.prod(SHAPE)) - 1
    found["matrix nan"] = told(system(2, spoil(last, np.nan)), "cg")
    found["matrix positive"] = told(system(2, spoil(last, 3.0)), "cg")
    found["matrix asymmetric"] = told(system(2, spoil(last, -7.0)), "cg")
    found["grid"] = told(good, "cg", pc_cnn_grid="18,17")
    found["model"] = told(good, "cg", pc_cnn_model="nowhere.h5")
    found["threads"] = told(good, "cg", pc_cnn_threads=9999)
    if COMM.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.exit(0)
