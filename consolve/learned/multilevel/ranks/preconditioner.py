"""The multilevel network over several ranks, and on grids with periodic sides.

The finest levels are shared: each rank holds a box of cells and a halo (distributed_level).  When boxes
become small, the next level moves to fewer ranks, and at last to one, which goes on as one process does
(hierarchy).  Grids with periodic sides keep halos down to a direct solve.  No rank ever holds a vector of the
whole finest grid.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.collective import together
from consolve.learned.multilevel.cycle import vector_kernels
from consolve.learned.multilevel.cycle.coarsest import DirectSolve
from consolve.learned.multilevel.cycle.layout import SERIAL_CELLS
from consolve.learned.multilevel.cycle.packing import is_packable
from consolve.learned.multilevel.cycle.transfer import SplitArrays, Traffic, Transfer, VolumeArrays
from consolve.learned.multilevel.engine.preconditioner import powers_of_two
from consolve.learned.multilevel.format import Weights
from consolve.learned.multilevel.ranks.components import number_closed_components
from consolve.learned.multilevel.ranks.exchange_kernels import box_around
from consolve.learned.multilevel.ranks.level import DistributedLevel
from consolve.learned.multilevel.ranks.partition import Partition, partition_of_rows
from consolve.learned.multilevel.ranks.plan import HALO, Periodic, make_plan, with_halo
from consolve.learned.multilevel.ranks.reductions import Reductions
from consolve.learned.multilevel.ranks.row_exchange import RowExchange
from consolve.learned.multilevel.ranks.scaling import diagonal, is_beyond
from consolve.learned.multilevel.setup import setup_kernels
from consolve.learned.multilevel.setup.hierarchy import Hierarchy, LevelFacts
from consolve.learned.multilevel.setup.level_builder import EXTREME, LevelBuilder, vanishes
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.null_space import ClosedComponents

GATHERED_CELLS = 32_768
"""Levels with at most so many cells go to one rank; boxes of under a quarter of it go to fewer ranks.  With
fewer cells, messages cost more than the work that is shared."""
MOST_DIRECT = 20_000
"""Cells up to which a level that cannot be halved is solved directly."""


class UnservedGrid(ValueError):
    """A periodic grid whose sizes cannot be halved often enough, or one too large for its ranks."""


class DistributedMultilevel:
    """z = M r as MultilevelPreconditioner's, from the rows of several ranks or of a periodic grid.

    The result is that of one process to the last bits: the same operations on the same numbers.  All methods
    and the constructor are collective.  Where single precision does not bear the coefficients, M is that of
    the diagonal; see ``scaling``.

    Parameters
    ----------
    operator
        The local rows.
    weights
        From :func:`consolve.learned.multilevel.format.load_weights`, of the operator's dimension.
    comm
        mpi4py communicator, or None: one rank.
    threads
        Numba threads of this rank.
    gathered_cells
        Levels with at most so many cells go to one rank.
    traffic
        How messages travel, and a count of them.

    Raises
    ------
    UnservedGrid
        If a periodic axis has an odd number of cells on a level of more than MOST_DIRECT cells.
    """

    def __init__(
        self,
        operator: RowOperator,
        weights: Weights,
        comm: Any = None,
        threads: int = 1,
        gathered_cells: int = GATHERED_CELLS,
        traffic: Traffic | None = None,
    ) -> None:
        if weights.ndim != operator.ndim:
            raise ValueError(
                f"{weights.source}: weights for {weights.ndim}D grids, the operator is {operator.ndim}D"
            )
        self.weights, self.threads, self.traffic = weights, threads, traffic or Traffic()
        self.comm = None if comm is None or comm.size == 1 else comm
        self._size: int = 1 if self.comm is None else comm.size
        self._rank: int = 0 if self.comm is None else comm.rank
        self._held: NDArray[np.int64] = np.empty(0, np.int64)
        self.cells: NDArray | None = None  # those of the operator count
        self._gathered = gathered_cells
        self._over = Reductions(self.comm)
        self._builder = LevelBuilder(weights, threads)
        flat = operator.ndim == 2
        self.shape: tuple[int, int, int] = (1, *operator.shape) if flat else operator.shape  # type: ignore[assignment]
        flags = (False, *operator.periodic) if flat else operator.periodic
        # A single cell has no face to itself, so such an axis is as good as one that ends.
        self._periodic: Periodic = tuple(p and n > 1 for p, n in zip(flags, self.shape))  # type: ignore[assignment]
        self._rows: RowExchange | None = None
        self._inverse: NDArray[np.float64] | None = None
        self._tail: Hierarchy | DirectSolve | None = None
        self._levels: list[DistributedLevel] = []
        self.setups = 0
        try:
            self.update(operator)
        except BaseException:
            self.close()
            raise

    def _bounds(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """(size, 2, 3): box around the cells of each rank's rows."""
        mine = box_around(cells, *self.shape[1:])
        if self.comm is None:
            return mine[None]
        everyone = np.empty((self._size, 2, 3), np.int64)
        self.comm.Allgather(mine, everyone)
        return everyone

    def _plan(self, cells: NDArray[np.int64]) -> None:
        """Choose who holds what on every level, and make the levels."""
        self.close()
        wanted = partition_of_rows(self.shape, self._bounds(cells))
        self.plan = make_plan(wanted, self._periodic, self._gathered)
        last = self.plan.last
        self._last, self._root = last.shape, last.ranks[0]
        if any(self._periodic) and math.prod(self._last) > MOST_DIRECT:
            raise UnservedGrid(self._advice())
        self._check_sizes()
        self._levels = [
            DistributedLevel(self.comm, number, partition, self._periodic, self._builder, self.traffic)
            for number, partition in enumerate(self.plan.levels)
        ]
        self._connect(last)
        self._exchange_rows(cells, self._levels[0].partition if self._levels else last)

    def _check_sizes(self) -> None:
        """Raise on all ranks if a rank's arrays are too long for indices of 32 bits."""
        for partition in self.plan.levels[:1]:
            boxes = with_halo(partition.boxes, HALO, partition.shape, self._periodic)
            sizes = (tuple(int(n) for n in box[1] - box[0]) for box in boxes)
            largest = max(SplitArrays((0, 0, 0), size).size for size in sizes)  # type: ignore[arg-type]
            if largest >= 2**31:
                raise UnservedGrid(
                    f"a rank would hold {largest} cells with its halo, more than 2^31: use more than "
                    f"{len(partition.ranks)} ranks for this grid"
                )

    def _connect(self, last: Partition) -> None:
        """Tell each level of the next."""
        for level, finer in zip(self._levels[1:], self._levels):
            finer.connect(level.own, level.extended, level.layout, level.volume_layout)
        if self._levels:
            self._levels[-1].connect(last.boxes, last.boxes, self._split, self._plain)

    def _exchange_rows(self, cells: NDArray[np.int64], partition: Partition) -> None:
        """Plan the ways between the rows and the finest level."""
        first = self._levels[0] if self._levels else None
        layout = first.layout if first else self._split
        self._volumes = first.volume_layout if first else self._plain
        own = partition.boxes
        self._rows = RowExchange(self.comm, cells, self.shape, partition, layout, self.traffic)
        self._finest = Transfer(
            self.comm, own, first.extended if first else own, self.shape, self._periodic, self._volumes,
            self._volumes, self.traffic, in_place=True,
        )  # fmt: skip
        low = np.zeros(3, np.int64) if self._volumes is None else np.array(self._volumes.low)
        box = own[self._rank] - low
        self._own = (slice(*box[:, 0]), slice(*box[:, 1]), slice(*box[:, 2]))

    @property
    def _split(self) -> SplitArrays | None:
        return SplitArrays((0, 0, 0), self._last) if self._rank == self._root else None

    @property
    def _plain(self) -> VolumeArrays | None:
        return VolumeArrays((0, 0, 0), self._last) if self._rank == self._root else None

    def _advice(self) -> str:
        sizes = " x ".join(str(n) for n in self.shape[::-1] if n > 1)
        axes = ", ".join(f"{name} ({n} cells)" for name, n, p in zip("zyx", self.shape, self._periodic) if p)
        return (
            f"the grid {sizes} is periodic along {axes}, and a level of {math.prod(self._last)} cells cannot "
            "be halved: a periodic axis needs an even number of cells, level after level (a power of two is "
            f"best; at most {MOST_DIRECT} cells may be left): change the size, or use -pc_type gamg"
        )

    def update(self, operator: RowOperator) -> None:
        """Setup for another operator; plans and memory are kept if the rows lie in the same cells."""
        if not self._over.all(self._rows is not None and np.array_equal(self._held, operator.cells)):
            self._held = operator.cells
            self._plan(self._held)
        rows = self._rows
        assert rows is not None
        coefficients = operator.face_coefficient
        largest = self._over.maximum(max(float(f.max(initial=0)) for f in coefficients))
        most_fixed = self._over.maximum(float(operator.dirichlet.max(initial=0)))
        self.scale = largest if largest > 0 else max(most_fixed, 1e-300)
        faces = [self._volume(f, 1 / self.scale) for f in coefficients]
        if len(faces) == 2:
            faces.insert(0, np.zeros((1, 1, 1), np.float32))
        fixed = self._volume(operator.dirichlet, 1 / self.scale)
        active = self._volume(operator.active, 1.0) > 0
        rows.set_active(active)
        number, closed = number_closed_components(
            self.comm, faces, fixed, active, self._own, self._finest, self._periodic
        )
        self.components = self._components(number, closed)
        self._inverse = self._scaling(faces, fixed, active, operator)
        self._unknowns = int(self._over.sum(int(np.count_nonzero(operator.active))))
        self._entries = int(self._over.sum(operator.rows))
        self._build(faces, fixed, largest > 0 and self._over.all(_is_packable(faces, fixed, active)))
        self._facts = self._describe()
        if self._facts[0].unknowns != self._unknowns and self._over.any(
            vanishes((*coefficients, operator.dirichlet), self.scale)
        ):
            raise ValueError(EXTREME)
        self.setups += 1

    def _volume(self, values: NDArray, scale: float) -> NDArray[np.float32]:
        """``scale`` times a value of each row in the volume of box and halo."""
        volume = zeros((0, 0, 0) if self._volumes is None else self._volumes.shape, np.float32)
        assert self._rows is not None
        self._rows.to_volume(values, scale, volume)
        self._finest.run(volume, volume)
        return volume

    def _components(self, number: NDArray[np.int32], closed: int) -> ClosedComponents:
        """The closed components of the rows, over all ranks."""
        if closed == 0:
            return ClosedComponents.none()
        group = np.empty(self._held.size, np.int32)
        assert self._rows is not None
        self._rows.from_volume(number, group)
        return ClosedComponents.of_groups(group, closed, self.comm)

    def _scaling(
        self, faces: list[Any], fixed: NDArray, active: NDArray[np.bool_], operator: RowOperator
    ) -> NDArray[np.float64] | None:
        """1 / a_ii of the local rows where single precision does not bear the coefficients; else None."""

        def components(faces: list[Any], fixed: NDArray[np.float32]) -> ClosedComponents:
            found = number_closed_components(
                self.comm, faces, fixed, active, self._own, self._finest, self._periodic
            )
            return self._components(*found)

        if not is_beyond(self.comm, operator, self.scale, faces, fixed, self.components, components):
            return None
        rows = np.empty(self._held.size)
        assert self._rows is not None
        self._rows.from_volume(diagonal(faces, fixed), rows)
        with np.errstate(divide="ignore"):
            return np.where(rows > 0, 1 / (self.scale * rows), 0.0)

    def _build(self, faces: list[Any], fixed: NDArray, packed: bool) -> None:
        self._builder.extreme = False
        for number, level in enumerate(self._levels):
            coarse, coarse_fixed = level.set_up(faces, fixed, packed and number == 0)
            level.exchange_kernels()
            following = self._levels[number + 1 : number + 2]
            target = following[0].volume_layout if following else self._plain
            shape = (0, 0, 0) if target is None else target.shape
            cells = level.partition.halved().shape
            faces = [zeros(shape, np.float32) for _ in range(3)]
            if cells[0] == 1:
                faces[0] = np.zeros((1, 1, 1), np.float32)
            for axis in range(3):
                if cells[axis] > 1:
                    level.move_operator(coarse[axis], faces[axis])
            fixed = zeros(shape, np.float32)
            level.move_operator(coarse_fixed, fixed)
        with together(self.comm):
            if self._rank == self._root:
                self._build_tail(faces, fixed, packed and not self._levels)
        if self._over.any(self._builder.extreme):
            raise ValueError(EXTREME)

    def _build_tail(self, faces: list[Any], fixed: NDArray, packed: bool) -> None:
        if any(self._periodic):
            assert self._split is not None
            self._tail = DirectSolve(faces, fixed, self._periodic, self._split)
            return
        shape = self._last[3 - self.weights.ndim :]
        if isinstance(self._tail, Hierarchy) and self._tail.fits(shape, packed):
            self._tail.clear()
        else:
            self._tail = Hierarchy(self._builder, shape, packed, len(self._levels))
        self._tail.build(faces, fixed, check=False)

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r on the local rows.

        NaN or Inf in ``r`` on any rank makes all of ``z`` NaN on all ranks.
        """
        rows = self._rows
        assert rows is not None
        if r.shape != (self._held.size,) or z.shape != (self._held.size,):
            raise ValueError(f"r and z must have {self._held.size} entries, got {r.shape} and {z.shape}")
        threads = self.threads if r.size >= SERIAL_CELLS else 1
        with np.errstate(all="ignore"):
            total = self._over.total(float(vector_kernels.absolute_sum(r, threads)))
        if total == 0:
            z[:] = 0
            return
        if not math.isfinite(total):
            largest = self._over.maximum(
                float(np.abs(r).max(initial=0)) if np.isfinite(r).all() else math.inf
            )
            if not math.isfinite(largest):
                z[:] = np.nan
                return
        if self._inverse is not None:
            np.multiply(self._inverse, r, out=z)
            return
        mean = total / self._entries if math.isfinite(total) else largest
        down, up = powers_of_two(mean)
        b, x = self._vectors(0)
        rows.scatter(r, down, b, threads)
        if self._levels:
            self._levels[0].exchange("b")
        for number, level in enumerate(self._levels):
            level.down(self._vectors(number + 1)[0], self.threads)
        if self._tail is not None:
            self._tail.cycle(self.threads)
        for number in range(len(self._levels) - 1, -1, -1):
            self._levels[number].up(self._vectors(number + 1)[1], self.threads)
        rows.gather(x, up / self.scale, z, threads)

    def _vectors(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """b and x of a level, or of the tail."""
        if number < len(self._levels):
            arrays = self._levels[number].arrays
            return arrays.get("b", _EMPTY), arrays.get("x", _EMPTY)
        if self._tail is None:
            return _EMPTY, _EMPTY
        if isinstance(self._tail, DirectSolve):
            return self._tail.b, self._tail.x
        return self._tail.array(0, "b"), self._tail.array(0, "x")

    def close(self) -> None:
        """Give all requests back to MPI; collective as MPI's are not, so at any time."""
        for level in self._levels:
            level.close()
        if self._rows is not None:
            self._rows.close()
            self._finest.close()
        self._levels, self._rows, self._tail = [], None, None

    def _describe(self) -> list[LevelFacts]:
        """Facts of all levels, summed over ranks."""
        ndim, facts = self.weights.ndim, []
        local = [(level.unknowns, level.bytes) for level in self._levels]
        totals = self._over.sum(np.array(local, np.int64).reshape(-1, 2))
        for level, (unknowns, size) in zip(self._levels, totals):
            facts.append(LevelFacts(level.partition.shape[3 - ndim :], int(unknowns), int(size)))
        tail: list[LevelFacts] = []
        if isinstance(self._tail, Hierarchy):
            tail = self._tail.facts()
        elif self._tail is not None:
            tail = [LevelFacts(self._last[3 - ndim :], self._tail.unknowns, self._tail.bytes)]
        if self.comm is not None:
            tail = self.comm.bcast(tail, self._root)
        return facts + tail

    @property
    def levels(self) -> list[LevelFacts]:
        """Facts of each level over all ranks, finest first."""
        return self._facts

    @property
    def ranks(self) -> list[int]:
        """Ranks that hold a part of each level; 1 from the first gathered one on."""
        return [len(level.partition.ranks) for level in self._levels] + [1]

    @property
    def rows_moved(self) -> int:
        """Rows of this rank whose cell lies in another one's box."""
        return 0 if self._rows is None else self._rows.moved

    @property
    def bytes(self) -> int:
        """Memory of this rank."""
        held = sum(level.bytes for level in self._levels) + self._finest.bytes
        held += 0 if self._rows is None else self._rows.bytes
        if isinstance(self._tail, Hierarchy):
            held += self._tail.arena.nbytes + self._tail.inverse.nbytes
        elif self._tail is not None:
            held += self._tail.bytes
        return held


_EMPTY = np.zeros((2, 1, 1), np.float32)


def _is_packable(faces: list[NDArray[np.float32]], fixed: NDArray, active: NDArray[np.bool_]) -> bool:
    """Every face between two active cells of this rank has the coefficient 1, and Dirichlet parts are such
    as packed levels hold."""
    if active.size == 0:
        return True
    return bool(setup_kernels.is_uniform(*faces, active, np.float32(1))) and bool(is_packable(fixed))
