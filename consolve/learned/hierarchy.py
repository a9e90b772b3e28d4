"""Levels of the multilevel network in one process: arrays of every level, their setup, and the V-cycle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.learned import coarsen_kernels, cycle_kernels, setup_kernels
from consolve.learned.coarsest import pseudo_inverse
from consolve.learned.layout import ARRAYS, Layout, make_layout
from consolve.learned.weights import LEVEL_CLASSES, Weights
from consolve.pde.arrays import zeros

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
            nets[name] = tuple(parts)
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
        inverse, share, theta = (np.empty(shape, np.float32) for _ in range(3))
        irregular = np.ones(shape, np.bool_)
        setup_kernels.inverse_diagonal(*faces, fixed, inverse, share)
        if not (np.isfinite(inverse.max()) and np.isfinite(share.max())):
            self.extreme = True
            if check:
                raise ValueError(EXTREME)
        scalars = np.array([tensors[n][level_class] for n in ("gamma", "theta", "linear", "drop")])
        threads = self.threads if fixed.size >= cycle_kernels.SERIAL_CELLS else 1
        setup_kernels.level_kernels(
            *faces, fixed, inverse, share, ndim, scalars, nets["cell"], nets["prolongation"], theta,
            irregular, *arrays, store_faces, threads,
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
        coarsen_kernels.block_sums(*faces, fixed, theta, irregular, links, drain, coarse_fixed, marked)
        coarse = [np.zeros(coarse_shape, np.float32) for _ in range(3)]
        for axis in range(3):
            if shape[axis] > 1:
                coarsen_kernels.coarse_faces(
                    faces[axis], links, drain, marked, axis, ndim, blocks, gamma,
                    self._nets[level_class]["face"], coarse[axis], threads,
                )  # fmt: skip
        return coarse, coarse_fixed


class Hierarchy:
    """All levels from a given one down to the coarsest, in one process.

    Parameters
    ----------
    builder
        Setup of a level.
    shape
        Cells of the first level: 2 or 3 axes.
    uniform
        Its open faces all have the coefficient 1.
    first
        Its number in the whole hierarchy, 0 for the finest.
    """

    def __init__(self, builder: LevelBuilder, shape: tuple[int, ...], uniform: bool, first: int = 0) -> None:
        self.builder, self.first = builder, first
        self.layout: Layout = make_layout(shape, uniform)
        self.arena = zeros(self.layout.size, np.float32)
        alpha = builder.weights.tensors["alpha"]
        self._alpha = np.ascontiguousarray(alpha[min(first, LEVEL_CLASSES - 1) :])
        self.inverse = np.zeros((0, 0), np.float32)

    def fits(self, shape: tuple[int, ...], uniform: bool) -> bool:
        """True if the memory serves a grid of this shape and kind."""
        other = make_layout(shape, uniform)
        return self.layout.shapes == other.shapes and self.layout.size == other.size

    def clear(self) -> None:
        """Zero what an earlier operator left in the vectors."""
        for level in range(len(self.layout.shapes)):
            for name in ("x", "b", "residual"):
                self.array(level, name)[:] = 0

    def array(self, level: int, name: str) -> NDArray[np.float32]:
        """One array (2, rows, width) of a level."""
        return self.layout.array(self.arena, level, name)

    def build(self, faces: Volumes, fixed: NDArray[np.float32], check: bool = True) -> None:
        """Setup of all levels from the operator of the first; ``check`` as for LevelBuilder.kernels."""
        layout, builder = self.layout, self.builder
        for level in range(len(layout.shapes) - 1):
            arrays = [self.array(level, name) for name in ARRAYS[3:]]
            number, store_faces = self.first + level, bool(layout.table[level, 5] == 0)
            theta, irregular = builder.kernels(number, faces, fixed, arrays, store_faces, check)
            faces, fixed = builder.coarse(number, faces, fixed, theta, irregular, layout.shapes[level + 1])
        n = fixed.size
        off = np.zeros((n, n))
        index = np.arange(n).reshape(fixed.shape)
        for axis in range(3):
            m = fixed.shape[axis]
            if m > 1:
                low, high = index.take(range(m - 1), axis).ravel(), index.take(range(1, m), axis).ravel()
                off[low, high] = off[high, low] = faces[axis].take(range(m - 1), axis).ravel()
        self.inverse = pseudo_inverse(off, fixed.ravel()).astype(np.float32)

    def first_diagonal(self) -> NDArray[np.float32]:
        """Diagonal of the first level; what stands in its place where there is only one."""
        if len(self.layout.shapes) == 1:
            return np.diag(self.inverse)
        return self.array(0, "diagonal")

    def cycle(self, threads: int) -> None:
        """x = M b on the first level."""
        cycle_kernels.v_cycle(self.arena, self.layout.table, self._alpha, self.inverse, threads)

    def facts(self, unknowns: int | None = None) -> list[LevelFacts]:
        """Facts of each level; ``unknowns`` of the first, counted from its diagonal by default."""
        layout = self.layout
        ends = [int(layout.table[q + 1, 6]) for q in range(len(layout.shapes) - 1)] + [layout.size]
        facts = []
        for level, shape in enumerate(layout.shapes):
            if level == 0 and unknowns is not None:
                count = unknowns
            elif level == len(layout.shapes) - 1:
                count = int(np.count_nonzero(np.diag(self.inverse)))
            else:
                count = int(np.count_nonzero(self.array(level, "diagonal")))
            size = 4 * (ends[level] - int(layout.table[level, 6]))
            facts.append(LevelFacts(shape[3 - self.builder.weights.ndim :], count, size))
        return facts
