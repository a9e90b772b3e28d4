"""The propagator without torch against the one in torch; needs torch."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from consolve.learned.waves.domain import ExtrapolationWarning  # noqa: E402
from consolve.learned.waves.format import PropagatorSettings, WaveWeights  # noqa: E402
from consolve.learned.waves.medium import medium_channels  # noqa: E402
from consolve.learned.waves.propagator import TorchPropagator  # noqa: E402
from consolve.learned.waves.propagator_inference import WavePropagator, unshuffle  # noqa: E402
from consolve.learned.weights.file import WeightsError  # noqa: E402


def network(seed=0, **sizes):
    torch.manual_seed(seed)
    return TorchPropagator(PropagatorSettings(**sizes)).double().eval()


def medium(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1, shape), rng.random(shape) < 0.1


def snapshots(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compiled(net, threads=1):
    return WavePropagator.from_tensors(net.settings, net.tensors(), threads)


def small(threads=1, ranks=(5, 7, 6), **sizes):
    """A compressed propagator of three layers for a prepared 12 x 16 medium."""
    return compiled(network(factor=2, width=20, layers=3, ranks=ranks, **sizes), threads).prepare(
        *medium((12, 16))
    )


def expected_rollout(net, u, speed, fixed, steps):
    with torch.no_grad():
        channels = torch.from_numpy(medium_channels(speed, fixed))[None].double()
        return net(torch.from_numpy(u)[None].double(), channels, steps)[0].numpy()


def error(values, expected):
    return np.abs(values - expected).max() / np.abs(expected).max()


@st.composite
def sizes(draw):
    past, layers = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    ranks = tuple(draw(st.integers(1, 24)) for _ in range(layers)) if draw(st.booleans()) else None
    return {
        "past": past,
        "ahead": draw(st.integers(1, past)),
        "factor": draw(st.sampled_from([1, 2, 3, 4])),
        "width": draw(st.integers(1, 70)),
        "layers": layers,
        "gate_width": draw(st.integers(1, 20)),
        "ranks": ranks,
    }


@given(sizes(), st.integers(1, 19), st.integers(1, 19), st.integers(1, 3), st.integers(1, 7))
def test_rollouts_equal_torch(chosen, height, width, threads, steps):
    try:
        net = network(**chosen)
    except WeightsError:  # a rank above what the smallest kernels allow
        chosen["ranks"] = (1,) * chosen["layers"]
        net = network(**chosen)
    f = chosen["factor"]
    speed, fixed = medium((height * f, width * f))
    u = snapshots(chosen["past"], height * f, width * f)
    values = compiled(net, threads).prepare(speed, fixed).rollout(u, steps)
    assert values.shape == (steps, height * f, width * f) and values.dtype == np.float32
    assert error(values, expected_rollout(net, u, speed, fixed, steps)) < 1e-5


@pytest.mark.parametrize("ranks", [(96, 80, 96, 88), None])
def test_default_size_equals_torch(ranks):
    net = network(ranks=ranks)
    speed, fixed = medium((64, 64))
    u = snapshots(3, 64, 64)
    for threads in (1, 2):
        values = compiled(net, threads).prepare(speed, fixed).rollout(u, 4)
        assert error(values, expected_rollout(net, u, speed, fixed, 4)) < 1e-5


def test_unshuffle_is_that_of_torch():
    blocks = torch.nn.functional.pixel_unshuffle(torch.from_numpy(snapshots(3, 8, 12)), 4).numpy()
    assert np.array_equal(unshuffle(snapshots(3, 8, 12), 4), np.moveaxis(blocks, 0, -1))


@settings(max_examples=10)
@given(st.floats(-4, 4, width=32), st.floats(-4, 4, width=32))
def test_rollouts_are_linear_in_the_wave_field(a, b):
    model = small()
    u, v = snapshots(3, 12, 16, seed=1), snapshots(3, 12, 16, seed=2)
    combined = model.rollout(np.float32(a) * u + np.float32(b) * v, 5)
    one, two = model.rollout(u, 5), model.rollout(v, 5)
    scale = np.abs(a * one).max() + np.abs(b * two).max() + 1e-30
    assert np.abs(combined - (a * one + b * two)).max() <= 1e-5 * scale


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_rollout_is_repeated_steps(ahead, threads):
    model = small(threads, ahead=ahead)
    u = snapshots(3, 12, 16)
    values, last = model.rollout(u, 7), u
    for start in range(0, 7, ahead):
        new = model.step(last)
        assert new.shape == (ahead, 12, 16)
        wanted = values[start : start + ahead]
        assert np.array_equal(new[: len(wanted)], wanted)
        last = np.concatenate([last, new])[-3:]


def test_a_batch_is_its_rollouts():
    u = snapshots(5, 3, 12, 16)
    one = small()
    expected = np.stack([one.rollout(sample, 4) for sample in u])
    for threads in (1, 2, 3):
        model = small(threads)
        assert np.array_equal(model.rollout(u, 4), expected)
        assert np.array_equal(model.rollout(u[:1], 4), expected[:1])
        assert np.array_equal(model.step(u), expected[:, : model.settings.ahead])
    assert one.rollout(u[:0], 4).shape == (0, 4, 12, 16)


@pytest.mark.parametrize("ranks", [(33, 33, 33, 33), None])
def test_threads_do_not_change_a_bit(ranks):
    """Many rollouts by more threads than cores: a tile that ran before its neighbours would show."""
    net = network(width=33, ranks=ranks, ahead=2)
    speed, fixed = medium((64, 32))
    u = snapshots(3, 64, 32)
    expected = compiled(net).prepare(speed, fixed).rollout(u, 20)
    for threads in (2, 3, 5):
        model = compiled(net, threads).prepare(speed, fixed)
        for _ in range(20):
            assert np.array_equal(model.rollout(u, 20), expected)


def test_nothing_is_left_of_earlier_rollouts_and_media():
    model = small()
    u = snapshots(3, 12, 16)
    expected = model.rollout(u, 5)
    model.rollout(np.full_like(u, np.nan), 2)
    assert np.array_equal(model.rollout(u, 5), expected)
    model.prepare(*medium((8, 8), seed=3)).rollout(u[:, :8, :8], 2)
    assert np.array_equal(model.prepare(*medium((12, 16))).rollout(u, 5), expected)


def test_medium_and_fixed_vertices_matter():
    model, u = small(), snapshots(3, 12, 16)
    speed, fixed = medium((12, 16))
    expected = model.rollout(u, 2)
    assert not np.allclose(model.prepare(speed).rollout(u, 2), expected)
    assert not np.allclose(model.prepare(speed**2, fixed).rollout(u, 2), expected)
    assert np.array_equal(model.prepare(speed, fixed.astype(np.uint8)).rollout(u, 2), expected)


def test_nan_in_a_snapshot_shows_in_the_forecast():
    u = snapshots(3, 12, 16)
    u[1, 5, 5] = np.nan
    assert np.isnan(small().step(u)).any()


def test_output_array_is_filled():
    model, u = small(), snapshots(3, 12, 16)
    out = np.empty((4, 12, 16), np.float32)
    assert model.rollout(u, 4, out) is out
    assert np.array_equal(out, model.rollout(u, 4))
    for wrong in (
        np.empty((3, 12, 16), np.float32),
        np.empty((4, 12, 16)),
        np.empty((4, 12, 32), np.float32)[:, :, ::2],
    ):
        with pytest.raises(ValueError, match=r"out: expected contiguous float32\(4, 12, 16\)"):
            model.rollout(u, 4, wrong)


def test_snapshots_that_do_not_fit_are_refused():
    model = small()
    for shape in ((2, 12, 16), (3, 16, 12), (12, 16), (1, 1, 3, 12, 16)):
        with pytest.raises(
            ValueError, match=r"expected the last snapshots \(3, 12, 16\) of the prepared medium"
        ):
            model.rollout(np.zeros(shape, np.float32), 1)
    for dtype in (np.int64, np.complex64):
        with pytest.raises(ValueError, match="u: expected floating-point numbers, got"):
            model.step(np.zeros((3, 12, 16), dtype))
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="steps must be a positive integer"):
            model.rollout(snapshots(3, 12, 16), steps)


def test_media_that_do_not_fit_are_refused():
    model = small()
    for shape in ((12, 15), (11, 16), (12,), (0, 16), (2, 12, 16)):
        with pytest.raises(ValueError, match=r"speed: expected \(ny, nx\), multiples of 2"):
            model.prepare(np.ones(shape))
    for value in (0.0, -1.0, np.nan, np.inf):
        speed = np.ones((12, 16))
        speed[3, 3] = value
        with pytest.raises(ValueError, match="speed must be positive and finite"):
            model.prepare(speed)
    with pytest.raises(
        ValueError, match=r"fixed: expected the shape of the speed \(12, 16\), got \(12, 12\)"
    ):
        model.prepare(np.ones((12, 16)), np.zeros((12, 12), bool))
    unprepared = compiled(network(factor=2, width=4))
    with pytest.raises(RuntimeError, match=r"call prepare\(speed, fixed\)"):
        unprepared.step(snapshots(3, 12, 16))


def test_faulty_weights_are_refused():
    net = network(factor=2, width=4, ranks=(2, 2, 2, 2))
    tensors = net.tensors()
    with pytest.raises(WeightsError, match=r"tensor 'wave\.1\.filter_y' holds NaN"):
        WavePropagator.from_tensors(
            net.settings, tensors | {"wave.1.filter_y": np.full((2, 3), np.nan, "f4")}
        )
    with pytest.raises(WeightsError, match=r"tensor 'gate\.2\.bias' is missing"):
        WavePropagator.from_tensors(net.settings, {k: v for k, v in tensors.items() if k != "gate.2.bias"})
    with pytest.raises(WeightsError, match=r"expected float32\(2, 3\)"):
        WavePropagator.from_tensors(net.settings, tensors | {"wave.1.filter_y": np.ones((2, 3))})
    for threads in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="threads must be a positive integer"):
            WavePropagator(WaveWeights(net.settings, tensors), threads)


class TestUnits:
    """Speeds in other units than those of training: warned of, and never a forecast of 1e17."""

    @pytest.fixture
    def pulse(self):
        y, x = np.mgrid[:64, :64] / 63
        u = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.005).astype(np.float32)
        return np.stack([u] * 3)

    def test_speeds_of_training_are_served_without_a_word(self, pulse):
        propagator = WavePropagator.load("propagator")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for speed in (0.5, 1.0):
                u = propagator.prepare(np.full((64, 64), speed)).rollout(pulse, 100)
                assert np.abs(u).max() <= 2

    @pytest.mark.parametrize("speed", [0.01, 2.0, 1500.0])
    def test_others_are_warned_of_and_overflow_is_an_error(self, pulse, speed):
        propagator = WavePropagator.load("propagator")
        with pytest.warns(ExtrapolationWarning, match=r"speeds from .* to .* outside .* for, 0\.5 to 1"):
            propagator.prepare(np.full((64, 64), speed))
        with pytest.raises(RuntimeError, match="overflows at step .* units of the training set"):
            propagator.rollout(pulse, 200)

    def test_growth_is_warned_of_before(self, pulse):
        propagator = WavePropagator.load("propagator")
        with pytest.warns(ExtrapolationWarning, match="speeds"):
            propagator.prepare(np.full((64, 64), 2.0))
        with pytest.warns(ExtrapolationWarning, match=r"grows to .* times its start"):
            assert np.abs(propagator.rollout(pulse, 10)).max() > 100

    @pytest.mark.parametrize("threads", [1, 2])
    def test_one_wave_of_a_batch_is_enough(self, pulse, threads):
        propagator = WavePropagator.load("propagator", threads)
        with pytest.warns(ExtrapolationWarning):
            propagator.prepare(np.full((64, 64), 2.0))
        batch = np.stack([0 * pulse, pulse])
        assert np.isfinite(propagator.rollout(batch[:1], 100)).all()
        with pytest.raises(RuntimeError, match="overflows"):
            propagator.rollout(batch, 100)
