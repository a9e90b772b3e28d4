"""The sets of wave runs that surrogates learn from: what run r of a split is, by seed alone.

Run r of split p with seed S is a function of the set, S, p and r, so the runs of a shorter set are the first
of a longer one, and no two splits or seeds share a run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.grid import FINEST, WaveGrid
from consolve.pde.waves.problem import (
    SNAPSHOT_INTERVAL,
    UNSEEN_MEDIA,
    Boundaries,
    Medium,
    MediumLike,
    Source,
    WaveProblem,
    sample_source,
)

SETS = ("propagator", "zone")
SPLITS = ("train", "validation", "test", "unseen")
STORED_VERTICES = 64
"""Vertices a side of the grid on which runs of the whole domain are stored."""
SPEEDS = (0.5, 1.0)
SOURCE_COLUMNS = ("x", "y", "frequency", "amplitude", "radius", "delay")
PARAMETER_NAMES = ("x", "y", "frequency", "inclusion_speed")
BACKGROUND_SPEED = 0.75
"""Of the zone set, outside the inclusion."""

_ZONE_AMPLITUDE = 16.0
"""Makes the largest |u| in the zone 0.6 to 1.5."""
_PROPAGATOR_MEDIA = ("constant", "layered", "inclusions", "smooth", "obstacles")
_SALTS = {"propagator": 0x50524F50, "zone": 0x5A4F4E45}


@dataclass(frozen=True)
class DiscMedium:
    """One disc of another speed in a constant background; no fixed cells, no holes."""

    x: float
    y: float
    radius: float
    inside: float
    outside: float = BACKGROUND_SPEED

    def speed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """c at the points."""
        near = (np.asarray(x) - self.x) ** 2 + (np.asarray(y) - self.y) ** 2 < self.radius**2
        return np.where(near, self.inside, self.outside)

    def fixed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        """False everywhere."""
        return np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)), np.bool_)

    hole = fixed


@dataclass(frozen=True)
class SampledRun:
    """A run before it is solved.

    Attributes
    ----------
    problem
        Medium, source and boundaries.
    kind
        Of the medium: one of ``wave_problem.ALL_MEDIA``, or ``disc``.
    seed
        Of the medium and the source, below 2^63.
    start
        Time of the first snapshot, a multiple of the interval.
    parameters
        Values of ``PARAMETER_NAMES``; empty in the propagator set.
    """

    problem: WaveProblem
    kind: str
    seed: int
    start: float
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class WaveSet:
    """One split of one set; all sides of the square absorb.

    ========== ================================================ ===========================================
    set        propagator                                       zone
    ========== ================================================ ===========================================
    stored     the whole square, 64 x 64 vertices               its corner [32/63, 1]², 32 x 32 vertices
    snapshots  45 from the first multiple of 0.02 at or after   64 from 0.34
               the end of the source
    media      constant, layered, inclusions, smooth and        speed 0.75, in a disc of radius 0.12 about
               obstacles in turn, speeds in [0.5, 1]            (0.74, 0.74) uniform in [0.5, 1]
    source     uniform in [0.15, 0.85]² outside obstacles,      uniform in [0.12, 0.38]², amplitude 16
               amplitude uniform in [8, 12]
    frequency  uniform in [5, 8]                                uniform in [5, 7]
    unseen     wedges; frequency uniform in [8, 10]             the disc at (0.70, 0.80), radius 0.15;
                                                                frequency uniform in [7, 8]
    ========== ================================================ ===========================================

    Parameters
    ----------
    name
        One of ``SETS``.
    split
        One of ``SPLITS``.
    seed
        Not negative.
    """

    name: str
    split: str = "train"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in SETS:
            raise ValueError(f"unknown set {self.name!r}; known: {', '.join(SETS)}")
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}; known: {', '.join(SPLITS)}")
        if int(self.seed) != self.seed or not 0 <= self.seed < 2**63:
            raise ValueError(f"the seed of a set is a whole number from 0 to 2^63 - 1, got {self.seed}")

    @property
    def whole(self) -> bool:
        """True if runs are stored on the whole square."""
        return self.name == "propagator"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of media; run r has number r modulo their count."""
        if not self.whole:
            return ("disc",)
        return UNSEEN_MEDIA if self.split == "unseen" else _PROPAGATOR_MEDIA

    @property
    def speeds(self) -> tuple[float, float]:
        """Range of all speeds."""
        return SPEEDS

    @property
    def frequencies(self) -> tuple[float, float]:
        """Range of the source's frequency."""
        if self.split == "unseen":
            return (8.0, 10.0) if self.whole else (7.0, 8.0)
        return (5.0, 8.0) if self.whole else (5.0, 7.0)

    @property
    def places(self) -> tuple[float, float]:
        """Range of the source's x and of its y."""
        return (0.15, 0.85) if self.whole else (0.12, 0.38)

    @property
    def amplitudes(self) -> tuple[float, float]:
        """Range of the source's amplitude."""
        return (8.0, 12.0) if self.whole else (_ZONE_AMPLITUDE, _ZONE_AMPLITUDE)

    @property
    def boundaries(self) -> Boundaries:
        """Conditions on the sides."""
        return Boundaries()

    @property
    def interval(self) -> float:
        """Time between snapshots."""
        return SNAPSHOT_INTERVAL

    @property
    def snapshots(self) -> int:
        """Snapshots of a run."""
        return 45 if self.whole else 64

    @property
    def window(self) -> slice:
        """Stored vertices of the 64 x 64 grid, along each axis."""
        return slice(0, 64) if self.whole else slice(32, 64)

    @property
    def points(self) -> int:
        """Stored vertices a side."""
        return self.window.stop - self.window.start

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """(points,): of the stored vertices along each axis."""
        return np.linspace(0, 1, STORED_VERTICES)[self.window]

    def every(self, vertices: int) -> int:
        """Vertices of a finite-element grid for one stored.

        Raises
        ------
        ValueError
            If ``vertices`` x ``vertices`` does not contain the 64 x 64 grid, or is more than a run takes.
        """
        cells = STORED_VERTICES - 1
        if not STORED_VERTICES <= vertices <= FINEST or (vertices - 1) % cells:
            most = (FINEST - 1) // cells
            nearest = min(max(1, round((vertices - 1) / cells)), most) * cells + 1
            raise ValueError(
                f"a grid of {vertices} vertices a side does not contain the {STORED_VERTICES} that are "
                f"stored, or is too fine: take 63 k + 1, as 127, 253 or 505; the nearest is {nearest}"
            )
        return (vertices - 1) // cells

    def run(self, number: int) -> SampledRun:
        """Run ``number`` of this split."""
        if number < 0:
            raise ValueError(f"runs are counted from 0, got {number}")
        words = np.random.SeedSequence(
            [_SALTS[self.name], self.seed, SPLITS.index(self.split), number]
        ).generate_state(1, np.uint64)
        seed = int(words[0]) >> 1
        kind = self.kinds[number % len(self.kinds)]
        return self._whole_run(kind, seed) if self.whole else self._zone_run(seed)

    def _whole_run(self, kind: str, seed: int) -> SampledRun:
        medium = self.medium(kind, seed, ())
        source = sample_source(seed, medium, self.frequencies, self.amplitudes)
        problem = WaveProblem(medium, source, self.boundaries)
        steps = math.ceil(source.end / self.interval * (1 - 1e-12))
        return SampledRun(problem, kind, seed, self.interval * steps, ())

    def _zone_run(self, seed: int) -> SampledRun:
        rng = np.random.default_rng(seed)
        x, y = (float(v) for v in rng.uniform(*self.places, 2))
        frequency, inside = float(rng.uniform(*self.frequencies)), float(rng.uniform(*self.speeds))
        parameters = (x, y, frequency, inside)
        source = Source(x, y, frequency, _ZONE_AMPLITUDE)
        problem = WaveProblem(self.medium("disc", seed, parameters), source, self.boundaries)
        return SampledRun(problem, "disc", seed, self.interval * 17, parameters)

    def medium(
        self, kind: str, seed: int, parameters: tuple[float, ...], speeds: tuple[float, float] = SPEEDS
    ) -> MediumLike:
        """The medium of a run from what is stored of it."""
        if self.whole:
            return Medium(kind, seed, speeds)
        centre = (0.70, 0.80, 0.15) if self.split == "unseen" else (0.74, 0.74, 0.12)
        return DiscMedium(*centre, inside=parameters[3])


