"""Operators of cell images: every face between two active cells has one coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.pde.poisson import run_kernels, uniform_kernels
from consolve.pde.poisson.grid import GridOperator, as_volume


@dataclass(frozen=True)
class DirichletParts:
    """The cells with a Dirichlet part.

    Parameters
    ----------
    start
        int32 (lines + 1): where those of each line i * n1 + j start.
    place
        int32: k of each, ascending in a line.
    part
        float64: what is added to the diagonal, > 0.
    """

    start: NDArray[np.int32]
    place: NDArray[np.int32]
    part: NDArray[np.float64]


@dataclass(frozen=True)
class Runs:
    """Neighbouring entries in neighbouring cells; see run_kernels.

    Parameters
    ----------
    table
        int32 (runs, 4).
    start
        int32 (lines + 1).
    cells
        C-order cell index of each entry; None: they are the active cells.
    """

    table: NDArray[np.int32]
    start: NDArray[np.int32]
    cells: NDArray[np.int32] | NDArray[np.int64] | None = None


class UniformOperator(GridOperator):
    """A GridOperator in a byte a cell; its arrays of coefficients are made only if they are asked for.

    Parameters
    ----------
    active
        Boolean, shape of the grid.
    coefficient
        Of each face between two active cells, > 0.
    fixed
        The Dirichlet parts, of active cells only.
    runs
        Of the active cells, where they are known already; they may have runs of other cells among them.

    Raises
    ------
    ValueError
        If the coefficient is not positive and finite, or there are not 2 or 3 axes.
    """

    coefficient: float
    fixed: DirichletParts

    def __init__(
        self,
        active: NDArray[np.bool_],
        coefficient: float,
        fixed: DirichletParts,
        runs: Runs | None = None,
    ) -> None:
        if active.ndim not in (2, 3):
            raise ValueError(f"a grid has 2 or 3 axes, got an array of shape {active.shape}")
        if not 0 < coefficient < np.inf:
            raise ValueError(f"the coefficient must be positive and finite, got {coefficient}")
        facts = {"active": active, "coefficient": float(coefficient), "fixed": fixed}
        for name, value in facts.items():
            object.__setattr__(self, name, value)
        if runs is not None:
            object.__setattr__(self, "runs", runs)

    @classmethod
    def of(cls, operator: GridOperator) -> UniformOperator | None:
        """``operator`` itself if it is uniform, else the uniform one that equals it; None if none does."""
        if isinstance(operator, UniformOperator):
            return operator
        volumes = operator._volumes
        value = uniform_kernels.first_face(*volumes[:3])
        if not value > 0:
            return None
        active = operator.active
        start = np.zeros(int(np.prod(active.shape[:-1])) + 1, np.int32)
        threads = numba.get_num_threads()
        if not uniform_kernels.uniform_faces(*volumes, value, start, threads):
            return None
        np.cumsum(start, out=start)
        place, part = np.empty(start[-1], np.int32), np.empty(start[-1])
        uniform_kernels.list_positive(volumes[3], start, place, part)
        return cls(active, float(value), DirichletParts(start, place, part))

    @property
    def dtype(self) -> np.dtype:
        """float64."""
        return np.dtype(np.float64)

    @cached_property
    def unknowns(self) -> int:
        """Number of active cells."""
        table = self.runs.table
        return int(table[table[:, 2] >= 0, 1].sum())

    @cached_property
    def runs(self) -> Runs:
        """Runs of the active cells."""
        bytes_ = as_volume(self.active).view(np.uint8)
        return Runs(*run_kernels.runs_of_cells(bytes_, numba.get_num_threads()))

    @cached_property
    def _arrays(self) -> tuple[tuple[NDArray, ...], NDArray]:
        faces = tuple(zeros(self.shape) for _ in self.shape)
        dirichlet = zeros(self.shape)
        volumes = [as_volume(f) for f in faces]
        if self.ndim == 2:
            volumes.insert(0, volumes[0])  # never written: the first axis has one layer
        fixed = self.fixed
        uniform_kernels.write_faces(
            as_volume(self.active), self.coefficient, fixed.start, fixed.place, fixed.part, *volumes,
            as_volume(dirichlet),
        )  # fmt: skip
        return faces, dirichlet

    @property
    def face_coefficient(self) -> tuple[NDArray, ...]:  # type: ignore[override]
        """See GridOperator."""
        return self._arrays[0]

    @property
    def dirichlet(self) -> NDArray:  # type: ignore[override]
        """See GridOperator."""
        return self._arrays[1]

    @cached_property
    def components_of_runs(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Component of each run (-1 for cells that are not active), and which components are closed."""
        shape = np.array(as_volume(self.active).shape)
        runs, fixed = self.runs, self.fixed
        number, has_dirichlet = run_kernels.components_of_runs(
            runs.table, runs.start, shape, fixed.start, fixed.place
        )
        return number, ~has_dirichlet

    @cached_property
    def components(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """See GridOperator."""
        number, closed = self.components_of_runs
        labels = np.empty(self.shape, np.int32)
        run_kernels.label_cells(self.runs.table, self.runs.start, number, as_volume(labels))
        return labels, closed

    @property
    def is_singular(self) -> bool:
        """True if some component has no Dirichlet part."""
        return bool(self.components_of_runs[1].any())
