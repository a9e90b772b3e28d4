"""Ways of feeding a field that is known at samples into a zone: sides, layers, fitted inflow.

``g`` is the field given at the samples, by splines of degree 5 in x, y and t.  A way is a part ``inside`` of
the field, from 0 to 1, a damping A, a force F and, for Dirichlet data, values that are held:

    M w_tt + (C + A) w_t + K w = F + inside M f,      u = w + (1 - inside) g.

========== ============================================================================================
way        what it does, with n the outward normal of the inner sides
========== ============================================================================================
dirichlet  u = g on the inner sides; waves that leave the zone are thrown back
impedance  c² du/dn + c u_t = c² dg/dn + c g_t: only waves that come in are prescribed, others leave
layer      the same for w, whose incoming waves come from F = (K inside - inside K) g, spread over a layer in
           which ``inside`` rises smoothly from 0 to 1 (a total-field and scattered-field split without a
           sharp face): no derivative of g is needed, and F adds up waves but not noise
relax      impedance, and in a layer ``u_t`` is drawn to ``g_t`` at a rate that fades inwards
fit        impedance data that make the solution of the wave equation fit g best in a layer, by least
           squares: see :mod:`consolve.pde.waves.zone.fit`
========== ============================================================================================

Each is exact for an exact field, up to the splines, and lets the field be wrong beyond the layer: what the
zone itself scatters is computed, not copied.  Errors of the waves that come in pass through all of them where
they obey the wave equation, as a delay does; noise and errors that are no waves are mostly left out by
``fit``, and amplified by ``impedance``, which differentiates them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline, make_interp_spline

from consolve.pde.waves.problem import WaveProblem
from consolve.pde.waves.zone.zone import Zone, ZoneSystem, arrival_times

DEGREE = 5
FEWEST_TIMES = 8
FEWEST_PER_PERIOD = 4
"""Samples in a period of the source's frequency, at least; a Ricker wavelet holds up to 2.5 times that
frequency."""
WIDTH = {"layer": 4.0, "relax": 8.0, "fit": 14.0}
"""Of the layers, in spacings of the samples."""
RATE = 20.0
"""At which ``relax`` draws at the inner sides, per unit of time."""
INITIAL = ("auto", "rest", "field")


@dataclass(frozen=True)
class ZoneField:
    """A field at the samples of a zone, and its splines.

    Attributes
    ----------
    zone
        Where.
    times
        (k,), ascending at equal distances.
    values
        (k, rows, columns) float64.
    """

    zone: Zone
    times: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def checked(cls, problem: WaveProblem, zone: Zone, times: ArrayLike, values: ArrayLike) -> ZoneField:
        """Raises ValueError unless times and values fit each other, the zone and the problem's source."""
        t, u = np.asarray(times, np.float64), np.asarray(values, np.float64)
        if t.ndim != 1 or t.size < FEWEST_TIMES or not np.isfinite(t).all():
            raise ValueError(
                f"the data need {FEWEST_TIMES} or more finite times, got {t.size} in shape {t.shape}"
            )
        if u.shape != (t.size, *zone.shape):
            raise ValueError(
                f"the field has shape {u.shape}; {t.size} times and the zone's {zone.shape[0]} x "
                f"{zone.shape[1]} samples (rows, columns) need {(t.size, *zone.shape)}"
            )
        if not np.isfinite(u).all():
            wrong = int(np.flatnonzero(~np.isfinite(u).all(axis=(1, 2)))[0])
            raise ValueError(f"the field is not finite at time {t[wrong]:.6g}")
        interval = (t[-1] - t[0]) / (t.size - 1)
        if not interval > 0 or abs(np.diff(t) - interval).max() > 1e-6 * interval:
            raise ValueError("the times of the data must ascend at equal distances")
        if problem.source is not None and interval * problem.source.frequency * FEWEST_PER_PERIOD > 1 + 1e-9:
            raise ValueError(
                f"data every {interval:.6g} are too coarse in time: a source of frequency "
                f"{problem.source.frequency:g} needs them every "
                f"{1 / (FEWEST_PER_PERIOD * problem.source.frequency):.6g} or closer"
            )
        return cls(zone, t, u)

    @property
    def interval(self) -> float:
        """Between the times."""
        return float(self.times[-1] - self.times[0]) / (self.times.size - 1)

    def at(self, x: NDArray, y: NDArray, along_x: int = 0, along_y: int = 0) -> NDArray[np.float64]:
        """(k, n): the field, or derivatives of that order, at n points of the zone."""
        (columns, i), (rows, j) = (np.unique(np.round(a, 12), return_inverse=True) for a in (x, y))
        across = spline_matrix(self.zone.x, columns, along_x)
        up = spline_matrix(self.zone.y, rows, along_y)
        grid = np.matmul(np.matmul(up, self.values), across.T)
        return grid[:, j.ravel(), i.ravel()]

    def in_time(self, values: NDArray[np.float64]) -> BSpline:
        """Spline through ``values`` (k, n) at the times."""
        return make_interp_spline(self.times, values, k=DEGREE, axis=0)

    def velocity(self) -> NDArray[np.float64]:
        """(rows, columns): its time derivative at the first time."""
        return np.asarray(self.in_time(self.values)(self.times[0], 1))

    def causal(self, problem: WaveProblem) -> ZoneField:
        """The field without what comes before any wave of the source can."""
        early = self.times[:, None, None] < arrival_times(problem, self.zone)
        return ZoneField(self.zone, self.times, np.where(early, 0.0, self.values))


