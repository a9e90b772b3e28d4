"""Explicit runs of wave problems on structured grids: leap-frog in time, matrix-free P1 elements in space.

With M, C and K of :class:`consolve.pde.waves.grid.WaveGrid`, the central differences

    M (u[n+1] - 2 u[n] + u[n-1]) / dt² + C (u[n+1] - u[n-1]) / (2 dt) + K u[n] = M f(t_n)

are of second order in dt and stable for dt² lambda_max(M⁻¹ K) < 4.  They hold the balance

    E[n+1/2] - E[n-1/2] = work of f - loss at the absorbing sides,
    E[n+1/2] = v·M v / 2 + u[n+1]·K u[n] / 2,    v = (u[n+1] - u[n]) / dt,

to round-off, with loss = dt V·C V and work = dt V·M f for V = (u[n+1] - u[n-1]) / (2 dt).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from consolve.pde.waves.grid import WaveGrid, framed
from consolve.pde.waves.kernels import march
from consolve.pde.waves.problem import SNAPSHOT_INTERVAL, WaveProblem

MARGIN = 0.98
"""Steps chosen here are at most this part of the stable step."""


def dividing_step(stable: float, interval: float) -> float:
    """The longest step that divides ``interval`` and is at most 0.98 of the stable one."""
    return interval / math.ceil(interval / (MARGIN * stable) * (1 - 1e-12))


@dataclass(frozen=True)
class Operator:
    """Framed arrays of a grid for one step, see :mod:`consolve.pde.waves.kernels`."""

    east: NDArray
    north: NDArray
    w: NDArray
    beta: NDArray
    drag: NDArray[np.float64]

    @classmethod
    def of(cls, grid: WaveGrid, step: float, dtype: np.dtype) -> Operator:
        slowed = grid.mass + step / 2 * grid.damping
        inverse = np.divide(1.0, slowed, out=np.zeros_like(slowed), where=grid.free)
        east, north = np.zeros_like(slowed), np.zeros_like(slowed)
        east[:, :-1], north[:-1] = grid.coupling_x, grid.coupling_y
        drag = np.where(grid.free, grid.damping / (4 * step), 0.0)
        return cls(
            east=framed(east, dtype),
            north=framed(north, dtype),
            w=framed(step**2 * inverse, dtype),
            beta=framed(step * grid.damping * inverse, dtype),
            drag=framed(drag),
        )


class LeapFrog:
    """A run of one problem on n x n vertices.

    Parameters
    ----------
    problem
        Medium, source and boundaries.
    vertices
        n, at least 3.
    dtype
        float64 or float32.
    step
        dt; default: the longest that divides ``interval`` and is at most 0.98 of :meth:`stable_step`.
    initial
        (u, u_t) at t = 0, each (n, n); default: at rest.  Values at fixed vertices and outside the mesh are
        taken as 0.
    interval
        What the default step divides, so that :meth:`run` can answer at its multiples.

    Raises
    ------
    ValueError
        If the step is not stable, or grid, dtype or initial state are not usable.
    """

    def __init__(
        self,
        problem: WaveProblem,
        vertices: int,
        dtype: DTypeLike = np.float64,
        step: float | None = None,
        initial: tuple[ArrayLike, ArrayLike] | None = None,
        interval: float = SNAPSHOT_INTERVAL,
    ) -> None:
        self.problem = problem
        self.grid = WaveGrid.of(problem, vertices)
        self.dtype = checked_dtype(dtype)
        self._stable = 2 / math.sqrt(self.grid.largest_eigenvalue()[1])
        self.step = _checked_step(step, self._stable, interval)
        n = self.grid.vertices
        if initial is None:
            self._initial = np.zeros((n, n)), np.zeros((n, n))
        else:
            u, v = (np.array(a, np.float64) for a in initial)
            if u.shape != (n, n) or v.shape != (n, n):
                raise ValueError(f"u and u_t at t = 0 must be {n} x {n}, got {u.shape} and {v.shape}")
            if not (np.isfinite(u).all() and np.isfinite(v).all()):
                raise ValueError("u and u_t at t = 0 must be finite")
            self._initial = u * self.grid.free, v * self.grid.free
        self._operator = Operator.of(self.grid, self.step, self.dtype)
        self._source = source_window(self.grid, problem, self._operator, self.dtype)
        self.restart()

    def stable_step(self) -> float:
        """Steps below it are stable: 2 / sqrt of an upper bound of lambda_max(M⁻¹ K), see
        :meth:`consolve.pde.waves.grid.WaveGrid.largest_eigenvalue`; mostly within 0.3 percent of
        the limit."""
        return self._stable

    def restart(self) -> None:
        """Back to t = 0 and the initial state."""
        u, v = self._initial
        self._old, self._now = (
            framed(a, self.dtype) for a in first_states(self.grid, self.problem, self.step, u, v)
        )
        self.steps = 0
        self.lost = 0.0
        self.work = 0.0

    def _inside(self, array: NDArray) -> NDArray:
        n = self.grid.vertices
        return array[1 : n + 1, 1 : n + 1]

    @property
    def time(self) -> float:
        """Of the present state."""
        return self.steps * self.step

    @property
    def displacement(self) -> NDArray:
        """u at :attr:`time`, (n, n), a copy."""
        return self._inside(self._now).copy()

    def run(self, times: ArrayLike, every: int = 1) -> NDArray:
        """u at the given times, going on from the present one.

        Parameters
        ----------
        times
            Ascending multiples of :attr:`step`, the first not before :attr:`time`.
        every
            Only each so manieth vertex along both axes is returned; it must divide n - 1.

        Returns
        -------
        (times, rows, columns) of the dtype of the run.

        Raises
        ------
        ValueError
            If the times are not ascending multiples of the step, or ``every`` does not fit.
        FloatingPointError
            If u is not finite any more.  Steps are stable, so the source or the initial state were too large
            for the dtype.
        """
        marks = step_numbers(times, self.step, self.steps)
        out = np.empty((marks.size, *stored_shape(self.grid, every)), self.dtype)
        if marks.size == 0:
            return out
        signal = signal_at_steps(self.problem, self.step, self.steps, int(marks[-1]))
        o, s = self._operator, self._source
        lost, work = march(
            self._old, self._now, o.east, o.north, o.w, o.beta, o.drag, s.profile, s.load, s.corner[0],
            s.corner[1], signal, marks - self.steps, every, out,
        )  # fmt: skip
        if (marks[-1] - self.steps) % 2:
            self._old, self._now = self._now, self._old
        self.steps = int(marks[-1])
        self.lost += lost
        self.work += work
        check_finite(out)
        if not np.isfinite(self._now).all():
            raise FloatingPointError(_OVERFLOW.format(time=self.time))
        return out

    def energy(self) -> float:
        """E half a step before :attr:`time`; ``energy() + lost - work`` keeps its value to round-off.

        At t = 0 it is that of the initial state and of the state one step before it.
        """
        old, now = (self._inside(a).astype(np.float64) for a in (self._old, self._now))
        v = (now - old) / self.step
        return 0.5 * float(np.sum(self.grid.mass * v * v) + np.sum(now * self.grid.stiffness_product(old)))


@dataclass(frozen=True)
class Window:
    """The vertices that a source moves: see :func:`consolve.pde.waves.kernels.step`."""

    profile: NDArray
    load: NDArray[np.float64]
    corner: tuple[int, int]


def source_window(grid: WaveGrid, problem: WaveProblem, operator: Operator, dtype: np.dtype) -> Window:
    source, places = problem.source, grid.places
    if source is None:
        return Window(np.zeros((1, 1), dtype), np.zeros((1, 1)), (1, 1))
    window = []
    for centre in (source.y, source.x):
        near = np.flatnonzero(abs(places - centre) <= source.reach)
        first = int(near[0]) if near.size else min(int(centre / grid.spacing), grid.vertices - 1)
        window.append(slice(first, first + max(near.size, 1)))
    j, i = window
    load = (grid.mass * grid.free)[j, i] * source.profile(places[i][None, :], places[j][:, None])
    if not load.any():
        raise ValueError(
            f"a source of radius {source.radius:g} falls between the vertices of a grid of spacing "
            f"{grid.spacing:.3g}; take a larger radius or a finer grid"
        )
    profile = operator.w[1:, 1:][j, i] * load
    return Window(profile.astype(dtype), load, (j.start + 1, i.start + 1))


def first_states(
    grid: WaveGrid, problem: WaveProblem, step: float, u: NDArray, v: NDArray
) -> tuple[NDArray, NDArray]:
    """u[-1] and u[0] for which (u[1] - u[-1]) / (2 dt) is the initial velocity."""
    acceleration = -(grid.stiffness_product(u) + grid.damping * v) * grid.inverse_mass()
    source = problem.source
    if source is not None:
        x = grid.places
        acceleration += source.signal(0.0) * source.profile(x[None, :], x[:, None]) * grid.free
    return u - step * v + 0.5 * step**2 * acceleration, u


def checked_dtype(dtype: DTypeLike) -> np.dtype:
    if np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"a leap-frog run has dtype float64 or float32, got {np.dtype(dtype)}")
    return np.dtype(dtype)


def _checked_step(step: float | None, stable: float, interval: float) -> float:
    if step is None:
        if not (interval > 0 and math.isfinite(interval)):
            raise ValueError(f"the interval of snapshots must be positive and finite, got {interval}")
        return dividing_step(stable, interval)
    if not 0 < step < stable:
        raise ValueError(
            f"the step {step:.6g} is not stable: it must be positive and below {stable:.6g} on this grid; "
            f"leave it out, and the longest that divides the interval of the snapshots is taken"
        )
    return float(step)


def step_numbers(times: ArrayLike, step: float, first: int) -> NDArray[np.int64]:
    """Numbers of the steps at the given times."""
    t = np.asarray(times, np.float64)
    if t.ndim != 1 or not np.isfinite(t).all():
        raise ValueError(f"times are a list of finite numbers, got {times!r}")
    marks = np.rint(t / step).astype(np.int64)
    if (abs(t - marks * step) > 1e-6 * step).any():
        wrong = t[abs(t - marks * step) > 1e-6 * step][0]
        raise ValueError(
            f"time {wrong:.6g} is not a multiple of the step {step:.6g}; give times at multiples of the "
            f"interval that the step divides, or set interval or step to fit"
        )
    if t.size and (marks[0] < first or (np.diff(marks) < 0).any()):
        raise ValueError(
            f"times must ascend from the present one, {first * step:.6g}; restart() goes back to 0"
        )
    return marks


def stored_shape(grid: WaveGrid, every: int) -> tuple[int, int]:
    cells = grid.vertices - 1
    if every < 1 or cells % every:
        raise ValueError(f"every must divide the {cells} cells a side, got {every}")
    return cells // every + 1, cells // every + 1


def signal_at_steps(problem: WaveProblem, step: float, first: int, last: int) -> NDArray[np.float64]:
    if problem.source is None:
        return np.zeros(last - first + 1)
    return problem.source.signal(step * np.arange(first, last + 1))


_OVERFLOW = (
    "u is not finite at time {time:.6g}: source or initial state are too large for the dtype of the run"
)


def check_finite(out: NDArray) -> None:
    if not np.isfinite(out).all():
        raise FloatingPointError(_OVERFLOW.format(time=math.nan).replace("at time nan", "in the snapshots"))
