"""A forecast from start to end: first snapshots by finite elements or from a file, then the propagator.

Where it is compared, finite elements go on from the same moment, on the grid that training data came from.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from consolve.base.hdf5 import whole_hdf5
from consolve.learned.waves.domain import ExtrapolationWarning, TrainedFor, boundary_text
from consolve.learned.waves.format import WaveWeights
from consolve.learned.waves.propagator_inference import WavePropagator
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import WaveProblem, vrmse
from consolve.pde.waves.sampling import SOURCE_COLUMNS, medium_at_vertices

FORMAT_VERSION = 1
CONTENT = "wave forecast"
REFINEMENT = 4
"""Cells of the finite-element grid along one cell of the forecast, as in the training sets."""
GROWTH = 3.0
_REPETITIONS = 5
"""Of what is timed; the least counts."""


@dataclass(frozen=True)
class WaveStart:
    """Where a forecast starts.

    Attributes
    ----------
    problem
        Medium, source and boundaries.
    kind
        Of the medium.
    time, interval
        Of the first snapshot, and between snapshots.
    vertices
        Of the finite-element grid along each side.
    u
        (past, ny, nx) float32.
    speed, fixed
        (ny, nx) float32 and uint8.
    origin
        In words.
    """

    problem: WaveProblem
    kind: str
    time: float
    interval: float
    vertices: int
    u: NDArray[np.float32]
    speed: NDArray[np.float32]
    fixed: NDArray[np.uint8]
    origin: str

    @property
    def every(self) -> int:
        """Vertices of the finite-element grid for one of the forecast."""
        return (self.vertices - 1) // (self.speed.shape[0] - 1)

    def times(self, steps: int) -> NDArray[np.float64]:
        """(steps,): of the snapshots that follow."""
        return self.time + self.interval * (len(self.u) + np.arange(steps))


@dataclass(frozen=True)
class Forecast:
    """What a propagator says, and what it costs.

    Attributes
    ----------
    start
        Where it began.
    time
        (steps,).
    u
        (steps, ny, nx) float32.
    truth, errors
        Finite elements on the fine grid at the same vertices and times, and the VRMSE of each snapshot
        (steps,); None where nothing was compared.
    milliseconds
        ``prepare`` and ``snapshot`` (each) of the surrogate; with a comparison ``fe_setup``, ``fe_start``
        (until the last given snapshot) and ``fe_snapshot`` (each); the least of several.
    warnings
        What speaks against trusting it.
    """

    start: WaveStart
    time: NDArray[np.float64]
    u: NDArray[np.float32]
    truth: NDArray[np.float32] | None
    errors: NDArray[np.float64] | None
    milliseconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)


def start_from_data(data: WaveData, run: int, weights: WaveWeights) -> WaveStart:
    """The first snapshots of a run of a data set.

    Raises
    ------
    ValueError
        If there is no such run, or the set does not fit the propagator.
    """
    domain, past = TrainedFor.of(weights), weights.settings.past
    if not data.wave_set.whole:
        raise ValueError(
            f"{data.path}: the {data.wave_set.name} set holds a part of the square, a propagator needs the "
            "whole; make a set with 'consolve data wave --set propagator'"
        )
    if not 0 <= run < data.runs:
        raise ValueError(f"{data.path}: holds runs 0 to {data.runs - 1}, asked for is {run}")
    if data.u.shape[2] != domain.vertices or not math.isclose(data.interval, domain.interval):
        raise ValueError(
            f"{data.path}: {data.u.shape[2]} x {data.u.shape[3]} vertices every {data.interval:g}, but the "
            f"propagator is trained for {domain.vertices} x {domain.vertices} every {domain.interval:g}"
        )
    if data.u.shape[1] < past:
        raise ValueError(f"{data.path}: {data.u.shape[1]} snapshots a run, the propagator starts from {past}")
    return WaveStart(
        data.problem(run), data.kind[run], float(data.start[run]), data.interval, data.vertices,
        data.u[run, :past], data.speed[run], data.fixed[run], f"run {run} of {data.path}",
    )  # fmt: skip


def start_by_finite_elements(problem: WaveProblem, kind: str, weights: WaveWeights) -> WaveStart:
    """Leap-frog on the fine grid, from rest until the source has ended and `past` snapshots are there.

    Raises
    ------
    ValueError
        If the problem has no source, or one without end.
    """
    domain, past = TrainedFor.of(weights), weights.settings.past
    if problem.source is None or not math.isfinite(problem.source.end):
        raise ValueError("a forecast begins where the source has ended: give a source that does (ricker)")
    vertices = REFINEMENT * (domain.vertices - 1) + 1
    first = domain.interval * math.ceil(problem.source.end / domain.interval * (1 - 1e-12))
    model = LeapFrog(problem, vertices, interval=domain.interval)
    u = model.run(first + domain.interval * np.arange(past), REFINEMENT).astype(np.float32)
    speed, fixed = medium_at_vertices(WaveGrid.of(problem, vertices), REFINEMENT)
    origin = f"finite elements on {vertices} x {vertices} vertices"
    return WaveStart(problem, kind, first, domain.interval, vertices, u, speed, fixed, origin)


def forecast(
    weights: WaveWeights, start: WaveStart, steps: int, compare: bool = True, threads: int = 1
) -> Forecast:
    """Roll a propagator out from a start.

    Parameters
    ----------
    steps
        Snapshots, at least 1.
    compare
        Run finite elements on too.
    threads
        Of the propagator; finite elements take one.

    Raises
    ------
    ValueError
        For problems that the propagator does not serve, see :meth:`TrainedFor.refuse`.
    RuntimeError
        If the forecast overflows.
    """
    domain = TrainedFor.of(weights)
    domain.refuse(start.problem)
    warnings = domain.warnings(start.problem, start.speed, start.kind)
    propagator = WavePropagator(weights, threads)
    with catch_warnings():
        simplefilter("ignore", ExtrapolationWarning)  # the words are said here
        propagator.prepare(start.speed, start.fixed).rollout(start.u, 1)  # kernels are compiled now
        prepare, _ = _least(lambda: propagator.prepare(start.speed, start.fixed))
        rolled, u = _least(lambda: propagator.rollout(start.u, steps))
    size = [float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))) for a in (start.u[-1], u)]
    if size[1] > GROWTH * size[0]:
        warnings.append(
            f"the forecast grows to {size[1] / size[0]:.3g} times its start, which a wave without a source "
            "does not: do not trust it"
        )
    costs = {"prepare": prepare, "snapshot": rolled / steps}
    when = start.times(steps)
    if not compare:
        return Forecast(start, when, u, None, None, costs, warnings)
    truth, fe = _finite_elements(start, when)
    errors = vrmse(u, truth, axis=(1, 2))
    return Forecast(start, when, u, truth, errors, costs | fe, warnings)


def _least(work: Callable[[], Any]) -> tuple[float, Any]:
    """Least milliseconds of some repetitions, and what the last returned."""
    best, result = math.inf, None
    for _ in range(_REPETITIONS):
        begin = time.perf_counter()
        result = work()
        best = min(best, 1e3 * (time.perf_counter() - begin))
    return best, result


def _finite_elements(
    start: WaveStart, when: NDArray[np.float64]
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Snapshots of the fine grid at the forecast's vertices, and the least milliseconds of each part."""
    setup, model = _least(lambda: LeapFrog(start.problem, start.vertices, interval=start.interval))
    before, after = [], []
    for _ in range(_REPETITIONS):
        model.restart()
        marks = [time.perf_counter()]
        model.run([when[0] - start.interval])
        marks.append(time.perf_counter())
        u = model.run(when, start.every)
        marks.append(time.perf_counter())
        before.append(marks[1] - marks[0])
        after.append(marks[2] - marks[1])
    costs = {"fe_setup": setup, "fe_start": 1e3 * min(before), "fe_snapshot": 1e3 * min(after) / len(when)}
    return u.astype(np.float32), costs


