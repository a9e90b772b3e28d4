"""Levels of the multilevel network in one process: arrays of every level, their setup, and the V-cycle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.memory import require
from consolve.learned.multilevel.cycle import cycle_kernels
from consolve.learned.multilevel.cycle.coarsest import pseudo_inverse
from consolve.learned.multilevel.cycle.layout import COEFFICIENTS, VECTORS, Layout, array_shape, make_layout
from consolve.learned.multilevel.cycle.packing import pack, unit_of
from consolve.learned.multilevel.format import LEVEL_CLASSES
from consolve.learned.multilevel.setup.level_builder import LevelBuilder, UniformLevel, Volumes


@dataclass(frozen=True)
class LevelFacts:
    """One line of a hierarchy's table: shape, unknowns and bytes of a level."""

    shape: tuple[int, ...]
    unknowns: int
    bytes: int


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
