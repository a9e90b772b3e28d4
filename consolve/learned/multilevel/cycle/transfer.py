"""Copies between arrays of boxes on different ranks: halos, agglomeration, and their return.

A transfer fills a region of every rank's array with the values of the cells' owners, across periodic sides
too.  What it sends and where it puts it is worked out once; each run packs, exchanges float32 values and
unpacks.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.jit import FAST
from consolve.learned.multilevel.cycle.row_vectors import natural_width, row_width


@njit(**FAST)
def _positions_in_colours(low, high, n0, n1, rows, width, out):
    """Flat index in a colour-split array of the cells of a box, in C order."""
    pad, q = (1 if n0 > 1 else 0), 0
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            r = (i + pad) * (n1 + 2) + j + 1
            for k in range(low[2], high[2]):
                out[q] = ((i + j + k) % 2 * rows + r) * width + k // 2 + 1
                q += 1


@njit(**FAST)
def _positions_in_rows(low, high, n1, stride, pad, frame, out):
    """Flat index of the cells of a box in rows of ``stride`` entries, framed or plain."""
    q = 0
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            at = ((i + pad) * (n1 + 2 * frame) + j + frame) * stride + frame
            for k in range(low[2], high[2]):
                out[q] = at + k
                q += 1


@dataclass(frozen=True)
class SplitArrays:
    """Colour-split arrays (2, rows, width) of the cells from ``low`` on; see cycle_kernels."""

    low: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def rows(self) -> int:
        """Framed rows."""
        n0, n1, _ = self.shape
        return (n0 + 2 if n0 > 1 else 1) * (n1 + 2)

    @property
    def width(self) -> int:
        """Framed length of a row of one colour."""
        return row_width(self.shape[2])

    @property
    def size(self) -> int:
        """Entries of an array."""
        return 2 * self.rows * self.width

    def zeros(self) -> NDArray[np.float32]:
        """An empty array (2, rows, width)."""
        return zeros((2, self.rows, self.width), np.float32)

    def positions(self, low: NDArray, high: NDArray) -> NDArray[np.int32]:
        """Flat index of the cells of a box (of the whole grid's cells), in C order."""
        out, origin = np.empty(_volume(low, high), np.int32), np.array(self.low)
        n0, n1, _ = self.shape
        _positions_in_colours(low - origin, high - origin, n0, n1, self.rows, self.width, out)
        return out

    def position(self, i: NDArray, j: NDArray, k: NDArray) -> NDArray[np.int64]:
        """Flat index of single cells."""
        i, j, k = (x - low for x, low in zip((i, j, k), self.low))
        row = (i + (1 if self.shape[0] > 1 else 0)) * (self.shape[1] + 2) + j + 1
        return ((i + j + k) % 2 * self.rows + row) * self.width + k // 2 + 1


@dataclass(frozen=True)
class NaturalRows:
    """Framed rows (rows, width) of the cells from ``low`` on, both colours in one."""

    low: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Framed length of a row."""
        return int(natural_width.py_func(row_width(self.shape[2])))

    def zeros(self) -> NDArray[np.float32]:
        """An empty array (rows, width)."""
        n0, n1, _ = self.shape
        return zeros(((n0 + 2 if n0 > 1 else 1) * (n1 + 2), self.width), np.float32)

    def positions(self, low: NDArray, high: NDArray) -> NDArray[np.int32]:
        """Flat index of the cells of a box (of the whole grid's cells), in C order."""
        out, origin = np.empty(_volume(low, high), np.int32), np.array(self.low)
        n0, n1, _ = self.shape
        _positions_in_rows(low - origin, high - origin, n1, self.width, 1 if n0 > 1 else 0, 1, out)
        return out


@dataclass(frozen=True)
class VolumeArrays:
    """Plain volumes (n0, n1, n2) of the cells from ``low`` on."""

    low: tuple[int, int, int]
    shape: tuple[int, int, int]

    def positions(self, low: NDArray, high: NDArray) -> NDArray[np.int32]:
        """Flat index of the cells of a box (of the whole grid's cells), in C order."""
        out, origin = np.empty(_volume(low, high), np.int32), np.array(self.low)
        _positions_in_rows(low - origin, high - origin, self.shape[1], self.shape[2], 0, 0, out)
        return out


Arrays = SplitArrays | NaturalRows | VolumeArrays


def _volume(low: NDArray, high: NDArray) -> int:
    """Cells of a box."""
    return int(np.prod(high - low))


@njit(**FAST)
def _take(source, index, out):
    for q in range(index.size):
        out[q] = source[index[q]]


@njit(**FAST)
def _put(values, index, target):
    for q in range(index.size):
        target[index[q]] = values[q]


@njit(**FAST)
def _copy(source, at, target, to):
    for q in range(at.size):
        target[to[q]] = source[at[q]]


@njit(**FAST)
def _copy_box_split(source, s1, s_pad, si, sj, sh, target, t1, t_pad, ti, tj, th, n0, n1, halves):
    """Copy a box between colour-split arrays; all offsets have even sums, so rows go over whole."""
    for i in range(n0):
        for j in range(n1):
            rs = (si + i + s_pad) * (s1 + 2) + sj + j + 1
            rt = (ti + i + t_pad) * (t1 + 2) + tj + j + 1
            for c in range(2):
                a, b = source[c, rs][sh + 1 :], target[c, rt][th + 1 :]
                for h in range(halves):
                    b[h] = a[h]


@njit(**FAST)
def _copy_box_volume(source, s1, s2, si, sj, sk, target, t1, t2, ti, tj, tk, n0, n1, n2):
    """Copy a box between plain volumes."""
    a, b = source.reshape(-1), target.reshape(-1)
    for i in range(n0):
        for j in range(n1):
            row_a = a[((si + i) * s1 + sj + j) * s2 + sk :]
            row_b = b[((ti + i) * t1 + tj + j) * t2 + tk :]
            for k in range(n2):
                row_b[k] = row_a[k]


@njit(**FAST)
def _copy_box_natural(source, s1, s_pad, si, sj, sk, target, t1, t_pad, ti, tj, tk, n0, n1, n2):
    """Copy a box from a colour-split array to framed rows; sk is even."""
    for i in range(n0):
        for j in range(n1):
            rs = (si + i + s_pad) * (s1 + 2) + sj + j + 1
            rt = (ti + i + t_pad) * (t1 + 2) + tj + j + 1
            c = (si + i + sj + j) % 2
            even, odd, b = (
                source[c, rs][sk // 2 + 1 :],
                source[1 - c, rs][sk // 2 + 1 :],
                target[rt][tk + 1 :],
            )
            for h in range(n2 // 2):
                b[2 * h] = even[h]
                b[2 * h + 1] = odd[h]
            if n2 % 2 == 1:
                b[n2 - 1] = even[n2 // 2]


class Traffic:
    """How transfers travel, and what this process has sent by them.

    Parameters
    ----------
    tag
        Of the messages.  One is enough for all transfers, since all ranks run them in the same order.
    event
        Entered during each exchange, for a log of times.

    Attributes
    ----------
    messages, bytes
        Sent so far.
    """

    def __init__(self, tag: int = 0, event: AbstractContextManager[Any] | None = None) -> None:
        self.tag, self.event = tag, event or nullcontext()
        self.messages = self.bytes = 0


class Transfer:
    """Fill a region of each rank's target array from the ranks that own its cells.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    own
        (size, 2, 3): box of cells that each rank owns in the source.
    region
        (size, 2, 3): box that each rank's target takes; cells beyond a periodic side are those of the other
        side, others outside the grid are left alone.
    shape, periodic
        Of the level.
    source, target
        Layout of this rank's arrays; None where it has none (its box is empty).
    in_place
        Source and target are one array: a rank's own cells stay where they are.
    traffic
        Counts what is sent.
    """

    def __init__(
        self,
        comm: Any,
        own: NDArray[np.int64],
        region: NDArray[np.int64],
        shape: tuple[int, int, int],
        periodic: tuple[bool, bool, bool],
        source: Arrays | None,
        target: Arrays | None,
        traffic: Traffic,
        in_place: bool = False,
    ) -> None:
        self._comm, self._traffic = comm, traffic
        rank = 0 if comm is None else comm.rank
        shifts = list(product(*((-1, 0, 1) if p else (0,) for p in periodic)))
        sends: dict[int, list[NDArray]] = {}
        receives: dict[int, list[NDArray]] = {}
        self._box: tuple[Any, ...] | None = None
        local_from, local_to = [], []
        for shift in shifts:
            offset = np.array(shift) * np.array(shape)
            if source is not None:
                for other, low, high in _overlaps(own[rank] + offset, region):
                    at = source.positions(low - offset, high - offset)
                    if other != rank:
                        sends.setdefault(other, []).append(at)
                    elif not any(shift):
                        if not in_place:
                            assert target is not None
                            self._box = _box_copy(source, target, low, high)
                            if self._box is None:
                                local_from.append(at)
                                local_to.append(target.positions(low, high))
                    else:
                        assert target is not None
                        local_from.append(at)
                        local_to.append(target.positions(low, high))
            if target is not None:
                for other, low, high in _overlaps(region[rank], own + offset):
                    if other != rank:
                        receives.setdefault(other, []).append(target.positions(low, high))
        none = np.empty(0, np.int32)
        self._from = np.concatenate(local_from) if local_from else none
        self._to = np.concatenate(local_to) if local_to else none
        self._sends = [_Message(q, sends[q]) for q in sorted(sends)]
        self._receives = [_Message(q, receives[q]) for q in sorted(receives)]
        self._requests: list[Any] = []
        if comm is not None:
            self._requests = [comm.Recv_init(m.values, m.rank, traffic.tag) for m in self._receives]
            self._requests += [comm.Send_init(m.values, m.rank, traffic.tag) for m in self._sends]

    def run(self, source: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        """Fill ``target`` from ``source``, arrays of the layouts named; collective among partners."""
        with self._traffic.event:
            self._run(source, target)

    def _run(self, source: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        for message in self._sends:
            _take(source.reshape(-1), message.index, message.values)
            self._traffic.messages += 1
            self._traffic.bytes += message.values.nbytes
        if self._requests:
            from mpi4py import MPI

            MPI.Prequest.Startall(self._requests)
        if self._box is not None:
            kernel, a, b, size = self._box
            kernel(source, *a, target, *b, *size)
        if self._from.size:
            _copy(source.reshape(-1), self._from, target.reshape(-1), self._to)
        if self._requests:
            MPI.Request.Waitall(self._requests)
        for message in self._receives:
            _put(message.values, message.index, target.reshape(-1))

    @property
    def bytes(self) -> int:
        """Memory of indices and buffers."""
        messages = sum(m.index.nbytes + m.values.nbytes for m in (*self._sends, *self._receives))
        return messages + self._from.nbytes + self._to.nbytes

    def close(self) -> None:
        """Give the requests back to MPI."""
        if self._requests:
            from mpi4py import MPI

            if not MPI.Is_finalized():
                for request in self._requests:
                    request.Free()
        self._requests = []


class _Message:
    """What goes to or comes from one rank."""

    def __init__(self, rank: int, index: list[NDArray]) -> None:
        self.rank = rank
        self.index = np.concatenate(index)
        self.values = np.empty(self.index.size, np.float32)


def _overlaps(box: NDArray, others: NDArray) -> list[tuple[int, NDArray, NDArray]]:
    """Boxes among ``others`` that meet ``box``: number, first cell and one past the last of the overlap."""
    low = np.maximum(box[0], others[:, 0])
    high = np.minimum(box[1], others[:, 1])
    return [(int(q), low[q], high[q]) for q in np.flatnonzero((high > low).all(1))]


def _box_copy(source: Arrays, target: Arrays, low: NDArray, high: NDArray) -> tuple[Any, ...] | None:
    """Kernel and arguments that copy a box row by row, where the layouts allow it."""
    if isinstance(source, VolumeArrays) and isinstance(target, VolumeArrays):
        begins = low - np.array(source.low), low - np.array(target.low)
        return (
            _copy_box_volume, (*source.shape[1:], *begins[0]), (*target.shape[1:], *begins[1]), high - low
        )  # fmt: skip
    if not isinstance(source, SplitArrays) or isinstance(target, VolumeArrays):
        return None
    (si, sj, sk), (ti, tj, tk) = low - np.array(source.low), low - np.array(target.low)
    n0, n1, n2 = high - low
    s = (source.shape[1], int(source.shape[0] > 1))
    t = (target.shape[1], int(target.shape[0] > 1))
    if sk % 2:
        return None
    if isinstance(target, NaturalRows):
        return _copy_box_natural, (*s, si, sj, sk), (*t, ti, tj, tk), (n0, n1, n2)
    if tk % 2 or (si + sj + ti + tj) % 2:
        return None
    return _copy_box_split, (*s, si, sj, sk // 2), (*t, ti, tj, tk // 2), (n0, n1, (n2 + 1) // 2)
