"""Setup of one level of the multilevel network from its operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.base.threads import run_lines
from consolve.learned.multilevel.cycle.layout import SERIAL_CELLS
from consolve.learned.multilevel.cycle.packing import is_packable
from consolve.learned.multilevel.format import LEVEL_CLASSES, Weights
from consolve.learned.multilevel.setup import (
    cell_codes,
    coarsen_kernels,
    finest_coarsening,
    finest_kernels,
    setup_kernels,
)
from consolve.learned.multilevel.setup.perceptron_kernels import value_at_zero
from consolve.pde.poisson.grid import as_volume
from consolve.pde.poisson.uniform import UniformOperator

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

    @classmethod
    def of(cls, operator: UniformOperator) -> UniformLevel | None:
        """What setup needs of an operator; None if its diagonal cannot be packed."""
        fixed = operator.fixed
        with np.errstate(over="ignore", under="ignore"):
            part = (fixed.part * (1 / operator.coefficient)).astype(np.float32)
        return cls(as_volume(operator.active), fixed.start, fixed.place, part) if is_packable(part) else None


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
        threads = self.threads if fixed.size >= SERIAL_CELLS else 1
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
        threads = self.threads if fixed.size >= SERIAL_CELLS else 1
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
        threads = self.threads if level.active.size >= SERIAL_CELLS else 1
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
