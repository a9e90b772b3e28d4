"""Program for mpirun: systems as PETSc programs have them, solved by -pc_type cnn; one JSON line of findings.

    wild_ranks.py DIM        every boundary kind with every way of storing the matrix

Each solution is compared with SciPy's direct solve of the same matrix.
"""

import json
import sys

import numpy as np
import petsc4py
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

petsc4py.init(["wild", "-options_left", "no"])

from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from consolve.learned.weights.file import folder  # noqa: E402
from consolve.solvers import attach_grid  # noqa: E402

COMM = MPI.COMM_WORLD
SHAPES = {2: (12, 18), 3: (8, 6, 10)}
BOUNDARIES = (
    "dirichlet", "mixed", "neumann", "neumann attached", "identity rows", "identity rows scaled",
    "one-sided rows", "periodic", "periodic closed", "box stencil", "holes", "single precision",
)  # fmt: skip
STORAGES = ("grid", "dmda", "mask", "scattered", "sell", "shell", "negative", "small")


def fluxes(shape, rng, span=0.0, closed=None, periodic=()):
    """CSR matrix of a star stencil without boundary terms: coefficients 10^+-span, none at closed cells."""
    size, index = int(np.prod(shape)), np.arange(np.prod(shape)).reshape(shape)
    is_open = np.ones(shape, bool) if closed is None else ~closed
    matrix = sp.csr_matrix((size, size))
    for axis in range(len(shape)):
        face = 10 ** rng.uniform(-span, span, shape) * (is_open & np.roll(is_open, -1, axis)) * (1 + axis)
        if axis not in periodic:
            np.moveaxis(face, axis, 0)[-1] = 0
        pair = index.reshape(-1), np.roll(index, -1, axis).reshape(-1)
        coupling = sp.coo_matrix((face.reshape(-1), pair), (size, size)).tocsr()
        matrix = matrix - coupling - coupling.T
    matrix.eliminate_zeros()
    return (matrix - sp.diags(np.asarray(matrix.sum(1)).reshape(-1))).tocsr()


def sides(shape):
    """True at the cells of the boundary."""
    index = np.indices(shape)
    return np.any([(i == 0) | (i == n - 1) for i, n in zip(index, shape)], axis=0).reshape(-1)


def q1(shape):
    """Q1 finite elements on unit squares or cubes, natural boundary."""
    stiff = [sp.diags([-1, [1, *[2] * (n - 2), 1], -1], [-1, 0, 1], (n, n)) for n in shape]
    mass = [sp.diags([1, [2, *[4] * (n - 2), 2], 1], [-1, 0, 1], (n, n)) / 6 for n in shape]
    total = 0
    for axis in range(len(shape)):
        product = sp.identity(1)
        for other in range(len(shape)):
            product = sp.kron(product, stiff[other] if other == axis else mass[other])
        total = total + product
    return total.tocsr()


