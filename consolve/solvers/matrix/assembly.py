"""PETSc matrices of grid operators, with their null space and their grid."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp

from consolve.base.errors import MatrixError
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.matrix.attached import attach_grid
from consolve.solvers.petsc.versions import PETSc

MOST_VECTORS = 32
"""Closed components up to which the null space is a set of vectors; beyond, it is a function."""


def assemble_matrix(operator: GridOperator, comm: Any = None) -> PETSc.Mat:
    """AIJ matrix over the active cells, C order, with null space and grid attached.

    Parameters
    ----------
    operator
        The same on all ranks; each assembles its own rows only.
    comm
        Communicator; default: this rank alone.
    """
    comm = PETSc.COMM_SELF if comm is None else comm
    rows = operator.unknowns
    start, stop = _own_rows(rows, comm.size, comm.rank)
    csr = operator.to_csr(rows=slice(start, stop))
    mat = _from_csr(csr, rows, comm)
    attach_grid(mat, operator)
    closed = operator.null_space
    if closed:
        attach_null_space(mat, ClosedComponents(closed.group[start:stop], closed.size))
    return mat


def matrix_from_csr(
    csr: sp.csr_matrix, closed: ClosedComponents | None = None
) -> tuple[PETSc.Mat, ClosedComponents]:
    """AIJ matrix of a symmetric CSR matrix on this rank, with the null space of zero row sums attached.

    Parameters
    ----------
    csr
        float64; the matrix shares its arrays.
    closed
        Its closed components, if they are known.

    Returns
    -------
    The matrix, and its closed components.
    """
    mat = _from_csr(csr, csr.shape[0], PETSc.COMM_SELF, symmetric=False)
    closed = ClosedComponents.of_matrix(csr) if closed is None else closed
    if closed:
        attach_null_space(mat, closed)
    return mat, closed


def attach_null_space(mat: PETSc.Mat, closed: ClosedComponents) -> None:
    """Attach the constants of closed components, of this rank's rows, as the null space."""
    count, group = len(closed), closed.group
    if count == 1 and (group == 0).all() and mat.comm.size == 1:
        null_space = PETSc.NullSpace().create(constant=True, comm=mat.comm)
    elif count <= MOST_VECTORS:
        vectors = []
        for number in range(count):
            vector = mat.createVecRight()
            vector.array_w[:] = group == number
            vector.normalize()
            vectors.append(vector)
        null_space = PETSc.NullSpace().create(vectors=vectors, comm=mat.comm)
    elif mat.comm.size == 1:

        def remove(_: PETSc.NullSpace, vector: PETSc.Vec) -> None:
            values = vector.array
            closed.remove(values, values)

        null_space = PETSc.NullSpace().create(comm=mat.comm)
        null_space.setFunction(remove)
    else:
        raise MatrixError(
            f"{count} closed components are more than {MOST_VECTORS} null-space vectors on several ranks; "
            "fill small pockets with SOLID, or run on one rank"
        )
    mat.setNullSpace(null_space)
    mat.setTransposeNullSpace(null_space)


def _own_rows(rows: int, size: int, rank: int) -> tuple[int, int]:
    """PETSc's own split of rows over ranks."""
    share, rest = divmod(rows, size)
    start = rank * share + min(rank, rest)
    return start, start + share + (rank < rest)


def _from_csr(csr: sp.csr_matrix, columns: int, comm: Any, symmetric: bool = True) -> PETSc.Mat:
    local = csr.shape[0]
    arrays = (csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data)
    sizes = ((local, columns), (local, columns))
    if comm.size == 1:
        mat = PETSc.Mat().createAIJWithArrays(sizes, arrays, comm=comm)
    else:
        mat = PETSc.Mat().createAIJ(sizes, csr=arrays, comm=comm)
    if symmetric:
        mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        mat.setOption(PETSc.Mat.Option.SYMMETRY_ETERNAL, True)
    return mat
