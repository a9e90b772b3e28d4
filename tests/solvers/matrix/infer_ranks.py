"""Program for mpirun: grids inferred on several ranks; prints one JSON line of what each case gave."""

import json

import numpy as np
import scipy.sparse as sp
from mpi4py import MPI
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import MatrixError
from consolve.solvers.matrix.infer_grid import infer_grid

comm = MPI.COMM_WORLD


def line(n, periodic):
    matrix = sp.lil_matrix(
        sp.diags([np.full(n - 1, -1.0), np.full(n, 3.0), np.full(n - 1, -1.0)], [-1, 0, 1])
    )
    if periodic:
        matrix[0, n - 1] = matrix[n - 1, 0] = -1
    return matrix


def periodic_grid(ny, nx, axes):
    y, x = line(ny, 0 in axes), line(nx, 1 in axes)
    return sp.kron(y, sp.identity(nx)) + sp.kron(sp.identity(ny), x)


def box_grid(*shape):
    matrix = sp.identity(1)
    for n in shape:
        matrix = sp.kron(matrix, sp.diags([np.ones(n - 1), np.ones(n), np.ones(n - 1)], [-1, 0, 1]))
    return sp.diags(np.full(matrix.shape[0], 40.0)) - matrix


def types(*shape):
    return np.random.default_rng(0).choice([0, 0, 0, 1, 2], shape)


CASES = {
    "5-point": (GridOperator.from_cell_types(np.zeros((9, 7), int)).to_csr(), (9, 7)),
    "7-point": (GridOperator.from_cell_types(np.zeros((4, 5, 6), int), outside=2).to_csr(), (4, 5, 6)),
    "identity rows": (GridOperator.from_cell_types(types(9, 8)).to_csr("all"), (9, 8)),
    "identity rows 3D": (GridOperator.from_cell_types(types(4, 6, 5)).to_csr("all"), (4, 6, 5)),
    "9-point": (box_grid(9, 8), (9, 8)),
    "27-point": (box_grid(4, 5, 6), (4, 5, 6)),
    "periodic x": (periodic_grid(6, 8, [1]), (6, 8)),
    "periodic y": (periodic_grid(6, 8, [0]), (6, 8)),
    "periodic": (periodic_grid(6, 8, [0, 1]), (6, 8)),
    "negative": (-GridOperator.from_cell_types(np.zeros((9, 7), int)).to_csr(), (9, 7)),
    "chain": (line(20, False), (1, 20)),
}


def spread(matrix, layout):
    matrix = sp.csr_matrix(matrix)
    rows = matrix.shape[0]
    cuts = np.linspace(0, rows, comm.size + 1).astype(int)
    if layout == "one empty":
        cuts[1:] = np.linspace(0, rows, comm.size).astype(int)
    start, stop = cuts[comm.rank], cuts[comm.rank + 1]
    local = matrix[start:stop]
    csr = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data.astype(float)
    size = (int(stop - start), rows)
    return PETSc.Mat().createAIJ((size, size), csr=csr, comm=PETSc.COMM_WORLD)


results = {}
for name, (matrix, shape) in CASES.items():
    for layout in ("even", "one empty"):
        mat = spread(matrix, layout)
        grid = infer_grid(mat)
        start, stop = mat.getOwnershipRange()
        fine = grid.shape == shape and np.array_equal(grid.cells, np.arange(start, stop))
        fine &= (grid.cells.dtype == np.int64) == (comm.size > 1)
        axes = [axis for axis, wraps in enumerate(grid.periodic) if wraps]
        results[f"{name}, {layout}"] = [comm.allreduce(bool(fine), MPI.LAND), comm.allgather(axes)]

order = np.random.default_rng(0).permutation(63)
shuffled = sp.csr_matrix(CASES["5-point"][0])[order][:, order]
far = sp.lil_matrix(CASES["5-point"][0])
far[1, 60] = far[60, 1] = -1  # which only some ranks see
for name, matrix in (("shuffled", shuffled), ("far", far)):
    try:
        text = str(infer_grid(spread(matrix, "even")))
    except MatrixError as error:
        text = f"refused: {error}"
    texts = comm.allgather(text)
    results[name] = [len(set(texts)) == 1, text]
if comm.rank == 0:
    print("RESULT " + json.dumps(results), flush=True)