def medium_at_vertices(grid: WaveGrid, every: int = 1) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Speed and fixed vertices of a medium on each ``every``-th vertex of a finite-element grid.

    The speed is the root of the mean of c² over the part of the unit square within half a stored spacing
    (along x and along y) of the vertex; with ``every`` = 1 that is the mean over the cells at the vertex.

    Parameters
    ----------
    grid
        Of (n, n) vertices.
    every
        Divides n - 1.

    Returns
    -------
    speed, fixed
        (m, m) float32 and uint8 with m = (n - 1) / every + 1; ``fixed`` is 1 where u = 0.
    """
    total = _window_sums(_window_sums(grid.speed**2, every).T, every).T
    area = _window_sums(_window_sums(np.ones_like(grid.speed), every).T, every).T
    return np.sqrt(total / area).astype(np.float32), (~grid.free[::every, ::every]).astype(np.uint8)


def _window_sums(cells: NDArray[np.float64], every: int) -> NDArray[np.float64]:
    """Integrals over rows, in units of the cell, from half a stored spacing before each stored vertex to
    half a one after it: (k, m) to (k / every + 1, m)."""
    rows = cells.shape[0]
    integral = np.zeros((rows + 1, cells.shape[1]))
    np.cumsum(cells, axis=0, out=integral[1:])
    at = np.arange(0, rows + 1, every)[:, None] + 0.5 * every * np.array([-1, 1])
    at = np.clip(at, 0, rows)
    below = np.minimum(np.floor(at).astype(np.intp), rows - 1)
    part = (at - below)[..., None]
    ends = (1 - part) * integral[below] + part * integral[below + 1]
    return ends[:, 1] - ends[:, 0]
