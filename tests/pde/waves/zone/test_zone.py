"""The structured submodel of a zone: exact data, wrong data, waves that leave, stability, bad input."""

import math

import numpy as np
import pytest

from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import Boundaries, Medium, PixelMedium, Source, WaveProblem, vrmse
from consolve.pde.waves.zone.data import ZoneField
from consolve.pde.waves.zone.fit import InflowFit
from consolve.pde.waves.zone.leapfrog import NumbaSubmodel
from consolve.pde.waves.zone.zone import Zone, ZoneGrid, arrival_times

WAYS = ("fit", "layer", "impedance", "dirichlet", "relax")
ZONE = Zone()
CONSTANT = PixelMedium([[0.75]])
RNG = np.random.default_rng(7)


def disc(speed: float) -> PixelMedium:
    """A disc of another speed in the zone, as cells of the 126 x 126 grid."""
    at = (np.arange(126) + 0.5) / 126
    return PixelMedium(np.where((at - 0.76) ** 2 + (at[:, None] - 0.76) ** 2 < 0.1**2, speed, 0.75))


def whole_square(problem: WaveProblem, zone: Zone, times: np.ndarray, refinement: int = 2) -> np.ndarray:
    """The field at the samples of a zone, from a run of the whole square on the same mesh."""
    n = (zone.vertices - 1) * refinement + 1
    u = LeapFrog(problem, n, interval=times[1] - times[0]).run(times, every=refinement)
    return u[:, zone.bottom : zone.top + 1, zone.left : zone.right + 1]


SOURCE = Source(0.3, 0.24, 5.0, amplitude=10.0)
TIMES = 0.34 + 0.02 * np.arange(50)
PROBLEM = WaveProblem(disc(0.5), SOURCE)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return whole_square(PROBLEM, ZONE, TIMES)


def test_a_zone_is_found_from_its_corners_and_its_samples():
    zone = Zone.of((32 / 63, 32 / 63, 1.0, 1.0), (32, 32))
    assert zone == ZONE and zone.shape == (32, 32) and zone.inner == ("left", "bottom")
    assert zone.x[0] == 32 / 63 and zone.x[-1] == 1
    inner = Zone.of((0.25, 0.5, 0.75, 0.75), (9, 17))
    assert inner.inner == ("left", "right", "bottom", "top") and inner.vertices == 33
    x, y = np.array([0.25 + 2 / 32]), np.array([0.75 - 1 / 32])
    depth = {side: float(d[0]) for side, d in inner.depth(x, y).items()}
    assert depth == pytest.approx({"left": 2, "right": 14, "bottom": 7, "top": 1})


def test_the_system_of_a_zone_is_that_of_the_square():
    problem = WaveProblem(Medium("layered", 3), None, Boundaries(top="free"))
    zone = Zone(10, 20, 40, 63)
    grid, whole = ZoneGrid.of(problem, zone, 2), WaveGrid.of(problem, 127)
    system = grid.system
    rows, columns = slice(40, 127), slice(20, 81)
    u = RNG.normal(size=(3, 127, 127))
    product = system.stiffness(u[:, rows, columns].reshape(3, -1)).reshape(3, *grid.shape)
    expected = whole.stiffness_product(u)[:, rows, columns]
    assert abs(product - expected)[:, 1:, 1:-1].max() < 1e-12 * abs(expected).max()
    assert system.mass.sum() == pytest.approx((zone.x[-1] - zone.x[0]) * (zone.y[-1] - zone.y[0]))
    assert system.damping.sum() == 0  # the only side on the square's rim is free
    speed = whole.speed[40:126, 20]
    assert system.absorbing["left"].sum() == pytest.approx((speed / 126).sum())
    assert system.flux["left"].sum() == pytest.approx((speed**2 / 126).sum())
    assert set(system.absorbing) == {"left", "right", "bottom"}


@pytest.mark.parametrize("zone", [ZONE, Zone(8, 12, 30, 40), Zone(0, 30, 40, 63)])
def test_the_run_backwards_is_the_transpose_of_the_run(zone):
    fixed, hole = np.zeros((63, 63), bool), np.zeros((63, 63), bool)
    fixed[36:39, 20:24], hole[36:39, 15:18] = True, True
    medium = PixelMedium(RNG.uniform(0.5, 1, (63, 63)), fixed, hole)
    problem = WaveProblem(medium, None, Boundaries(right="free", top="fixed"))
    data = ZoneField(zone, 0.02 * np.arange(8), RNG.normal(size=(8, *zone.shape)))
    fit = InflowFit(problem, data, ZoneGrid.of(problem, zone, 2), RNG.random(zone.shape) < 0.3)
    x, r = RNG.normal(size=fit.controls), RNG.normal(size=data.values.shape)
    assert np.sum(fit.forward(x) * r) == pytest.approx(x @ fit.backward(r), rel=1e-11)


@pytest.mark.parametrize(
    ("way", "bound"),
    [("dirichlet", 1e-3), ("layer", 1e-3), ("relax", 0.01), ("impedance", 0.015), ("fit", 0.03)],
)
def test_exact_data_give_the_run_of_the_whole_square(truth, way, bound):
    u = NumbaSubmodel(PROBLEM, ZONE, TIMES, truth, way, refinement=2).run()
    assert 0 < vrmse(u, truth) < bound


