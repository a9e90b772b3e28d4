"""The multilevel network as a preconditioner: setup from a GridOperator, z = M r by one V-cycle, without
torch."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle import vector_kernels
from consolve.learned.multilevel.cycle.layout import SERIAL_CELLS, runs_of
from consolve.learned.multilevel.engine.grid_directions import GridDirections
from consolve.learned.multilevel.format import Weights
from consolve.learned.multilevel.setup import setup_kernels
from consolve.learned.multilevel.setup.hierarchy import Hierarchy, LevelFacts
from consolve.learned.multilevel.setup.level_builder import EXTREME, LevelBuilder, UniformLevel, vanishes
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.uniform import UniformOperator


def powers_of_two(size: float) -> tuple[float, float]:
    """1 / s and s for the power of two s next below ``size``.

    Multiplying by a power of two keeps M linear to the last bit and the float32 numbers near 1.
    """
    exponent = int(np.floor(np.log2(size))) if size > 0 else -1022
    return 2.0 ** min(-exponent, 1022), 2.0 ** max(exponent, -1022)


class MultilevelPreconditioner:
    """z = M r: a V-cycle whose smoother, transfers and coarse operators a trained network lays out.

    M is linear and symmetric, positive definite if A is (on the range of A if A is singular), so it serves
    plain conjugate gradients.  Levels are stored and run in float32, ``r`` and ``z`` are float64.

    Parameters
    ----------
    operator
        The finest level.
    weights
        From :func:`consolve.learned.multilevel.format.load_weights`, of the operator's dimension.
    cells
        int32: C-order cell index of each entry of ``r`` and ``z``; all active cells by default.
    threads
        Numba threads; as many as Numba may use by default.

    Raises
    ------
    ValueError
        If the dimensions of operator and weights differ, or an index in ``cells`` lies outside the grid.
    """

    def __init__(
        self,
        operator: GridOperator,
        weights: Weights,
        cells: NDArray[np.int32] | None = None,
        threads: int | None = None,
    ):
        if weights.ndim != operator.ndim:
            raise ValueError(
                f"{weights.source}: weights for {weights.ndim}D grids, the operator is {operator.ndim}D"
            )
        self.weights = weights
        self.threads = threads or numba.get_num_threads()
        self.cells = None if cells is None else np.ascontiguousarray(cells, np.int32)
        size = int(np.prod(operator.shape))
        if (
            self.cells is not None
            and self.cells.size
            and not (0 <= self.cells.min() <= self.cells.max() < size)
        ):
            raise ValueError(f"cells must lie in 0..{size - 1} (a grid of {operator.shape} cells)")
        self._builder = LevelBuilder(weights, self.threads)
        self._hierarchy: Hierarchy | None = None
        self._directions: GridDirections | None = None
        self.components = ClosedComponents.none()
        self.setups = 0
        self.update(operator)

    def update(self, operator: GridOperator) -> None:
        """Setup for another operator; memory is reused if its shape and kind are the same."""
        if operator.ndim != self.weights.ndim:
            raise ValueError(
                f"the operator is {operator.ndim}D, the weights are for {self.weights.ndim}D grids"
            )
        uniform = UniformOperator.of(operator)
        level = None if uniform is None else UniformLevel.of(uniform)
        if self._hierarchy is None or not self._hierarchy.fits(operator.shape, level is not None):
            self._hierarchy = self._directions = None  # their memory is free before the next is taken
            self._hierarchy = Hierarchy(self._builder, operator.shape, level is not None)
        else:
            self._hierarchy.clear()
        if uniform is not None and level is not None and self._hierarchy.layout.is_packed(0):
            self.scale = uniform.coefficient
            self._hierarchy.build_uniform(level)
        else:
            self._set_up(self._hierarchy, operator)
        self._find_runs(operator if uniform is None else uniform)
        self._levels = self._hierarchy.facts(operator.unknowns)
        self.setups += 1

    def _find_runs(self, operator: GridOperator) -> None:
        runs = operator.runs if isinstance(operator, UniformOperator) else None
        if runs is not None and runs.cells is self.cells:
            self._runs = runs.table
            self._entries = operator.unknowns if self.cells is None else self.cells.size
            return
        cells = operator.cells if self.cells is None else self.cells
        active = as_volume(operator.active)
        self._runs = runs_of(cells, active.reshape(-1), *active.shape[1:])
        self._entries = cells.size

    def _set_up(self, hierarchy: Hierarchy, operator: GridOperator) -> None:
        volumes = operator._volumes
        faces, dirichlet = volumes[:3], volumes[3]
        largest = float(setup_kernels.largest_face(*faces))
        self.scale = largest if largest > 0 else max(float(dirichlet.max()), 1e-300)
        shape = hierarchy.layout.shapes[0]
        scaled = [np.empty(shape if a or shape[0] > 1 else (1, 1, 1), np.float32) for a in range(3)]
        fixed = np.empty(shape, np.float32)
        setup_kernels.load_finest(*faces, dirichlet, 1 / self.scale, *scaled, fixed)
        hierarchy.build(scaled, fixed)
        if hierarchy.count_unknowns(0) != operator.unknowns and vanishes(
            (*operator.face_coefficient, operator.dirichlet), self.scale
        ):
            raise ValueError(EXTREME)

    def directions(self) -> GridDirections | None:
        """Conjugate directions in grid space; None where the finest level is not packed."""
        hierarchy = self._hierarchy
        assert hierarchy is not None
        if not hierarchy.layout.packed:
            return None
        if self._directions is None or self._directions.hierarchy is not hierarchy:
            self._directions = None  # its memory is free before the next is taken
            self._directions = GridDirections(hierarchy, self.threads)
        self._directions.serve(self._runs, self.scale)
        return self._directions

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r.

        NaN or Inf in ``r`` makes all of ``z`` NaN, so that the caller's iteration sees it.

        Parameters
        ----------
        r, z
            float64, one entry for each of ``cells``; entries whose cell is not active get z = 0.
        """
        hierarchy = self._hierarchy
        assert hierarchy is not None
        if r.shape != (self._entries,) or z.shape != (self._entries,):
            raise ValueError(f"r and z must have {self._entries} entries, got {r.shape} and {z.shape}")
        threads = self.threads if r.size >= SERIAL_CELLS else 1
        with np.errstate(all="ignore"):
            total = float(vector_kernels.absolute_sum(r, threads))
        if total == 0:
            z[:] = 0
            return
        if not np.isfinite(total):
            largest = float(np.abs(r).max())
            if not np.isfinite(largest):
                z[:] = np.nan
                return
        mean = total / r.size if np.isfinite(total) else largest
        down, up = powers_of_two(mean)
        b, x = hierarchy.array(0, "b"), hierarchy.array(0, "x")
        n0, n1, _ = hierarchy.layout.shapes[0]
        vector_kernels.scatter(r, self._runs, down, b, n0, n1, threads)
        hierarchy.cycle(self.threads)
        vector_kernels.gather(x, self._runs, up / self.scale, z, n0, n1, threads)

    @property
    def levels(self) -> list[LevelFacts]:
        """Facts of each level, finest first."""
        return self._levels

    @property
    def bytes(self) -> int:
        """Memory of the levels and of the map from entries to cells."""
        assert self._hierarchy is not None
        held = self._hierarchy.arena.nbytes + self._runs.nbytes + self._hierarchy.inverse.nbytes
        return held + (0 if self._directions is None else self._directions.bytes)

    def close(self) -> None:
        """Nothing but memory is held."""

    def __repr__(self) -> str:
        size = f"{self.bytes / 2**20:.1f} MiB"
        head = f"MultilevelPreconditioner({self.weights.source}, {self.weights.digest}, {size})"
        rows = []
        for level, facts in enumerate(self.levels):
            shape, mib = " x ".join(map(str, facts.shape)), facts.bytes / 2**20
            rows.append(f"  level {level}: {shape:>18}  {facts.unknowns:>12,} unknowns  {mib:9.2f} MiB")
        return "\n".join([head, *rows])
