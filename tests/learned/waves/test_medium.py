import numpy as np

from consolve.learned.waves.medium import SPEED_RANGE, medium_channels


def test_squared_speed_is_scaled_and_sides_are_marked():
    slow, fast = SPEED_RANGE
    speed = np.full((2, 5, 7), slow, np.float32)
    speed[0, 2, 3] = fast
    speed[0, 2, 4] = np.sqrt((slow**2 + fast**2) / 2)
    fixed = np.zeros((2, 5, 7), np.uint8)
    fixed[1, 3, 1] = 1
    channels = medium_channels(speed, fixed)
    assert channels.shape == (2, 3, 5, 7) and channels.dtype == np.float32
    expected = np.full((2, 5, 7), -1.0)
    expected[0, 2, 3], expected[0, 2, 4] = 1, 0
    np.testing.assert_allclose(channels[:, 0], expected, atol=1e-6)
    assert np.array_equal(channels[:, 1], fixed)
    sides = np.ones((5, 7))
    sides[1:-1, 1:-1] = 0
    assert all(np.array_equal(of_run, sides) for of_run in channels[:, 2])


def test_one_medium_without_a_batch():
    speed, fixed = np.random.default_rng(0).uniform(0.5, 1, (6, 6)), np.zeros((6, 6))
    batch = medium_channels(speed[None], fixed[None])
    assert np.array_equal(medium_channels(speed, fixed), batch[0])
