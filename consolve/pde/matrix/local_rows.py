"""The rows of a matrix that one rank holds, and what it needs to know of other ranks' rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.base.errors import ZERO_MATRIX, MatrixError
from consolve.base.exchange import Messages

Csr = tuple[NDArray, NDArray, NDArray]


class LocalRows:
    """CSR arrays of the local rows, without copies; the columns of other ranks are called ghosts.

    A column has one number here: that of the local row, or the number of local rows plus that of the ghost.
    An entry has one number too: its position in ``own``, or the entries of ``own`` plus its position in
    ``others``.

    Parameters
    ----------
    own, others
        (row pointers, columns, values) of the local columns and of the ghosts; ``others`` None: no ghosts.
    ghosts
        Global column of each ghost, ascending.
    ranges
        First row of each rank, and one past the last.
    comm
        mpi4py communicator, or None: one rank.

    Attributes
    ----------
    rows, start
        Number of local rows, and the global number of the first.
    """

    def __init__(
        self,
        own: Csr,
        others: Csr | None = None,
        ghosts: NDArray | None = None,
        ranges: NDArray | None = None,
        comm: Any = None,
    ) -> None:
        self.own, self.comm, self.rows = own, comm, own[0].size - 1
        # One pointer instead of one a row tells the kernels that there are no ghosts.
        none = np.zeros(1, own[0].dtype), own[1][:0], own[2][:0]
        self.others: Csr = none if others is None else others
        self.ghosts = own[1][:0] if ghosts is None else ghosts
        self._ranges = np.array([0, self.rows]) if ranges is None else ranges
        self.start = 0 if comm is None else int(self._ranges[comm.rank])

    @cached_property
    def _owners(self) -> NDArray:
        return np.searchsorted(self._ranges, self.ghosts, "right") - 1

    @cached_property
    def _requests(self) -> tuple[Messages, NDArray]:
        """The messages that carry ghosts, and the local rows that other ranks have as ghosts."""
        messages = Messages(self.comm, self._owners)
        return messages, messages.send(self.ghosts.astype(np.int64)) - self.start

    def with_ghosts(self, values: NDArray) -> NDArray:
        """Values of the local rows, and after them those of the ghosts from their owners; collective."""
        ghosts = self.values_of_ghosts()
        return values if ghosts is None else np.concatenate((values, ghosts(values)))

    def values_of_ghosts(self) -> Callable[[NDArray], NDArray] | None:
        """A collective function: values of the local rows -> those of the ghosts; None on one rank.

        It does not hold the matrix.
        """
        if self.comm is None:
            return None
        messages, rows = self._requests
        return lambda values: messages.answer(values[rows])

    def transposed_entries(self) -> NDArray[np.float64]:
        """For each entry of ``others`` in row i, column j: the entry of row j, column i, 0 if there is none.

        Collective: each rank sends its entries to the owners of their columns.
        """
        pointers, columns, values = self.others
        result = np.zeros(values.size)
        if self.comm is None:
            return result
        row = np.repeat(np.arange(self.rows), np.diff(pointers))
        messages = Messages(self.comm, self._owners[columns])
        entries = np.column_stack((row + self.start, self.ghosts[columns].astype(np.int64)))
        theirs = messages.send(entries)
        their_values = messages.send(values)
        if values.size == 0 or theirs.size == 0:
            return result
        ghost = np.minimum(np.searchsorted(self.ghosts, theirs[:, 0]), self.ghosts.size - 1)
        known = self.ghosts[ghost] == theirs[:, 0]
        wanted = (theirs[known, 1] - self.start) * self.ghosts.size + ghost[known]
        own = row * self.ghosts.size + columns
        order = None if bool((own[1:] > own[:-1]).all()) else np.argsort(own, kind="stable")
        at = np.minimum(np.searchsorted(own, wanted, sorter=order), own.size - 1)
        at = at if order is None else order[at]
        match = own[at] == wanted
        result[at[match]] = their_values[known][match]
        return result

    def global_number(self, column: int) -> int:
        """Global row or column of a local number."""
        return column + self.start if column < self.rows else int(self.ghosts[column - self.rows])

    def entry(self, number: int) -> tuple[int, float]:
        """(column, value) of an entry."""
        entries = self.own[1].size
        if number < entries:
            return int(self.own[1][number]), float(self.own[2][number])
        return self.rows + int(self.others[1][number - entries]), float(self.others[2][number - entries])

    def row(self, row: int) -> list[tuple[int, float]]:
        """All (column, value) of a local row."""
        result = [self.entry(q) for q in range(self.own[0][row], self.own[0][row + 1])]
        if self.comm is not None:
            offset = self.own[1].size
            result += [self.entry(offset + q) for q in range(self.others[0][row], self.others[0][row + 1])]
        return result


def rows_of_csr(csr: sp.csr_matrix) -> LocalRows:
    """All rows of a SciPy matrix in float64, without copies."""
    return LocalRows((csr.indptr, csr.indices, csr.data))


def real_csr(matrix: Any) -> sp.csr_matrix:
    """A square matrix of any SciPy format, or a dense array, as a new float64 CSR matrix with sorted columns.

    Raises
    ------
    MatrixError
        If it is complex or of another kind, not square, not finite, or has rows and all of them are zero.
    """
    dense = not sp.issparse(matrix)
    matrix = np.asarray(matrix) if dense else matrix
    if matrix.dtype.kind not in "fiub" or matrix.dtype.itemsize > 8:
        wrong = "complex" if matrix.dtype.kind == "c" else str(matrix.dtype)
        raise MatrixError(f"the matrix is {wrong}, expected a real one of at most double precision")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        size = " x ".join(map(str, matrix.shape))
        raise MatrixError(f"the matrix is {size}, expected a square one")
    csr = sp.csr_matrix(matrix, dtype=np.float64, copy=True)
    csr.sum_duplicates()
    if not np.isfinite(csr.data).all():
        entry = int(np.flatnonzero(~np.isfinite(csr.data))[0])
        row = int(np.searchsorted(csr.indptr, entry, "right")) - 1
        value, column = csr.data[entry], csr.indices[entry]
        raise MatrixError(f"row {row} has {value} in column {column}; every entry must be finite")
    if csr.shape[0] and not csr.data.any():
        raise MatrixError(ZERO_MATRIX)
    return csr
