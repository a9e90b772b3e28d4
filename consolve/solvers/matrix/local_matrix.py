"""The rows of a matrix that one rank holds, and what it needs to know of other ranks' rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.errors import MatrixError
from consolve.base.exchange import Messages
from consolve.solvers.petsc.versions import PETSc, csr_arrays, mpi_aij_parts

Csr = tuple[NDArray, NDArray, NDArray]


def communicator(mat: PETSc.Mat) -> Any:
    """The mpi4py communicator of ``mat``; None on one rank, which needs no mpi4py."""
    return mat.comm.tompi4py() if mat.comm.size > 1 else None


def as_aij(mat: PETSc.Mat) -> PETSc.Mat:
    """``mat`` itself if it is AIJ, else a copy of that type; collective.

    Raises
    ------
    MatrixError
        If PETSc cannot convert it.
    """
    kind = mat.getType()
    if kind == ("seqaij" if mat.comm.size == 1 else "mpiaij"):
        return mat
    try:
        return mat.convert("aij" if mat.comm.size > 1 else "seqaij", PETSc.Mat())
    except PETSc.Error as error:
        raise MatrixError(f"the matrix of type {kind!r} cannot be converted to AIJ ({error})") from error


class LocalMatrix:
    """CSR arrays of the local rows, without copies; the columns of other ranks are called ghosts.

    A column has one number here: that of the local row, or the number of local rows plus that of the ghost.
    An entry has one number too: its position in ``own``, or the entries of ``own`` plus its position in
    ``others``.

    Parameters
    ----------
    mat
        An AIJ matrix.

    Attributes
    ----------
    rows, start
        Number of local rows, and the global number of the first.
    own, others
        (row pointers, columns, values) of the local columns and of the ghosts.
    ghosts
        Global column of each ghost, ascending.
    """

    def __init__(self, mat: PETSc.Mat) -> None:
        self._mat = mat
        self.comm = communicator(mat)
        self.rows, self.start = mat.getLocalSize()[0], mat.getOwnershipRange()[0]
        if self.comm is None:
            self.own = csr_arrays(mat)
            # One pointer instead of one a row tells the kernels that there are no ghosts.
            self.others: Csr = np.zeros(1, PETSc.IntType), self.own[1][:0], self.own[2][:0]
            self.ghosts = np.empty(0, PETSc.IntType)
        else:
            self._parts = mpi_aij_parts(mat)
            self.own, self.others = csr_arrays(self._parts[0]), csr_arrays(self._parts[1])
            self.ghosts = self._parts[2]

    @cached_property
    def _ranges(self) -> NDArray:
        return np.asarray(self._mat.getOwnershipRanges())

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
        if self.comm is None:
            return values
        messages, rows = self._requests
        return np.concatenate((values, messages.answer(values[rows])))

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
        if self.ghosts.size == 0 or theirs.size == 0:
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