def save_forecast(
    forecast: Forecast, weights: WaveWeights, path: str | os.PathLike[str], command: str = ""
) -> None:
    """Write a forecast as HDF5: whole or not at all.

    Datasets: ``u`` (time, y, x) float32, ``time`` (time) float64, ``given`` (past, y, x) float32 the
    snapshots that it starts from, ``speed`` (y, x) float32, ``fixed`` (y, x) uint8, ``x`` and ``y`` float64;
    with a comparison ``truth`` as ``u`` and ``vrmse`` (time) float64.

    Attributes of the root: ``content``, ``consolve_format``, ``model`` (file or name), ``model_digest``,
    ``medium`` (kind), ``source`` (numbers in the order of ``source_columns``), ``start`` (time of the first
    given snapshot), ``start_origin``, ``interval``, ``boundaries``, ``fe_vertices``, ``warnings`` (one a
    line), ``command``.  Row 0 of arrays is at y = 0; units are those of wave data.
    """
    start, source = forecast.start, forecast.start.problem.source
    rows, columns = start.speed.shape
    arrays = {
        "u": forecast.u, "time": forecast.time, "given": start.u, "speed": start.speed, "fixed": start.fixed,
        "x": np.linspace(0, 1, columns), "y": np.linspace(0, 1, rows),
    }  # fmt: skip
    if forecast.truth is not None and forecast.errors is not None:
        arrays |= {"truth": forecast.truth, "vrmse": forecast.errors}
    with whole_hdf5(path) as file:
        file.attrs.update(
            {
                "content": CONTENT, "consolve_format": FORMAT_VERSION, "model": weights.source,
                "model_digest": weights.digest, "medium": start.kind, "start": start.time,
                "start_origin": start.origin, "interval": start.interval,
                "boundaries": boundary_text(start.problem), "fe_vertices": start.vertices,
                "warnings": "\n".join(forecast.warnings), "command": command,
            }
        )  # fmt: skip
        if source is not None:
            file.attrs["source"] = [getattr(source, name) for name in SOURCE_COLUMNS]
            file.attrs["source_columns"] = " ".join(SOURCE_COLUMNS)
        for name, array in arrays.items():
            file.create_dataset(name, data=array, track_times=False)
