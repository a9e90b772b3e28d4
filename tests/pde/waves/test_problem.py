"""Media, sources and sides of wave problems: reproducible, in range, refused where they make no sense."""

import math
import pickle

import numpy as np
import pytest

from consolve.pde.waves.problem import (
    ALL_MEDIA,
    MEDIA,
    UNSEEN_MEDIA,
    Boundaries,
    Medium,
    PixelMedium,
    Source,
    WaveProblem,
    sample_source,
    vrmse,
)


def centres(cells):
    x = (np.arange(cells) + 0.5) / cells
    return x[None, :], x[:, None]


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_a_medium_is_a_function_of_its_kind_and_seed(kind):
    x, y = centres(63)
    speeds = [Medium(kind, seed).speed(x, y) for seed in (4, 4, 5)]
    assert np.array_equal(speeds[0], speeds[1])
    assert not np.array_equal(speeds[0], speeds[2])
    copy = pickle.loads(pickle.dumps(Medium(kind, 4)))
    assert copy == Medium(kind, 4) and np.array_equal(copy.speed(x, y), speeds[0])


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_speeds_are_in_range_and_scattered_points_see_what_a_grid_sees(kind):
    x, y = centres(63)
    for seed in range(5):
        medium = Medium(kind, seed, (1.5, 3.0))
        grid = medium.speed(x, y)
        assert grid.shape == (63, 63) and grid.min() >= 1.5 and grid.max() <= 3.0
        scattered = medium.speed(*(a.reshape(-1) for a in np.broadcast_arrays(x, y)))
        assert np.allclose(scattered, grid.reshape(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [k for k in ALL_MEDIA if k != "constant"])
def test_media_are_not_constant(kind):
    x, y = centres(63)
    assert all(np.ptp(Medium(kind, seed).speed(x, y)) > 0.02 for seed in range(5))


def test_no_two_kinds_share_their_draws_and_unseen_ones_are_no_training_media():
    x, y = centres(63)
    images = [Medium(kind, 3).speed(x, y) for kind in ALL_MEDIA]
    for k, image in enumerate(images):
        assert not any(np.array_equal(image, other) for other in images[:k])
    assert not set(MEDIA) & set(UNSEEN_MEDIA)


@pytest.mark.parametrize("kind", ["obstacles", "holes"])
def test_obstacles_and_holes_are_the_same_set_on_every_grid_of_a_multiple_of_63_cells(kind):
    for seed in range(8):
        medium = Medium(kind, seed)
        where, other = (medium.fixed, medium.hole) if kind == "obstacles" else (medium.hole, medium.fixed)
        coarse = where(*centres(63))
        assert 5 < coarse.sum() < 63 * 63 / 2 and not other(*centres(63)).any()
        for factor in (2, 4, 8):
            fine = where(*centres(63 * factor))
            assert np.array_equal(fine, np.kron(coarse, np.ones((factor, factor), bool)))


def test_the_smooth_medium_uses_all_speeds_equally():
    x, y = centres(40)
    speeds = np.concatenate([Medium("smooth", seed).speed(x, y).reshape(-1) for seed in range(60)])
    shares = np.histogram(speeds, bins=5, range=(0.5, 1))[0] / speeds.size
    assert abs(shares - 0.2).max() < 0.05


def test_a_pixel_medium_is_constant_on_its_cells():
    medium = PixelMedium([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], hole=[[0, 0, 1], [0, 0, 0]])
    assert medium.speed([0.0, 0.34, 1.0], [0.0, 0.49, 1.0]).tolist() == [1.0, 2.0, 6.0]
    assert medium.hole([0.9, 0.9], [0.1, 0.9]).tolist() == [True, False]
    assert not medium.fixed(*centres(5)).any()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Medium("marble"), "unknown medium 'marble'; known: constant"),
        (lambda: Medium("smooth", -1), "whole number from 0 on, got -1"),
        (lambda: Medium("smooth", 0, (2.0, 1.0)), "in order"),
        (lambda: Medium("smooth", 0, (0.0, 1.0)), "positive"),
        (lambda: PixelMedium([1.0, 2.0]), "shape"),
        (lambda: PixelMedium([[1.0, np.nan]]), "finite"),
        (lambda: PixelMedium([[1.0, 1.0]], hole=[[True]]), "hole has shape"),
        (lambda: Boundaries(left="open"), "unknown condition 'open' on the left side"),
        (lambda: Source(0.5, 0.5, -3.0), "positive"),
        (lambda: Source(0.5, 0.5, 3.0, radius=0.0), "positive"),
        (lambda: Source(0.5, 0.5, 3.0, amplitude=math.nan), "amplitude of a source must be finite"),
        (lambda: Source(0.5, 0.5, 3.0, kind="square"), "unknown signal 'square'"),
        (lambda: sample_source(0, Medium("constant", 0), (5.0, 3.0)), "range of frequency"),
        (lambda: sample_source(0, PixelMedium([[1.0]], fixed=[[True]])), "no room for a source"),
    ],
)
def test_bad_descriptions_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("x, y", [(1.2, 0.5), (0.5, -0.01), (math.inf, 0.5)])
def test_a_source_outside_the_square_is_refused(x, y):
    with pytest.raises(ValueError, match=r"outside the unit square|finite"):
        WaveProblem(Medium("constant", 0), Source(x, y, 4.0))


