"""Leap-frog runs against exact solutions of the discrete and of the continuous wave equation."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import j0

from consolve.pde.waves.batch import run_many
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import (
    ALL_MEDIA,
    Boundaries,
    Medium,
    PixelMedium,
    Source,
    WaveProblem,
    sample_source,
    vrmse,
)

UNIT = PixelMedium([[1.0]])
FIXED, FREE = Boundaries.all("fixed"), Boundaries.all("free")


def mesh_grid(n):
    x = np.linspace(0, 1, n)
    return x[None, :] + 0 * x[:, None], x[:, None] + 0 * x[None, :]


def sine_mode(n):
    x, y = mesh_grid(n)
    return np.sin(np.pi * x) * np.sin(2 * np.pi * y)


def mode_of_free_sides(n):
    x, y = mesh_grid(n)
    return np.cos(np.pi * x) * np.cos(2 * np.pi * y)


def test_a_standing_wave_is_the_exact_solution_of_the_discrete_equations():
    n, speed = 20, 1.3
    h, mode = 1 / (n - 1), sine_mode(n)
    problem = WaveProblem(PixelMedium([[speed]]), None, FIXED)
    run = LeapFrog(problem, n, initial=(mode, 0 * mode))
    eigenvalue = 4 * (speed / h) ** 2 * (np.sin(np.pi * h / 2) ** 2 + np.sin(np.pi * h) ** 2)
    turn = np.arccos(1 - run.step**2 * eigenvalue / 2)
    steps = np.array([0, 1, 2, 50, 301])
    expected = np.cos(steps * turn)[:, None, None] * mode
    assert abs(run.run(steps * run.step) - expected).max() < 1e-11


@pytest.mark.parametrize("sides, mode", [(FIXED, sine_mode), (FREE, mode_of_free_sides)])
def test_standing_waves_converge_with_order_two_in_h(sides, mode):
    errors = []
    for n in (17, 33, 65):
        u = mode(n)
        step = 0.5 / 256  # far below the stable steps: the error is that of space
        run = LeapFrog(WaveProblem(UNIT, None, sides), n, step=step, initial=(u, 0 * u))
        exact = np.cos(np.pi * np.sqrt(5) * 0.5) * u
        errors.append(np.sqrt(np.mean((run.run([0.5])[0] - exact) ** 2)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.9).all() and (orders < 2.15).all()


def test_standing_waves_converge_with_order_two_in_dt():
    n, errors = 17, []
    h, mode = 1 / 16, sine_mode(17)
    frequency = 2 / h * np.sqrt(np.sin(np.pi * h / 2) ** 2 + np.sin(np.pi * h) ** 2)
    for step in (0.04, 0.02, 0.01):
        # u_t = frequency * mode at t = 0: the start with a velocity is of order two as well
        run = LeapFrog(WaveProblem(UNIT, None, FIXED), n, step=step, initial=(mode, frequency * mode))
        exact = (np.cos(frequency * 0.8) + np.sin(frequency * 0.8)) * mode
        errors.append(abs(run.run([0.8])[0] - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.9).all() and (orders < 2.15).all()


def pulse(x):
    return np.exp(-(((x - 0.4) / 0.07) ** 2))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("speed", [1.0, 1.7])
def test_a_plane_pulse_travels_as_dalembert_says_and_leaves_through_an_absorbing_side(speed, turned):
    n = 257
    x, _ = mesh_grid(n)
    u, v = pulse(x), speed * 2 * (x - 0.4) / 0.07**2 * pulse(x)  # u(x - c t): to the right
    sides = Boundaries(bottom="free", top="free")
    if turned:  # the same along y, downwards
        x, u, v, sides = x.T[::-1], u.T[::-1], v.T[::-1], Boundaries(left="free", right="free")
    step = 0.64 / speed / (n - 1)
    run = LeapFrog(WaveProblem(PixelMedium([[speed]]), None, sides), n, step=step, initial=(u, v))
    middle, gone = run.run(step * np.array([round(0.3 / speed / step), round(1.2 / speed / step)]))
    travelled = speed * step * round(0.3 / speed / step)
    assert vrmse(middle, pulse(x - travelled)) < 0.004
    assert abs(gone).max() < 0.002
    assert run.energy() < 1e-5 * run.lost


def test_a_fixed_side_turns_a_pulse_over_and_a_free_one_does_not():
    n = 129
    x, _ = mesh_grid(n)
    u, v = pulse(x), 2 * (x - 0.4) / 0.07**2 * pulse(x)
    for right, sign in (("fixed", -1), ("free", 1)):
        sides = Boundaries(right=right, bottom="free", top="free")
        run = LeapFrog(WaveProblem(UNIT, None, sides), n, step=0.005, initial=(u, v))
        back = run.run([1.0])[0]  # 0.6 to the side and 0.4 back: at 0.6
        assert vrmse(back, sign * pulse(1.0 - x)) < 0.03


def green(source, distance, time, speed=1.0):
    """u of a source in free space: each mode k of the Gaussian is an oscillator driven by the signal.

    u = 1 / (2 pi) int_0^inf J0(k r) exp(-k² radius² / 2) int_0^t s(tau) sin(c k (t - tau)) / c dtau dk
    """
    k = np.linspace(0, 7 / source.radius, 1200)
    tau = np.linspace(0, time, 1500)
    swing = np.sin(speed * k[:, None] * (time - tau)) / speed
    driven = trapezoid(swing * source.signal(tau), tau, axis=1) * np.exp(-((k * source.radius) ** 2) / 2)
    return trapezoid(j0(k * distance[:, None]) * driven, k, axis=1) / (2 * np.pi)


@pytest.mark.parametrize("kind, time", [("ricker", 0.6), ("sine", 0.5)])
def test_a_point_source_makes_the_wave_of_greens_function_with_order_two(kind, time):
    source = Source(0.5, 0.5, 4.0, kind=kind)
    errors = []
    for n in (65, 129, 257):
        u = LeapFrog(WaveProblem(UNIT, source), n).run([time])[0]
        x = np.linspace(0, 1, n)
        near = abs(x - 0.5) < 0.2  # the sides are heard later
        exact = green(source, abs(x[near] - 0.5), time)
        along, down = u[n // 2, near], np.diagonal(u)[near]
        oblique = green(source, np.sqrt(2) * abs(x[near] - 0.5), time)
        errors.append(max(vrmse(along, exact), vrmse(down, oblique)))
    assert errors[-1] < 0.006
    assert errors[0] / errors[1] > 3.5 and errors[1] / errors[2] > 3.5


def twin(problem, grid, step, steps, u, v):
    """The leap-frog written with whole arrays."""
    source, x = problem.source, grid.places
    f = source.profile(x[None, :], x[:, None]) * grid.free
    inverse = grid.inverse_mass()
    u, v = u * grid.free, v * grid.free
    acceleration = source.signal(0) * f - inverse * (grid.stiffness_product(u) + grid.damping * v)
    old = u - step * v + step**2 / 2 * acceleration
    left, right = (
        grid.mass / step**2 + grid.damping / (2 * step),
        grid.mass / step**2 - grid.damping / (2 * step),
    )
    for k in range(steps):
        rhs = 2 * grid.mass / step**2 * u - right * old - grid.stiffness_product(u)
        rhs += source.signal(k * step) * grid.mass * f
        old, u = u, np.where(grid.free, rhs / np.where(grid.free, left, 1), 0)
    return u


@pytest.mark.parametrize("kind", ALL_MEDIA)
@pytest.mark.parametrize("n", [22, 34, 35])  # 34: rows of a whole number of vectors
def test_the_kernel_is_the_leap_frog_written_with_whole_arrays(kind, n):
    medium = Medium(kind, 3)
    source = sample_source(1, medium)
    source = Source(source.x, source.y, 5.0, radius=0.08)  # its window is cut by the sides
    problem = WaveProblem(medium, source, Boundaries("absorbing", "fixed", "free", "absorbing"))
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, n, n))
    run = LeapFrog(problem, n, initial=(u, v))
    found = run.run([33 * run.step])[0]
    assert abs(found - twin(problem, run.grid, run.step, 33, u, v)).max() < 1e-11 * abs(u).max()


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_energy_changes_by_the_work_of_the_source_and_the_loss_at_the_sides(kind):
    medium = Medium(kind, 1)
    source = sample_source(0, medium)
    x, y = mesh_grid(64)
    initial = np.sin(7 * x * y), np.cos(5 * x - y)
    run = LeapFrog(WaveProblem(medium, source, Boundaries(left="free")), 64, initial=initial)
    start = run.energy()
    for time in (0.02, 0.3, 1.0):
        run.run([time])
        assert abs(run.energy() + run.lost - run.work - start) < 1e-11 * start
    assert run.work > 0 and run.lost > 0
    energies = []
    for time in (1.2, 1.4, 1.6, 2.0):  # the source has ended: only the sides are at work
        work = run.work
        run.run([time])
        assert run.work == work
        energies.append(run.energy())
    assert (np.diff(energies) < 0).all()


def test_a_source_on_an_absorbing_side_keeps_the_balance():
    run = LeapFrog(WaveProblem(UNIT, Source(0.0, 0.01, 4.0)), 40)
    run.run([1.0])
    assert abs(run.energy() + run.lost - run.work) < 1e-11 * run.work


@pytest.mark.parametrize("sides", [FIXED, FREE])
@pytest.mark.parametrize("kind", ["smooth", "obstacles", "holes"])
def test_energy_is_conserved_without_source_and_absorbing_sides(kind, sides):
    u, v = np.random.default_rng(1).normal(size=(2, 64, 64))
    run = LeapFrog(WaveProblem(Medium(kind, 0), None, sides), 64, initial=(u, v))
    start = run.energy()
    run.run([1.0])
    assert abs(run.energy() / start - 1) < 1e-12 and run.lost == 0 and run.work == 0


def test_runs_go_on_and_start_again():
    medium = Medium("inclusions", 0)
    problem = WaveProblem(medium, sample_source(0, medium))
    run, times = LeapFrog(problem, 64), 0.02 * np.arange(30)
    whole = run.run(times)
    assert run.time == pytest.approx(0.58)
    assert np.array_equal(run.displacement, whole[-1])
    run.restart()
    assert run.time == 0 and not run.displacement.any()
    parts = [run.run(times[:7]), run.run(times[7:8]), run.run(times[8:])]
    assert np.array_equal(np.concatenate(parts), whole)
    run.restart()
    assert np.array_equal(run.run(times, every=9), whole[:, ::9, ::9])


def test_single_precision_follows_double_precision():
    medium = Medium("smooth", 0)
    problem = WaveProblem(medium, sample_source(0, medium))
    double, single = LeapFrog(problem, 127).run([1.0]), LeapFrog(problem, 127, np.float32).run([1.0])
    assert single.dtype == np.float32 and vrmse(single, double) < 2e-5


def test_many_runs_are_the_runs_one_by_one():
    media = [Medium(kind, 0) for kind in ALL_MEDIA]
    problems = [WaveProblem(m, sample_source(s, m)) for m in media for s in range(2)]
    problems += [WaveProblem(media[0], sample_source(0, media[0]), FIXED)]
    problems += [WaveProblem(media[1], Source(0.5, 0.5, 4.0, radius=0.05))]
    times = 0.02 * np.arange(0, 20, 3)
    many = run_many(problems, 64, times, np.float32, every=3, threads=1)
    for found, problem in zip(many, problems):
        assert np.array_equal(found, LeapFrog(problem, 64, np.float32).run(times, every=3))
    assert run_many([], 64, times).shape[0] == 0


def test_a_fault_of_one_of_many_runs_names_the_run():
    hole = np.zeros((9, 9), bool)
    hole[4, 4] = True
    good = WaveProblem(UNIT, Source(1 / 3, 1 / 3, 4.0))
    bad = WaveProblem(PixelMedium(np.ones((9, 9)), hole=hole), Source(0.6, 0.6, 3.0))
    with pytest.raises(ValueError, match="run 1: on 4 x 4 vertices the source"):
        run_many([good, bad], 4, [0.02])
    with pytest.raises(FloatingPointError, match="run 1: u is not finite"):
        loud = WaveProblem(UNIT, Source(0.5, 0.5, 4.0, amplitude=1e39))
        run_many([WaveProblem(UNIT), loud], 32, [0.4], np.float32)


def test_an_unstable_step_is_refused_with_the_stable_one():
    stable = LeapFrog(WaveProblem(UNIT), 64).stable_step()
    for step in (1.0001 * stable, 0.0, -0.01, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"not stable: it must be positive and below {stable:.6g}"):
            LeapFrog(WaveProblem(UNIT), 64, step=step)
    assert LeapFrog(WaveProblem(UNIT), 64).step <= 0.98 * stable


def test_overflow_is_an_error_and_never_an_answer():
    run = LeapFrog(WaveProblem(UNIT, Source(0.5, 0.5, 4.0, amplitude=1e39)), 32, np.float32)
    with pytest.raises(FloatingPointError, match=r"not finite.*too large for the dtype"):
        run.run([0.4])


@pytest.mark.parametrize(
    "use, words",
    [
        (lambda run: run.run([0.0213]), r"time 0.0213 is not a multiple of the step"),
        (lambda run: run.run([0.04, 0.02]), "ascend"),
        (lambda run: (run.run([0.1]), run.run([0.02])), "restart"),
        (lambda run: run.run([np.nan]), "finite"),
        (lambda run: run.run([0.02], every=2), "every must divide the 63 cells"),
        (lambda run: run.run([0.02], every=0), "every must divide"),
        (lambda run: LeapFrog(run.problem, 64, np.int32), "float64 or float32"),
        (lambda run: LeapFrog(run.problem, 64, interval=0.0), "interval"),
        (lambda run: LeapFrog(run.problem, 64, initial=(np.zeros((3, 3)), np.zeros((3, 3)))), "64 x 64"),
        (lambda run: LeapFrog(run.problem, 3, initial=(np.full((3, 3), np.nan),) * 2), "finite"),
        (lambda run: LeapFrog(WaveProblem(UNIT, Source(0.45, 0.55, 4.0, radius=1e-3)), 9), "falls between"),
        (lambda run: run_many([run.problem], 64, [0.02], threads=0), "at least one thread"),
        (lambda run: LeapFrog(WaveProblem(PixelMedium([[1.0]], fixed=[[True]])), 9), "no unknown"),
    ],
)
def test_bad_input_is_refused(use, words):
    with pytest.raises(ValueError, match=words):
        use(LeapFrog(WaveProblem(UNIT), 64))
