"""Rigid bodies that stand in a flow or move through it: which points they cover, and how fast they move.

Positions are in lengths, time in time units.  Coordinates come as one array per axis that broadcast together,
so that a body is asked about a box of points without a full grid of coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Body(Protocol):
    """What a flow asks of a rigid body."""

    @property
    def moving(self) -> bool:
        """False if the body never moves."""

    def bounds(self, time: float) -> tuple[NDArray, NDArray]:
        """Lowest and highest corner of a box around the body."""

    def covers(self, points: Sequence[NDArray], time: float) -> NDArray[np.bool_]:
        """True at the points inside the body."""

    def velocity(self, axis: int, points: Sequence[NDArray], time: float) -> NDArray:
        """Component ``axis`` of the velocity of the body's material at the points."""


@dataclass(frozen=True)
class Sphere:
    """A disc (2D) or ball (3D), at rest or swinging: centre + swing sin(2 pi time / period).

    Parameters
    ----------
    centre, radius
        One coordinate per axis, and the radius.
    swing
        Amplitude of the motion, one entry per axis; None for a sphere at rest.
    period
        Time of one swing, there and back.
    """

    centre: tuple[float, ...]
    radius: float
    swing: tuple[float, ...] | None = None
    period: float = 1.0

    @property
    def moving(self) -> bool:
        return self.swing is not None

    def position(self, time: float) -> NDArray:
        """The centre at a time."""
        phase = 2 * np.pi * time / self.period
        return np.asarray(self.centre) + np.asarray(self.swing or (0.0,) * len(self.centre)) * np.sin(phase)

    def bounds(self, time: float) -> tuple[NDArray, NDArray]:
        centre = self.position(time)
        return centre - self.radius, centre + self.radius

    def covers(self, points: Sequence[NDArray], time: float) -> NDArray[np.bool_]:
        squares = [(x - c) ** 2 for x, c in zip(points, self.position(time))]
        return sum(squares[1:], squares[0]) < self.radius**2

    def velocity(self, axis: int, points: Sequence[NDArray], time: float) -> NDArray:
        rate = 2 * np.pi / self.period
        speed = (self.swing[axis] if self.swing else 0.0) * rate * np.cos(rate * time)
        return np.full(np.broadcast_shapes(*(x.shape for x in points)), speed)


@dataclass(frozen=True)
class Paddle:
    """A bar that turns about its middle in the plane of the first two axes.

    Parameters
    ----------
    centre
        One coordinate per axis.
    length, thickness
        Of the bar, in the plane.
    width
        Extent along the third axis; not used in 2D.
    angle
        Of the bar against the second axis at time 0, in radians.
    rate
        Radians per time unit; 0 for a bar at rest.
    """

    centre: tuple[float, ...]
    length: float
    thickness: float
    width: float = 0.0
    angle: float = 0.0
    rate: float = 0.0

    @property
    def moving(self) -> bool:
        return self.rate != 0

    def bounds(self, time: float) -> tuple[NDArray, NDArray]:
        reach = np.full(len(self.centre), 0.5 * np.hypot(self.length, self.thickness))
        if len(self.centre) == 3:
            reach[2] = 0.5 * self.width
        return np.asarray(self.centre) - reach, np.asarray(self.centre) + reach

    def covers(self, points: Sequence[NDArray], time: float) -> NDArray[np.bool_]:
        angle = self.angle + self.rate * time
        sine, cosine = np.sin(angle), np.cos(angle)
        up, along = points[0] - self.centre[0], points[1] - self.centre[1]
        inside = (np.abs(cosine * along + sine * up) < 0.5 * self.length) & (
            np.abs(cosine * up - sine * along) < 0.5 * self.thickness
        )
        if len(self.centre) == 3:
            inside = inside & (np.abs(points[2] - self.centre[2]) < 0.5 * self.width)
        return inside

    def velocity(self, axis: int, points: Sequence[NDArray], time: float) -> NDArray:
        shape = np.broadcast_shapes(*(x.shape for x in points))
        if axis == 0:
            return np.broadcast_to(self.rate * (points[1] - self.centre[1]), shape)
        if axis == 1:
            return np.broadcast_to(-self.rate * (points[0] - self.centre[0]), shape)
        return np.zeros(shape)
