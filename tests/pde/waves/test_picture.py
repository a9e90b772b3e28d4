"""Pictures of waves: where things are drawn, in which colours, and files that are whole."""

import imageio.v3 as imageio
import numpy as np
import pytest

from consolve.pde.waves.picture import (
    amplitude,
    render_wave,
    save_wave_animation,
    save_wave_strip,
    wave_colours,
)

N = 33
Y, X = np.meshgrid(np.linspace(0, 1, N), np.linspace(0, 1, N), indexing="ij")
SPEED = np.full((N, N), 0.75)


def bump(x, y):
    return np.exp(-((X - x) ** 2 + (Y - y) ** 2) / 0.005)


def warmth(picture):
    """Red minus blue: positive where orange, negative where blue."""
    return picture[..., 0].astype(int) - picture[..., 2].astype(int)


def test_crests_are_orange_troughs_blue_and_rows_go_up():
    picture = render_wave(bump(0.25, 0.75) - bump(0.75, 0.25), SPEED, pixels=80)
    assert picture.shape == (80, 80, 3) and picture.dtype == np.uint8
    assert warmth(picture)[20, 20] > 60, "crest at x = 1/4, y = 3/4: upper left"
    assert warmth(picture)[60, 60] < -60, "trough at x = 3/4, y = 1/4: lower right"
    assert np.abs(warmth(picture)[20, 60]) < 6 and np.abs(warmth(picture)[60, 20]) < 6


def test_a_medium_at_rest_is_grey_and_the_slow_part_darker():
    speed = np.where(X < 0.5, 0.5, 1.0)
    picture = render_wave(np.zeros((N, N)), speed, pixels=64)
    assert np.abs(warmth(picture)).max() <= 4
    assert picture[32, 10, 0] < picture[32, 54, 0] - 30 and picture.min() > 150


def test_fixed_cells_are_dark_blocks_of_their_size():
    fixed = np.zeros((N, N), np.uint8)
    fixed[4:13, 20:29] = 1  # 8 x 8 of 32 x 32 cells, low and to the right
    fixed[28, 3] = 1  # no cell has this vertex alone
    picture = render_wave(np.zeros((N, N)), SPEED, fixed, pixels=128)
    rows, columns = np.nonzero(picture.sum(-1) < 300)
    assert rows.size == 32 * 32
    assert (rows.mean(), columns.mean()) == (128 - 4 * 8 - 0.5, 4 * 24 - 0.5)


def test_colours_are_near_mirror_images_in_lightness():
    shares = np.linspace(0, 1, 21)
    red, blue = (wave_colours(sign * shares) @ (0.299, 0.587, 0.114) for sign in (1, -1))
    assert red[0] == pytest.approx(1) and (np.diff(red) < 0).all() and (np.diff(blue) < 0).all()
    assert np.abs(red - blue).max() < 0.06
    assert wave_colours(np.array([np.nan, 5.0])) == pytest.approx(wave_colours(np.array([0.0, 1.0])))


def test_amplitude_is_robust_and_positive():
    u = bump(0.5, 0.5)
    assert 0.8 < amplitude(u) <= 1.0
    assert amplitude(np.zeros((3, 3))) == 1.0
    assert amplitude(3 * u) == pytest.approx(3 * amplitude(u))


@pytest.mark.parametrize(
    ("u", "speed", "fixed", "pixels"),
    [
        (np.zeros((4, 4)), np.ones((5, 5)), None, 64),
        (np.zeros((5, 5)), np.ones((5, 5)), np.zeros((4, 4)), 64),
        (np.zeros((5, 5)), np.ones((5, 5)), None, 8),
        (np.zeros(5), np.ones(5), None, 64),
    ],
)
def test_what_does_not_fit_is_refused(u, speed, fixed, pixels):
    with pytest.raises(ValueError, match="expected|at least"):
        render_wave(u, speed, fixed, pixels)


def fields(count=4):
    truth = np.stack([bump(0.2 + 0.15 * k, 0.5) for k in range(count)])
    return {"truth": truth, "guess": 0.9 * truth}, 0.1 * np.arange(count), np.full(count, 0.1)


def test_a_strip_shows_fields_and_their_difference(tmp_path):
    found, times, errors = fields()
    save_wave_strip(tmp_path / "both.png", found, times, SPEED, errors=errors, title="t", source=(0.2, 0.5))
    save_wave_strip(tmp_path / "one.png", {"truth": found["truth"]}, times, SPEED, columns=3)
    both, one = (imageio.imread(tmp_path / f"{name}.png") for name in ("both", "one"))
    assert both.shape[0] > 2.5 * one.shape[0], "three rows and a curve, against one row"
    assert both.shape[1] > one.shape[1], "four columns against three"
    assert np.count_nonzero(warmth(both) > 60) > 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.png", "one.png"]


def test_an_animation_has_one_frame_for_each_snapshot_side_by_side(tmp_path):
    found, times, errors = fields()
    path = tmp_path / "wave.gif"
    save_wave_animation(path, found, times, SPEED, errors=errors, pixels=64)
    frames = imageio.imread(path)
    assert frames.shape[0] == 4 and frames.shape[2] > 2 * 64
    centres = [np.nonzero(warmth(f[..., :3])[20:80, 14:78] > 60)[1].mean() for f in frames]
    assert np.allclose(centres, 64 * (0.2 + 0.15 * np.arange(4)), atol=3), "the crest moves to the right"


def test_a_picture_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "wave.gif"
    path.write_text("old")
    found, times, _ = fields()
    with pytest.raises(ValueError, match="expected"):
        save_wave_animation(path, found, times[:-1], SPEED)
    found["guess"] = found["guess"][:, :-1]
    with pytest.raises(ValueError, match="one shape"):
        save_wave_strip(path, found, times, SPEED)
    with pytest.raises(ValueError, match=r"\.gif"):
        save_wave_animation(tmp_path / "wave.png", {"a": np.zeros((4, N, N))}, times, SPEED)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
