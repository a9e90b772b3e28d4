"""The rows of a matrix as the Poisson operator of a structured grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import raise_together
from consolve.base.errors import ZERO_MATRIX, MatrixError
from consolve.pde.matrix import stencil_kernels as kernels
from consolve.pde.matrix import uniform_rows as uniform_kernels
from consolve.pde.matrix.boundary_couplings import Couplings
from consolve.pde.matrix.coupled_rows import CoupledRows
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.local_rows import LocalRows
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.matrix.row_reader import RowReader
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.uniform import DirichletParts, Runs, UniformOperator


@dataclass(frozen=True)
class Stencil:
    """What a matrix A says about its grid.

    ``A = sign * P' operator P`` on the coupled rows, and a diagonal on the others.  Where A has a box
    stencil, the operator is spectrally equivalent instead of equal.

    Parameters
    ----------
    operator
        On one rank, and without periodic axes: the operator on all cells, active where a coupled row lies.
        Else that of the local rows.  None where it is not needed any more.
    grid
        The cell of each local row; its periodic axes are those of the map that was given, and those that
        couplings from last to first cells tell of.
    sign
        1, or -1 for a negative definite matrix; the same on all ranks.
    diagonal_rows
        int32: local rows without a coupling (identity rows of solids, kept Dirichlet unknowns, isolated
        cells).
    diagonal_inverse
        1 / a_ii of those rows, 0 where a_ii = 0.
    is_exact
        The operator's entries are the matrix's own: not those of a lumped box stencil, and no row sum was
        negative.
    boundary
        Couplings to diagonal-only rows (Dirichlet rows kept by MatZeroRows), on all ranks if any has some:
        A is then not symmetric.
    rows
        Where A has a box stencil: its rows, for sweeps with A itself.
    """

    operator: GridOperator | RowOperator | None
    grid: GridMap
    sign: int
    diagonal_rows: NDArray[np.int32]
    diagonal_inverse: NDArray[np.float64]
    is_exact: bool = False
    boundary: Couplings | None = None
    rows: CoupledRows | None = None

    def without_matrix(self) -> Stencil:
        """Of what is held, that which is good when the matrix has changed."""
        return replace(self, operator=None, rows=None)

    @property
    def one_sided(self) -> bool:
        """Some row, on any rank, couples to a diagonal-only one."""
        return self.boundary is not None


def read_stencil(matrix: LocalRows, grid: GridMap, null_rows: NDArray[np.bool_] | None = None) -> Stencil:
    """Read an assembled matrix as a 5-point (2D) or 7-point (3D) operator; collective.

    Face coefficients are -a_ij, the Dirichlet part is the row sum over couplings to other coupled rows, 0
    where it is negative (reactions of the wrong sign, as in Newton's matrices: the operator is then near A);
    couplings to diagonal-only rows (Dirichlet unknowns kept in the matrix) go into it.  Stored zeros are
    ignored.  Couplings of a 9- or 27-point stencil along diagonals are lumped onto faces, see lump_kernels.

    Parameters
    ----------
    matrix
        Its rows on this rank.
    grid
        The cell of each local row.
    null_rows
        The local rows where vectors of an attached null space are constant: there, row sums under 1e-6 of
        the diagonal count as 0, so that coefficients of single precision do not make the matrix regular.

    Raises
    ------
    MatrixError
        If a row is not finite, couples off the stencil, is not symmetric (1e-6 relative), has a diagonal of
        the other sign, or has a positive coupling (in a box stencil: couplings that add up to a positive
        one), or if row sums are so negative that the matrix is indefinite.  The message names the first such
        row, its cell and the values; it is raised on all ranks.
    """
    grid = _checked_grid(grid, matrix)
    _refuse_zero(matrix)
    null = np.zeros(matrix.rows, np.bool_) if null_rows is None else null_rows
    everywhere = bool(null.size and null.all())
    threshold = kernels.DOMINANCE_TOLERANCE if everywhere else kernels.ROUND_OFF
    if matrix.comm is None and not any(grid.periodic):
        stencil = _read_uniform(matrix, grid, threshold)
        if stencil is not None and (everywhere or not null.any() or _is_closed(stencil, null)):
            return stencil
    reader = RowReader(matrix, grid, threshold)
    rows = reader.read()
    if null.any() and not everywhere:
        place = rows.grid.cells[null] if rows.by_cell else np.flatnonzero(null)
        part = rows.dirichlet[place]
        rows.dirichlet[place] = np.where(_is_loose(part, rows.diagonal[null]), 0.0, part)
    diagonal_rows, inverse = _diagonal_part(rows.kind, rows.diagonal)
    shape, periodic = rows.grid.shape, rows.grid.periodic
    operator: GridOperator | RowOperator
    if rows.by_cell:
        faces = tuple(f.reshape(shape) for f in rows.faces)
        operator = GridOperator(faces, rows.dirichlet.reshape(shape), rows.active.reshape(shape))
        if rows.is_loose:
            reader.refuse_closed(rows, ClosedComponents.of(operator, rows.grid.cells))
    else:
        cells = rows.grid.cells.astype(np.int64, copy=False)
        operator = RowOperator(shape, periodic, cells, rows.faces, rows.dirichlet, rows.active)
    facts = rows.is_exact, rows.boundary, rows.box
    return Stencil(operator, rows.grid, rows.sign, diagonal_rows, inverse, *facts)


def _refuse_zero(matrix: LocalRows) -> None:
    values = matrix.own[2], matrix.others[2]
    filled = any(bool(part[:1024].any() or part.any()) for part in values)  # NumPy looks at all of an array
    facts = np.array([matrix.rows, filled])
    rows, filled = facts if matrix.comm is None else matrix.comm.allreduce(facts)
    if rows and not filled:
        raise MatrixError(ZERO_MATRIX)


def _is_loose(part: NDArray[np.float64], diagonal: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Dirichlet parts that are the rounding of single precision, in rows of a null space."""
    return part <= kernels.DOMINANCE_TOLERANCE * np.abs(diagonal)


def _is_closed(stencil: Stencil, null: NDArray[np.bool_]) -> bool:
    """No row of a null space has a Dirichlet part."""
    assert isinstance(stencil.operator, UniformOperator)
    fixed, shape = stencil.operator.fixed, as_volume(stencil.operator.active).shape
    line = np.repeat(np.arange(fixed.start.size - 1), np.diff(fixed.start))
    has_part = np.zeros(int(np.prod(shape)), np.bool_)
    has_part[line * shape[2] + fixed.place] = True
    return not has_part[stencil.grid.cells[null]].any()


def _checked_grid(grid: GridMap, matrix: LocalRows) -> GridMap:
    fits = grid.cells.size == matrix.rows
    error = MatrixError(f"{grid.origin} places {grid.cells.size} rows, the matrix has {matrix.rows}")
    raise_together(matrix.comm, None if fits else error)
    return grid


def _read_uniform(matrix: LocalRows, grid: GridMap, threshold: float) -> Stencil | None:
    """A matrix whose couplings all have one value, rows in the order of their cells, in one sweep; None if it
    is another."""
    indptr, indices, values = matrix.own
    kinds = indptr.dtype, indices.dtype, values.dtype, grid.cells.dtype
    if kinds != (np.int32, np.int32, np.float64, np.int32) or not grid.cells.flags.c_contiguous:
        return None
    sign = int(kernels.sign_of_diagonal(*matrix.own))
    shape = np.array((1,) * (3 - len(grid.shape)) + grid.shape)
    chunks = max(1, min(numba.get_num_threads(), matrix.rows // 1024))
    table, start, first = uniform_kernels.runs_of_rows(indptr, grid.cells, shape, chunks)
    coupled = table[:, 2] >= 0
    if sign == 0 or not coupled.any():
        return None
    row = int(table[coupled.argmax(), 0])
    at = int(indptr[row])
    coupling = float(values[at if indices[at] != row else at + 1])
    if not 0 < -sign * coupling < np.inf:
        return None
    fixed_start = np.zeros(start.size, np.int32)
    fits, place, part = uniform_kernels.read_uniform_rows(
        indptr, indices, values, table, start, first, shape, coupling, sign, threshold, fixed_start
    )  # fmt: skip
    if not fits:
        return None
    active = np.empty(grid.shape, np.bool_)
    uniform_kernels.mark_cells(table, start, as_volume(active).view(np.uint8), numba.get_num_threads())
    rows = uniform_kernels.entries_without_unknowns(table)
    diagonal = uniform_kernels.only_entries(indptr, values, rows)
    np.divide(1.0, diagonal, out=diagonal, where=diagonal != 0)
    fixed, runs = DirichletParts(fixed_start, place, part), Runs(table, start, grid.cells)
    operator = UniformOperator(active, -sign * coupling, fixed, runs)
    return Stencil(operator, grid, sign, rows, diagonal, is_exact=True)


def _diagonal_part(
    kind: NDArray[np.uint8], diagonal: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    rows = np.flatnonzero(kind == kernels.DIAGONAL_ONLY).astype(np.int32)
    inverse = diagonal[rows]
    np.divide(1.0, inverse, out=inverse, where=inverse != 0)
    return rows, inverse
