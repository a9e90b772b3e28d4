"""A PETSc matrix as the Poisson operator of a structured grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.pde import GridOperator
from consolve.pde.arrays import zeros
from consolve.pde.grid import as_volume
from consolve.solvers import stencil_kernels as kernels
from consolve.solvers.errors import MatrixError
from consolve.solvers.grid_map import GridMap
from consolve.solvers.petsc import PETSc, csr_arrays


@dataclass(frozen=True)
class Stencil:
    """What a matrix A says about its grid.

    ``A = sign * P' operator P`` on the coupled rows, and a diagonal on the others.

    Parameters
    ----------
    operator
        The operator on all cells; active where a coupled row lies.
    grid
        The cell of each row.
    sign
        1, or -1 for a negative definite matrix.
    diagonal_rows
        int32: rows without a coupling (identity rows of solids, kept Dirichlet unknowns, isolated cells).
    diagonal_inverse
        1 / a_ii of those rows, 0 where a_ii = 0.
    one_sided
        Some row couples to a diagonal-only one (Dirichlet rows kept by MatZeroRows): A is not symmetric.
    """

    operator: GridOperator
    grid: GridMap
    sign: int
    diagonal_rows: NDArray[np.int32]
    diagonal_inverse: NDArray[np.float64]
    one_sided: bool = False


def read_stencil(mat: PETSc.Mat, grid: GridMap, singular: bool = False) -> Stencil:
    """Read an assembled matrix as a 5-point (2D) or 7-point (3D) operator.

    Face coefficients are -a_ij, the Dirichlet part is the row sum over couplings to other coupled rows;
    couplings to diagonal-only rows (Dirichlet unknowns kept in the matrix) go into it.  Stored zeros are
    ignored.

    Parameters
    ----------
    mat
        An assembled matrix on one rank: AIJ, or a type that PETSc converts to AIJ.
    grid
        The cell of each row.
    singular
        The matrix has a null space attached: row sums under 1e-6 of the diagonal count as 0, so that
        coefficients of single precision do not make it regular.

    Raises
    ------
    MatrixError
        If the matrix is complex, distributed, not square, blocked or not assembled, or a row is not finite,
        couples off the stencil, is not symmetric (1e-6 relative), has a positive coupling or a diagonal of
        the other sign, or is not diagonally dominant.  The message names the first such row, its cell and
        the values.
    """
    check_matrix(mat)
    mat = _as_aij(mat)
    indptr, indices, values = csr_arrays(mat)
    rows = indptr.size - 1
    if grid.cells.size != rows:
        raise MatrixError(f"{grid.origin} places {grid.cells.size} rows, the matrix has {rows}")
    faces = tuple(zeros(grid.shape) for _ in grid.shape)
    dirichlet, active = zeros(grid.shape), zeros(grid.shape, np.bool_)
    volumes = [as_volume(f) for f in faces]
    if len(volumes) == 2:
        volumes.insert(0, volumes[0])  # never written: the first axis has one layer
    kind, diagonal = np.empty(rows, np.uint8), np.empty(rows)
    sign = int(kernels.sign_of_diagonal(indptr, indices, values)) or 1
    threshold = kernels.DOMINANCE_TOLERANCE if singular else kernels.ROUND_OFF
    arrays = (*volumes, as_volume(dirichlet), as_volume(active), kind, diagonal)
    matrix = (indptr, indices, values, grid.cells, sign, threshold)
    row, fault, entry, one_sided = -1, kernels.SOUND, -1, False
    if not kernels.read_regular_rows(*matrix, *arrays):
        for array in (*faces, dirichlet, active):
            array[...] = 0
        row, fault, entry, one_sided = kernels.read_rows(*matrix, *arrays)
    if fault != kernels.SOUND:
        raise MatrixError(_describe(row, fault, entry, sign, (indptr, indices, values), grid))
    diagonal_rows = np.flatnonzero(kind == kernels.DIAGONAL_ONLY).astype(np.int32)
    inverse = diagonal[diagonal_rows]
    np.divide(1.0, inverse, out=inverse, where=inverse != 0)
    operator = GridOperator(faces, dirichlet, active)
    return Stencil(operator, grid, sign, diagonal_rows, inverse, bool(one_sided))


def check_matrix(mat: PETSc.Mat) -> None:
    """Raise MatrixError if ``mat`` is of a kind that cannot be read, whatever its grid."""
    if np.issubdtype(PETSc.ScalarType, np.complexfloating):
        raise MatrixError("this PETSc is built with complex scalars; PC cnn needs a build with real scalars")
    if mat.comm.size > 1:
        raise MatrixError(
            f"the matrix is spread over {mat.comm.size} ranks; PC cnn does not run in parallel yet: run on "
            "one rank (its kernels use all cores by threads, -pc_cnn_threads N), or use -pc_type gamg"
        )
    (rows, columns), block = mat.getSize(), mat.getBlockSize()
    if rows != columns:
        raise MatrixError(f"the matrix is {rows} x {columns}, expected a square one")
    if block > 1:
        raise MatrixError(f"the matrix has blocks of {block} unknowns; PC cnn solves scalar equations")
    kind = mat.getType()
    if kind in ("python", "shell", "mffd"):
        raise MatrixError(
            f"the matrix to build the preconditioner from is of type {kind!r}, whose entries cannot be read; "
            "pass an assembled AIJ matrix as the second (preconditioning) operator"
        )
    if not mat.isAssembled():
        raise MatrixError("the matrix is not assembled; call MatAssemblyBegin and MatAssemblyEnd first")


def _as_aij(mat: PETSc.Mat) -> PETSc.Mat:
    kind = mat.getType()
    if kind == "seqaij":
        return mat
    try:
        return mat.convert("seqaij", PETSc.Mat())
    except PETSc.Error as error:
        raise MatrixError(f"the matrix of type {kind!r} cannot be converted to AIJ ({error})") from error


def _describe(
    row: int, fault: int, entry: int, sign: int, csr: tuple[NDArray, NDArray, NDArray], grid: GridMap
) -> str:
    """The fault of a row, in words."""
    indptr, indices, values = csr
    a_ii = next((values[q] for q in range(indptr[row], indptr[row + 1]) if indices[q] == row), 0.0)
    where = f"row {row} ({_cell(row, grid)})"
    if entry >= 0:
        column = int(indices[entry])
        value = f"a[{row},{column}] = {values[entry]:.10g}"
        other = f"column {column} ({_cell(column, grid)})"
    if fault == kernels.NOT_FINITE:
        return f"{where} has {value}; every entry must be finite: check what assembles the matrix"
    if fault == kernels.NO_DIAGONAL:
        return f"{where} has couplings but a zero diagonal; the matrix must be definite"
    if fault == kernels.WRONG_SIGN:
        others = "positive" if sign > 0 else "negative"
        return (
            f"{where} has diagonal {a_ii:.10g}, other rows have a {others} one: the matrix is indefinite; "
            "PC cnn needs a definite one"
        )
    if fault == kernels.OFF_STENCIL:
        points, size = 2 * len(grid.shape) + 1, " x ".join(map(str, grid.shape[::-1]))
        return (
            f"{where} has {value} in {other}, which is not a neighbour: the matrix has no {points}-point "
            f"stencil on the {size} (NX x NY...) grid of {grid.origin}; check the grid's sizes and their "
            "order, and that rows number cells with x fastest; box (9- or 27-point) and periodic stencils "
            "are not supported: use -pc_type gamg for them"
        )
    if fault == kernels.POSITIVE_COUPLING:
        return (
            f"{where} has {value} for the diagonal {a_ii:.10g}; couplings must have the other sign than the "
            "diagonal (an M-matrix): PC cnn is for Poisson operators of two-point fluxes"
        )
    if fault == kernels.NOT_SYMMETRIC:
        back = kernels.entry_of(indptr, indices, values, column, row)
        return (
            f"{where} has {value}, but a[{column},{row}] = {back:.10g}: the matrix is not symmetric; remove "
            "one-sided boundary rows (MatZeroRowsColumns), or use a nonsymmetric solver"
        )
    total = a_ii + sum(values[q] for q in range(indptr[row], indptr[row + 1]) if indices[q] != row)
    return (
        f"{where} has diagonal {a_ii:.10g} and row sum {total:.6g}: it is not diagonally dominant, so the "
        "matrix may be indefinite (a Helmholtz term of the wrong sign?); PC cnn needs a Poisson operator"
    )


def _cell(row: int, grid: GridMap) -> str:
    return f"cell {tuple(int(i) for i in np.unravel_index(int(grid.cells[row]), grid.shape))}"