@pytest.mark.parametrize("way", ["layer", "dirichlet", "relax", "impedance"])
def test_a_plane_wave_crosses_a_zone_with_an_error_of_second_order(way):
    zone, times = Zone(6, 5, 27, 24, 33), 0.025 * np.arange(33)
    angle, c = 0.6, 1.0

    def wave(x, y, t):
        s = (x - 0.05) * math.cos(angle) + (y - 0.05) * math.sin(angle) - c * t
        return np.exp(-((s / 0.16) ** 2))

    x, y = np.meshgrid(zone.x, zone.y)
    exact = wave(x, y, times[:, None, None])
    problem = WaveProblem(PixelMedium([[c]]))
    error = [
        float(vrmse(NumbaSubmodel(problem, zone, times, exact, way, refinement=r).run(), exact))
        for r in (1, 2, 4)
    ]
    assert error[2] < 2e-3
    assert error[0] / error[1] > 3.4 and error[1] / error[2] > 3.0


@pytest.mark.parametrize("way", WAYS)
def test_what_the_zone_scatters_is_computed_whatever_the_data_say(truth, way):
    wrong = whole_square(WaveProblem(disc(0.6), SOURCE), ZONE, TIMES)
    u = NumbaSubmodel(PROBLEM, ZONE, TIMES, wrong, way, refinement=2).run()
    before = vrmse(wrong, truth)
    assert before > 0.1
    assert vrmse(u, truth) < before / (3 if way == "fit" else 8)


def test_a_fit_leaves_noise_out(truth):
    noisy = truth + 0.1 * truth.std() * RNG.normal(size=truth.shape)
    error = {
        way: float(vrmse(NumbaSubmodel(PROBLEM, ZONE, TIMES, noisy, way, refinement=2).run(), truth))
        for way in ("fit", "layer")
    }
    assert error["fit"] < 0.045
    assert error["fit"] < error["layer"] < 0.1


