"""Messages between ranks about rows and cells: each holds what is of its own rows, and asks for the rest.

Arrays that travel are grouped by the rank that they go to.  ``comm`` is an mpi4py communicator.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Messages:
    """One pattern of messages: entry i goes to rank ``destination[i]``; collective.

    Parameters
    ----------
    comm
        mpi4py communicator.
    destination
        Rank of each entry.

    Attributes
    ----------
    received
        Number of entries that arrive here.
    """

    def __init__(self, comm: Any, destination: NDArray[np.integer]) -> None:
        self._comm = comm
        ascending = destination.size == 0 or bool((destination[1:] >= destination[:-1]).all())
        self._order = None if ascending else np.argsort(destination, kind="stable")
        self._sent = np.bincount(destination, minlength=comm.size).astype(np.int64)
        self._arriving = np.empty(comm.size, np.int64)
        comm.Alltoall(self._sent, self._arriving)
        self.received = int(self._arriving.sum())

    def send(self, values: NDArray) -> NDArray:
        """``values`` (entries, ...) to their ranks; what arrived, in the order of the ranks it came from."""
        values = np.ascontiguousarray(values if self._order is None else values[self._order])
        result = np.empty((self.received, *values.shape[1:]), values.dtype)
        self._transfer(values, self._sent, result, self._arriving)
        return result

    def answer(self, values: NDArray) -> NDArray:
        """One value for each entry that arrived, back to where it came from, in the order of the entries."""
        values = np.ascontiguousarray(values)
        result = np.empty((int(self._sent.sum()), *values.shape[1:]), values.dtype)
        self._transfer(values, self._arriving, result, self._sent)
        if self._order is None:
            return result
        ordered = np.empty_like(result)
        ordered[self._order] = result
        return ordered

    def _transfer(self, out: NDArray, sent: NDArray, into: NDArray, arriving: NDArray) -> None:
        """Bytes by bytes, as one derived type an entry, so that counts stay small."""
        from mpi4py import MPI

        size = out.dtype.itemsize * int(np.prod(out.shape[1:], dtype=np.int64))
        entry = MPI.BYTE.Create_contiguous(size).Commit()
        try:
            self._comm.Alltoallv(
                [out.view(np.uint8).reshape(-1), (sent, _offsets(sent)), entry],
                [into.view(np.uint8).reshape(-1), (arriving, _offsets(arriving)), entry],
            )
        finally:
            entry.Free()


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.append(0, np.cumsum(counts)[:-1])


class CellDirectory:
    """Who holds which cell; rank r answers for the cells from r n / P to (r + 1) n / P.  Collective.

    Parameters
    ----------
    comm
        mpi4py communicator.
    count
        Cells of the grid, n.
    cells
        int64: the cells that this rank tells of.
    facts
        What is told of them: one array an entry, or several of the same length and dtype int64.
    """

    def __init__(self, comm: Any, count: int, cells: NDArray[np.int64], *facts: NDArray) -> None:
        self._comm, self._count = comm, count
        messages = Messages(comm, self._home(cells))
        columns = [cells, np.full(cells.size, comm.rank), *facts]
        table = messages.send(np.column_stack([np.asarray(c, np.int64) for c in columns]))
        self._table = table[np.argsort(table[:, 0], kind="stable")]

    def _home(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        share = -(-self._count // self._comm.size)
        return cells // max(share, 1)

    def look_up(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """(cells, 1 + facts): the rank that told of each cell, and its facts; -1: none did.  Collective."""
        messages = Messages(self._comm, self._home(cells))
        asked = messages.send(cells)
        found = np.full((asked.size, self._table.shape[1] - 1), -1)
        if self._table.size:
            at = np.minimum(np.searchsorted(self._table[:, 0], asked), len(self._table) - 1)
            known = self._table[at, 0] == asked
            found[known] = self._table[at[known], 1:]
        return messages.answer(found)

    def first_shared(self) -> int:
        """The lowest cell that is told of twice, -1 if there is none; collective."""
        cells = self._table[:, 0]
        twice = cells[1:][cells[1:] == cells[:-1]]
        lowest = int(twice[0]) if twice.size else self._count
        from mpi4py import MPI

        lowest = self._comm.allreduce(lowest, MPI.MIN)
        return lowest if lowest < self._count else -1


def first_shared_cell(comm: Any, count: int, cells: NDArray[np.integer]) -> int:
    """The lowest cell (or one of them) that two rows claim, on one rank or two; -1 if none.  Collective.

    Ranks whose ranges of cells are disjoint need no messages about single cells.
    """
    ordered = cells if bool((cells[1:] > cells[:-1]).all()) else np.sort(cells)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    own = int(twice[0]) if twice.size else -1
    if comm is None:
        return own
    ends = (int(ordered[0]), int(ordered[-1]), own) if ordered.size else (count, -1, -1)
    everyone: Sequence[tuple[int, int, int]] = comm.allgather(ends)
    found = [shared for _, _, shared in everyone if shared >= 0]
    if found:
        return min(found)
    ranges = sorted(r[:2] for r in everyone if r[1] >= 0)
    if all(after[0] > before[1] for before, after in pairwise(ranges)):
        return -1
    return CellDirectory(comm, count, cells.astype(np.int64)).first_shared()
