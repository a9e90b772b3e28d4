"""PETSc matrices of grid operators, with their null space and their grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.base.errors import InconsistentRightHandSide, MatrixError
from consolve.pde.matrix import csr_reader
from consolve.pde.matrix.stencil_kernels import group_sums, remove_means
from consolve.pde.poisson.grid import GridOperator
from consolve.solvers.matrix.attached import attach_grid
from consolve.solvers.petsc.versions import PETSc

MOST_VECTORS = 32
"""Closed components up to which the null space is a set of vectors; beyond, it is a function."""
CONSISTENCY_TOLERANCE = 1e-6
"""Sum of a right-hand side over a closed component, relative to the sum of its absolute values."""


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
    group = closed_group(operator)
    if group is not None:
        attach_null_space(mat, group[start:stop], int(group.max()) + 1)
    return mat


def closed_group(operator: GridOperator, cells: NDArray | None = None) -> NDArray[np.int32] | None:
    """Number of the closed component of each unknown (or of each of ``cells``), -1 where it is open or not
    active; None on a regular operator."""
    if not operator.is_singular:
        return None
    labels, closed = operator.components
    number = np.append(np.where(closed, np.cumsum(closed) - 1, -1), -1).astype(np.int32)
    return number[labels.reshape(-1)[operator.cells if cells is None else cells]]


def real_csr(matrix: Any) -> sp.csr_matrix:
    """A square matrix of any SciPy format, or a dense array, as a new float64 CSR matrix with sorted columns.

    Raises
    ------
    MatrixError
        If it is complex or of another kind, not square, or not finite.
    """
    try:
        return csr_reader.real_csr(matrix)
    except ValueError as error:
        raise MatrixError(str(error)) from None


def matrix_from_csr(
    csr: sp.csr_matrix, group: NDArray[np.int32] | None = None
) -> tuple[PETSc.Mat, NDArray[np.int32]]:
    """AIJ matrix of a symmetric CSR matrix on this rank, with the null space of zero row sums attached.

    Parameters
    ----------
    csr
        float64; the matrix shares its arrays.
    group
        What ``closed_components`` gives, if it is known.

    Returns
    -------
    The matrix, and for each row the number of its closed component (connected, all row sums 0), or -1.
    """
    mat = _from_csr(csr, csr.shape[0], PETSc.COMM_SELF, symmetric=False)
    group = closed_components(csr) if group is None else group
    if group.max(initial=-1) >= 0:
        attach_null_space(mat, group, int(group.max()) + 1)
    return mat, group


def closed_components(csr: sp.csr_matrix, round_off: float = 1e-12) -> NDArray[np.int32]:
    """Number of each row's connected component if all its row sums are 0, else -1.

    A sum is 0 if it is at most ``round_off`` times the sum of the row's magnitudes.
    """
    stored = csr.copy()
    stored.eliminate_zeros()
    count, label = sp.csgraph.connected_components(stored, directed=False)
    size = np.asarray(abs(csr).sum(axis=1)).reshape(-1)
    total = np.abs(np.asarray(csr.sum(axis=1)).reshape(-1))
    is_open = np.bincount(label, total > round_off * size, minlength=count) > 0
    number = np.where(is_open, -1, np.cumsum(~is_open) - 1).astype(np.int32)
    return number[label]


def attach_null_space(mat: PETSc.Mat, group: NDArray[np.int32], count: int) -> None:
    """Attach the constants of closed components as the null space.

    Parameters
    ----------
    mat
        The matrix.
    group
        Component of each local row, -1 for rows of none.
    count
        Number of components over all ranks.
    """
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
        size = np.bincount(group[group >= 0], minlength=count)

        def remove(_: PETSc.NullSpace, vector: PETSc.Vec) -> None:
            values = vector.array
            remove_means(group, size, values, values)

        null_space = PETSc.NullSpace().create(comm=mat.comm)
        null_space.setFunction(remove)
    else:
        raise MatrixError(
            f"{count} closed components are more than {MOST_VECTORS} null-space vectors on several ranks; "
            "fill small pockets with SOLID, or run on one rank"
        )
    mat.setNullSpace(null_space)
    mat.setTransposeNullSpace(null_space)


def consistent(b: NDArray[np.float64], group: NDArray[np.int32] | None) -> NDArray[np.float64]:
    """``b`` without the round-off that its sums over closed components hold.

    Raises
    ------
    InconsistentRightHandSide
        If a sum is more than round-off: the system then has no solution.
    """
    if group is None or group.max(initial=-1) < 0:
        return b
    check_consistent(b, group, int(group.max()) + 1)
    return without_means(b, group)


def check_consistent(b: NDArray[np.float64], group: NDArray[np.int32], groups: int) -> None:
    """Raise InconsistentRightHandSide if ``b`` sums to more than round-off over a closed component."""
    scale = max(float(b.max(initial=0)), -float(b.min(initial=0)))
    total, size, rows = group_sums(group, groups, b)
    check_sums(total, size, rows, scale)


def check_sums(total: NDArray, size: NDArray, rows: NDArray, scale: float) -> None:
    """Raise InconsistentRightHandSide if a sum over a closed component is more than round-off.

    Parameters
    ----------
    total, size, rows
        For each component the sum of b, the sum of |b|, and its rows.
    scale
        max |b|.
    """
    wrong = np.flatnonzero(np.abs(total) > CONSISTENCY_TOLERANCE * size + 1e-12 * scale)
    if wrong.size:
        number = wrong[np.argmax(np.abs(total[wrong]))]
        raise InconsistentRightHandSide(
            f"the operator is singular and the right-hand side sums to {total[number]:.3e} over a closed "
            f"component of {int(rows[number])} rows (sum of magnitudes {size[number]:.3e}); a solution needs "
            "0: subtract the mean over the component (GridOperator.remove_null_space), attach the null space "
            "to the matrix (MatSetNullSpace), or open a boundary"
        )


def without_means(x: NDArray[np.float64], group: NDArray[np.int32] | None) -> NDArray[np.float64]:
    """``x`` less its mean over each closed component."""
    if group is None or group.max(initial=-1) < 0:
        return x
    result = np.empty_like(x)
    remove_means(group, np.bincount(group[group >= 0]), x, result)
    return result


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