def spline_matrix(
    places: NDArray, points: NDArray, derivative: int = 0, degree: int = DEGREE
) -> NDArray[np.float64]:
    """(points, places): values at points, or derivatives, of the spline through values at places."""
    inside = np.clip(points, places[0], places[-1])
    return np.asarray(make_interp_spline(places, np.eye(places.size), k=degree)(inside, derivative))


@dataclass(frozen=True)
class Inflow:
    """Data of impedance conditions: ``c² du/dn + c u_t = c dp/dt`` on each inner side, and an initial state.

    Attributes
    ----------
    times
        (k,) at which p is given.
    sides
        For each inner side (k, m): p at its m samples.
    initial
        (2, rows, columns): u and u_t at the first time.
    """

    times: NDArray[np.float64]
    sides: dict[str, NDArray[np.float64]]
    initial: NDArray[np.float64]


SIDE_DEGREE = 3
"""Of the splines along sides through p."""


def side_matrix(zone: Zone, side: str, system: ZoneSystem) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nodes on an inner side, and (nodes, samples) to their p from that at the samples."""
    nodes = np.flatnonzero(system.absorbing[side] * system.free)
    place, points = (zone.y, system.y) if side in ("left", "right") else (zone.x, system.x)
    return nodes, spline_matrix(place, points[nodes], degree=SIDE_DEGREE)


@dataclass(frozen=True)
class Feed:
    """A way of feeding in, worked out on the n nodes of a system.

    Attributes
    ----------
    inside
        (n,): the part of the field that is solved for.
    damping
        (n,): A.
    nodes, parts
        Nodes with a force, and splines in time whose sum is the force at them.
    held, values
        Nodes that are held, and the spline in time of their values.
    initial
        (u, u_t) of w at the first time, (n,) each.
    """

    inside: NDArray[np.float64]
    damping: NDArray[np.float64]
    initial: tuple[NDArray[np.float64], NDArray[np.float64]]
    nodes: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    parts: tuple[BSpline, ...] = ()
    held: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    values: BSpline | None = None

    def forces(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(times, nodes): F without the source."""
        out = np.zeros((times.size, self.nodes.size))
        for part in self.parts:
            out += part(times)
        return out

    def held_values(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(times, held)."""
        return np.zeros((times.size, 0)) if self.values is None else np.asarray(self.values(times))


def rise(depth: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """From 0 at depth 0 to 1 from ``width`` on, with two continuous derivatives."""
    s = np.clip(depth / width, 0, 1)
    return np.asarray(s**3 * (10 - 15 * s + 6 * s**2))


def layer_profile(zone: Zone, x: NDArray, y: NDArray, width: float) -> NDArray[np.float64]:
    """Product of :func:`rise` over the inner sides."""
    out = np.ones(x.shape)
    for depth in zone.depth(x, y).values():
        out *= rise(depth, width)
    return out


def initial_state(data: ZoneField, initial: str) -> NDArray[np.float64]:
    """(2, rows, columns): u and u_t at the first time, as the data have them or 0.

    ``auto`` and ``field`` take the data; the former stand for a field made causal, which is at rest where no
    wave can be yet."""
    if initial not in INITIAL:
        raise ValueError(f"unknown initial state {initial!r}; known: {', '.join(INITIAL)}")
    if initial == "rest":
        return np.zeros((2, *data.zone.shape))
    reached = data.values[0] != 0 if initial == "auto" else True
    return np.stack([data.values[0], np.where(reached, data.velocity(), 0.0)])


def on_nodes(zone: Zone, system: ZoneSystem, state: NDArray) -> tuple[NDArray, NDArray]:
    """A state (2, rows, columns) at the samples, taken to the nodes."""
    values = ZoneField(zone, np.arange(2.0), state).at(system.x, system.y) * system.free
    return values[0], values[1]


def feed(system: ZoneSystem, data: ZoneField, way: str, state: NDArray, width: float, rate: float) -> Feed:
    """The ways ``dirichlet``, ``impedance``, ``layer`` and ``relax``.

    Parameters
    ----------
    system
        The discretisation.
    data
        g.
    state
        (2, rows, columns): u and u_t at the first time.
    width, rate
        Of the layer, in spacings of the samples, and of ``relax``.
    """
    zone = data.zone
    n = system.x.size
    g = data.at(system.x, system.y) * system.free
    u, v = on_nodes(zone, system, state)
    one, absorbing = np.ones(n), sum(system.absorbing.values(), np.zeros(n))
    if way == "dirichlet":
        held = np.flatnonzero((absorbing > 0) & system.free)
        return Feed(one, np.zeros(n), (u, v), held=held, values=data.in_time(g[:, held]))
    if way == "layer":
        inside = layer_profile(zone, system.x, system.y, width)
        force = system.stiffness(inside * g) - inside * system.stiffness(g)
        nodes = np.flatnonzero((force != 0).any(axis=0) & system.free)
        part = data.in_time(force[:, nodes])
        return Feed(inside, absorbing, (inside * u, inside * v), nodes, (part,))
    damping = absorbing
    if way == "relax":
        damping = absorbing + rate * (1 - layer_profile(zone, system.x, system.y, width)) * system.mass
    nodes = np.flatnonzero((damping > 0) & system.free)
    x, y = system.x[nodes], system.y[nodes]
    flow = np.zeros((data.times.size, nodes.size))
    for side, weight in system.flux.items():
        across = side in ("left", "right")
        on = np.flatnonzero(weight[nodes])
        slope = data.at(x[on], y[on], int(across), int(not across))
        flow[:, on] += weight[nodes[on]] * (slope if side in ("right", "top") else -slope)
    rates = data.in_time(damping[nodes] * g[:, nodes]).derivative()
    return Feed(one, damping, (u, v), nodes, (data.in_time(flow), rates))


def feed_inflow(system: ZoneSystem, zone: Zone, inflow: Inflow) -> Feed:
    """The impedance condition with given data."""
    n = system.x.size
    absorbing = sum(system.absorbing.values(), np.zeros(n))
    p = np.zeros((inflow.times.size, n))
    for side in zone.inner:
        nodes, matrix = side_matrix(zone, side, system)
        p[:, nodes] += system.absorbing[side][nodes] * (inflow.sides[side] @ matrix.T)
    nodes = np.flatnonzero((absorbing > 0) & system.free)
    rate = make_interp_spline(inflow.times, p[:, nodes], k=DEGREE, axis=0).derivative()
    return Feed(np.ones(n), absorbing, on_nodes(zone, system, inflow.initial), nodes, (rate,))
