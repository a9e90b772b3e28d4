"""2D wave problems on the unit square: media, sources and boundaries, all of them functions of place.

The equation is ``u_tt - div(c² grad u) = f`` for 0 <= x, y <= 1, free of units: lengths in sides of the
square, times in crossings at speed 1, frequencies in cycles per time.  Nothing here knows a mesh: a medium is
asked at any points, so that one problem is the same on every grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.media import BUILDERS, SEEN, UNSEEN, Fields

MEDIA = SEEN
"""Kinds of media that surrogates are trained on."""
UNSEEN_MEDIA = UNSEEN
"""Kinds kept for tests out of the distribution."""
ALL_MEDIA = MEDIA + UNSEEN_MEDIA
CONDITIONS = ("absorbing", "free", "fixed")
SIGNALS = ("ricker", "sine")
FREQUENCIES = (5.0, 8.0)
"""Range of the frequencies that surrogates are trained on."""
SNAPSHOT_INTERVAL = 0.02
_REACH = 6.0
"""Standard deviations at which the Gaussian of a source is cut, where it has fallen to 1.5e-8."""


class MediumLike(Protocol):
    """What a problem asks of a medium; ``x`` and ``y`` are arrays that broadcast against each other."""

    def speed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]: ...

    def fixed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]: ...

    def hole(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class Medium:
    """A random medium that is a pure function of its kind, its seed and its range of speeds.

    ============ ====================================================================================
    kind         what it holds
    ============ ====================================================================================
    constant     one speed
    layered      3 to 8 straight layers of any dip
    inclusions   3 to 8 ellipses in a constant background
    smooth       a random field with correlation lengths of 0.1 to 0.25, every speed equally likely
    obstacles    2 to 5 boxes and discs of fixed cells (u = 0) in a smooth field
    holes        2 to 5 boxes and discs taken out of the mesh (their rims are free) in a smooth field
    wedges       2 to 4 sharp wedges on a linear ramp of speeds: not for training
    ============ ====================================================================================

    Obstacles and holes are unions of cells of the 63 x 63 grid, so they are the same set on every grid of
    63 k x 63 k cells.

    Parameters
    ----------
    kind
        One of ``ALL_MEDIA``.
    seed
        Not negative.
    speeds
        Slowest and fastest speed.  Equal ends make the speed constant.
    """

    kind: str
    seed: int = 0
    speeds: tuple[float, float] = (0.5, 1.0)
    _fields: Fields = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in BUILDERS:
            raise ValueError(f"unknown medium {self.kind!r}; known: {', '.join(ALL_MEDIA)}")
        if int(self.seed) != self.seed or self.seed < 0:
            raise ValueError(f"the seed of a medium is a whole number from 0 on, got {self.seed}")
        slow, fast = self.speeds
        if not 0 < slow <= fast < math.inf:
            raise ValueError(f"speeds must be positive, finite and in order, got {self.speeds}")
        # 32 bits of the name, so that no kind repeats the draws of another.
        salt = int.from_bytes(self.kind.encode()[:4], "little")
        object.__setattr__(self, "_fields", BUILDERS[self.kind](np.random.default_rng([self.seed, salt])))

    def __reduce__(self) -> tuple[type[Medium], tuple[str, int, tuple[float, float]]]:
        return Medium, (self.kind, self.seed, self.speeds)  # the fields are functions, which no pickle takes

    def speed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """c at the points, float64 in the shape that ``x`` and ``y`` broadcast to."""
        slow, fast = self.speeds
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        level = np.broadcast_to(self._fields.level(x, y), np.broadcast_shapes(x.shape, y.shape))
        return slow + (fast - slow) * level

    def fixed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        """True in fixed cells, where u = 0."""
        return _look_up(self._fields.blocked if self.kind == "obstacles" else None, x, y)

    def hole(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        """True where there is no mesh."""
        return _look_up(self._fields.blocked if self.kind == "holes" else None, x, y)


class PixelMedium:
    """A medium given by arrays [y, x] over the unit square, constant on each of their rectangular cells.

    Parameters
    ----------
    speed
        Positive, (rows, columns).
    fixed, hole
        bool of the same shape; default: nowhere.
    """

    def __init__(
        self, speed: ArrayLike, fixed: ArrayLike | None = None, hole: ArrayLike | None = None
    ) -> None:
        self._speed = np.array(speed, np.float64)
        if self._speed.ndim != 2 or self._speed.size == 0:
            raise ValueError(f"the speeds of a medium are an array [y, x], got shape {self._speed.shape}")
        if not (np.isfinite(self._speed) & (self._speed > 0)).all():
            raise ValueError("speeds must be positive and finite in every cell")
        self._fixed, self._hole = (self._mask(name, m) for name, m in (("fixed", fixed), ("hole", hole)))

    def _mask(self, name: str, mask: ArrayLike | None) -> NDArray[np.bool_] | None:
        if mask is None:
            return None
        cells = np.array(mask, np.bool_)
        if cells.shape != self._speed.shape:
            raise ValueError(f"{name} has shape {cells.shape}, the speeds have {self._speed.shape}")
        return cells

    def speed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """c of the cell in which each point lies."""
        return _at_cells(self._speed, x, y)

    def fixed(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        """True in fixed cells, where u = 0."""
        return _look_up(self._fixed, x, y)

    def hole(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        """True where there is no mesh."""
        return _look_up(self._hole, x, y)


def _at_cells(cells: NDArray, x: ArrayLike, y: ArrayLike) -> NDArray:
    rows, columns = cells.shape
    i = np.clip(np.floor(np.asarray(x) * columns).astype(np.intp), 0, columns - 1)
    j = np.clip(np.floor(np.asarray(y) * rows).astype(np.intp), 0, rows - 1)
    return cells[j, i]


def _look_up(mask: NDArray[np.bool_] | None, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    if mask is None:
        return np.zeros(np.broadcast_shapes(np.shape(x), np.shape(y)), np.bool_)
    return _at_cells(mask, x, y)


@dataclass(frozen=True)
class Source:
    """f(x, y, t) = amplitude * profile(x, y) * signal(t).

    ``profile`` is a Gaussian of unit integral, ``exp(-r² / 2 radius²) / (2 pi radius²)``, cut at 6 radii.
    ``signal`` is 0 before t = 0 and, with a = pi frequency (t - delay), of kind

    - ``ricker``: ``(1 - 2 a²) exp(-a²)``, the Ricker wavelet, with delay = 1.2 / frequency, from t = 0 to the
      ``end`` at 2 delays, where it is below 2e-5;
    - ``sine``: ``sin(2 pi frequency t)``, faded in over the first cycle by ``sin²(pi frequency t / 2)``; it
      has no delay and no end.

    Parameters
    ----------
    x, y
        Centre.
    frequency
        Cycles per time; of a Ricker wavelet the frequency at which its spectrum peaks.
    amplitude
        Of the signal.
    kind
        ``"ricker"`` or ``"sine"``.
    radius
        Standard deviation of the Gaussian.
    """

    x: float
    y: float
    frequency: float
    amplitude: float = 1.0
    kind: str = "ricker"
    radius: float = 0.02

    def __post_init__(self) -> None:
        for name in ("x", "y", "frequency", "amplitude", "radius"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} of a source must be finite, got {getattr(self, name)}")
        if self.frequency <= 0 or self.radius <= 0:
            raise ValueError(
                f"frequency and radius of a source must be positive, got {self.frequency} and {self.radius}"
            )
        if self.kind not in SIGNALS:
            raise ValueError(f"unknown signal {self.kind!r}; known: {', '.join(SIGNALS)}")

    @property
    def delay(self) -> float:
        """Time of the wavelet's peak."""
        return 1.2 / self.frequency if self.kind == "ricker" else 0.0

    @property
    def end(self) -> float:
        """Time from which the signal is 0; infinite for a sine."""
        return 2 * self.delay if self.kind == "ricker" else math.inf

    @property
    def reach(self) -> float:
        """Distance from the centre beyond which the profile is 0."""
        return _REACH * self.radius

    def signal(self, t: ArrayLike) -> NDArray[np.float64]:
        """amplitude * signal at times ``t``, in their shape."""
        t = np.asarray(t, np.float64)
        if self.kind == "ricker":
            a2 = (math.pi * self.frequency * (t - self.delay)) ** 2
            value = np.where(t < self.end, (1 - 2 * a2) * np.exp(-a2), 0.0)
        else:
            fade = np.where(t * self.frequency < 1, np.sin(0.5 * math.pi * self.frequency * t) ** 2, 1.0)
            value = fade * np.sin(2 * math.pi * self.frequency * t)
        return np.asarray(self.amplitude * np.where(t < 0, 0.0, value))

    def profile(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """The Gaussian at the points, in the shape that ``x`` and ``y`` broadcast to."""
        r2 = ((np.asarray(x) - self.x) ** 2 + (np.asarray(y) - self.y) ** 2) / self.radius**2
        return np.where(r2 < _REACH**2, np.exp(-0.5 * r2) / (2 * math.pi * self.radius**2), 0.0)


@dataclass(frozen=True)
class Boundaries:
    """Conditions on the sides of the square, with n the outward normal.

    - ``absorbing``: ``c² du/dn = -c u_t``, of first order: exact for waves at normal incidence, reflecting
      (1 - cos a) / (1 + cos a) of those at an angle a to the normal;
    - ``free``: ``c² du/dn = 0``;
    - ``fixed``: ``u = 0``.
    """

    left: str = "absorbing"
    right: str = "absorbing"
    bottom: str = "absorbing"
    top: str = "absorbing"

    def __post_init__(self) -> None:
        for side, condition in self.items():
            if condition not in CONDITIONS:
                raise ValueError(
                    f"unknown condition {condition!r} on the {side} side; known: {', '.join(CONDITIONS)}"
                )

    @classmethod
    def all(cls, condition: str) -> Boundaries:
        """The same condition on all four sides."""
        return cls(condition, condition, condition, condition)

    def items(self) -> tuple[tuple[str, str], ...]:
        """(side, condition) for left, right, bottom, top."""
        return tuple((side, getattr(self, side)) for side in ("left", "right", "bottom", "top"))


@dataclass(frozen=True)
class WaveProblem:
    """A medium, a source (None: waves come from the initial state alone) and the conditions on the sides.

    Raises
    ------
    ValueError
        If the source lies outside the unit square, in a hole or in a fixed cell.
    """

    medium: MediumLike
    source: Source | None = None
    boundaries: Boundaries = Boundaries()

    def __post_init__(self) -> None:
        s = self.source
        if s is None:
            return
        if not (0 <= s.x <= 1 and 0 <= s.y <= 1):
            raise ValueError(f"the source at ({s.x}, {s.y}) lies outside the unit square")
        for name, where in (("hole", self.medium.hole), ("fixed cell", self.medium.fixed)):
            if where(s.x, s.y).any():
                raise ValueError(f"the source at ({s.x}, {s.y}) lies in a {name} of the medium; move it out")


def sample_source(
    seed: int,
    medium: MediumLike,
    frequency_range: tuple[float, float] = FREQUENCIES,
    amplitude_range: tuple[float, float] = (8.0, 12.0),
    kind: str = "ricker",
) -> Source:
    """A source uniform in [0.15, 0.85]², at least 3 radii away from obstacles and holes.

    Frequency and amplitude are uniform in their ranges; with the default amplitudes the largest |u| of a run
    is of order 1.

    Raises
    ------
    ValueError
        If a range is not in order, or the medium leaves no room.
    """
    for name, (low, high) in (("frequency", frequency_range), ("amplitude", amplitude_range)):
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"the range of {name} must be positive, finite and in order, got ({low}, {high})"
            )
    rng = np.random.default_rng([seed, 0x50554C53])
    frequency, amplitude = rng.uniform(*frequency_range), rng.uniform(*amplitude_range)
    angle = 2 * math.pi * np.arange(16) / 16
    for _ in range(1000):
        centre = rng.uniform(0.15, 0.85, 2)
        source = Source(float(centre[0]), float(centre[1]), frequency, amplitude, kind)
        radius = source.radius * np.arange(4)[:, None]
        x, y = source.x + radius * np.cos(angle), source.y + radius * np.sin(angle)
        if not (medium.fixed(x, y) | medium.hole(x, y)).any():
            return source
    raise ValueError(
        f"{medium!r} has no room for a source: 1000 places in [0.15, 0.85]² were within "
        f"{3 * source.radius:g} of obstacles or holes"
    )


def vrmse(u: ArrayLike, truth: ArrayLike, axis: int | tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Root of the mean squared error over the variance: ``sqrt(mean (u - truth)² / var(truth))``.

    Predicting the mean of the truth scores 1.  The Well (Ohana et al., 2024) ranks surrogates by it.

    Parameters
    ----------
    u, truth
        Of equal shape.
    axis
        Axes over which mean and variance are taken; default: all.

    Returns
    -------
    float64 of the axes that are left.  Where the truth is constant: 0 if ``u`` equals it, otherwise infinite.
    """
    found, right = np.asarray(u, np.float64), np.asarray(truth, np.float64)
    if found.shape != right.shape:
        raise ValueError(f"vrmse compares arrays of equal shape, got {found.shape} and {right.shape}")
    error, variance = np.mean((found - right) ** 2, axis=axis), np.var(right, axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((error == 0) & (variance == 0), 0.0, np.sqrt(error / variance))
    return ratio
