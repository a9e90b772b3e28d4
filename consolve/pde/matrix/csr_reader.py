"""A CSR matrix as a GridOperator, in plain NumPy and SciPy: 5- and 7-point stencils, one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.grid import GridOperator

ROUND_OFF = 1e-13
"""Row sums and couplings under this fraction of the diagonal are 0."""
TOLERANCE = 1e-6
"""Relative differences of a_ij and a_ji, and lack of dominance, that are forgiven."""


class OffStencil(ValueError):
    """A coupling between cells that are no neighbours along one axis."""


def real_csr(matrix: Any) -> sp.csr_matrix:
    """A square matrix of any SciPy format, or a dense array, as a new float64 CSR matrix with sorted columns.

    Raises
    ------
    ValueError
        If it is complex or of another kind, not square, or not finite.
    """
    dense = not sp.issparse(matrix)
    matrix = np.asarray(matrix) if dense else matrix
    if matrix.dtype.kind not in "fiub" or matrix.dtype.itemsize > 8:
        wrong = "complex" if matrix.dtype.kind == "c" else str(matrix.dtype)
        raise ValueError(f"the matrix is {wrong}, expected a real one of at most double precision")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        size = " x ".join(map(str, matrix.shape))
        raise ValueError(f"the matrix is {size}, expected a square one")
    csr = sp.csr_matrix(matrix, dtype=np.float64, copy=True)
    csr.sum_duplicates()
    if not np.isfinite(csr.data).all():
        entry = int(np.flatnonzero(~np.isfinite(csr.data))[0])
        row = int(np.searchsorted(csr.indptr, entry, "right")) - 1
        value, column = csr.data[entry], csr.indices[entry]
        raise ValueError(f"row {row} has {value} in column {column}; every entry must be finite")
    return csr


@dataclass(frozen=True)
class ReadMatrix:
    """``A = sign * P' operator P`` on the coupled rows, and a diagonal on the others.

    Parameters
    ----------
    operator
        On all cells, active where a coupled row lies; of the rows where the grid is periodic.
    sign
        1, or -1 for a negative definite matrix.
    diagonal_rows
        Rows without couplings.
    diagonal_inverse
        1 / a_ii of those rows, 0 where a_ii = 0.
    """

    operator: GridOperator | RowOperator
    sign: int
    diagonal_rows: NDArray[np.intp]
    diagonal_inverse: NDArray[np.float64]


def read_csr(csr: sp.csr_matrix, shape: tuple[int, ...], cells: NDArray[np.integer]) -> ReadMatrix:
    """Read a symmetric matrix as a 5-point (2D) or 7-point (3D) operator.

    Face coefficients are -(a_ij + a_ji) / 2; the Dirichlet part is what the diagonal has beyond them, so
    couplings to rows without couplings (Dirichlet unknowns kept in the matrix) go into it.

    Parameters
    ----------
    csr
        float64, square, without duplicates.
    shape
        Of the grid, in NumPy's order.
    cells
        C-order cell index of each row, all different.

    Raises
    ------
    OffStencil
        If a coupling joins no neighbours.
    ValueError
        If a coupling has the sign of the diagonal, a diagonal is 0 or has another sign than others, or the
        matrix is not symmetric or not diagonally dominant.
    """
    rows = csr.shape[0]
    diagonal = csr.diagonal()
    off = sp.coo_matrix(csr)
    size = np.abs(diagonal)
    kept = (off.row != off.col) & (off.data != 0)
    kept &= np.abs(off.data) > ROUND_OFF * np.minimum(size[off.row], size[off.col])
    row, column, value = off.row[kept], off.col[kept], off.data[kept]
    coupled = np.zeros(rows, np.bool_)
    coupled[row] = True
    signs = np.sign(diagonal[coupled])
    sign = -1 if signs.size and signs[0] < 0 else 1
    place = _Describe(shape, cells)
    _check(coupled & (np.sign(diagonal) != sign), place, lambda i: f"has diagonal {diagonal[i]:.10g}", _SIGN)

    inner = coupled[column]
    couplings = sp.csr_matrix((-sign * value[inner], (row[inner], column[inner])), (rows, rows))
    back = couplings.T.tocsr()
    excess = sp.coo_matrix(abs(couplings - back) - TOLERANCE * abs(couplings).maximum(abs(back)))
    wrong = excess.data > ROUND_OFF * size[excess.row]
    _check_pairs(wrong, excess, csr, place, "the matrix is not symmetric")
    mean = sp.coo_matrix(0.5 * (couplings + back))
    _check_pairs(mean.data < 0, mean, csr, place, "couplings must have the other sign than the diagonal")

    faces = tuple(np.zeros(shape) for _ in shape)
    where = np.column_stack(np.unravel_index(cells, shape))
    step = where[mean.col] - where[mean.row]
    wrong = np.abs(step).sum(axis=1) != 1
    if wrong.any():
        q = int(np.flatnonzero(wrong)[0])
        raise OffStencil(
            f"{place.row(int(mean.row[q]))} is coupled to {place.row(int(mean.col[q]))}, which is not a "
            f"neighbour along one axis of the grid {shape}; check grid, mask or cells"
        )
    for axis, face in enumerate(faces):
        upper = step[:, axis] == 1
        face.reshape(-1)[cells[mean.row[upper]]] = mean.data[upper]
    rest = sign * diagonal - np.asarray(mean.sum(axis=1)).reshape(-1)
    _check(coupled & (rest < -TOLERANCE * size), place, lambda i: f"has row sum {rest[i]:.6g}", _DOMINANCE)
    dirichlet, active = np.zeros(shape), np.zeros(shape, np.bool_)
    dirichlet.reshape(-1)[cells] = np.where(coupled & (rest > ROUND_OFF * size), rest, 0.0)
    active.reshape(-1)[cells] = coupled
    alone = np.flatnonzero(~coupled)
    inverse = np.divide(1.0, diagonal[alone], out=np.zeros(alone.size), where=diagonal[alone] != 0)
    return ReadMatrix(GridOperator(faces, dirichlet, active), sign, alone, inverse)


_SIGN = "where couplings need a diagonal that is not 0 and of one sign: the matrix is not definite"
_DOMINANCE = "so it is not diagonally dominant: a Poisson operator is expected"


class _Describe:
    """Names of rows in messages."""

    def __init__(self, shape: tuple[int, ...], cells: NDArray[np.integer]) -> None:
        self.shape, self.cells = shape, cells

    def row(self, row: int) -> str:
        cell = tuple(int(i) for i in np.unravel_index(int(self.cells[row]), self.shape))
        return f"row {row} (cell {cell})"


def _check(wrong, place, fact, why) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{place.row(row)} {fact(row)}, {why}")


def _check_pairs(wrong, pairs, csr, place, why) -> None:
    if wrong.any():
        q = int(np.flatnonzero(wrong)[0])
        row, column = int(pairs.row[q]), int(pairs.col[q])
        raise ValueError(
            f"{place.row(row)} has a[{row},{column}] = {csr[row, column]:.10g}, and a[{column},{row}] = "
            f"{csr[column, row]:.10g}: {why}"
        )
