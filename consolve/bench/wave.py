"""Wave surrogates against each other and against finite elements at the same error.

A propagator starts from the last `past` snapshots of the truth that a data set holds, on its 64 x 64
vertices.  Finite elements start, at the same moment, from displacement and velocity of the run that made
the truth, by cubic splines: the best start that they can have.  Of the meshes tried, the
coarsest whose error at the horizon is at most the surrogate's is what the surrogate is timed against.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from consolve.learned.waves.format import WaveWeights
from consolve.learned.waves.propagator_inference import WavePropagator
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import WaveProblem

STEPS = (1, 5, 10, 20, 30)
"""Snapshots after the start at which rollouts are judged."""
MESHES = (64, 73, 85, 97, 109, 118, 127, 136, 145, 157, 169, 181, 190, 205, 217, 235, 253)
"""Vertices along a side of the meshes that finite elements are tried on."""
SCHEMES = ("leap-frog (Numba)", "leap-frog (DOLFINx)", "Newmark (DOLFINx)")


@dataclass(frozen=True)
class Start:
    """A test run at the moment from which it is forecast.

    Attributes
    ----------
    problem
        Medium and boundaries, without source.
    given, truth
        Snapshots (past, y, x) and (steps, y, x) on the grid of the data.
    speed, fixed
        On the grid of the data.
    u, v
        Splines of displacement and velocity of the run that made the truth.
    """

    problem: WaveProblem
    given: NDArray[np.float32]
    truth: NDArray[np.float32]
    speed: NDArray[np.float32]
    fixed: NDArray[np.uint8]
    u: RectBivariateSpline
    v: RectBivariateSpline


def relative_errors(prediction: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """VRMSE ``sqrt(mean((u - truth)^2) / var(truth))`` of each snapshot, (..., time)."""
    error = np.square(np.asarray(prediction, np.float64) - truth).mean((-2, -1))
    return np.sqrt(error / np.var(truth, axis=(-2, -1), dtype=np.float64))


def summary(errors: NDArray[np.float64]) -> dict[str, float]:
    """Mean, median and standard deviation over runs."""
    return {"mean": float(errors.mean()), "median": float(np.median(errors)), "std": float(errors.std())}


def least_ms(work: Callable[[], Any], repetitions: int) -> float:
    """Least wall time of some repetitions, in milliseconds."""
    best = np.inf
    for _ in range(repetitions):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return 1e3 * best


def score_propagator(
    weights: WaveWeights, data: WaveData, runs: int, threads: int = 1, repetitions: int = 15
) -> dict[str, Any]:
    """One row of the table: errors over the first `runs` runs of a test set, and times.

    The one-step error is the mean over starts every fourth snapshot of each run.
    """
    past = weights.settings.past
    horizon = max(STEPS)
    _check_propagator(weights, data, past + horizon)
    engine = WavePropagator(weights, threads)
    one, rolled = [], []
    for run in range(runs):
        u = np.asarray(data.u[run])
        engine.prepare(data.speed[run], data.fixed[run])
        starts = range(0, len(u) - past, 4)
        ones = [engine.rollout(u[s : s + past], 1)[0] for s in starts]
        one.append(relative_errors(np.stack(ones), np.stack([u[s + past] for s in starts])).mean())
        prediction = engine.rollout(u[:past], horizon)
        rolled.append(relative_errors(prediction, u[past : past + horizon]))
    u, at = np.asarray(data.u[0])[:past], np.array(STEPS) - 1
    engine.prepare(data.speed[0], data.fixed[0])
    ms = least_ms(lambda: engine.rollout(u, horizon), repetitions) / horizon
    prepare = least_ms(lambda: engine.prepare(data.speed[0], data.fixed[0]), repetitions)
    table = np.stack(rolled)
    return {
        **_identity(weights),
        "one_step_vrmse": float(np.mean(one)),
        "one_step": summary(np.array(one)),
        "rollout_vrmse": {"steps": list(STEPS), "vrmse": [float(x) for x in table[:, at].mean(0)]},
        "rollout": {str(k): summary(table[:, k - 1]) for k in STEPS},
        "ms_per_step": ms,
        "prepare_ms": prepare,
        "threads": threads,
    }


def _identity(weights: WaveWeights) -> dict[str, Any]:
    """What the table says of a model."""
    return {
        "model": weights.source,
        "network": weights.network,
        "layer": weights.layer,
        "parameters": weights.parameters,
        "convolution_parameters": weights.convolution_parameters,
        "bytes": 4 * weights.parameters,
        "train_s": weights.scores.get("training_seconds"),
        "weights": weights.digest,
    }


def _check_propagator(weights: WaveWeights, data: WaveData, snapshots: int) -> None:
    if weights.network != "propagator" or data.wave_set.name != "propagator":
        raise ValueError(
            f"{weights.source} holds a {weights.network} and {data.path} the {data.wave_set.name} set; "
            "propagators are judged on the propagator set, generators on the zone set"
        )
    if data.u.shape[1] < snapshots:
        raise ValueError(f"{data.path} holds {data.u.shape[1]} snapshots a run, {snapshots} are needed")


def starts(data: WaveData, runs: int, past: int) -> list[Start]:
    """The first runs of a set, solved again up to the moment from which they are forecast."""
    result = []
    horizon, places = max(STEPS), np.linspace(0, 1, data.vertices)
    for run in range(runs):
        problem = data.problem(run)
        fine = LeapFrog(problem, data.vertices, interval=data.interval)
        marks = round((data.start[run] + (past - 1) * data.interval) / fine.step) + np.array([-1, 0, 1])
        before, now, after = fine.run(marks * fine.step)
        u = np.asarray(data.u[run, : past + horizon])
        velocity = (after - before) / (2 * fine.step)
        result.append(
            Start(
                WaveProblem(problem.medium, None, problem.boundaries), u[:past], u[past:],
                data.speed[run], data.fixed[run],
                RectBivariateSpline(places, places, now), RectBivariateSpline(places, places, velocity),
            )
        )  # fmt: skip
    return result


def finite_elements(
    scheme: str, begun: Sequence[Start], vertices: int, interval: float, repetitions: int = 5
) -> dict[str, Any]:
    """Errors and times of a scheme on a mesh, from the starts given."""
    solve = _numba_run if scheme == SCHEMES[0] else _dolfinx_run
    horizon = max(STEPS)
    errors, setups, runs = [], [], []
    for start in begun:
        times = interval * np.arange(1, horizon + 1)
        fields, setup, ms = solve(scheme, start, vertices, times, repetitions)
        errors.append(relative_errors(_on_grid(fields, start.truth.shape[-2:]), start.truth))
        setups.append(setup)
        runs.append(ms / horizon)
    table = np.stack(errors)
    at = np.array(STEPS) - 1
    return {
        "scheme": scheme,
        "vertices": vertices,
        "vrmse": {"steps": list(STEPS), "vrmse": [float(x) for x in table[:, at].mean(0)]},
        "ms_per_step": float(np.min(runs)),
        "setup_ms": float(np.median(setups)),
        "runs": len(begun),
    }


def _on_grid(fields: NDArray, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Snapshots (time, n, n) at the vertices of the data, by cubic splines unless nested."""
    n = fields.shape[-1]
    if (n - 1) % (shape[0] - 1) == 0:
        every = (n - 1) // (shape[0] - 1)
        return fields[:, ::every, ::every]
    places, wanted = np.linspace(0, 1, n), np.linspace(0, 1, shape[0])
    return np.stack([RectBivariateSpline(places, places, field)(wanted, wanted) for field in fields])


