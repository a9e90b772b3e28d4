"""Where a flow may go: solid cells, open faces and the pressure operator, for one position of all bodies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from consolve.pde.flow import kernels as flow_kernels
from consolve.pde.flow.bodies import Body
from consolve.pde.poisson.grid import AIR, FLUID, SOLID, GridOperator, Sides, as_volume


class FlowGeometry:
    """The raster of a set of bodies, and all that follows from it.

    Parameters
    ----------
    owner
        int16, the shape of the grid: number of the body that covers a cell, -1 for fluid.
    outside
        (low, high) type beyond each axis: SOLID, a free-slip wall, or AIR, where the pressure is 0 and the
        flow may leave and enter.

    Attributes
    ----------
    fluid
        Boolean: fluid cells.
    open_faces
        One boolean array per axis, with one entry more along it: faces that the projection may change.
    operator
        The pressure operator.
    """

    def __init__(self, owner: NDArray[np.int16], outside: Sides) -> None:
        self.owner = owner
        self.outside = outside
        self.fluid = owner < 0
        self.open_faces = tuple(
            _at_faces(self.fluid, axis, (low == AIR, high == AIR), np.logical_and)
            for axis, (low, high) in enumerate(outside)
        )
        self.operator = GridOperator.from_cell_types(np.where(self.fluid, FLUID, SOLID), outside)

    @cached_property
    def cells_known(self) -> NDArray[np.uint8]:
        """Bits for :mod:`~consolve.pde.flow.kernels`, as a volume: fluid cells are known."""
        return _bits(self.fluid)

    @cached_property
    def faces_known(self) -> tuple[NDArray[np.uint8], ...]:
        """The same for the faces of each of three axes: those with fluid on a side are known."""
        known = [
            _bits(_at_faces(self.fluid, axis, (False, False), np.logical_or))
            for axis in range(self.fluid.ndim)
        ]
        if self.fluid.ndim == 2:
            known.insert(0, np.full((2, *self.fluid.shape), 3, np.uint8))
        return tuple(known)

    @cached_property
    def singular(self) -> bool:
        """True if some region has no way to the outside, so that its pressure is free up to a constant."""
        return self.operator.is_singular

    def set_solid_velocity(
        self, velocity: Sequence[NDArray], bodies: Sequence[Body], time: float, spacing: float
    ) -> None:
        """Give every face that is not open the normal velocity of its solid: 0, or that of a moving body."""
        for axis, (u, is_open) in enumerate(zip(velocity, self.open_faces)):
            u[~is_open] = 0
            for number, body in enumerate(bodies):
                if not body.moving:
                    continue
                box = _cells_in(body, time, self.fluid.shape, spacing)
                faces = tuple(slice(s.start, s.stop + (a == axis)) for a, s in enumerate(box))
                owned = self.owner[box] == number
                touched = _at_faces(owned, axis, (False, False), np.logical_or) & ~is_open[faces]
                # The outer walls stand still, even where a body reaches them.
                along = np.moveaxis(touched, axis, 0)
                if box[axis].start == 0:
                    along[0] = False
                if box[axis].stop == self.fluid.shape[axis]:
                    along[-1] = False
                points = _centres(faces, spacing, staggered=axis)
                u[faces][touched] = body.velocity(axis, points, time)[touched]


def rasterise(
    bodies: Sequence[Body], time: float, shape: tuple[int, ...], spacing: float
) -> NDArray[np.int16]:
    """Number of the body whose inside holds a cell's centre (the last one of several), -1 for none."""
    owner = np.full(shape, -1, np.int16)
    for number, body in enumerate(bodies):
        box = _cells_in(body, time, shape, spacing)
        owner[box][body.covers(_centres(box, spacing), time)] = number
    return owner


def _cells_in(body: Body, time: float, shape: tuple[int, ...], spacing: float) -> tuple[slice, ...]:
    """Range of cells around a body at a time, inside the grid."""
    low, high = body.bounds(time)
    start = [int(np.clip(np.floor(a / spacing) - 1, 0, n)) for a, n in zip(low, shape)]
    stop = [int(np.clip(np.ceil(b / spacing) + 1, 0, n)) for b, n in zip(high, shape)]
    return tuple(slice(a, max(a, b)) for a, b in zip(start, stop))


def _centres(box: tuple[slice, ...], spacing: float, staggered: int | None = None) -> list[NDArray]:
    """Coordinates of the cells of a box, or of its faces of one axis, one broadcasting array per axis."""
    points = []
    for axis, cells in enumerate(box):
        x = (np.arange(cells.start, cells.stop) + (0.0 if axis == staggered else 0.5)) * spacing
        points.append(x.reshape([-1 if a == axis else 1 for a in range(len(box))]))
    return points


def _at_faces(
    inside: NDArray[np.bool_], axis: int, beyond: tuple[bool, bool], combine: np.ufunc
) -> NDArray[np.bool_]:
    """``combine`` of the two cells at each face of an axis, with ``beyond`` outside the array."""
    padded = np.pad(inside, [(int(a == axis),) * 2 for a in range(inside.ndim)])
    along = np.moveaxis(padded, axis, 0)
    along[0], along[-1] = beyond
    return np.ascontiguousarray(np.moveaxis(combine(along[:-1], along[1:]), 0, axis))


def _bits(known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    volume = as_volume(known)
    bits = np.empty(volume.shape, np.uint8)
    flow_kernels.mark_corners(volume, bits)
    return bits
