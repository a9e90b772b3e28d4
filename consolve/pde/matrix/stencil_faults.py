"""What is wrong with a row of a matrix, in words: the row, its cell, the values, and what to do."""

from __future__ import annotations

import numpy as np

from consolve.base.errors import MatrixError
from consolve.pde.matrix import stencil_kernels as kernels
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.local_rows import LocalRows


class RowFaults:
    """Errors about the rows of ``matrix``, whose columns lie in ``cells``; they name global rows."""

    def __init__(self, matrix: LocalRows, grid: GridMap, cells: np.ndarray, sign: int) -> None:
        self._matrix, self._grid, self._cells, self._sign = matrix, grid, cells, sign

    def error(self, row: int, fault: int, entry: int) -> MatrixError:
        """The error of a local row; ``entry`` is the number of the offending entry, or -1."""
        return MatrixError(f"{self._place('row', row)} {self._text(row, fault, entry)}")

    def negative_face(self, row: int, axis: int) -> MatrixError:
        """The error of a row whose diagonal couplings leave a face negative; ``axis`` is that of a volume."""
        return MatrixError(
            f"{self._place('row', row)}: the couplings of its box stencil add up to a negative one along "
            f"{'zyx'[axis]}; PC cnn needs an operator that is positive along each axis (a Poisson operator "
            "that mixed derivatives and mass terms do not outweigh): use -pc_type gamg"
        )

    def _text(self, row: int, fault: int, entry: int) -> str:
        matrix = self._matrix
        entries = matrix.row(row)
        a_ii = sum(value for column, value in entries if column == row)
        number = matrix.global_number(row)
        value, other = "", ""
        if entry >= 0:
            column, a_ij = matrix.entry(entry)
            value = f"a[{number},{matrix.global_number(column)}] = {a_ij:.10g}"
            other = self._place("column", column)
        if fault == kernels.NOT_FINITE:
            return f"has {value}; every entry must be finite: check what assembles the matrix"
        if fault == kernels.NO_DIAGONAL:
            return "has couplings but a zero diagonal; the matrix must be definite"
        if fault == kernels.WRONG_SIGN:
            others = "positive" if self._sign > 0 else "negative"
            return (
                f"has diagonal {a_ii:.10g}, other rows have a {others} one: the matrix is indefinite; "
                "PC cnn needs a definite one"
            )
        if fault == kernels.OFF_STENCIL:
            shape = self._grid.shape
            stencil = "5-point or 9-point" if len(shape) == 2 else "7-point or 27-point"
            size = " x ".join(map(str, shape[::-1]))
            return (
                f"has {value} in {other}, which is not a neighbour: the matrix has no {stencil} stencil on "
                f"the {size} (NX x NY...) grid of {self._grid.origin}; check the grid's sizes, their order, "
                "and that rows number cells with x fastest; wider stencils and meshes are served where the "
                "point of each row is given (PCSetCoordinates, consolve.solvers.attach_points), or by "
                "another PC: -pc_type hypre or gamg"
            )
        if fault == kernels.POSITIVE_COUPLING:
            return (
                f"has {value} for the diagonal {a_ii:.10g}; couplings must have the other sign than the "
                "diagonal (an M-matrix): PC cnn is for Poisson operators of two-point fluxes"
            )
        if fault == kernels.NOT_SYMMETRIC:
            return (
                f"has {value}, but {self._transposed(row, entry)}: the matrix is not symmetric, and PC cnn "
                "is for symmetric ones; for this one use another PC, such as -pc_type hypre or gamg, and a "
                "method for nonsymmetric systems, such as -ksp_type fgmres or bcgs"
            )
        total = sum(value for _, value in entries)
        return (
            f"has diagonal {a_ii:.10g} and row sum {total:.6g}: it is not diagonally dominant, so the matrix "
            "may be indefinite (a Helmholtz term of the wrong sign?); PC cnn needs a Poisson operator"
        )

    def _transposed(self, row: int, entry: int) -> str:
        matrix = self._matrix
        column, _ = matrix.entry(entry)
        if column < matrix.rows:
            back = kernels.entry_of(*matrix.own, column, row)
        else:
            back = self.back[entry - matrix.own[1].size]
        return f"a[{matrix.global_number(column)},{matrix.global_number(row)}] = {back:.10g}"

    back: np.ndarray = np.empty(0)
    """Transposed entries of the ghost columns."""

    def _place(self, what: str, column: int) -> str:
        cell = np.unravel_index(int(self._cells[column]), self._grid.shape)
        return f"{what} {self._matrix.global_number(column)} (cell {tuple(int(i) for i in cell)})"
