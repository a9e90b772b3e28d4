"""The generator without torch against the one in torch; needs torch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

torch = pytest.importorskip("torch")

from consolve.learned.waves import generator_inference as inference  # noqa: E402
from consolve.learned.waves.format import (  # noqa: E402
    GeneratorSettings,
    PropagatorSettings,
    WaveWeights,
    save_wave_weights,
)
from consolve.learned.waves.generator import TorchGenerator  # noqa: E402
from consolve.learned.waves.generator_inference import ExtrapolationWarning, WaveGenerator  # noqa: E402
from consolve.learned.waves.generator_kernels import gelu, upsample  # noqa: E402
from consolve.learned.weights.file import WeightsError  # noqa: E402

LOW, HIGH = (0.1, 0.1, 5.0, 0.5), (0.4, 0.4, 7.0, 1.0)


def network(seed=0, **sizes):
    torch.manual_seed(seed)
    small = {"shape": (16, 8, 24), "hidden": 24, "seeds": 5, "width": 12, "layers": 3, "scale": 0.3}
    return TorchGenerator(GeneratorSettings(low=LOW, high=HIGH, **small | sizes)).eval()


def compiled(net, threads=1):
    return WaveGenerator.from_tensors(net.settings, net.tensors(), threads)


def parameters(*shape, seed=1):
    return np.random.default_rng(seed).uniform(LOW, HIGH, (*shape, 4))


def expected(net, p):
    with torch.no_grad():
        return net.double()(torch.from_numpy(np.atleast_2d(p))).numpy()


def error(values, truth):
    return np.abs(values - truth).max() / truth.std()


@st.composite
def sizes(draw):
    layers, factor = draw(st.integers(2, 4)), draw(st.sampled_from([1, 2, 3, 4]))
    compressed = draw(st.booleans())
    return {
        "factor": factor,
        "shape": tuple(2 * factor * draw(st.integers(1, 3)) for _ in range(3)),
        "harmonics": draw(st.integers(1, 3)),
        "hidden": draw(st.integers(1, 40)),
        "seeds": draw(st.integers(1, 20)),
        "width": draw(st.integers(1, 40)),
        "layers": layers,
        "ranks": tuple(draw(st.integers(1, 9)) for _ in range(layers)) if compressed else None,
    }


@settings(max_examples=30)
@given(sizes(), st.integers(1, 3), st.integers(1, 2))
def test_fields_equal_torch(chosen, samples, threads):
    net = network(**chosen)
    p = parameters(samples)
    values = compiled(net, threads).field(p)
    assert values.shape == (samples, *chosen["shape"]) and values.dtype == np.float32
    assert error(values, expected(net, p)) < 1e-4


@pytest.mark.parametrize("ranks", [None, (40, 60, 60, 60)])
def test_fields_of_the_default_size_equal_torch(ranks):
    net = TorchGenerator(GeneratorSettings(low=LOW, high=HIGH, ranks=ranks)).eval()
    p = parameters()
    values = compiled(net)(p)
    assert values.shape == (64, 32, 32)
    assert error(values, expected(net, p)[0]) < 1e-4


def test_gelu_is_that_of_erf():
    x = np.concatenate([np.linspace(-9, 9, 20_001), [-80, 0, 80]]).astype(np.float32)
    exact = 0.5 * x.astype(np.float64) * (1 + erf(x / np.sqrt(2)))
    assert (np.abs(gelu(x) - exact) < 4e-7 * (1 + np.abs(x))).all()
    assert gelu(x.reshape(-1, 4)).shape == (5001, 4)


@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(0, 9))
def test_upsampling_is_that_of_torch(shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    channels_first = torch.from_numpy(x).permute(3, 0, 1, 2)[None]
    truth = torch.nn.functional.interpolate(channels_first, scale_factor=2, mode="trilinear")
    np.testing.assert_allclose(upsample(x), truth[0].permute(1, 2, 3, 0), atol=1e-6)


def test_batches_on_threads_are_the_single_fields():
    net = network(ranks=(6, 6, 6))
    p = parameters(2 * inference.CHUNK + 5)
    one = compiled(net)
    singly = np.stack([one.field(row) for row in p])
    for threads in (1, 3):
        out = np.empty_like(singly)
        assert compiled(net, threads).field(p, out=out) is out
        assert np.abs(out - singly).max() < 1e-5 * singly.std()
    assert compiled(net, 3).field(p[:0]).shape == (0, 16, 8, 24)


def test_files_give_the_same_fields(tmp_path):
    net = network(ranks=(6, 6, 6))
    save_wave_weights(WaveWeights(net.settings, net.tensors()), tmp_path / "g.h5")
    p = parameters()
    generator = WaveGenerator.load(tmp_path / "g.h5")
    assert generator.parameter_names == ("x", "y", "frequency", "inclusion_speed")
    np.testing.assert_array_equal(generator.field(p), compiled(net).field(p))


def test_parameters_outside_their_range_are_named():
    generator = compiled(network())
    p = parameters(3)
    p[1, 2] = 7.5
    with pytest.raises(ValueError, match=r"frequency = 7.5 lies outside \[5, 7\]"):
        generator.field(p)
    with pytest.warns(ExtrapolationWarning, match="frequency = 7.5"):
        assert np.isfinite(generator.field(p, extrapolate=True)).all()
    p[1, 2] = 7 + 0.9 * inference.MARGIN * 2  # within the margin of a random draw
    assert np.isfinite(generator.field(p)).all()


def test_extrapolation_equals_torch():
    net = network()
    p = np.array([0.5, 0.0, 9.0, 0.3])
    with pytest.warns(ExtrapolationWarning):
        assert error(compiled(net).field(p, extrapolate=True), expected(net, p)[0]) < 1e-4


@pytest.mark.parametrize(
    "wrong, message",
    [
        (np.zeros(3), r"expected shape \(4,\) or \(n, 4\) for x, y, frequency, inclusion_speed, got \(3,\)"),
        (np.zeros((2, 2, 4)), "got \\(2, 2, 4\\)"),
        ([0.2, np.nan, 6, 0.7], "y: NaN or Inf"),
        ("north", "expected numbers"),
    ],
)
def test_ill_formed_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        compiled(network()).field(wrong)


def test_other_networks_threads_names_and_outputs_are_refused():
    net = network()
    weights = WaveWeights(net.settings, net.tensors())
    shapes = PropagatorSettings(width=4, gate_width=2).tensor_shapes()
    other = WaveWeights(
        PropagatorSettings(width=4, gate_width=2), {n: np.zeros(s, np.float32) for n, s in shapes.items()}
    )
    with pytest.raises(ValueError, match="holds a propagator, a generator is needed"):
        WaveGenerator(other)
    with pytest.raises(ValueError, match="threads must be a positive integer, got 0"):
        WaveGenerator(weights, 0)
    with pytest.raises(ValueError, match="expected 4 names"):
        WaveGenerator(weights, parameter_names=("x",))
    with pytest.raises(ValueError, match=r"out: expected contiguous float32\(16, 8, 24\)"):
        WaveGenerator(weights).field(parameters(), out=np.empty((8, 8, 24), np.float32))
    with pytest.raises(WeightsError, match="no weights at"):
        WaveGenerator.load("nowhere.h5")


def test_overflow_is_an_error():
    with pytest.warns(ExtrapolationWarning), pytest.raises(RuntimeError, match="the field overflows"):
        WaveGenerator.load("generator").field([1e38, 0.3, 6.0, 0.7], extrapolate=True)
