"""Levels of the multilevel network in one process: arrays of every level, their setup, and the V-cycle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.memory import require
from consolve.base.threads import run_lines
from consolve.learned.multilevel.cycle import cycle_kernels
from consolve.learned.multilevel.cycle.coarsest import pseudo_inverse
from consolve.learned.multilevel.cycle.layout import COEFFICIENTS, VECTORS, Layout, array_shape, make_layout
from consolve.learned.multilevel.cycle.packing import pack, unit_of
from consolve.learned.multilevel.format import LEVEL_CLASSES, Weights
from consolve.learned.multilevel.setup import (
    cell_codes,
    coarsen_kernels,
    finest_coarsening,
    finest_kernels,
    setup_kernels,
)
from consolve.learned.multilevel.setup.perceptron_kernels import value_at_zero

_NET_TENSORS = ("w1", "e", "w2", "b2", "v")
_OUTPUTS = {"cell": 3, "face": 1, "prolongation": 1}

EXTREME = (
    "coefficients differ by more than single precision holds (1e37 from the largest face); scale the "
    "rows of the extreme cells, or take these cells out of the system"
)

Nets = dict[str, tuple[NDArray[np.float32], ...]]
"""The perceptrons of a level class as the kernels take them: cell, face, prolongation."""
Volumes = list[NDArray[np.float32]]
"""Face coefficients by axis, (n0, n1, n2) each, the first (1, 1, 1) where n0 = 1."""


@dataclass(frozen=True)
class UniformLevel:
    """A finest level whose open faces all have the coefficient 1.

    Parameters
    ----------
    active
        Boolean volume (n0, n1, n2).
    start, place, part
        Its Dirichlet parts, float32 in units of the coefficient; see `uniform.DirichletParts`.
    """

    active: NDArray[np.bool_]
    start: NDArray[np.int32]
    place: NDArray[np.int32]
    part: NDArray[np.float32]


@dataclass(frozen=True)
class LevelFacts:
    """One line of a hierarchy's table: shape, unknowns and bytes of a level."""

    shape: tuple[int, ...]
    unknowns: int
    bytes: int


def level_networks(weights: Weights) -> list[Nets]:
    """The perceptrons of each level class; empty ones for the classical twin."""
    classes = []
    for level_class in range(LEVEL_CLASSES):
        nets = {}
        for name, outputs in _OUTPUTS.items():
            if weights.hidden:
                parts = [np.ascontiguousarray(weights.tensors[f"{name}_{key}"]) for key in _NET_TENSORS]
                parts[1] = np.ascontiguousarray(parts[1][level_class])
            else:
                matrix, vector = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
                parts = [matrix, vector, matrix, vector, np.zeros((outputs, 0), np.float32)]
            nets[name] = (*parts, value_at_zero(*parts))
        classes.append(nets)
    return classes


def vanishes(coefficients: Iterable[NDArray], scale: float) -> bool:
    """True if a positive coefficient is 0 in single precision when ``scale`` divides it."""
    return any(bool(((c > 0) & ((1 / scale * c).astype(np.float32) == 0)).any()) for c in coefficients)


