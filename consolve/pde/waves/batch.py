"""Many leap-frog runs at once: one thread a run, grids shared by the problems of one medium."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import get_num_threads, set_num_threads
from numpy.typing import ArrayLike, DTypeLike, NDArray

from consolve.pde.waves.grid import WaveGrid, framed
from consolve.pde.waves.kernels import march_many
from consolve.pde.waves.leapfrog import (
    Operator,
    check_finite,
    checked_dtype,
    dividing_step,
    first_states,
    signal_at_steps,
    source_window,
    step_numbers,
    stored_shape,
)
from consolve.pde.waves.problem import SNAPSHOT_INTERVAL, Boundaries, MediumLike, WaveProblem

_CHUNK = 8
"""Runs a thread that are held in memory at once."""


def run_many(
    problems: Sequence[WaveProblem],
    vertices: int,
    times: ArrayLike,
    dtype: DTypeLike = np.float64,
    every: int = 1,
    interval: float = SNAPSHOT_INTERVAL,
    threads: int | None = None,
) -> NDArray:
    """Runs of many problems, one per thread at a time.

    Problems that share a medium object and boundaries share the arrays of their grid, so a thousand sources
    in one medium cost one set-up.  Results are those of :class:`LeapFrog`, bit by bit.

    Parameters
    ----------
    problems, vertices, dtype, interval
        As of :class:`LeapFrog`; all start at rest.
    times, every
        As of :meth:`LeapFrog.run`; ``times`` are multiples of ``interval``.
    threads
        Default: Numba's.

    Returns
    -------
    (runs, times, rows, columns).

    Raises
    ------
    ValueError, FloatingPointError
        As :class:`LeapFrog`, with the number of the run.
    """
    dtype = checked_dtype(dtype)
    before = get_num_threads()
    threads = before if threads is None else threads
    if not 1 <= threads:
        raise ValueError(f"runs take at least one thread, got {threads}")
    times = np.asarray(times, np.float64)
    out: NDArray | None = None
    shared = _Shared(vertices, dtype, interval)
    set_num_threads(min(threads, before))
    try:
        for start in range(0, len(problems), _CHUNK * threads):
            chunk = problems[start : start + _CHUNK * threads]
            found = _run_chunk(chunk, start, shared, times, every)
            if out is None:
                out = np.empty((len(problems), *found.shape[1:]), dtype)
            out[start : start + len(chunk)] = found
    finally:
        set_num_threads(before)
    return np.empty((0, times.size, 0, 0), dtype) if out is None else out


class _Shared:
    """Grids and operators of the latest media of a batch."""

    def __init__(self, vertices: int, dtype: np.dtype, interval: float) -> None:
        self.vertices, self.dtype, self.interval = vertices, dtype, interval
        self._known: dict[tuple[int, Boundaries], tuple[MediumLike, WaveGrid, float, Operator]] = {}

    def get(self, problem: WaveProblem) -> tuple[MediumLike, WaveGrid, float, Operator]:
        key = id(problem.medium), problem.boundaries
        if key not in self._known:
            grid = WaveGrid.of(WaveProblem(problem.medium, None, problem.boundaries), self.vertices)
            step = dividing_step(2 / math.sqrt(grid.largest_eigenvalue()[1]), self.interval)
            # The medium is kept with its grid, so that no other object can take its id.
            self._known[key] = problem.medium, grid, step, Operator.of(grid, step, self.dtype)
        return self._known[key]

    def keep(self, problems: Sequence[WaveProblem]) -> None:
        """Forget the media that none of these problems has."""
        keys = {(id(p.medium), p.boundaries) for p in problems}
        self._known = {key: value for key, value in self._known.items() if key in keys}


def _run_chunk(
    problems: Sequence[WaveProblem], first: int, shared: _Shared, times: NDArray, every: int
) -> NDArray:
    shared.keep(problems)
    place: dict[int, int] = {}
    operators: list[Operator] = []
    windows, grids, steps, marks, signals = [], [], [], [], []
    for number, problem in enumerate(problems):
        try:
            _, grid, step, operator = shared.get(problem)
            if problem.source is not None:
                grid.check_source(problem.source.x, problem.source.y)
            windows.append(source_window(grid, problem, operator, shared.dtype))
            marks.append(step_numbers(times, step, 0))
        except ValueError as error:
            raise ValueError(f"run {first + number}: {error}") from error
        if id(operator) not in place:
            place[id(operator)] = len(operators)
            operators.append(operator)
        grids.append(place[id(operator)])
        steps.append(step)
        signals.append(signal_at_steps(problem, step, 0, int(marks[-1].max(initial=0))))
    runs, n = len(problems), shared.vertices
    rest = np.zeros((n, n))
    before = (first_states(shared.get(p)[1], p, step, rest, rest)[0] for p, step in zip(problems, steps))
    old = np.stack([framed(u, shared.dtype) for u in before])
    now = np.zeros_like(old)
    out = np.empty((runs, times.size, *stored_shape(grid, every)), shared.dtype)
    account = np.zeros((runs, 2))
    stacks = [
        np.stack([getattr(o, name) for o in operators]) for name in ("east", "north", "w", "beta", "drag")
    ]
    march_many(
        old, now, np.array(grids), *stacks, _stacked([w.profile for w in windows]),
        _stacked([w.load for w in windows]), np.array([w.corner for w in windows]), _stacked(signals),
        np.stack(marks), every, out, account,
    )  # fmt: skip
    for r in range(runs):
        try:
            check_finite(out[r])
        except FloatingPointError as error:
            raise FloatingPointError(f"run {first + r}: {error}") from error
    return out


def _stacked(arrays: list[NDArray]) -> NDArray:
    """Arrays of different sizes in one, filled up with zeros at their ends."""
    size = np.max([a.shape for a in arrays], axis=0)
    out = np.zeros((len(arrays), *size), arrays[0].dtype)
    for target, a in zip(out, arrays):
        target[tuple(slice(0, k) for k in a.shape)] = a
    return out
