"""The Poisson operator of a grid whose axes may close to rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.null_space import ClosedComponents, closed_numbers


@dataclass(frozen=True)
class PeriodicOperator:
    """A GridOperator, and faces between the last and the first cells of its axes.

    Parameters
    ----------
    inner
        The operator without these faces.
    wrapped
        Their coefficients, one array for each axis, of the shape of the grid without the axis; 0 where
        closed, and along an axis of one cell.
    """

    inner: GridOperator
    wrapped: tuple[NDArray, ...]

    @classmethod
    def of_rows(
        cls,
        shape: tuple[int, ...],
        cells: NDArray[np.integer],
        faces: Sequence[NDArray[np.float64]],
        dirichlet: NDArray[np.float64],
        active: NDArray,
    ) -> PeriodicOperator:
        """From the rows of a RowOperator, those of all ranks; cells without a row are not active."""

        def spread(values: NDArray) -> NDArray:
            grid = np.zeros(int(np.prod(shape)), values.dtype)
            grid[cells] = values
            return grid.reshape(shape)

        volumes, wrapped = [spread(face) for face in faces], []
        for axis, volume in enumerate(volumes):
            last = np.moveaxis(volume, axis, 0)[-1]
            wrapped.append(last * (shape[axis] > 1))
            last[...] = 0
        inner = GridOperator(tuple(volumes), spread(dirichlet), spread(np.asarray(active, np.bool_)))
        return cls(inner, tuple(wrapped))

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return self.inner.shape

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.inner.ndim

    @property
    def dirichlet(self) -> NDArray:
        """Shape of the grid: what eliminated Dirichlet neighbours add to the diagonal."""
        return self.inner.dirichlet

    @property
    def active(self) -> NDArray[np.bool_]:
        """Shape of the grid: the cells that carry an unknown."""
        return self.inner.active

    @property
    def cells(self) -> NDArray[np.int32]:
        """C-order cell index of each unknown."""
        return self.inner.cells

    @cached_property
    def face_coefficient(self) -> tuple[NDArray, ...]:
        """As of a GridOperator, with the wrapped faces in the last layers."""
        faces = list(self.inner.face_coefficient)
        for axis, layer in enumerate(self.wrapped):
            if layer.any():
                faces[axis] = faces[axis].copy()
                np.moveaxis(faces[axis], axis, 0)[-1] = layer
        return tuple(faces)

    @property
    def _volumes(self) -> tuple[NDArray, ...]:
        """As of a GridOperator, with the wrapped faces in the last layers."""
        faces = [as_volume(f) for f in self.face_coefficient]
        if self.ndim == 2:
            faces.insert(0, faces[0])  # never read: the first axis has one layer
        return *faces, *self.inner._volumes[3:]

    def closed_components(self, cells: NDArray[np.integer]) -> ClosedComponents:
        """Of the rows in the given cells."""
        labels, closed = self.inner.components
        pairs = [np.empty((0, 2), np.int64)]
        for axis, face in enumerate(self.wrapped):
            layers = np.moveaxis(labels, axis, 0)
            pairs.append(np.stack([layers[-1][face > 0], layers[0][face > 0]], 1).astype(np.int64))
        number = closed_numbers(~closed, np.concatenate(pairs))
        group = np.append(number, np.int32(-1))[labels.reshape(-1)[cells]]
        return ClosedComponents.of_groups(group, int(number.max(initial=-1)) + 1)
