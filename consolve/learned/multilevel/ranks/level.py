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

from consolve.learned.multilevel.cycle import cycle_kernels as kernels
from consolve.learned.multilevel.cycle.layout import (
    COEFFICIENTS,
    SERIAL_CELLS,
    VECTORS,
    coefficient_names,
    record_of,
)
from consolve.learned.multilevel.cycle.packing import pack, unit_of
from consolve.learned.multilevel.cycle.row_vectors import FIRST, FRESH, RELAX, RELAX_AND_RESIDUAL, RESIDUAL
from consolve.learned.multilevel.cycle.transfer import (
    NaturalRows,
    SplitArrays,
    Traffic,
    Transfer,
    VolumeArrays,
)
from consolve.learned.multilevel.ranks.exchange_kernels import count_unknowns
from consolve.learned.multilevel.ranks.partition import Partition, halve
from consolve.learned.multilevel.ranks.plan import HALO, Periodic, with_halo
from consolve.learned.multilevel.setup.level_builder import LevelBuilder, Volumes


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
        tensors = builder.weights.tensors
        level_class = min(number, tensors["alpha"].shape[0] - 1)
        self._alpha, self._unit = tensors["alpha"][level_class], unit_of(tensors["linear"][level_class])
        self._record, self._coarse_record = np.empty(0, np.int64), np.empty(0, np.int64)
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

    def set_up(self, faces: Volumes, fixed: NDArray[np.float32], packed: bool) -> tuple[Volumes, NDArray]:
        """Fill the arrays from the operator on box and halo; returns the coarse one on the coarse box."""
        self.packed = packed
        empty = np.zeros((1, 1, 1), np.float32)
        if self.layout is None or self.coarse_layout is None:
            return [empty] * 3, empty
        names = VECTORS + self._coefficients
        if tuple(self.arrays) != names:
            self.arrays = {name: self.layout.zeros() for name in names}
        for name in VECTORS:
            self.arrays[name][:] = 0
        shape, coarse_shape = self.layout.shape, self.coarse_layout.shape
        self._record = record_of(shape, packed, self.arrays)
        self._coarse_record = record_of(coarse_shape, False, {"b": self._bc})
        nothing = np.zeros((2, 0, 0), np.float32)
        filled = [self.arrays.get(name, nothing) for name in COEFFICIENTS]
        if packed:
            own = [self.layout.zeros() if q != 3 or shape[0] > 1 else nothing for q in range(6)]
            filled = own + filled[6:]
        theta, irregular = self._builder.kernels(self.number, faces, fixed, filled, not packed, check=False)
        if packed:
            words = (self.arrays[name].view(np.uint32) for name in ("relax", "moves"))
            pack(*filled[:6], self._unit, *words)
        return self._builder.coarse(self.number, faces, fixed, theta, irregular, coarse_shape)

    def exchange_kernels(self) -> None:
        """Take the halo's kernels from their owners."""
        for name in self._coefficients:
            self.exchange(name)

    @property
    def _coefficients(self) -> tuple[str, ...]:
        # Not the rank's own shape: a name that one rank exchanges, all do.
        return coefficient_names(self.partition.shape, self.packed)

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
            mode = RELAX
            if before and q < 2:
                mode = FRESH if q else FIRST
            if before and q == last and last > 1:
                mode = RELAX_AND_RESIDUAL
            self._half_sweep(step % 2, self._alpha[step // 2, step % 2], mode, valid, threads)
        if before:
            valid = self._fresh(valid) - 1
            for c in range(2 if last == 1 else 1):
                self._half_sweep(c, np.float32(0), RESIDUAL, valid, threads)

    def _fresh(self, valid: int) -> int:
        """Layers of the halo in which x is right, after an exchange if none was."""
        if valid > 0:
            return valid
        self.exchange("x")
        return HALO

    def _units(self, low: int, high: int) -> tuple[int, int]:
        """First and one past the last unit (see cycle_kernels) of low <= u < high that there is."""
        assert self.layout is not None
        n0, n1, _ = self.layout.shape
        return max(low, 0), min(high, n0 if n0 > 1 else n1)

    def _threads(self, threads: int) -> int:
        assert self.layout is not None
        return threads if np.prod(self.layout.shape) >= SERIAL_CELLS else 1

    @property
    def _slowest(self) -> int:
        """The axis of the units."""
        assert self.layout is not None
        return 0 if self.layout.shape[0] > 1 else 1

    def _half_sweep(self, colour: int, alpha: np.float32, mode: int, depth: int, threads: int) -> None:
        axis = self._slowest
        units = self._units(self._begin[axis] - depth, self._end[axis] + depth)
        kernels.half_sweep(self._record, *units, colour, mode, alpha, self._threads(threads))

    def _restrict(self, threads: int) -> None:
        axis = self._slowest
        units = self._begin[axis] // 2, -(-self._end[axis] // 2)
        kernels.restrict(self._record, self._coarse_record, self._unit, *units, self._threads(threads))

    def _prolong(self, threads: int) -> None:
        axis = self._slowest
        units = self._units(self._begin[axis], self._end[axis])
        natural = self._coarse.ctypes.data + 4
        kernels.prolong(
            self._record, self._coarse_record, self._unit, natural, *units, self._threads(threads)
        )

    @property
    def unknowns(self) -> int:
        """Cells of this rank's own box that take part."""
        if self.layout is None:
            return 0
        n0, n1, _ = self.layout.shape
        return int(
            count_unknowns(
                self.arrays["relax" if self.packed else "diagonal"], n0, n1, self._begin, self._end
            )
        )

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