def test_a_source_in_a_hole_or_a_fixed_cell_is_refused():
    speed, mask = np.ones((2, 2)), np.array([[True, False], [False, False]])
    with pytest.raises(ValueError, match="in a hole"):
        WaveProblem(PixelMedium(speed, hole=mask), Source(0.2, 0.2, 4.0))
    with pytest.raises(ValueError, match="in a fixed cell"):
        WaveProblem(PixelMedium(speed, fixed=mask), Source(0.2, 0.2, 4.0))
    assert WaveProblem(PixelMedium(speed, fixed=mask), Source(0.2, 0.7, 4.0)).source is not None


def test_the_profile_of_a_source_has_unit_integral_and_ends_at_its_reach():
    source = Source(0.45, 0.55, 4.0, radius=0.03)
    x, y = centres(1000)
    assert abs(source.profile(x, y).sum() / 1000**2 - 1) < 1e-6
    assert source.profile(0.45 + 0.999 * source.reach, 0.55) > 0
    assert source.profile(0.45 + 1.001 * source.reach, 0.55) == 0


def test_the_ricker_signal_peaks_at_its_delay_and_in_the_spectrum_at_its_frequency():
    source = Source(0.5, 0.5, 4.0, amplitude=3.0)
    t = np.linspace(-1, 7, 80001)
    s = source.signal(t)
    assert abs(t[np.argmax(s)] - source.delay) < 1e-3 and abs(s.max() - 3) < 1e-6
    assert (s[(t < 0) | (t >= source.end)] == 0).all()
    assert abs(np.diff(s)).max() < 0.01  # no jump where it is cut
    spectrum = abs(np.fft.rfft(s))
    assert abs(np.fft.rfftfreq(t.size, t[1] - t[0])[np.argmax(spectrum)] - 4.0) < 0.15
    assert spectrum[0] < 1e-3 * spectrum.max()


def test_the_sine_signal_fades_in_and_goes_on():
    source = Source(0.5, 0.5, 4.0, kind="sine")
    assert source.end == math.inf and source.signal(-0.1) == 0 and abs(source.signal(1e-3)) < 1e-4
    assert np.allclose(source.signal([0.3125, 5.0625]), 1.0)  # a quarter of a cycle after whole ones


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_sampled_sources_are_in_range_and_away_from_obstacles(kind):
    angle = np.linspace(0, 2 * np.pi, 8)
    for seed in range(20):
        medium = Medium(kind, seed)
        s = sample_source(seed, medium, (5.0, 6.5))
        assert 0.15 <= s.x <= 0.85 and 0.15 <= s.y <= 0.85 and 5.0 <= s.frequency <= 6.5
        x, y = s.x + 2 * s.radius * np.cos(angle), s.y + 2 * s.radius * np.sin(angle)
        assert not (medium.fixed(x, y) | medium.hole(x, y)).any()
        assert s == sample_source(seed, medium, (5.0, 6.5)) != sample_source(seed + 1, medium, (5.0, 6.5))


def test_vrmse_is_one_for_the_mean_and_scales_with_the_error():
    truth = np.random.default_rng(0).normal(2, 3, (4, 50))
    mean = np.broadcast_to(truth.mean(axis=1, keepdims=True), truth.shape)
    assert np.allclose(vrmse(mean, truth, axis=1), 1)
    assert np.allclose(vrmse(truth + 0.3, truth), 0.3 / truth.std())
    assert vrmse(np.ones(3), np.ones(3)) == 0 and vrmse(np.zeros(3), np.ones(3)) == math.inf
    assert np.isnan(vrmse([np.nan, 1.0], [0.0, 1.0]))
    with pytest.raises(ValueError, match="equal shape"):
        vrmse(np.zeros(3), np.zeros((3, 1)))


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_a_medium_may_be_asked_at_a_single_point(kind):
    medium = Medium(kind, 2)
    assert 0.5 <= float(medium.speed(0.3, 0.7)) <= 1.0
    assert bool(medium.fixed(0.3, 0.7)) in (False, True)
