"""What the runs of the sets are."""

import numpy as np
import pytest

from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.problem import Medium, PixelMedium, WaveProblem
from consolve.pde.waves.sampling import SETS, SPLITS, DiscMedium, WaveSet, medium_at_vertices


@pytest.mark.parametrize("name", SETS)
def test_a_run_is_a_function_of_its_numbers_alone(name):
    first, again = WaveSet(name, "train", 5).run(7), WaveSet(name, "train", 5).run(7)
    assert first.problem == again.problem and first.start == again.start


@pytest.mark.parametrize("name", SETS)
def test_no_splits_seeds_or_runs_share_a_seed(name):
    seeds = [WaveSet(name, p, s).run(r).seed for p in SPLITS for s in (0, 1) for r in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & {WaveSet(n, "train").run(r).seed for n in SETS if n != name for r in range(20)}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", SETS)
def test_runs_keep_their_ranges_and_fill_them(name, split):
    wave_set = WaveSet(name, split)
    runs = [wave_set.run(r) for r in range(100)]
    for values, (low, high) in (
        ([r.problem.source.frequency for r in runs], wave_set.frequencies),
        ([r.problem.source.x for r in runs], wave_set.places),
        ([r.problem.source.y for r in runs], wave_set.places),
    ):
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert {r.kind for r in runs} == set(wave_set.kinds)
    assert all(dict(r.problem.boundaries.items())["left"] == "absorbing" for r in runs)


def test_unseen_runs_have_what_training_has_not():
    for name in SETS:
        seen, unseen = WaveSet(name), WaveSet(name, "unseen")
        assert unseen.frequencies[0] >= seen.frequencies[1]
    assert WaveSet("propagator", "unseen").kinds == ("wedges",)
    assert "wedges" not in WaveSet("propagator").kinds
    seen, unseen = (WaveSet("zone", p).run(0).problem.medium for p in ("test", "unseen"))
    assert (seen.x, seen.y, seen.radius) != (unseen.x, unseen.y, unseen.radius)


def test_propagator_runs_start_when_the_source_has_ended():
    for r in range(30):
        run = WaveSet("propagator").run(r)
        assert 0 <= run.start - run.problem.source.end < 0.02
        assert run.start / 0.02 == pytest.approx(round(run.start / 0.02), abs=1e-9)


def test_zone_runs_differ_by_their_parameters_alone():
    runs = [WaveSet("zone").run(r) for r in range(50)]
    for run in runs:
        x, y, frequency, inside = run.parameters
        source, medium = run.problem.source, run.problem.medium
        assert (source.x, source.y, source.frequency) == (x, y, frequency) and run.start == pytest.approx(
            0.34
        )
        assert medium == DiscMedium(0.74, 0.74, 0.12, inside, 0.75) and 0.5 <= inside <= 1
    assert len({run.problem.source.amplitude for run in runs}) == 1


def test_a_disc_is_round():
    medium = DiscMedium(0.5, 0.5, 0.25, 1.0)
    h = 1 / 500
    x = (np.arange(500) + 0.5) * h
    speed = medium.speed(x[None], x[:, None])
    assert set(np.unique(speed)) == {0.75, 1.0}
    assert (speed == 1).mean() == pytest.approx(np.pi / 16, rel=1e-3)
    assert not medium.hole(x, x).any() and not medium.fixed(x, x).any()


@pytest.mark.parametrize(("vertices", "every"), [(64, 1), (127, 2), (253, 4), (505, 8)])
def test_grids_that_contain_the_stored_one(vertices, every):
    assert WaveSet("zone").every(vertices) == every


@pytest.mark.parametrize("vertices", [-1, 0, 1, 32, 63, 65, 100, 252, 63 * 200 + 1])
def test_other_grids_are_refused_and_a_usable_one_is_named(vertices):
    with pytest.raises(ValueError, match="the nearest is") as error:
        WaveSet("zone").every(vertices)
    WaveSet("zone").every(int(str(error.value).split()[-1]))


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("zone", "nonsense"), ("zone", "train", -1), ("zone", "train", 2**63)]
)
def test_unknown_sets_are_refused(arguments):
    with pytest.raises(ValueError, match="unknown|seed"):
        WaveSet(*arguments)
    with pytest.raises(ValueError, match="counted from 0"):
        WaveSet("zone").run(-1)


def test_the_speed_at_vertices_is_the_root_mean_square_of_adjacent_cells():
    cells = np.random.default_rng(0).uniform(0.5, 1, (9, 9))
    speed, fixed = medium_at_vertices(WaveGrid.of(WaveProblem(PixelMedium(cells)), 10))
    assert speed.dtype == np.float32 and fixed.dtype == np.uint8 and not fixed.any()
    for j in range(10):
        for i in range(10):
            near = cells[max(j - 1, 0) : j + 1, max(i - 1, 0) : i + 1]
            assert speed[j, i] == pytest.approx(np.sqrt(np.mean(near**2)), rel=1e-6)


@pytest.mark.parametrize("every", [2, 3, 4])
def test_coarser_vertices_take_the_mean_over_a_stored_spacing(every):
    """Against a fine sampling of the square about each vertex."""
    n = 12
    cells = np.random.default_rng(1).uniform(0.5, 1, (n, n))
    speed, _ = medium_at_vertices(WaveGrid.of(WaveProblem(PixelMedium(cells)), n + 1), every)
    fine = np.repeat(np.repeat(cells**2, 2, 0), 2, 1)  # half cells
    for j in range(n // every + 1):
        for i in range(n // every + 1):
            rows, columns = (slice(max(2 * k * every - every, 0), 2 * k * every + every) for k in (j, i))
            assert speed[j, i] == pytest.approx(np.sqrt(fine[rows, columns].mean()), rel=1e-6)


def test_a_constant_medium_keeps_its_speed_and_obstacles_are_fixed_where_u_is_0():
    speed, fixed = medium_at_vertices(WaveGrid.of(WaveProblem(Medium("constant", 1, (0.7, 0.7))), 127), 2)
    assert speed.shape == (64, 64) and np.allclose(speed, 0.7) and not fixed.any()
    grid = WaveGrid.of(WaveProblem(Medium("obstacles", 1)), 127)
    _, fixed = medium_at_vertices(grid, 2)
    assert fixed.any() and np.array_equal(fixed == 0, grid.free[::2, ::2])
