"""Explicit runs of the structured system of a zone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from consolve.pde.waves.leapfrog import dividing_step, framed
from consolve.pde.waves.zone.kernels import march_zone
from consolve.pde.waves.zone.zone import ZoneGrid

_NO_NODES = np.zeros((0, 2), np.int64)


class ZoneMarch:
    """Leap-frog of ``M w_tt + C w_t + K w = F`` in a zone, float64.

    ``damping`` (n,) is C; the step is the longest that divides ``interval`` and is at most 0.98 of the stable
    one.
    """

    def __init__(self, grid: ZoneGrid, damping: NDArray[np.float64], interval: float) -> None:
        self.grid = grid
        self.step = dividing_step(grid.stable_step, interval)
        self.per_interval = round(interval / self.step)
        system, dt = grid.system, self.step
        self._damping = damping
        self.slowed = system.mass / dt**2 + damping / (2 * dt)  # P of the kernels
        self.slowed[system.mass == 0] = 1
        self.kept = system.mass / dt**2 - damping / (2 * dt)  # R
        east, north = np.zeros(grid.shape), np.zeros(grid.shape)
        east[:, :-1], north[:-1] = grid.coupling_x, grid.coupling_y
        w = system.free / self.slowed
        self._arrays = tuple(
            framed(a.reshape(grid.shape), np.dtype(np.float64)) for a in (east, north, w, w * damping / dt)
        )
        self.rest()

    def rest(self) -> None:
        """u = 0 now and one step before."""
        self._old, self._now = (framed(np.zeros(self.grid.shape), np.dtype(np.float64)) for _ in range(2))

    def start(self, u: NDArray, v: NDArray, force: NDArray) -> None:
        """From u and u_t, where F is ``force``, all (n,)."""
        system = self.grid.system
        push = system.free * (force - system.stiffness(u) - self._damping * v)
        acceleration = np.divide(push, system.mass, out=np.zeros_like(push), where=system.mass > 0)
        self._set(u - self.step * v + self.step**2 / 2 * acceleration, u)

    def _set(self, old: NDArray, now: NDArray) -> None:
        shape = self.grid.shape
        self._old, self._now = (framed(a.reshape(shape), np.dtype(np.float64)) for a in (old, now))

    def at(self, nodes: NDArray[np.intp]) -> NDArray[np.int64]:
        """Places in framed arrays of nodes."""
        j, i = np.unravel_index(nodes, self.grid.shape)
        return np.column_stack([j + 1, i + 1]).astype(np.int64)

    @property
    def states(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """u one step before, and now, (n,), copies."""
        rows, columns = self.grid.shape
        old, now = (a[1 : rows + 1, 1 : columns + 1].ravel() for a in (self._old, self._now))
        return old, now

    def advance(
        self,
        steps: int,
        driven: NDArray[np.int64] = _NO_NODES,
        forces: NDArray[np.float64] | None = None,
        held: NDArray[np.int64] = _NO_NODES,
        values: NDArray[np.float64] | None = None,
        read: NDArray[np.int64] = _NO_NODES,
    ) -> NDArray[np.float64]:
        """Some steps on; (steps, read): u at the nodes ``read`` after each.

        Nodes are as :meth:`at` gives them; ``forces`` (up to steps, driven) act in the first steps,
        ``values`` (steps, held) are those after each step.
        """
        forces = np.zeros((0, len(driven))) if forces is None else np.ascontiguousarray(forces)
        values = np.zeros((steps, len(held))) if values is None else np.ascontiguousarray(values)
        out = np.empty((steps, len(read)))
        march_zone(self._old, self._now, *self._arrays, driven, forces, held, values, read, out)
        if steps % 2:
            self._old, self._now = self._now, self._old
        return out

    def energy(self) -> float:
        """v·M v / 2 + u·K u- / 2 half a step before the present time, v = (u - u-) / dt."""
        system = self.grid.system
        old, now = self.states
        v = (now - old) / self.step
        return 0.5 * float(np.sum(system.mass * v * v) + np.sum(now * system.stiffness(old)))
