"""The multilevel network as a preconditioner: setup from a GridOperator, z = M r by one V-cycle, without
torch."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.learned import coarsen_kernels, cycle_kernels, setup_kernels
from consolve.learned.coarsest import pseudo_inverse
from consolve.learned.layout import ARRAYS, Layout, make_layout, runs_of
from consolve.learned.weights import LEVEL_CLASSES, Weights
from consolve.pde.arrays import zeros
from consolve.pde.grid import GridOperator

_NET_TENSORS = ("w1", "e", "w2", "b2", "v")
_OUTPUTS = {"cell": 3, "face": 1, "prolongation": 1}


@dataclass(frozen=True)
class LevelFacts:
    """One line of a hierarchy's table: shape, unknowns and bytes of a level."""

    shape: tuple[int, ...]
    unknowns: int
    bytes: int


class MultilevelPreconditioner:
    """z = M r: a V-cycle whose smoother, transfers and coarse operators a trained network lays out.

    M is linear and symmetric, positive definite if A is (on the range of A if A is singular), so it serves
    plain conjugate gradients.  Levels are stored and run in float32, ``r`` and ``z`` are float64.

    Parameters
    ----------
    operator
        The finest level.
    weights
        From :func:`consolve.learned.weights.load_weights`, of the operator's dimension.
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
        self._nets = [self._network(level_class) for level_class in range(LEVEL_CLASSES)]
        self._layout: Layout | None = None
        self.setups = 0
        self.update(operator)

    def _network(self, level_class: int) -> dict[str, tuple[NDArray[np.float32], ...]]:
        """The three perceptrons of one level class as the kernels take them; empty ones for the classical
        twin."""
        tensors, nets = self.weights.tensors, {}
        for name, outputs in _OUTPUTS.items():
            if self.weights.hidden:
                parts = [np.ascontiguousarray(tensors[f"{name}_{key}"]) for key in _NET_TENSORS]
                parts[1] = np.ascontiguousarray(parts[1][level_class])
            else:
                matrix, vector = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
                parts = [matrix, vector, matrix, vector, np.zeros((outputs, 0), np.float32)]
            nets[name] = tuple(parts)
        return nets

    def update(self, operator: GridOperator) -> None:
        """Setup for another operator; memory is reused if its shape and kind are the same."""
        if operator.ndim != self.weights.ndim:
            raise ValueError(
                f"the operator is {operator.ndim}D, the weights are for {self.weights.ndim}D grids"
            )
        volumes = operator._volumes
        faces, dirichlet, active = volumes[:3], volumes[3], volumes[4]
        largest = float(setup_kernels.largest_face(*faces))
        uniform = largest > 0 and bool(setup_kernels.is_uniform(*faces, active, faces[1].dtype.type(largest)))
        self.scale = largest if largest > 0 else max(float(dirichlet.max()), 1e-300)
        layout = make_layout(operator.shape, uniform)
        old = self._layout
        if old is None or old.shapes != layout.shapes or old.size != layout.size:
            self._arena = zeros(layout.size, np.float32)
        else:
            for level in range(len(layout.shapes)):
                for name in ("x", "b", "residual"):
                    layout.array(self._arena, level, name)[:] = 0
        self._layout = layout
        self._build(faces, dirichlet)
        cells = operator.cells if self.cells is None else self.cells
        self._entries = cells.size
        self._runs = runs_of(cells, active.reshape(-1), *layout.shapes[0][1:])
        self._levels = self._facts(operator)
        self.setups += 1

    def _build(self, faces: tuple[NDArray, ...], dirichlet: NDArray) -> None:
        layout, weights, ndim = self._layout, self.weights, self.weights.ndim
        assert layout is not None
        shape = layout.shapes[0]
        scaled = [np.empty(shape if a or shape[0] > 1 else (1, 1, 1), np.float32) for a in range(3)]
        fixed = np.empty(shape, np.float32)
        setup_kernels.load_finest(*faces, dirichlet, 1 / self.scale, *scaled, fixed)
        for level in range(len(layout.shapes) - 1):
            level_class = min(level, LEVEL_CLASSES - 1)
            scaled, fixed = self._build_level(
                level, scaled, fixed, self._nets[level_class], level_class, ndim
            )
        n = fixed.size
        off = np.zeros((n, n))
        index = np.arange(n).reshape(fixed.shape)
        for axis in range(3):
            m = fixed.shape[axis]
            if m > 1:
                low, high = index.take(range(m - 1), axis).ravel(), index.take(range(1, m), axis).ravel()
                off[low, high] = off[high, low] = scaled[axis].take(range(m - 1), axis).ravel()
        self._inverse = pseudo_inverse(off, fixed.ravel()).astype(np.float32)
        self._alpha = np.ascontiguousarray(weights.tensors["alpha"])

    def _build_level(self, level, faces, fixed, nets, level_class, ndim):
        """Kernels of one level into the arena; returns the next level's faces and Dirichlet part."""
        layout, weights = self._layout, self.weights
        assert layout is not None
        shape = fixed.shape
        inverse, share, theta = (np.empty(shape, np.float32) for _ in range(3))
        irregular = np.ones(shape, np.bool_)
        setup_kernels.inverse_diagonal(*faces, fixed, inverse, share)
        if not (np.isfinite(inverse.max()) and np.isfinite(share.max())):
            raise ValueError(
                "coefficients differ by more than single precision holds (about 1e37 from the largest face); "
                "scale the rows of the extreme cells, or take these cells out of the system"
            )
        arrays = [layout.array(self._arena, level, name) for name in ARRAYS[3:]]
        scalars = np.array([weights.tensors[n][level_class] for n in ("gamma", "theta", "linear", "drop")])
        threads = self.threads if fixed.size >= cycle_kernels.SERIAL_CELLS else 1
        store_faces = layout.table[level, 5] == 0
        setup_kernels.level_kernels(
            *faces, fixed, inverse, share, ndim, scalars, nets["cell"], nets["prolongation"], theta,
            irregular, *arrays, store_faces, threads,
        )  # fmt: skip
        coarse_shape = layout.shapes[level + 1]
        blocks = np.array([2 if n > 1 else 1 for n in shape])
        links, drain = np.empty((3, *coarse_shape), np.float32), np.empty(coarse_shape, np.float32)
        coarse_fixed = np.empty(coarse_shape, np.float32)
        marked = np.empty(coarse_shape, np.bool_)
        coarsen_kernels.block_sums(*faces, fixed, theta, irregular, links, drain, coarse_fixed, marked)
        coarse = [np.zeros(coarse_shape, np.float32) for _ in range(3)]
        for axis in range(3):
            if shape[axis] > 1:
                coarsen_kernels.coarse_faces(
                    faces[axis], links, drain, marked, axis, ndim, blocks, scalars[0], nets["face"],
                    coarse[axis], threads,
                )  # fmt: skip
        return coarse, coarse_fixed

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r.

        NaN or Inf in ``r`` makes all of ``z`` NaN, so that the caller's iteration sees it.

        Parameters
        ----------
        r, z
            float64, one entry for each of ``cells``; entries whose cell is not active get z = 0.
        """
        layout = self._layout
        assert layout is not None
        if r.shape != (self._entries,) or z.shape != (self._entries,):
            raise ValueError(f"r and z must have {self._entries} entries, got {r.shape} and {z.shape}")
        threads = self.threads if r.size >= cycle_kernels.SERIAL_CELLS else 1
        with np.errstate(all="ignore"):
            total = float(cycle_kernels.absolute_sum(r, threads))
        if total == 0:
            z[:] = 0
            return
        if not np.isfinite(total):
            largest = float(np.abs(r).max())
            if not np.isfinite(largest):
                z[:] = np.nan
                return
            total = largest * r.size
        # A power of two keeps M linear to the last bit and the float32 numbers near 1, however small r is.
        exponent = int(np.floor(np.log2(total / r.size))) if total / r.size > 0 else -1022
        down, up = 2.0 ** min(-exponent, 1022), 2.0 ** max(exponent, -1022)
        b, x = layout.array(self._arena, 0, "b"), layout.array(self._arena, 0, "x")
        n0, n1, _ = layout.shapes[0]
        cycle_kernels.scatter(r, self._runs, down, b, n0, n1, threads)
        cycle_kernels.v_cycle(self._arena, layout.table, self._alpha, self._inverse, self.threads)
        cycle_kernels.gather(x, self._runs, up / self.scale, z, n0, n1, threads)

    def _facts(self, operator: GridOperator) -> list[LevelFacts]:
        layout = self._layout
        assert layout is not None
        ends = [int(layout.table[q + 1, 6]) for q in range(len(layout.shapes) - 1)] + [layout.size]
        facts = []
        for level, shape in enumerate(layout.shapes):
            if level == 0:
                unknowns = operator.unknowns
            elif level == len(layout.shapes) - 1:
                unknowns = int(np.count_nonzero(np.diag(self._inverse)))
            else:
                unknowns = int(np.count_nonzero(layout.array(self._arena, level, "diagonal")))
            size = 4 * (ends[level] - int(layout.table[level, 6]))
            facts.append(LevelFacts(shape[3 - operator.ndim :], unknowns, size))
        return facts

    @property
    def levels(self) -> list[LevelFacts]:
        """Facts of each level, finest first."""
        return self._levels

    @property
    def bytes(self) -> int:
        """Memory of the levels and of the map from entries to cells."""
        return self._arena.nbytes + self._runs.nbytes + self._inverse.nbytes

    def __repr__(self) -> str:
        size = f"{self.bytes / 2**20:.1f} MiB"
        head = f"MultilevelPreconditioner({self.weights.source}, {self.weights.digest}, {size})"
        rows = []
        for level, facts in enumerate(self.levels):
            shape, mib = " x ".join(map(str, facts.shape)), facts.bytes / 2**20
            rows.append(f"  level {level}: {shape:>18}  {facts.unknowns:>12,} unknowns  {mib:9.2f} MiB")
        return "\n".join([head, *rows])
