"""Inflow of a zone by least squares: the solution of the wave equation that fits a field best.

Controls are p on each inner side at the samples' places and times (``c² du/dn + c u_t = c dp/dt``) and, where
waves may be in the zone at the first time, u and u_t there.  With L the run of the structured system from
controls x to u at the samples, least squares ``| W (L x - field) |²`` are minimised by conjugate gradients on
the normal equations (CGLS: Hestenes and Stiefel, 1952), from a first guess.  L^T is a run backwards in time,
see :mod:`consolve.pde.waves.zone.kernels`.  W weighs a layer beside the inner sides.

Errors of the field that no solution of the wave equation follows are left out, the more so the wider the
layer; errors that are waves themselves stay.  This is strong-constraint 4D-Var with boundary control, without
a background term: the number of iterations bounds the controls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from consolve.pde.waves.problem import WaveProblem
from consolve.pde.waves.zone.data import DEGREE, Inflow, ZoneField, side_matrix, spline_matrix
from consolve.pde.waves.zone.march import ZoneMarch
from consolve.pde.waves.zone.zone import ZoneGrid, source_load

ITERATIONS = 30
TOLERANCE = 2e-3
"""The iterations end when one lowers the misfit by less than this part."""


@dataclass(frozen=True)
class _Side:
    name: str
    nodes: NDArray[np.intp]
    matrix: NDArray[np.float64]


class InflowFit:
    """L and its transpose for one problem and zone.

    Parameters
    ----------
    problem
        Medium, boundaries; a source that reaches into the zone acts as known.
    data
        The field; its grid in time is that of the controls.
    grid
        The structured system of the zone.
    moving
        bool (rows, columns): samples where u and u_t at the first time are controls.
    """

    def __init__(
        self, problem: WaveProblem, data: ZoneField, grid: ZoneGrid, moving: NDArray[np.bool_]
    ) -> None:
        system, zone = grid.system, data.zone
        self._problem, self._data, self._grid, self._moving = problem, data, grid, moving
        self._damping = system.damping + sum(system.absorbing.values())
        self._march = ZoneMarch(grid, self._damping, data.interval)
        self._sides = [_Side(side, *side_matrix(zone, side, system)) for side in zone.inner]
        self._rim = np.unique(np.concatenate([side.nodes for side in self._sides]))
        self._rim_at = self._march.at(self._rim)
        steps = (data.times.size - 1) * self._march.per_interval
        self._step_times = data.times[0] + self._march.step * np.arange(steps)
        self._rates = spline_rates(data.times, self._step_times)
        rows, columns = grid.shape
        r = grid.refinement
        self._samples = np.arange(rows * columns).reshape(rows, columns)[::r, ::r].ravel()
        self._samples_at = self._march.at(self._samples)
        self._up = spline_matrix(zone.y, system.y[:: grid.shape[1]])
        self._across = spline_matrix(zone.x, system.x[: grid.shape[1]])
        self._period = 2 * data.interval
        """Makes u_t as large as u."""

    @property
    def controls(self) -> int:
        """Number of entries of x."""
        sides = sum(side.matrix.shape[1] for side in self._sides)
        return self._data.times.size * sides + 2 * int(self._moving.sum())

    def _split(self, x: NDArray) -> tuple[list[NDArray], NDArray]:
        k, at, parts = self._data.times.size, 0, []
        for side in self._sides:
            m = side.matrix.shape[1]
            parts.append(x[at : at + k * m].reshape(k, m))
            at += k * m
        state = np.zeros((2, *self._data.zone.shape))
        state[:, self._moving] = x[at:].reshape(2, -1)
        state[1] /= self._period
        return parts, state

    def inflow(self, x: NDArray[np.float64]) -> Inflow:
        """The controls as data."""
        parts, state = self._split(x)
        names = [side.name for side in self._sides]
        return Inflow(self._data.times, dict(zip(names, parts)), state)

    def guess(self) -> NDArray[np.float64]:
        """Controls of a wave that comes in at 45 degrees to every side: p = (1 + cos 45°) u."""
        lines = {"left": np.s_[:, :, 0], "right": np.s_[:, :, -1], "bottom": np.s_[:, 0], "top": np.s_[:, -1]}
        u = self._data.values
        parts = [(1 + math.sqrt(0.5)) * u[lines[side.name]].ravel() for side in self._sides]
        state = np.stack([u[0], self._data.velocity() * self._period])
        return np.concatenate([*parts, state[:, self._moving].ravel()])

    def _to_nodes(self, state: NDArray) -> NDArray:
        values = np.matmul(np.matmul(self._up, state), self._across.T).reshape(2, -1)
        return values * self._grid.system.free

    def forward(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(times, rows, columns): L x."""
        march, system = self._march, self._grid.system
        parts, state = self._split(x)
        forces = np.zeros((self._step_times.size, self._rim.size))
        for side, p in zip(self._sides, parts):
            at = np.searchsorted(self._rim, side.nodes)
            forces[:, at] += (self._rates @ p) @ (side.matrix.T * system.absorbing[side.name][side.nodes])
        march.rest()
        if self._moving.any():
            u, v = self._to_nodes(state)
            march.start(u, v, np.zeros_like(u))
        return self._observed(forces, self._rim_at)

    def source_part(self) -> NDArray[np.float64]:
        """(times, rows, columns): the field of a source in the zone, from rest."""
        nodes, load = source_load(self._problem, self._grid.system)
        if self._problem.source is None or nodes.size == 0:
            return np.zeros(self._data.values.shape)
        self._march.rest()
        forces = self._problem.source.signal(self._step_times)[:, None] * load
        return self._observed(forces, self._march.at(nodes))

    def _observed(self, forces: NDArray, at: NDArray) -> NDArray[np.float64]:
        march, per = self._march, self._march.per_interval
        out = np.empty((self._data.times.size, self._samples.size))
        out[0] = march.states[1][self._samples]
        for k in range(1, len(out)):
            read = march.advance(per, at, forces[(k - 1) * per : k * per], read=self._samples_at)
            out[k] = read[-1]
        return out.reshape(self._data.values.shape)

    def backward(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """(controls,): L^T r of r (times, rows, columns)."""
        march, system = self._march, self._grid.system
        per, k = march.per_interval, self._data.times.size
        r = r.reshape(k, -1)
        multipliers = np.empty((self._step_times.size, self._rim.size))
        march.rest()
        for n in range(k - 1, 0, -1):
            read = march.advance(per, self._samples_at, r[n : n + 1], read=self._rim_at)
            multipliers[(n - 1) * per : n * per] = read[::-1]
        parts = []
        for side in self._sides:
            at = np.searchsorted(self._rim, side.nodes)
            weighted = multipliers[:, at] @ (side.matrix * system.absorbing[side.name][side.nodes][:, None])
            parts.append((self._rates.T @ weighted).ravel())
        if self._moving.any():
            parts.append(self._initial_part(r[0]))
        return np.concatenate(parts)

    def _initial_part(self, r: NDArray) -> NDArray[np.float64]:
        """The transpose of the first two states, P u[0] = F[-1] and F[0] = -R u[-1] with
        u[-1] = u - dt v - dt²/2 M⁻¹ (K u + C v)."""
        march, system, dt = self._march, self._grid.system, self._march.step
        first = march.states[1]  # l[0]
        march.advance(1, self._samples_at, r[None])
        before = march.states[1]  # l[-1]
        pull = march.kept * first
        bent = np.divide(
            dt**2 / 2 * system.free * pull, system.mass, out=np.zeros_like(pull), where=system.mass > 0
        )
        gradient = np.stack(
            [march.slowed * before - pull + system.stiffness(bent), dt * pull + self._damping * bent]
        )
        gradient *= system.free
        state = np.matmul(np.matmul(self._up.T, gradient.reshape(2, *self._grid.shape)), self._across)
        state[1] /= self._period
        return state[:, self._moving].ravel()

    def solve(self, weight: NDArray[np.float64], iterations: int, tolerance: float | None = None) -> Inflow:
        """CGLS for W = ``weight`` (rows, columns)."""
        tolerance = TOLERANCE if tolerance is None else tolerance
        x = self.guess()
        residual = weight * (self._data.values - self.source_part() - self.forward(x))
        gradient = self.backward(weight * residual)
        direction, size = gradient.copy(), float(gradient @ gradient)
        misfit = float(np.sum(residual**2))
        for _ in range(iterations):
            if size == 0:
                break
            image = weight * self.forward(direction)
            alpha = size / float(np.sum(image**2))
            x += alpha * direction
            residual -= alpha * image
            last, misfit = misfit, float(np.sum(residual**2))
            if misfit >= (1 - tolerance) ** 2 * last:
                break
            gradient = self.backward(weight * residual)
            last_size, size = size, float(gradient @ gradient)
            direction = gradient + size / last_size * direction
        return self.inflow(x)


def spline_rates(places: NDArray, points: NDArray) -> NDArray[np.float64]:
    """(points, places): time derivative of the spline through values at places."""
    return np.asarray(make_interp_spline(places, np.eye(places.size), k=DEGREE)(points, 1))
