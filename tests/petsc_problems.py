"""Systems and solvers that the tests of the PETSc side share."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc

import consolve.solvers  # noqa: F401  (registers the types)
from consolve.pde import AIR, FLUID, SOLID, GridOperator


def cell_types(shape: tuple[int, ...], boundary: str, seed: int = 0) -> np.ndarray:
    """Fluid with a few solid cells, and an air layer where ``boundary`` is ``mixed``."""
    rng = np.random.default_rng(seed)
    types = np.where(rng.random(shape) < 0.1, SOLID, FLUID)
    if boundary == "mixed":
        types[0] = AIR
    return types


def make_operator(shape: tuple[int, ...], boundary: str = "mixed", seed: int = 0) -> GridOperator:
    """``mixed``: one open side; ``open``: all sides open; ``closed``: none, so A is singular."""
    outside = AIR if boundary == "open" else SOLID
    return GridOperator.from_cell_types(cell_types(shape, boundary, seed), outside=outside)


def petsc_matrix(csr: sp.spmatrix) -> PETSc.Mat:
    """AIJ matrix on this rank, without anything attached."""
    csr = sp.csr_matrix(csr)
    csr.sort_indices()
    arrays = csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data.astype(float)
    return PETSc.Mat().createAIJ(csr.shape, csr=arrays, comm=PETSc.COMM_SELF)


def dmda_matrix(dm: PETSc.DMDA) -> PETSc.Mat:
    """Dirichlet Laplacian assembled by stencils, x fastest."""
    mat = dm.createMatrix()
    sizes = dm.getSizes()
    row, col = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    for index in np.ndindex(*sizes):
        row.index = index
        mat.setValueStencil(row, row, 2.0 * len(sizes))
        for axis in range(len(sizes)):
            for step in (-1, 1):
                other = list(index)
                other[axis] += step
                if 0 <= other[axis] < sizes[axis]:
                    col.index = tuple(other)
                    mat.setValueStencil(row, col, -1.0)
    mat.assemble()
    return mat


def petsc_vector(values: np.ndarray) -> PETSc.Vec:
    """Vector on this rank."""
    return PETSc.Vec().createWithArray(np.array(values, float), comm=PETSc.COMM_SELF)


class Solved:
    """What a KSP did: solution, iterations, reason, history."""

    def __init__(self, ksp: PETSc.KSP, b: np.ndarray, guess: np.ndarray | None = None) -> None:
        rhs, x = petsc_vector(b), petsc_vector(np.zeros_like(b) if guess is None else guess)
        ksp.setInitialGuessNonzero(guess is not None)
        ksp.setConvergenceHistory(reset=True)
        ksp.solve(rhs, x)
        self.x = x.array_r.copy()
        self.iterations, self.reason = ksp.getIterationNumber(), ksp.getConvergedReason()
        self.history = np.array(ksp.getConvergenceHistory())
        self.norm = ksp.getResidualNorm()


made: list[PETSc.KSP] = []
_count = [0]


def make_ksp(mat, kind: str = "cg", pc: object = "cnn", pmat=None, **options: object) -> PETSc.KSP:
    """KSP under a prefix of its own; ``pc`` is a type or a Python context; options without prefix."""
    _count[0] += 1
    prefix = f"test{_count[0]}_"
    database = PETSc.Options(prefix)
    chosen = {"ksp_type": kind, "ksp_rtol": 1e-8, "ksp_norm_type": "unpreconditioned", "ksp_max_it": 2000}
    if isinstance(pc, str):
        chosen["pc_type"] = pc
    for name, value in (chosen | options).items():
        database[name] = value
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    made.append(ksp)
    ksp.setOptionsPrefix(prefix)
    ksp.setOperators(mat, pmat)
    if not isinstance(pc, str):
        ksp.getPC().setType("python")
        ksp.getPC().setPythonContext(pc)
    ksp.setFromOptions()
    for name in chosen | options:
        database.delValue(name)
    return ksp


def apply_pc(ksp: PETSc.KSP, r: np.ndarray) -> np.ndarray:
    """z = M r by the KSP's preconditioner."""
    z = petsc_vector(np.full_like(r, 7.0))
    ksp.getPC().apply(petsc_vector(r), z)
    return z.array_r.copy()


class Problems:
    """The functions above: what the fixture ``problems`` gives."""

    operator = staticmethod(make_operator)
    cell_types = staticmethod(cell_types)
    matrix = staticmethod(petsc_matrix)
    dmda_matrix = staticmethod(dmda_matrix)
    vector = staticmethod(petsc_vector)
    ksp = staticmethod(make_ksp)
    solve = staticmethod(Solved)
    apply = staticmethod(apply_pc)
