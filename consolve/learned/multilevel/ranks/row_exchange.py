"""Vectors in a matrix's row layout, and the boxes in which the levels are held."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle import vector_kernels
from consolve.learned.multilevel.cycle.layout import runs_of
from consolve.learned.multilevel.cycle.transfer import SplitArrays, Traffic
from consolve.learned.multilevel.ranks import exchange_kernels as kernels
from consolve.learned.multilevel.ranks.partition import Partition


class RowExchange:
    """Moves values between the rows of each rank and the boxes that hold their cells.

    Rows whose cell lies in their own rank's box are copied in runs; the others' values travel as float32.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    cells
        int64: C-order index of each local row's cell in the whole grid.
    shape
        Of the whole grid (n0, n1, n2).
    partition
        Boxes of the finest level.
    layout
        This rank's arrays; None where its box is empty.
    traffic
        Counts what is sent.
    """

    def __init__(
        self,
        comm: Any,
        cells: NDArray[np.int64],
        shape: tuple[int, int, int],
        partition: Partition,
        layout: SplitArrays | None,
        traffic: Traffic,
    ) -> None:
        self._comm, self._layout, self._traffic = comm, layout, traffic
        rank = 0 if comm is None else comm.rank
        outside = 0 if layout is None else int(np.prod(layout.shape))
        self._outside = np.int32(outside)
        self._local = np.full(cells.size, outside, np.int32)
        moved = cells.size
        if layout is not None:
            low = np.array(layout.low)
            moved = kernels.locate(
                cells, *shape[1:], partition.boxes[rank], low, *layout.shape[1:], outside, self._local
            )
        self._rows = np.flatnonzero(self._local == outside) if moved else np.empty(0, np.int64)
        owner = partition.owner(np.array(np.unravel_index(cells[self._rows], shape)))
        order = np.argsort(owner, kind="stable")
        self._rows, owner = self._rows[order], owner[order]
        self._place: NDArray[np.int64] = np.empty(0, np.int64)
        self._split: NDArray[np.int64] = np.empty(0, np.int64)
        self._requests: tuple[list[Any], list[Any]] = ([], [])
        self._out = np.empty(self._rows.size, np.float32)
        self._in = np.empty(0, np.float32)
        self._runs = np.empty((0, 4), np.int32)
        if comm is None or comm.size == 1:
            return
        sent = np.bincount(owner, minlength=comm.size)
        received = np.empty_like(sent)
        comm.Alltoall(sent, received)
        theirs = np.empty(received.sum(), np.int64)
        comm.Alltoallv(
            (np.ascontiguousarray(cells[self._rows]), (sent, _offsets(sent))),
            (theirs, (received, _offsets(received))),
        )
        self._counts = sent, received
        self._in = np.empty(theirs.size, np.float32)
        if layout is not None:
            coordinates = np.array(np.unravel_index(theirs, shape))
            self._place = self._positions(coordinates)
            self._split = layout.position(*coordinates)
        outward = [(self._out, sent), (self._in, received)]
        for direction in (0, 1):  # to the boxes, and back
            (source, give), (target, take) = outward if direction == 0 else outward[::-1]
            for q in np.flatnonzero(take):
                at = _offsets(take)[q]
                self._requests[direction].append(comm.Recv_init(target[at : at + take[q]], q, traffic.tag))
            for q in np.flatnonzero(give):
                at = _offsets(give)[q]
                self._requests[direction].append(comm.Send_init(source[at : at + give[q]], q, traffic.tag))

    def _positions(self, coordinates: NDArray) -> NDArray:
        """Index in this rank's volumes."""
        assert self._layout is not None
        inside = coordinates - np.array(self._layout.low)[:, None]
        return np.ravel_multi_index(inside, self._layout.shape)

    @property
    def moved(self) -> int:
        """Rows of this rank that another one's box holds."""
        return self._rows.size

    @property
    def bytes(self) -> int:
        """Memory of maps and buffers."""
        arrays = (self._local, self._rows, self._place, self._split, self._out, self._in, self._runs)
        return sum(a.nbytes for a in arrays)

    def to_volume(self, values: NDArray, scale: float, volume: NDArray[np.float32]) -> None:
        """Put ``scale`` times a value of each row, as float32, into its cell of a volume; collective."""
        flat = volume.reshape(-1)
        kernels.fill_volume(values, scale, self._local, self._outside, flat)
        self._out[:] = scale * values[self._rows]
        self._start(0)
        self._finish(0)
        flat[self._place] = self._in

    def from_volume(self, volume: NDArray, rows: NDArray) -> None:
        """Take a number of each row from its cell, -1 from none; both of one dtype; collective."""
        flat = np.append(volume.reshape(-1), volume.dtype.type(-1))
        rows[:] = flat[self._local]
        if self._comm is None or self._comm.size == 1:
            return
        sent, received = self._counts
        mine = np.empty(self._rows.size, volume.dtype)
        theirs = np.ascontiguousarray(flat[self._place])
        self._comm.Alltoallv((theirs, (received, _offsets(received))), (mine, (sent, _offsets(sent))))
        rows[self._rows] = mine

    def set_active(self, active: NDArray[np.bool_]) -> None:
        """Tell which cells of this rank's volume take part; ``gather`` gives 0 elsewhere."""
        shape = (1, 1, 1) if self._layout is None else self._layout.shape
        self._runs = runs_of(self._local, np.append(active.reshape(-1), False), *shape[1:])

    def scatter(self, r: NDArray[np.float64], scale: float, b: NDArray[np.float32], threads: int) -> None:
        """b = scale * r in this rank's box; collective."""
        np.multiply(r[self._rows], scale, out=self._out, casting="same_kind")
        self._start(0)
        if self._layout is not None:
            n0, n1, _ = self._layout.shape
            vector_kernels.scatter(r, self._runs, scale, b, n0, n1, threads)
        self._finish(0)
        b.reshape(-1)[self._split] = self._in

    def gather(self, x: NDArray[np.float32], scale: float, z: NDArray[np.float64], threads: int) -> None:
        """z = scale * x on this rank's rows; collective."""
        self._in[:] = x.reshape(-1)[self._split]
        self._start(1)
        if self._layout is not None:
            n0, n1, _ = self._layout.shape
            vector_kernels.gather(x, self._runs, scale, z, n0, n1, threads)
        self._finish(1)
        z[self._rows] = scale * self._out.astype(np.float64)

    def _start(self, direction: int) -> None:
        if self._requests[direction]:
            from mpi4py import MPI

            MPI.Prequest.Startall(self._requests[direction])
            give = self._counts[direction]
            self._traffic.messages += int(np.count_nonzero(give))
            self._traffic.bytes += 4 * int(give.sum())

    def _finish(self, direction: int) -> None:
        if self._requests[direction]:
            from mpi4py import MPI

            MPI.Request.Waitall(self._requests[direction])

    def close(self) -> None:
        """Give the requests back to MPI."""
        if any(self._requests):
            from mpi4py import MPI

            if not MPI.Is_finalized():
                for request in (*self._requests[0], *self._requests[1]):
                    request.Free()
        self._requests = ([], [])


def _offsets(counts: NDArray) -> NDArray:
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(counts.dtype)
