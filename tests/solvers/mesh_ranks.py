"""Program for mpirun: finite elements on meshes, by cnn, on several ranks; one JSON line of findings."""

import json
import sys
from pathlib import Path

import numpy as np
import petsc4py
import scipy.sparse as sp

petsc4py.init(["meshes", "-options_left", "no"])
sys.path.insert(0, str(Path(__file__).parents[1]))

import mesh_cases  # noqa: E402
from matrix_cases import q1  # noqa: E402
from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402
from scipy.sparse.linalg import spsolve  # noqa: E402

from consolve.solvers import attach_points  # noqa: E402

COMM = MPI.COMM_WORLD


def split(size, kind):
    """First row of this rank and one past its last; ``idle``: the last rank has none."""
    ranks = COMM.size - (kind == "idle" and COMM.size > 1)
    ends = [size * r // ranks for r in range(ranks + 1)] + [size] * (COMM.size - ranks)
    return ends[COMM.rank], ends[COMM.rank + 1]


def solve(matrix, points, kind="even", **options):
    size = matrix.shape[0]
    start, stop = split(size, kind)
    local = sp.csr_matrix(matrix)[start:stop]
    local.sort_indices()
    parts = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    mat = PETSc.Mat().createAIJ(((stop - start, size),) * 2, csr=parts, comm=PETSc.COMM_WORLD)
    if points is not None:
        attach_points(mat, points[start:stop])
    database = PETSc.Options()
    chosen = {"ksp_type": "cg", "pc_type": "cnn", "ksp_rtol": "1e-9", "ksp_norm_type": "unpreconditioned"}
    for name, value in (chosen | options).items():
        database[name] = value
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setOperators(mat)
    ksp.setFromOptions()
    for name in options:
        database.delValue(name)
    b, x = mat.createVecs()
    right = np.random.default_rng(4).standard_normal(size)
    singular = abs(matrix.sum(1)).max() < 1e-9
    if singular:
        right -= right.mean()
    b.array_w[:] = right[start:stop]
    try:
        ksp.solve(b, x)
    except (ValueError, PETSc.Error) as error:
        text = str(error.__cause__ or error)
        return {"error": text, "same": len(set(COMM.allgather(text))) == 1}
    found = np.concatenate(COMM.allgather(x.array))
    if singular:
        dense = np.linalg.lstsq(matrix.toarray(), right, rcond=None)[0]
        expected, found = dense - dense.mean(), found - found.mean()
    else:
        expected = spsolve(matrix.tocsc(), right)
    facts = {
        "iterations": ksp.getIterationNumber(),
        "reason": ksp.getConvergedReason(),
        "difference": float(np.linalg.norm(found - expected) / np.linalg.norm(expected)),
    }
    ksp.destroy()
    return facts


def main():
    found = {}
    for ndim, n in ((2, 40), (3, 11)):
        for boundary in ("dirichlet", "mixed", "kept", "neumann"):
            matrix, points = mesh_cases.system(ndim, n, boundary=boundary)
            found[f"{ndim}D {boundary}"] = solve(matrix, points)
    matrix, points = mesh_cases.system(2, 48)
    found["idle"] = solve(matrix, points, "idle")
    places, cells = mesh_cases.simplices(2, 48)
    k = np.where(places[cells].mean(1)[:, 0] > 0.6, 1000.0, 1.0)  # each rank's largest entry is another
    free = np.flatnonzero(~mesh_cases.on_boundary(places, 2))
    jump = mesh_cases.p1(places, cells, k)[free][:, free]
    found["jump"] = solve(sp.csr_matrix(jump), places[free])
    found["negative"] = solve(-matrix, points)
    found["dcd"] = solve(matrix, points, ksp_type="dcd")
    found["two sweeps"] = solve(matrix, points, pc_cnn_smooth="2")
    matrix, points = mesh_cases.system(2, 20, degree=2)
    found["quadratic"] = solve(matrix, points)
    box, _ = q1((20, 24))
    found["box stencil"] = solve(sp.csr_matrix(box + 0.01 * sp.eye(box.shape[0])), None)
    broken = sp.lil_matrix(matrix)
    broken[3, 5] = broken[3, 5] - 0.5
    found["one row at fault"] = solve(sp.csr_matrix(broken), points)
    found["no sweep"] = solve(matrix, points, pc_cnn_smooth="0")
    if COMM.rank == 0:
        print("RESULT", json.dumps(found))


main()
