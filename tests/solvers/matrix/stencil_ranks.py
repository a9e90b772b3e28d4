"""Program for mpirun: matrices on ranks are read as on one rank; prints one JSON line of differences.

Every rank builds the whole (small) matrix of a case, keeps the rows that a layout gives it, and reads them
with the others; the parts are gathered and compared with what one rank reads of the whole.
"""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
from mpi4py import MPI
from petsc4py import PETSc

from consolve.base.errors import MatrixError
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.row_operator import RowOperator
from consolve.solvers.matrix.stencil import read_stencil

cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "matrix_cases.py")))
comm = MPI.COMM_WORLD


def split(count, layout, cells, shape):
    """Order of the rows (old number of each new row) and number of rows of each rank."""
    rng = np.random.default_rng(count)
    if layout == "slabs":
        return np.arange(count), [count // comm.size + (r < count % comm.size) for r in range(comm.size)]
    if layout == "uneven":  # the last rank has none
        cuts = np.sort(rng.integers(0, count + 1, comm.size - 2)) if comm.size > 2 else []
        return np.arange(count), [*np.diff([0, *cuts, count]).tolist(), 0]
    if layout == "boxes":  # the last two axes are cut, as a DMDA does
        j, k = np.unravel_index(cells, shape)[-2:]
        owner = (2 * j // shape[-2] * 2 + 2 * k // shape[-1]) % comm.size
    else:
        owner = rng.integers(0, comm.size, count)
    order = np.argsort(owner, kind="stable") if layout == "boxes" else rng.permutation(count)
    return order, np.bincount(owner, minlength=comm.size).tolist()


def spread_matrix(matrix, sizes):
    start = sum(sizes[: comm.rank])
    local = sp.csr_matrix(matrix)[start : start + sizes[comm.rank]]
    size = (sizes[comm.rank], matrix.shape[0])
    csr = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    return PETSc.Mat().createAIJ((size, size), csr=csr, comm=PETSc.COMM_WORLD), start


def difference(case, layout):
    """Greatest relative difference from what one rank reads."""
    matrix, shape, cells, periodic = case
    axes = tuple(axis in periodic for axis in range(len(shape)))
    alone = PETSc.Mat().createAIJ(
        matrix.shape,
        csr=(matrix.indptr.astype(PETSc.IntType), matrix.indices.astype(PETSc.IntType), matrix.data),
        comm=PETSc.COMM_SELF,
    )
    one = read_stencil(alone, GridMap(shape, cells.astype(np.int32), "a test", axes))
    order, sizes = split(len(cells), layout, cells, shape)
    mat, start = spread_matrix(matrix[order][:, order], sizes)
    own = cells[order][start : start + sizes[comm.rank]].astype(np.int64)
    many = read_stencil(mat, GridMap(shape, own, "a test", axes))
    assert isinstance(many.operator, RowOperator) and many.operator.cells.dtype == np.int64
    assert many.operator.periodic == one.grid.periodic == many.grid.periodic
    assert len(set(comm.allgather((many.sign, many.one_sided)))) == 1
    assert (many.sign, many.one_sided) == (one.sign, one.one_sided)
    parts = comm.allgather((many.operator, own[many.diagonal_rows], many.diagonal_inverse))
    expected = cases.to_grid(one.operator, shape, cells)
    total = [np.zeros_like(a) for a in (*expected[0], *expected[1:])]
    for operator, _, _ in parts:
        faces, dirichlet, active = cases.to_grid(operator, shape, operator.cells)
        for a, b in zip(total, (*faces, dirichlet, active)):
            a += b
    scale = abs(matrix).max()
    worst = max(
        float(abs(a * 1.0 - b).max()) / scale for a, b in zip(total[:-1], (*expected[0], expected[1]))
    )
    assert (total[-1] == expected[2]).all()
    alone_cells = np.concatenate([p[1] for p in parts])
    order = np.argsort(alone_cells)
    np.testing.assert_array_equal(alone_cells[order], np.sort(cells[one.diagonal_rows]))
    inverse = np.concatenate([p[2] for p in parts])[order]
    np.testing.assert_array_equal(inverse, one.diagonal_inverse[np.argsort(cells[one.diagonal_rows])])
    return worst


def make(kind, shape, seed=0):
    """(matrix, shape, cells of its rows, periodic axes) of a case."""
    rng = np.random.default_rng(seed)
    words = kind.split()
    periodic = tuple(int(w) for w in words if w.isdigit())
    if "q1" in words:
        elements = tuple(n - (a not in periodic) for a, n in enumerate(shape))
        spacing = (1.0, 2.0, 0.5)[: len(shape)]
        matrix, _ = cases.q1(elements, spacing, 10 ** rng.uniform(-2, 2, elements), 0.0, periodic)
    else:
        faces, dirichlet = cases.random_fluxes(shape, rng, periodic, closed=0.1)
        if "regular" in words:
            faces, dirichlet = cases.random_fluxes(shape, rng, periodic, 0.0, 0.0)
        matrix = cases.fluxes(faces, dirichlet * ("closed" not in words), periodic)
    cells = np.flatnonzero(rng.random(shape) < 0.8) if "mask" in words else np.arange(np.prod(shape))
    matrix = cases.on_rows(matrix, cells)
    if "kept" in words:
        matrix = cases.keep_dirichlet_rows(matrix, np.flatnonzero(rng.random(len(cells)) < 0.15), 3.0)
    if "negative" in words:
        matrix = -1e5 * matrix
    if "told" not in words:
        return matrix, shape, cells, periodic
    return matrix, shape, cells, ()


KINDS = (
    "regular", "regular closed", "flux", "flux mask", "flux kept", "flux mask kept negative", "flux 0",
    "flux 1", "regular 0 1", "flux 0 1 mask kept", "regular 0 told", "flux 0 1 told", "q1", "q1 mask",
    "q1 kept", "q1 0", "q1 0 1 mask", "q1 1 kept negative",
)  # fmt: skip
SHAPES = ((5, 6), (7, 2), (2, 3), (1, 9), (4, 3, 5), (2, 4, 3), (3, 1, 4), (1, 2, 2))
LAYOUTS = ("slabs", "uneven", "boxes", "random")


def differences():
    found = {}
    for kind in KINDS:
        for shape in SHAPES:
            periodic = [int(w) for w in kind.split() if w.isdigit()]
            if ("told" in kind and min(shape) < 3) or ("q1" in kind and min(shape) < 2):
                continue  # short axes show no wrap; elements need two nodes
            if any(shape[a] < 3 for a in periodic) and "q1" in kind and "0 1" not in kind:
                continue
            for layout in LAYOUTS:
                name = f"{kind}|{'x'.join(map(str, shape))}|{layout}"
                try:
                    found[name] = difference(make(kind, shape), layout)
                except Exception as error:
                    print(name, comm.rank, repr(error), file=sys.stderr, flush=True)
                    comm.Abort(1)
    return found


def broken(change, row, column=None, value=None):
    """A sound 6 x 7 matrix with one fault."""
    matrix = cases.fluxes([np.ones((6, 7)), np.ones((6, 7))], np.full((6, 7), 0.5)).tolil()
    if change == "entry":
        matrix[row, column] = value
    elif change == "pair":
        matrix[row, column] = matrix[column, row] = value
    return sp.csr_matrix(matrix)


FAULTS = {
    "nan": ("entry", 23, 24, np.nan),
    "asymmetric": ("entry", 23, 24, -3.0),
    "asymmetric across ranks": ("entry", 21, 14, -3.0),
    "one side missing": ("entry", 21, 14, 0.0),
    "positive": ("pair", 21, 14, 0.5),
    "far": ("pair", 2, 30, -0.1),
    "indefinite": ("entry", 40, 40, -4.0),
    "zero diagonal": ("entry", 40, 40, 0.0),
    "not dominant": ("entry", 3, 3, 0.5),
}


def errors():
    """Message of each fault, and whether all ranks raise it."""
    found = {}
    for name, fault in FAULTS.items():
        _, sizes = split(42, "slabs", None, None)
        mat, start = spread_matrix(broken(*fault), sizes)
        cells = np.arange(start, start + sizes[comm.rank])
        try:
            read_stencil(mat, GridMap((6, 7), cells, "a test"))
            text = "no error"
        except MatrixError as error:
            text = str(error)
        texts = comm.allgather(text)
        found[name] = [texts[0], len(set(texts)) == 1]
    mat, start = spread_matrix(broken("none", 0), split(42, "slabs", None, None)[1])
    try:  # one rank has a wrong number of cells
        count = mat.getLocalSize()[0] + (comm.rank == comm.size - 1)
        read_stencil(mat, GridMap((6, 7), np.arange(count), "a test"))
        text = "no error"
    except MatrixError as error:
        text = str(error)
    texts = comm.allgather(text)
    found["cells"] = [texts[0], len(set(texts)) == 1]
    return found


def conversions():
    """Types that PETSc converts are read as AIJ is."""
    found = {}
    matrix, shape, cells, _ = make("flux", (5, 6))
    _, sizes = split(30, "slabs", cells, shape)
    mat, start = spread_matrix(matrix, sizes)
    own = GridMap(shape, cells[start : start + sizes[comm.rank]], "a test")
    expected = read_stencil(mat, own).operator
    for kind in ("mpisbaij", "mpibaij", "mpisell", "mpidense", "is"):
        mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        got = read_stencil(mat.convert(kind, PETSc.Mat()), own).operator
        arrays = zip((*got.face_coefficient, got.dirichlet), (*expected.face_coefficient, expected.dirichlet))
        found[kind] = comm.allreduce(max((float(abs(a - b).max(initial=0)) for a, b in arrays)), MPI.MAX)
    return found


result = {"differences": differences(), "errors": errors(), "conversions": conversions()}
if comm.rank == 0:
    print("RESULT", json.dumps(result))
