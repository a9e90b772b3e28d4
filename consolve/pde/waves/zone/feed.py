"""From a field at samples to what a zone is fed with: options, checks, and the ways in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.problem import WaveProblem
from consolve.pde.waves.zone.data import (
    INITIAL,
    RATE,
    WIDTH,
    Feed,
    Inflow,
    ZoneField,
    feed,
    feed_inflow,
    initial_state,
    layer_profile,
    rise,
)
from consolve.pde.waves.zone.fit import ITERATIONS, InflowFit
from consolve.pde.waves.zone.zone import Zone, ZoneGrid, ZoneSystem

WAYS = ("fit", "layer", "impedance", "dirichlet", "relax")


@dataclass(frozen=True)
class FeedOptions:
    """How data come into a zone.

    Attributes
    ----------
    boundary
        One of ``WAYS``; see :mod:`consolve.pde.waves.zone.data`.
    initial
        State at the first time: ``"rest"``, ``"field"`` (u and u_t of the data), or ``"auto"``: of the data
        where a wave of the source can be by then, at rest elsewhere.
    causal
        Take the data as 0 before a wave of the source can arrive.  Has no effect without a source.  Switch it
        off if waves come from an initial state besides.
    width
        Of the layers of ``layer`` (4) and ``relax`` (8), and of that which ``fit`` looks at (14), in
        spacings of the samples; by default no wider than the zone.
    rate
        Of ``relax``, per unit of time.
    iterations
        Of ``fit``, at most.
    fit_refinement
        Of the mesh of ``fit``; default: that of the run.  2 instead of 4 takes an eighth of the time, and
        adds an error of the order of the coarser mesh's.
    """

    boundary: str = "fit"
    initial: str = "auto"
    causal: bool = True
    width: float | None = None
    rate: float = RATE
    iterations: int = ITERATIONS
    fit_refinement: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("boundary", self.boundary, WAYS), ("initial", self.initial, INITIAL)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if self.width is not None and not 1 <= self.width < math.inf:
            raise ValueError(f"the width of a layer is at least 1 spacing of the samples, got {self.width}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"the rate of relaxation must be positive and finite, got {self.rate}")
        if self.iterations < 1:
            raise ValueError(f"the fit needs at least 1 iteration, got {self.iterations}")


class ZoneFeed:
    """The data of a zone, fitted if so asked; :meth:`on` gives what a discretisation is fed with.

    Attributes
    ----------
    data
        The field as it is used.
    inflow
        What ``fit`` found; None for other ways.
    """

    def __init__(self, problem: WaveProblem, data: ZoneField, refinement: int, options: FeedOptions) -> None:
        self.options = options
        self.data = data.causal(problem) if options.causal else data
        widest = min(data.zone.shape) - 1
        width = min(WIDTH.get(options.boundary, 1.0), widest) if options.width is None else options.width
        if width > widest:
            raise ValueError(
                f"a layer {width:g} spacings wide does not fit a zone of {data.zone.shape[0]} x "
                f"{data.zone.shape[1]} samples"
            )
        self._width = width
        self.inflow: Inflow | None = None
        if options.boundary == "fit":
            fine = options.fit_refinement or refinement
            fit = InflowFit(problem, self.data, ZoneGrid.of(problem, data.zone, fine), self._moving())
            self.inflow = fit.solve(fit_weight(data.zone, width), options.iterations)

    def _moving(self) -> NDArray[np.bool_]:
        """Samples that may be in motion at the first time."""
        if self.options.initial == "rest":
            return np.zeros(self.data.zone.shape, np.bool_)
        if self.options.initial == "field":
            return np.ones(self.data.zone.shape, np.bool_)
        return self.data.values[0] != 0

    def on(self, system: ZoneSystem) -> Feed:
        """What the nodes of a discretisation are fed with."""
        if self.inflow is not None:
            return feed_inflow(system, self.data.zone, self.inflow)
        state = initial_state(self.data, self.options.initial)
        return feed(system, self.data, self.options.boundary, state, self._width, self.options.rate)

    def outside(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(times, rows, columns): (1 - inside) g, the part of u that the zone is not solved for."""
        zone = self.data.zone
        if self.options.boundary != "layer":
            return np.zeros((times.size, *zone.shape))
        x, y = np.meshgrid(zone.x, zone.y)
        return (1 - layer_profile(zone, x, y, self._width)) * self.data.in_time(self.data.values)(times)


def fit_weight(zone: Zone, width: float) -> NDArray[np.float64]:
    """(rows, columns): 1 at the inner sides, falling smoothly to 0 at ``width`` spacings from the nearest."""
    x, y = np.meshgrid(zone.x, zone.y)
    depth = np.min(list(zone.depth(x, y).values()), axis=0)
    return 1 - rise(depth - width / 2, width / 2)


def zone_of(zone: Zone | Sequence[float], field: ArrayLike) -> Zone:
    """``zone`` itself, or that of a rectangle (x0, y0, x1, y1) with the field's last two axes as samples."""
    if isinstance(zone, Zone):
        return zone
    corners, shape = tuple(float(a) for a in zone), np.shape(field)
    if len(corners) != 4 or len(shape) != 3:
        raise ValueError(
            f"a zone is a Zone or (x0, y0, x1, y1) with a field (times, rows, columns), got {zone!r} and a "
            f"field of shape {shape}"
        )
    return Zone.of((corners[0], corners[1], corners[2], corners[3]), (shape[1], shape[2]))


def step_marks(times: ArrayLike, data: ZoneField, step: float) -> NDArray[np.int64]:
    """Numbers of the steps from the first time of the data to the given times.

    Raises
    ------
    ValueError
        If they are not ascending multiples of the step within the time of the data.
    """
    t = np.asarray(times, np.float64)
    first, last = data.times[0], data.times[-1]
    if t.ndim != 1 or not np.isfinite(t).all() or (np.diff(t) < 0).any():
        raise ValueError(f"times are an ascending list of finite numbers, got {times!r}")
    if t.size and (t[0] < first - 1e-9 or t[-1] > last + 1e-9):
        raise ValueError(
            f"times from {t[0]:.6g} to {t[-1]:.6g} were asked of data from {first:.6g} to {last:.6g}"
        )
    marks = np.rint((t - first) / step).astype(np.int64)
    off = abs(t - first - marks * step) > 1e-6 * step
    if off.any():
        raise ValueError(
            f"time {t[off][0]:.6g} is not the first time {first:.6g} plus a multiple of the step {step:.6g}; "
            f"the step divides the interval {data.interval:.6g} of the data"
        )
    return marks