class LevelBuilder:
    """Setup of one level from its operator.

    Parameters
    ----------
    weights
        The network.
    threads
        Numba threads of levels that are large enough for them.
    """

    def __init__(self, weights: Weights, threads: int) -> None:
        self.weights, self.threads, self.extreme = weights, threads, False
        self._nets = level_networks(weights)

    def kernels(
        self,
        number: int,
        faces: Volumes,
        fixed: NDArray,
        arrays: list[NDArray],
        store_faces: bool,
        check: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Fill the colour-split arrays of a level.

        Parameters
        ----------
        number
            Of the level, 0 for the finest.
        faces, fixed
            Its face coefficients and Dirichlet part.
        arrays
            smoother, diagonal, own, prolong0..2, face0..2, each (2, rows, width).
        store_faces
            Fill the face arrays too.
        check
            Raise ValueError if coefficients leave the range of single precision; else ``extreme`` is set.

        Returns
        -------
        theta times the Dirichlet part, and the cells that are irregular: both for ``coarse``.
        """
        level_class, shape, ndim = min(number, LEVEL_CLASSES - 1), fixed.shape, self.weights.ndim
        nets, tensors = self._nets[level_class], self.weights.tensors
        # The kernels skip the first axis alone where it has one cell: those of the others read zeros.
        assert all(f.shape == shape for f in (faces if shape[0] > 1 else faces[1:]))
        inverse, share, theta = (np.empty(shape, np.float32) for _ in range(3))
        irregular = np.ones(shape, np.bool_)
        threads = self.threads if fixed.size >= cycle_kernels.SERIAL_CELLS else 1
        lines = shape[0] * shape[1]
        run_lines(setup_kernels.inverse_diagonal, lines, threads, *faces, fixed, inverse, share)
        if not (np.isfinite(inverse.max()) and np.isfinite(share.max())):
            self.extreme = True
            if check:
                raise ValueError(EXTREME)
        scalars = np.array([tensors[n][level_class] for n in ("gamma", "theta", "linear", "drop")])
        run_lines(
            setup_kernels.level_kernels, lines, threads, *faces, fixed, inverse, share, ndim, scalars,
            nets["cell"], nets["prolongation"], theta, irregular, *arrays, store_faces,
        )  # fmt: skip
        return theta, irregular

    def coarse(
        self,
        number: int,
        faces: Volumes,
        fixed: NDArray,
        theta: NDArray,
        irregular: NDArray,
        coarse_shape: tuple[int, ...],
    ) -> tuple[Volumes, NDArray[np.float32]]:
        """Face coefficients and Dirichlet part of the next level."""
        level_class, shape, ndim = min(number, LEVEL_CLASSES - 1), fixed.shape, self.weights.ndim
        gamma = self.weights.tensors["gamma"][level_class]
        threads = self.threads if fixed.size >= cycle_kernels.SERIAL_CELLS else 1
        blocks = np.array([2 if n > 1 else 1 for n in shape])
        links, drain = np.empty((3, *coarse_shape), np.float32), np.empty(coarse_shape, np.float32)
        coarse_fixed = np.empty(coarse_shape, np.float32)
        marked = np.empty(coarse_shape, np.bool_)
        lines = coarse_shape[0] * coarse_shape[1]
        run_lines(
            coarsen_kernels.block_sums, lines, threads, *faces, fixed, theta, irregular, links, drain,
            coarse_fixed, marked,
        )  # fmt: skip
        coarse = [np.zeros(coarse_shape, np.float32) for _ in range(3)]
        for axis in range(3):
            if shape[axis] > 1:
                run_lines(
                    coarsen_kernels.coarse_faces, lines, threads, faces[axis], links, drain, marked, axis,
                    ndim, blocks, gamma, self._nets[level_class]["face"], coarse[axis],
                )  # fmt: skip
        return coarse, coarse_fixed

    def uniform(
        self,
        level: UniformLevel,
        unit: np.float32,
        relax: NDArray,
        moves: NDArray,
        coarse_shape: tuple[int, ...],
    ) -> tuple[Volumes, NDArray[np.float32]]:
        """Fill the packed arrays of a uniform finest level, as ``kernels`` and ``pack`` do.

        Returns
        -------
        As ``coarse``.

        Raises
        ------
        ValueError
            If coefficients leave the range of single precision.
        """
        nets, tensors, ndim = self._nets[0], self.weights.tensors, self.weights.ndim
        threads = self.threads if level.active.size >= cycle_kernels.SERIAL_CELLS else 1
        fixed = level.start, level.place, level.part
        code, theta = np.empty(level.active.shape, np.uint8), np.empty_like(level.part)
        n0, n1, _ = code.shape
        active = level.active.view(np.uint8)
        run_lines(cell_codes.write_codes, n0 * n1, threads, active, level.start, level.place, code)
        self._check_parts(level, code)
        scalars = np.array([tensors[n][0] for n in ("gamma", "theta", "linear", "drop")])
        marked = np.empty(coarse_shape, np.bool_)
        linear, dropped = scalars[2], scalars[3] * 2 * ndim
        np.multiply(level.part, scalars[1], out=theta)
        lines = coarse_shape[0] * coarse_shape[1]
        run_lines(
            finest_kernels.finest_level_kernels, lines, threads, code, *fixed, ndim, linear, dropped, unit,
            nets["cell"], nets["prolongation"], theta, marked, relax, moves,
        )  # fmt: skip
        coarse = [np.empty(coarse_shape, np.float32) for _ in range(3)]
        coarse_fixed = np.empty(coarse_shape, np.float32)
        run_lines(
            finest_coarsening.coarse_operator, lines, threads, code, *fixed, theta, marked, ndim, scalars[0],
            nets["face"], *coarse, coarse_fixed,
        )  # fmt: skip
        return coarse, coarse_fixed

    def _check_parts(self, level: UniformLevel, code: NDArray[np.uint8]) -> None:
        """Only cells without an open face can have a diagonal that is too small."""
        part = level.part
        tiny = np.flatnonzero(part < np.finfo(np.float32).tiny)
        line = np.searchsorted(level.start, tiny, "right") - 1
        alone = code.reshape(-1, code.shape[2])[line, level.place[tiny]] & cell_codes.FACES == 0
        if alone.any() or not np.isfinite(part.max(initial=0)):
            self.extreme = True
            raise ValueError(EXTREME)


class Hierarchy:
    """All levels from a given one down to the coarsest, in one process.

    Parameters
    ----------
    builder
        Setup of a level.
    shape
        Cells of the first level: 2 or 3 axes.
    packed
        Its open faces all have the coefficient 1, and its Dirichlet parts are packable.
    first
        Its number in the whole hierarchy, 0 for the finest.
    """

    def __init__(self, builder: LevelBuilder, shape: tuple[int, ...], packed: bool, first: int = 0) -> None:
        self.builder, self.first = builder, first
        self.layout: Layout = make_layout(shape, packed)
        require(4 * self.layout.size, f"the network on a grid of {' x '.join(map(str, shape))} cells")
        self.arena = zeros(self.layout.size, np.float32)
        self.records = self.layout.records(self.arena)
        tensors = builder.weights.tensors
        classes = np.minimum(np.arange(first, first + len(self.layout.shapes)), LEVEL_CLASSES - 1)
        self.units = np.array([unit_of(tensors["linear"][c]) for c in classes], np.float32)
        self.alpha = np.ascontiguousarray(tensors["alpha"][min(first, LEVEL_CLASSES - 1) :])
        self.inverse = np.zeros((0, 0), np.float32)

    def fits(self, shape: tuple[int, ...], packed: bool) -> bool:
        """True if the memory serves a grid of this shape and kind."""
        return self.layout == make_layout(shape, packed)

    def clear(self) -> None:
        """Zero what an earlier operator left in the vectors."""
        for level in range(len(self.layout.shapes)):
            for name in VECTORS:
                if name in self.layout.offsets[level]:
                    self.array(level, name)[:] = 0

    def array(self, level: int, name: str) -> NDArray[np.float32]:
        """One array (2, rows, width) of a level."""
        return self.layout.array(self.arena, level, name)

    def build(self, faces: Volumes, fixed: NDArray[np.float32], check: bool = True) -> None:
        """Setup of all levels from the operator of the first; ``check`` as for LevelBuilder.kernels."""
        self._build(0, faces, fixed, check)

    def build_uniform(self, level: UniformLevel) -> None:
        """Setup of all levels where the first is packed."""
        words = self.array(0, "relax"), self.array(0, "moves")
        self._build(1, *self.builder.uniform(level, self.units[0], *words, self.layout.shapes[1]))

    def _build(self, begin: int, faces: Volumes, fixed: NDArray[np.float32], check: bool = True) -> None:
        layout, builder = self.layout, self.builder
        for level in range(begin, len(layout.shapes) - 1):
            packed = layout.is_packed(level)
            arrays = self._coefficients(level)
            theta, irregular = builder.kernels(self.first + level, faces, fixed, arrays, not packed, check)
            if packed:
                words = self.array(level, "relax"), self.array(level, "moves")
                pack(*arrays[:6], self.units[level], *words)
            number, shape = self.first + level, layout.shapes[level + 1]
            faces, fixed = builder.coarse(number, faces, fixed, theta, irregular, shape)
        n = fixed.size
        off = np.zeros((n, n))
        index = np.arange(n).reshape(fixed.shape)
        for axis in range(3):
            m = fixed.shape[axis]
            if m > 1:
                low, high = index.take(range(m - 1), axis).ravel(), index.take(range(1, m), axis).ravel()
                off[low, high] = off[high, low] = faces[axis].take(range(m - 1), axis).ravel()
        self.inverse = pseudo_inverse(off, fixed.ravel()).astype(np.float32)

    def _coefficients(self, level: int) -> list[NDArray[np.float32]]:
        """Where the coefficients of a level go, the names in COEFFICIENTS; those not needed have size 0."""
        shape = self.layout.shapes[level]
        nothing = np.zeros((2, 0, 0), np.float32)
        if self.layout.is_packed(level):
            count = 6
            own = [zeros(array_shape(shape), np.float32) for _ in range(count)]
            if shape[0] == 1:
                own[3] = nothing
            return own + [nothing] * (len(COEFFICIENTS) - count)
        has = self.layout.offsets[level]
        return [self.array(level, name) if name in has else nothing for name in COEFFICIENTS]

    def count_unknowns(self, level: int) -> int:
        """Cells of a level that take part."""
        if level == len(self.layout.shapes) - 1:
            return int(np.count_nonzero(np.diag(self.inverse)))
        return int(
            np.count_nonzero(self.array(level, "relax" if self.layout.is_packed(level) else "diagonal"))
        )

    def cycle(self, threads: int) -> None:
        """x = M b on the first level."""
        cycle_kernels.v_cycle(self.records, self.units, self.alpha, self.inverse, 0, threads)

    def facts(self, unknowns: int | None = None) -> list[LevelFacts]:
        """Facts of each level; ``unknowns`` of the first, counted from its diagonal by default."""
        layout = self.layout
        facts = []
        for level, shape in enumerate(layout.shapes):
            known = level == 0 and unknowns is not None
            count = unknowns if known else self.count_unknowns(level)
            facts.append(
                LevelFacts(shape[3 - self.builder.weights.ndim :], int(count or 0), layout.bytes(level))
            )
        return facts