def _numba_run(
    scheme: str, start: Start, vertices: int, times: NDArray, repetitions: int
) -> tuple[NDArray, float, float]:
    places = np.linspace(0, 1, vertices)
    begin = time.perf_counter()
    initial = (start.u(places, places), start.v(places, places))
    model = LeapFrog(start.problem, vertices, np.float32, initial=initial)
    setup = 1e3 * (time.perf_counter() - begin)
    best = np.inf
    for _ in range(repetitions):
        model.restart()
        begin = time.perf_counter()
        fields = model.run(times)
        best = min(best, 1e3 * (time.perf_counter() - begin))
    return fields, setup, best


def _dolfinx_run(
    scheme: str, start: Start, vertices: int, times: NDArray, repetitions: int
) -> tuple[NDArray, float, float]:
    from consolve.pde.waves.finite_elements import WaveModel
    from consolve.pde.waves.mesh import unit_square_mesh

    begin = time.perf_counter()
    model = WaveModel(
        start.problem, unit_square_mesh(vertices), scheme="newmark" if "Newmark" in scheme else "leap-frog",
        initial=(lambda x, y: start.u(y, x, grid=False), lambda x, y: start.v(y, x, grid=False)),
    )  # fmt: skip
    setup = 1e3 * (time.perf_counter() - begin)
    fields = model.run(times, vertices)
    steps = round(times[-1] / model.step)
    best = np.inf
    for _ in range(max(1, repetitions // 2)):
        model.restart()
        begin = time.perf_counter()
        model.advance(steps)
        best = min(best, 1e3 * (time.perf_counter() - begin))
    return fields, setup, best


def score_generator(weights: WaveWeights, data: WaveData, runs: int, repetitions: int = 15) -> dict[str, Any]:
    """One row of the table of generators: errors of whole fields over the first `runs` runs, and times."""
    from consolve.learned.waves.generator_inference import WaveGenerator

    if weights.network != "generator" or data.wave_set.name != "zone":
        raise ValueError(
            f"{weights.source} holds a {weights.network} and {data.path} the {data.wave_set.name} set; "
            "propagators are judged on the propagator set, generators on the zone set"
        )
    engine = WaveGenerator(weights)
    errors = field_errors(engine.field(data.parameters[:runs], extrapolate=True), data.u[:runs])
    one = np.asarray(data.parameters[0])
    ms = least_ms(lambda: engine.field(one, extrapolate=True), repetitions)
    row = {"vrmse": summary(errors), "ms_per_field": ms, "ms_per_step": ms / data.u.shape[1]}
    return {**_identity(weights), **row}


def field_errors(prediction: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """VRMSE of whole fields (run, time, y, x) over time, y and x, (run,)."""
    error = np.square(np.asarray(prediction, np.float64) - truth).mean((1, 2, 3))
    return np.sqrt(error / np.var(truth, axis=(1, 2, 3), dtype=np.float64))


def whole_runs(data: WaveData, runs: int, vertices: int, repetitions: int = 3) -> dict[str, Any]:
    """Error on the zone, and time, of leap-frog on the whole domain from the beginning, for generators."""
    errors, best = [], []
    for run in range(runs):
        problem = data.problem(run)
        model = LeapFrog(problem, vertices, np.float32, interval=data.interval)
        times, every = data.start[run] + np.asarray(data.time), (vertices - 1) // 63
        fields = model.run(times, every)[:, -data.u.shape[2] :, -data.u.shape[3] :]
        errors.append(field_errors(fields[None], data.u[run][None])[0])

        def again(model: LeapFrog = model, times: NDArray = times, every: int = every) -> None:
            model.restart()
            model.run(times, every)

        best.append(least_ms(again, repetitions))
    return {
        "scheme": SCHEMES[0],
        "vertices": vertices,
        "vrmse": summary(np.array(errors)),
        "ms_per_field": min(best),
    }


def matched(
    scheme: str, begun: Sequence[Start], interval: float, error: float, at: int = 30
) -> dict[str, Any] | None:
    """The coarsest of `MESHES` on which the scheme's error after `at` snapshots is at most `error`.

    The finest where none is, with ``"matched": False``; None where DOLFINx is not installed.
    """
    rows: dict[int, dict[str, Any]] = {}

    def reaches(index: int) -> bool:
        rows[index] = finite_elements(scheme, begun, MESHES[index], interval)
        return rows[index]["vrmse"]["vrmse"][STEPS.index(at)] <= error

    try:
        index = bisect_left(range(len(MESHES) - 1), True, key=reaches)
    except ImportError:
        return None
    reached = rows[index]["vrmse"]["vrmse"][STEPS.index(at)] <= error if index in rows else reaches(index)
    return {**rows[index], "matched": bool(reached)}