def problem(boundary, shape):
    """Matrix, and whether constants are its null space, all in natural numbering of all cells."""
    rng = np.random.default_rng(3)
    border = sides(shape)
    if boundary == "box stencil":
        return (q1(shape) + sp.diags(0.5 * border)).tocsr(), False
    if boundary.startswith("periodic"):
        axes = (len(shape) - 1,) if boundary == "periodic" else tuple(range(len(shape)))
        fixed = 0.0 if boundary.endswith("closed") else 2.0 * (np.arange(border.size) < shape[-1])
        a = fluxes(shape, rng, periodic=axes) + sp.diags(fixed + 0 * border)
        return a.tocsr(), boundary.endswith("closed")
    if boundary.startswith("neumann"):
        return fluxes(shape, rng, 1.0), True
    if boundary == "mixed":
        low = np.indices(shape)[-1].reshape(-1) == 0
        return (fluxes(shape, rng, 2.0) + sp.diags(3.0 * low)).tocsr(), False
    if boundary == "holes":
        closed = np.zeros(shape, bool)
        closed[tuple(slice(n // 3, n // 2 + 1) for n in shape)] = True
        a = fluxes(shape, rng, 0.0, closed) + sp.diags(2.0 * (border & ~closed.reshape(-1)))
        return (a + sp.diags(1.0 * closed.reshape(-1))).tocsr(), False
    a = fluxes(shape, rng, 1.0 if boundary == "single precision" else 0.0)
    if boundary in ("dirichlet", "single precision"):
        a = (a + sp.diags(2.0 * border)).tocsr()
        if boundary == "single precision":
            a.data = a.data.astype(np.float32).astype(float)
        return a, False
    keep = sp.diags(1.0 * ~border)
    scale = 7.5 if boundary.endswith("scaled") else 1.0
    inner = keep @ a if boundary == "one-sided rows" else keep @ a @ keep
    return (inner + sp.diags(scale * border)).tocsr(), False


def numbering(storage, shape, comm):
    """Natural number of each global row, rows of each rank, and the DMDA if there is one."""
    size = int(np.prod(shape))
    if storage == "dmda":
        da = PETSc.DMDA().create(sizes=shape[::-1], stencil_width=1, comm=comm, setup=True)
        natural = np.empty(size, np.int64)
        numbers = da.getAO().app2petsc(np.arange(size, dtype=PETSc.IntType))
        natural[numbers] = np.arange(size)
        start, stop = da.getGlobalVec().getOwnershipRange()
        return natural, COMM.allgather(stop - start), da
    if storage == "scattered":
        rng = np.random.default_rng(5)
        scattered = rng.permutation(size)  # first, so that it is the same on any number of ranks
        cuts = np.sort(rng.integers(0, size, COMM.size - 1))
        return scattered, np.diff([0, *cuts, size]).tolist(), None
    return np.arange(size), [size // COMM.size + (r < size % COMM.size) for r in range(COMM.size)], None


def solve(boundary, storage, shape, method):
    """Relative error against the direct solution, iterations and reason."""
    comm = PETSc.COMM_WORLD
    matrix, singular = problem(boundary, shape)
    factor = {"negative": -3.0, "small": 1e-9}.get(storage, 1.0)
    matrix = factor * matrix
    natural, sizes, da = numbering(storage, shape, comm)
    # By its file, the network serves every operator: on one rank as on many.
    context = {"pc_cnn_gathered_cells": "40", "pc_cnn_model": str(folder() / f"multilevel-{len(shape)}d.h5")}
    if storage == "mask":
        if boundary == "holes":
            keep = np.flatnonzero(np.diff(matrix.indptr) > 1)
            natural = keep
            sizes = [keep.size // COMM.size + (r < keep.size % COMM.size) for r in range(COMM.size)]
        image = np.ones(int(np.prod(shape)), np.uint8)
        image[natural] = 0
        if COMM.rank == 0:
            np.save("mask.npy", image.reshape(shape))
        COMM.barrier()
        context["pc_cnn_mask"] = "mask.npy"
    elif storage not in ("dmda", "scattered"):
        context["pc_cnn_grid"] = ",".join(map(str, shape[::-1]))
    matrix = matrix[natural][:, natural].tocsr()
    size, start = natural.size, sum(sizes[: COMM.rank])
    mine = slice(start, start + sizes[COMM.rank])
    local = matrix[mine]
    csr = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    mat = PETSc.Mat().createAIJ(((local.shape[0], size),) * 2, csr=csr, comm=comm)
    if storage == "sell":
        mat = mat.convert("sell", PETSc.Mat())
    if storage == "scattered":
        attach_grid(mat, shape, natural[mine])
    operator = mat
    if storage == "shell":

        class Product:
            def mult(self, _, x, y):
                mat.mult(x, y)

        operator = PETSc.Mat().createPython(mat.getSizes(), Product(), comm=comm)
        operator.setUp()
    if singular and "attached" in boundary:
        mat.setNullSpace(PETSc.NullSpace().create(constant=True, comm=comm))
        operator.setNullSpace(mat.getNullSpace())
    ksp = PETSc.KSP().create(comm)
    options = PETSc.Options()
    for name, value in context.items():
        options[name] = value
    options["ksp_norm_type"] = "unpreconditioned"
    ksp.setOperators(operator, mat)
    if da is not None:
        ksp.getPC().setDM(da)
    ksp.setType(method)
    ksp.getPC().setType("cnn")
    ksp.setTolerances(rtol=1e-10, max_it=60)
    ksp.setFromOptions()
    expected = np.random.default_rng(4).standard_normal(size)
    b = matrix @ expected
    lone = np.diff(matrix.indptr) == 1
    vec_b, vec_x = mat.createVecs()
    vec_b.array_w[:] = b[mine]
    ksp.solve(vec_b, vec_x)
    x = np.concatenate(COMM.allgather(vec_x.array))
    if singular:
        x, expected = x - x.mean(), expected - expected.mean()
    else:
        expected = spsolve(matrix.tocsc(), b)
    facts = {
        "error": float(np.abs(x - expected).max() / np.abs(expected).max()),
        "iterations": ksp.getIterationNumber(),
        "reason": ksp.getConvergedReason(),
        "lone": int(lone.sum()),
    }
    for name in context:
        options.delValue(name)
    for thing in (ksp, mat, vec_b, vec_x):
        thing.destroy()
    return facts


def main(dim):
    found = {}
    for boundary in BOUNDARIES:
        for number, storage in enumerate(STORAGES):
            method = "dcd" if number % 2 else "cg"
            found[f"{boundary} | {storage} | {method}"] = solve(boundary, storage, SHAPES[dim], method)
    if COMM.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
