"""Named scenes of a flow: bodies, smoke sources and the numbers that drive them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from consolve.pde.flow.bodies import Body, Paddle, Sphere
from consolve.pde.poisson.grid import AIR, SOLID, Sides


@dataclass(frozen=True)
class Source:
    """A ball that gives off hot smoke: near its middle, density and temperature are at least these.

    Towards its surface both fall smoothly to 0.

    Parameters
    ----------
    centre, radius
        One coordinate per axis, and the radius, in lengths.
    density, temperature
        Of the smoke that it gives off, both relative to the air around.
    flicker
        Relative strength of random differences in temperature within the ball, drawn once from the seed.
    """

    centre: tuple[float, ...]
    radius: float
    density: float = 1.0
    temperature: float = 1.0
    flicker: float = 0.15


@dataclass(frozen=True)
class Scene:
    """All that a :class:`~consolve.pde.flow.flow.Flow` needs besides a pressure solver.

    The box is 1 length high: its first axis, of ``shape[0]`` cells, points up.

    Parameters
    ----------
    name
        For reports and file names.
    shape
        Cells along each of 2 or 3 axes.
    outside
        (low, high) type beyond each axis: SOLID for a wall, AIR for an opening.
    bodies
        Solid bodies, at rest or moving.
    sources
        Where smoke comes from.
    buoyancy, weight
        Upward acceleration per temperature, downward acceleration per smoke density (Boussinesq).
    vorticity_confinement
        Strength of the force that keeps small vortices alive; 0 for none.
    cooling
        Rate at which temperature decays, per time unit.
    courant
        Cells that the fastest flow may cross in one time step.
    longest_step
        Upper bound of the time step.
    seed
        Of the flicker of the sources.
    """

    name: str
    shape: tuple[int, ...]
    outside: Sides
    bodies: tuple[Body, ...] = ()
    sources: tuple[Source, ...] = ()
    buoyancy: float = 1.0
    weight: float = 0.0
    vorticity_confinement: float = 0.0
    cooling: float = 0.0
    courant: float = 2.0
    longest_step: float = 0.05
    seed: int = 0

    @property
    def spacing(self) -> float:
        """Length of the side of a cell."""
        return 1.0 / self.shape[0]

    @property
    def extent(self) -> tuple[float, ...]:
        """Lengths of the sides of the box."""
        return tuple(n * self.spacing for n in self.shape)


def make_scene(name: str, shape: Sequence[int], seed: int = 0) -> Scene:
    """A scene of the gallery.

    ``plume``
        Hot smoke rises from the floor past spheres (discs in 2D) at rest; walls solid, top open.
    ``plume-moving-body``
        The same under a paddle that turns about its middle, so that the geometry changes in every step.

    Parameters
    ----------
    name
        One of ``SCENE_NAMES``.
    shape
        Cells along each of 2 or 3 axes, at least 8; the first axis points up.
    seed
        Shifts bodies a little and draws the flicker of the sources; same arguments, same scene.

    Raises
    ------
    ValueError
        If the name is unknown or the shape is not usable.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown scene {name!r}; known: {', '.join(SCENE_NAMES)}")
    if len(shape) not in (2, 3) or any(int(n) != n or n < 8 for n in shape):
        raise ValueError(f"a scene has 2 or 3 axes of at least 8 cells each, got shape {tuple(shape)}")
    cells = tuple(int(n) for n in shape)
    return _BUILDERS[name](name, cells, seed)


def _open_top(ndim: int) -> Sides:
    return ((SOLID, AIR), *[(SOLID, SOLID)] * (ndim - 1))


def _place(shape: tuple[int, ...], height: float, *across: float) -> tuple[float, ...]:
    """A point at a height, and at fractions of the other sides (the middle where none is given)."""
    sides = [n / shape[0] for n in shape[1:]]
    fractions = [*across, 0.5, 0.5][: len(sides)]
    return (height, *(f * s for f, s in zip(fractions, sides)))


def _width(shape: tuple[int, ...]) -> float:
    """The shortest side across, at most 1: what sizes of bodies and sources are relative to."""
    return min(1.0, *(n / shape[0] for n in shape[1:]))


def _source(shape: tuple[int, ...]) -> Source:
    return Source(_place(shape, 0.0), (0.10 if len(shape) == 2 else 0.14) * _width(shape))


def _plume(name: str, shape: tuple[int, ...], seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    width = _width(shape)
    places = [(0.36, 0.47, 0.5, 0.085), (0.62, 0.30, 0.42, 0.07), (0.66, 0.68, 0.58, 0.08)]
    bodies = []
    for height, second, third, radius in places:
        shift = rng.uniform(-0.015, 0.015, 3)
        centre = _place(shape, height + shift[0], second + shift[1], third + shift[2])
        bodies.append(Sphere(centre, radius * width * (1.0 if len(shape) == 2 else 1.35)))
    return Scene(
        name,
        shape,
        _open_top(len(shape)),
        tuple(bodies),
        (_source(shape),),
        vorticity_confinement=0.08,
        cooling=0.3,
        seed=seed,
    )


def _plume_moving_body(name: str, shape: tuple[int, ...], seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    width = _width(shape)
    paddle = Paddle(
        _place(shape, 0.42),
        length=0.42 * width,
        thickness=0.06 * width,
        width=0.4 * width,
        angle=float(rng.uniform(0, np.pi)),
        rate=2.5,
    )
    return Scene(
        name,
        shape,
        _open_top(len(shape)),
        (paddle,),
        (_source(shape),),
        vorticity_confinement=0.08,
        cooling=0.3,
        seed=seed,
    )


_BUILDERS: dict[str, Callable[[str, tuple[int, ...], int], Scene]] = {
    "plume": _plume,
    "plume-moving-body": _plume_moving_body,
}

SCENE_NAMES: tuple[str, ...] = tuple(_BUILDERS)
"""Names that :func:`make_scene` knows."""
