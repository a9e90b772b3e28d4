"""The submodel of a zone on a structured grid, matrix-free: the twin of that in DOLFINx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.problem import WaveProblem
from consolve.pde.waves.zone.data import ZoneField
from consolve.pde.waves.zone.feed import FeedOptions, ZoneFeed, step_marks, zone_of
from consolve.pde.waves.zone.march import ZoneMarch
from consolve.pde.waves.zone.zone import Zone, ZoneGrid, source_load

_CHUNK = 64
"""Steps of which forces are held at once."""


class NumbaSubmodel:
    """Leap-frog of P1 elements with lumped mass in a zone, told by a field what happens outside.

    Parameters
    ----------
    problem
        The true medium, source and boundaries of the whole square.  A source that reaches into the zone acts
        there as it is.
    zone
        :class:`consolve.pde.waves.zone.zone.Zone`, or (x0, y0, x1, y1).
    times
        (k,) at equal distances: when the field is given.
    field
        (k, rows, columns): u at the samples of the zone, with errors.
    boundary
        One of ``wave_zone_feed.WAYS``.
    refinement
        Cells of the mesh along each cell between samples.
    options
        Further fields of :class:`consolve.pde.waves.zone.feed.FeedOptions`.

    Raises
    ------
    ValueError
        If zone, times and field do not fit each other, the data are too coarse in time for the source, or an
        option is not usable.
    """

    def __init__(
        self,
        problem: WaveProblem,
        zone: Zone | Sequence[float],
        times: ArrayLike,
        field: ArrayLike,
        boundary: str = "fit",
        refinement: int = 4,
        **options: Any,
    ) -> None:
        self.problem = problem
        self.zone = zone_of(zone, field)
        data = ZoneField.checked(problem, self.zone, times, field)
        self.grid = ZoneGrid.of(problem, self.zone, refinement)
        self._data = ZoneFeed(problem, data, refinement, FeedOptions(boundary, **options))
        self._feed = self._data.on(self.grid.system)
        self._march = ZoneMarch(self.grid, self.grid.system.damping + self._feed.damping, data.interval)
        nodes, load = source_load(problem, self.grid.system)
        self._source_nodes, self._load = nodes, load * self._feed.inside[nodes]
        self._driven = self._march.at(np.concatenate([self._feed.nodes, nodes]))
        self._held = self._march.at(self._feed.held)

    @property
    def step(self) -> float:
        """dt."""
        return self._march.step

    def _forces(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        forces = [self._feed.forces(times)]
        if self._load.size and self.problem.source is not None:
            forces.append(self.problem.source.signal(times)[:, None] * self._load)
        return np.concatenate(forces, axis=1)

    def run(self, times: ArrayLike | None = None) -> NDArray[np.float64]:
        """u at the samples of the zone, from the first time of the data on.

        Parameters
        ----------
        times
            Ascending, within the time of the data, each the first time plus a multiple of :attr:`step`;
            default: those of the data.

        Returns
        -------
        (times, rows, columns).

        Raises
        ------
        FloatingPointError
            If u is not finite.
        """
        data, march = self._data.data, self._march
        asked = data.times if times is None else np.asarray(times, np.float64)
        marks = step_marks(asked, data, self.step)
        first, system = data.times[0], self.grid.system
        force = np.zeros(system.x.size)
        np.add.at(
            force, np.concatenate([self._feed.nodes, self._source_nodes]), self._forces(data.times[:1])[0]
        )
        march.start(*self._feed.initial, force)
        rows, columns = self.grid.shape
        r = self.grid.refinement
        out = np.empty((marks.size, *self.zone.shape))
        now = 0
        for k, mark in enumerate(marks):
            while now < mark:
                steps = min(int(mark) - now, _CHUNK)
                at = first + self.step * np.arange(now, now + steps + 1)
                march.advance(
                    steps, self._driven, self._forces(at[:-1]), self._held, self._feed.held_values(at[1:])
                )
                now += steps
            out[k] = march.states[1].reshape(rows, columns)[::r, ::r]
        out += self._data.outside(asked)
        if not np.isfinite(out).all():
            raise FloatingPointError("u is not finite in the zone: data or source are too large")
        return out

    def energy(self) -> float:
        """Of w, half a step before the time that the last run ended at."""
        return self._march.energy()