def test_nothing_is_taken_from_the_data_before_a_wave_can_arrive():
    quiet = WaveProblem(CONSTANT, Source(0.1, 0.1, 5.0))
    times = 0.02 * np.arange(16)  # it takes 0.7 to the zone
    noise = RNG.normal(size=(16, *ZONE.shape))
    assert not NumbaSubmodel(quiet, ZONE, times, noise, "layer", refinement=1).run().any()
    assert (
        abs(NumbaSubmodel(quiet, ZONE, times, noise, "layer", refinement=1, causal=False).run()).max() > 0.1
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_no_wave_is_earlier_than_the_arrival_times(seed):
    problem = WaveProblem(Medium("smooth", seed, speeds=(0.5, 1.0)), Source(0.3, 0.3, 6.0))
    arrival = arrival_times(problem, ZONE)
    times = 0.02 * np.arange(45)
    u = whole_square(problem, ZONE, times, refinement=4)
    early = times[:, None, None] < arrival
    assert early.any() and not early.all()
    assert abs(u[early]).max() < 5e-3 * abs(u).max()
    reached = np.argmax(abs(u) > 0.05 * abs(u).max(), axis=0)
    late = times[reached] - arrival
    assert np.median(late[reached > 0]) < 0.25  # a bound, and not an idle one


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_starts_among_waves_takes_its_state_from_the_data(way):
    problem = WaveProblem(CONSTANT, Source(0.45, 0.45, 5.0))
    times = 0.44 + 0.02 * np.arange(20)
    exact = whole_square(problem, ZONE, times)
    assert abs(exact[0]).max() > 0.3 * abs(exact).max()
    u = NumbaSubmodel(problem, ZONE, times, exact, way, refinement=2).run()
    rest = NumbaSubmodel(problem, ZONE, times, exact, way, refinement=2, initial="rest").run()
    assert vrmse(u, exact) < 0.05
    assert vrmse(rest, exact) > 3 * vrmse(u, exact)


@pytest.mark.parametrize(("way", "bound"), [("layer", 0.15), ("impedance", 0.15), ("relax", 0.25)])
def test_waves_of_a_source_in_the_zone_leave_through_the_inner_sides(way, bound):
    zone, times = Zone(16, 16, 47, 47), 0.02 * np.arange(60)
    problem = WaveProblem(CONSTANT, Source(0.52, 0.48, 5.0, amplitude=10.0))
    truth = whole_square(problem, zone, times)
    unaware = np.zeros_like(truth)
    u = NumbaSubmodel(problem, zone, times, unaware, way, refinement=2).run()
    trapped = NumbaSubmodel(problem, zone, times, unaware, "dirichlet", refinement=2).run()
    middle = np.s_[:, 8:-8, 8:-8]
    assert vrmse(u[middle], truth[middle]) < bound
    assert vrmse(trapped[middle], truth[middle]) > 0.5


@pytest.mark.parametrize(("way", "bound"), [("fit", 0.03), ("layer", 0.01), ("dirichlet", 0.01)])
def test_a_source_in_the_zone_acts_beside_exact_data(way, bound):
    problem = WaveProblem(disc(0.6), Source(0.62, 0.8, 5.0, amplitude=10.0))
    times = 0.02 * np.arange(40)
    truth = whole_square(problem, ZONE, times)
    assert vrmse(NumbaSubmodel(problem, ZONE, times, truth, way, refinement=2).run(), truth) < bound


@pytest.mark.parametrize("way", ["layer", "impedance", "dirichlet", "relax"])
def test_thousands_of_steps_stay_bounded(way):
    times = 0.02 * np.arange(500)
    noise = np.zeros((500, *ZONE.shape))
    noise[:30] = RNG.normal(size=(30, *ZONE.shape))
    problem = WaveProblem(Medium("layered", 2, speeds=(1.0, 2.0)))
    model = NumbaSubmodel(problem, ZONE, times, noise, way, refinement=2)
    energy = []
    for last in (60, 200, 499):
        u = model.run(times[[last]])
        energy.append(model.energy())
    assert round(times[-1] / model.step) > 3000
    assert np.isfinite(u).all()
    assert energy[0] > 0 and energy[2] <= energy[1] * (1 + 1e-9) <= energy[0] * (1 + 1e-9)


def test_fixed_cells_and_holes_in_the_zone_scatter():
    fixed, hole = np.zeros((63, 63), bool), np.zeros((63, 63), bool)
    fixed[44:49, 46:50], hole[50:55, 44:48] = True, True
    problem = WaveProblem(PixelMedium(np.full((63, 63), 0.75), fixed, hole), SOURCE)
    truth, empty = (whole_square(p, ZONE, TIMES) for p in (problem, WaveProblem(CONSTANT, SOURCE)))
    u = NumbaSubmodel(problem, ZONE, TIMES, empty, "layer", refinement=2).run()
    assert vrmse(empty, truth) > 0.2
    assert vrmse(u, truth) < 0.1 * vrmse(empty, truth)
    assert not u[:, 44 - 32 : 50 - 32, 46 - 32 : 51 - 32].any()


def test_times_between_those_of_the_data_are_answered(truth):
    model = NumbaSubmodel(PROBLEM, ZONE, TIMES, truth, "layer", refinement=2)
    between = TIMES[[4, 8]] + [0.0, 3 * model.step]
    n = 127
    run = LeapFrog(PROBLEM, n, step=model.step)
    exact = run.run(between, every=2)[:, 32:, 32:]
    assert vrmse(model.run(between), exact) < 2e-3
    assert np.array_equal(model.run(between), model.run(between))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field": np.zeros((50, 32, 31))}, "50 times and the zone's 32 x 32 samples"),
        ({"times": TIMES[:-1]}, "need .49, 32, 32."),
        ({"times": TIMES**2}, "equal distances"),
        ({"times": 0.34 + 0.06 * np.arange(50)}, "too coarse in time"),
        ({"field": np.full((50, 32, 32), np.nan)}, "not finite at time 0.34"),
        ({"zone": (0.51, 0.51, 1.0, 1.0)}, "does not align"),
        ({"zone": (0.0, 0.5, 1.0, 1.0)}, "does not align"),
        ({"zone": (0.5, 0.5)}, "x0, y0, x1, y1"),
        ({"boundary": "sommerfeld"}, "known: fit, layer"),
        ({"boundary": "layer", "width": 40}, "does not fit a zone of 32 x 32"),
        ({"boundary": "layer", "width": 0.5}, "at least 1 spacing"),
        ({"initial": "moving"}, "known: auto"),
        ({"refinement": 0}, "whole number from 1"),
        ({"refinement": 1.5}, "whole number from 1"),
        ({"rate": -1.0}, "positive and finite"),
        ({"iterations": 0}, "at least 1 iteration"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"zone": ZONE, "times": TIMES, "field": np.zeros((50, 32, 32)), "boundary": "layer"}
    with pytest.raises(ValueError, match=message):
        NumbaSubmodel(PROBLEM, **(arguments | change))


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((40, 32, 20, 63, 64), "rectangle of vertices from 0 to 63"),
        ((32, 32, 64, 63, 64), "rectangle of vertices"),
        ((32, 32, 36, 63, 64), "at least 8 vertices"),
        ((0, 0, 63, 63, 64), "whole square"),
    ],
)
def test_zones_that_are_none_are_refused(corners, message):
    with pytest.raises(ValueError, match=message):
        Zone(*corners)


def test_times_outside_the_data_and_between_steps_are_refused(truth):
    model = NumbaSubmodel(PROBLEM, ZONE, TIMES, truth, "dirichlet", refinement=1)
    with pytest.raises(ValueError, match="data from 0.34 to 1.32"):
        model.run([0.32])
    with pytest.raises(ValueError, match="data from 0.34 to 1.32"):
        model.run([1.4])
    with pytest.raises(ValueError, match="multiple of the step"):
        model.run([0.34 + 0.3 * model.step])
    with pytest.raises(ValueError, match="ascending"):
        model.run([0.5, 0.4])
