"""One level of a hierarchy that several ranks hold, or that has periodic sides.

A rank's arrays cover its own box of cells and a halo of HALO cells around it, clipped at the sides of the
grid that are not periodic.  Halo cells of every array are copies of their owner's.  The kernels are those of
one process and run over the halo too: each half-sweep leaves one more layer of it out of date, so a whole
smoothing of HALO half-sweeps needs one exchange.  Every rank then computes bit by bit what one process would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.learned import cycle_kernels as kernels
from consolve.learned.exchange_kernels import count_unknowns
from consolve.learned.hierarchy import LevelBuilder, Volumes
from consolve.learned.layout import ARRAYS
from consolve.learned.partition import Partition, halve
from consolve.learned.plan import HALO, Periodic, with_halo
from consolve.learned.transfer import NaturalRows, SplitArrays, Traffic, Transfer, VolumeArrays


class DistributedLevel:
    """A rank's part of a level.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    number
        Of the level, 0 for the finest.
    partition, periodic
        Who holds which cells.  Inner cuts are even.
    builder
        Setup of a level.
    traffic
        Counts what is sent.
    """

    def __init__(
        self,
        comm: Any,
        number: int,
        partition: Partition,
        periodic: Periodic,
        builder: LevelBuilder,
        traffic: Traffic,
    ) -> None:
        self.comm, self.number, self.partition, self.periodic = comm, number, partition, periodic
        self._builder, self._traffic = builder, traffic
        rank = 0 if comm is None else comm.rank
        shape = partition.shape
        self.own = partition.boxes
        self.extended = with_halo(self.own, HALO, shape, periodic)
        self.here = bool((self.own[rank, 1] > self.own[rank, 0]).all())
        self.layout: SplitArrays | None = None
        self.coarse_layout: SplitArrays | None = None
        self.coarse_rows: NaturalRows | None = None
        self.arrays: dict[str, NDArray[np.float32]] = {}
        if self.here:
            low, high = self.extended[rank]
            sizes = tuple(int(n) for n in high - low)
            self.layout = SplitArrays(tuple(int(q) for q in low), sizes)  # type: ignore[arg-type]
            origin = tuple(int(q) // 2 for q in low)
            self.coarse_layout = SplitArrays(origin, halve(sizes))  # type: ignore[arg-type]
            self.coarse_rows = NaturalRows(origin, halve(sizes))  # type: ignore[arg-type]
            self._begin = self.own[rank, 0] - low
            self._end = self.own[rank, 1] - low
            self._bc, self._coarse = self.coarse_layout.zeros(), self.coarse_rows.zeros()
        self._halo = self._transfer(self.extended)
        self._near = self._transfer(with_halo(self.own, 1, shape, periodic))
        alpha = builder.weights.tensors["alpha"]
        self._alpha = alpha[min(number, alpha.shape[0] - 1)]
        self._down: Transfer | None = None
        self._up: Transfer | None = None
        self._operator: Transfer | None = None

    def _transfer(self, region: NDArray) -> Transfer:
        return Transfer(
            self.comm, self.own, region, self.partition.shape, self.periodic, self.layout, self.layout,
            self._traffic, in_place=True,
        )  # fmt: skip

    @property
    def volume_layout(self) -> VolumeArrays | None:
        """Of the operator's volumes, which cover the box and its halo."""
        return None if self.layout is None else VolumeArrays(self.layout.low, self.layout.shape)

    def connect(
        self,
        own: NDArray,
        region: NDArray,
        vectors: SplitArrays | None,
        volumes: VolumeArrays | None,
    ) -> None:
        """Name the next level: who holds its cells, what its b and its operator cover there, and how.

        Parameters
        ----------
        own, region
            (size, 2, 3): boxes that each rank holds, and that its arrays cover.
        vectors
            Layout of its b and x.
        volumes
            Layout of the operator.
        """
        shape = halve(self.partition.shape)
        coarse = self.partition.halved().boxes
        near = with_halo(coarse, 1, shape, self.periodic)
        source = self.coarse_layout
        plain = None if source is None else VolumeArrays(source.low, source.shape)
        common = (self._traffic,)
        self._down = Transfer(self.comm, coarse, region, shape, self.periodic, source, vectors, *common)
        self._up = Transfer(self.comm, own, near, shape, self.periodic, vectors, self.coarse_rows, *common)
        self._operator = Transfer(self.comm, coarse, region, shape, self.periodic, plain, volumes, *common)

    def close(self) -> None:
        """Give all requests back to MPI."""
        for transfer in (self._halo, self._near, self._down, self._up, self._operator):
            if transfer is not None:
                transfer.close()

    def set_up(self, faces: Volumes, fixed: NDArray[np.float32], uniform: bool) -> tuple[Volumes, NDArray]:
        """Fill the arrays from the operator on box and halo; returns the coarse one on the coarse box."""
        self.uniform = uniform
        empty = np.zeros((1, 1, 1), np.float32)
        if self.layout is None:
            return [empty] * 3, empty
        if set(self.arrays) != set(self._names()):
            self.arrays = {name: self.layout.zeros() for name in self._names()}
        for name in ("x", "b", "residual"):
            self.arrays[name][:] = 0
        x = self.arrays["x"]
        filled = [self.arrays.get(name, x) for name in ARRAYS[3:]]
        theta, irregular = self._builder.kernels(self.number, faces, fixed, filled, not uniform, check=False)
        return self._builder.coarse(self.number, faces, fixed, theta, irregular, self.coarse_layout.shape)  # type: ignore[union-attr]

    def exchange_kernels(self) -> None:
        """Take the halo's kernels from their owners."""
        for name in self._names()[3:]:
            self.exchange(name)

    def _names(self) -> list[str]:
        flat = self.partition.shape[0] == 1
        names = [n for n in ARRAYS if not (flat and n in ("face0", "prolong0"))]
        return [n for n in names if not (self.uniform and n.startswith("face"))]

    def exchange(self, name: str) -> None:
        """Halo of an array from its owners."""
        array = self.arrays.get(name, _NOTHING)
        self._halo.run(array, array)

    def move_operator(self, coarse: NDArray, target: NDArray) -> None:
        """Hand a volume of the coarse operator to the next level."""
        assert self._operator is not None
        self._operator.run(coarse, target)

    def down(self, b_coarse: NDArray[np.float32], threads: int) -> None:
        """x = pre-smoothing from 0, and b_coarse = P^T (b - A x); b is given on box and halo."""
        assert self._down is not None
        if self.here:
            self._smooth(True, threads)
        residual = self.arrays.get("residual", _NOTHING)
        self._near.run(residual, residual)
        if self.here:
            self._restrict(threads)
        self._down.run(self._bc if self.here else _NOTHING, b_coarse)

    def up(self, x_coarse: NDArray[np.float32], threads: int) -> None:
        """x += P x_coarse, then post-smoothing; x is right on the box, not on the halo."""
        assert self._up is not None
        self._up.run(x_coarse, self._coarse if self.here else _NOTHING)
        if self.here:
            self._prolong(threads)
        self.exchange("x")
        if self.here:
            self._smooth(False, threads)

    def _smooth(self, before: bool, threads: int) -> None:
        """All half-sweeps before (from x = 0, with the residual after them) or after the correction."""
        last = 2 * self._alpha.shape[0] - 1
        valid = HALO
        for q in range(last + 1):
            step = q if before else last - q
            if q > 0 or not before:
                valid = self._fresh(valid) - 1
            mode = kernels.FRESH if before and q < 2 else kernels.RELAX
            if before and q == last and last > 1:
                mode = kernels.RELAX_AND_RESIDUAL
            self._half_sweep(step % 2, self._alpha[step // 2, step % 2], mode, valid, threads)
        if before:
            valid = self._fresh(valid) - 1
            for c in range(2 if last == 1 else 1):
                self._half_sweep(c, np.float32(0), kernels.RESIDUAL, valid, threads)

    def _fresh(self, valid: int) -> int:
        """Layers of the halo in which x is right, after an exchange if none was."""
        if valid > 0:
            return valid
        self.exchange("x")
        return HALO

    def _lines(self, low: int, high: int) -> tuple[int, int]:
        """First line and one past the last of the layers low <= i < high of the slowest axis."""
        assert self.layout is not None
        n0, n1, _ = self.layout.shape
        return (max(low, 0) * n1, min(high, n0) * n1) if n0 > 1 else (max(low, 0), min(high, n1))

    def _half_sweep(self, colour: int, alpha: np.float32, mode: int, depth: int, threads: int) -> None:
        assert self.layout is not None
        (n0, n1, n2), a = self.layout.shape, self.arrays
        axis = 0 if n0 > 1 else 1
        first, last = self._lines(self._begin[axis] - depth, self._end[axis] + depth)
        x = a["x"]
        operands = (
            x, a["b"], a["residual"], a["smoother"], a["diagonal"], a.get("face0", x), a.get("face1", x),
            a.get("face2", x), self.uniform, n0, n1, colour, alpha, mode, first, last,
        )  # fmt: skip
        if threads > 1 and n0 * n1 * n2 >= kernels.SERIAL_CELLS:
            kernels.half_sweep_threads(*operands, threads)
        else:
            kernels.half_sweep(*operands)

    def _restrict(self, threads: int) -> None:
        assert self.layout is not None and self.coarse_layout is not None
        (n0, n1, n2), (c0, c1, c2), a = self.layout.shape, self.coarse_layout.shape, self.arrays
        axis = 0 if n0 > 1 else 1
        low, high = self._begin[axis] // 2, -(-self._end[axis] // 2)
        first, last = (low * c1, high * c1) if n0 > 1 else (low, high)
        p1 = a["prolong1"]
        operands = (
            a["residual"], a["own"], a.get("prolong0", p1), p1, a["prolong2"], self._bc, n0, n1, c0, c1, c2,
            first, last,
        )  # fmt: skip
        if threads > 1 and n0 * n1 * n2 >= kernels.SERIAL_CELLS:
            kernels.restrict_threads(*operands, threads)
        else:
            kernels.restrict(*operands)

    def _prolong(self, threads: int) -> None:
        assert self.layout is not None and self.coarse_layout is not None
        (n0, n1, n2), (c0, c1, _), a = self.layout.shape, self.coarse_layout.shape, self.arrays
        axis = 0 if n0 > 1 else 1
        first, last = self._lines(self._begin[axis], self._end[axis])
        p1 = a["prolong1"]
        operands = (
            a["x"], a["own"], a.get("prolong0", p1), p1, a["prolong2"], self._coarse, n0, n1, c0, c1, first,
            last,
        )  # fmt: skip
        if threads > 1 and n0 * n1 * n2 >= kernels.SERIAL_CELLS:
            kernels.prolong_threads(*operands, threads)
        else:
            kernels.prolong(*operands)

    @property
    def unknowns(self) -> int:
        """Cells of this rank's own box that take part."""
        if self.layout is None:
            return 0
        n0, n1, _ = self.layout.shape
        return int(count_unknowns(self.arrays["diagonal"], n0, n1, self._begin, self._end))

    @property
    def bytes(self) -> int:
        """Memory of this rank's arrays, maps and buffers."""
        held = sum(a.nbytes for a in self.arrays.values())
        if self.here:
            held += self._bc.nbytes + self._coarse.nbytes
        transfers = (self._halo, self._near, self._down, self._up, self._operator)
        return held + sum(t.bytes for t in transfers if t is not None)


_NOTHING = np.zeros((2, 1, 1), np.float32)
"""What a rank without a box passes to an exchange in which it has no part."""
