"""Numba convolutions, dense and of one-way filters, against torch's; needs torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from consolve.learned.separable.convolution_kernels import Convolution  # noqa: E402
from consolve.learned.separable.kernels import CompressedConvolution  # noqa: E402
from consolve.learned.separable.layers import SeparableConv2d, SeparableConv3d  # noqa: E402
from consolve.learned.separable.matrix_tiles import LANES, pack, padded, panels  # noqa: E402

ODD = st.sampled_from([1, 3, 5, 7])


@st.composite
def layers(draw):
    """A compressed layer of any size with an image for it."""
    ndim = draw(st.sampled_from([2, 3]))
    taps = tuple(draw(ODD) if ndim == 2 else draw(st.sampled_from([1, 3, 5])) for _ in range(ndim))
    ins, outs, rank = (draw(st.integers(1, 70)) for _ in range(3))
    lengths = tuple(draw(st.integers(1, 21 if ndim == 2 else 7)) for _ in range(ndim))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layer = (SeparableConv2d if ndim == 2 else SeparableConv3d)(
        ins, outs, taps, padding="same", bias=draw(st.booleans()),
        rank=min(rank, ins * outs * int(np.prod(taps)) // max(ins, outs, *taps)),
    )  # fmt: skip
    return layer, torch.randn(ins, *lengths)


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 0, -1)


def compressed(layer):
    factors = [t.detach().numpy() for t in (layer.output_factor, layer.input_factor)]
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    return CompressedConvolution(*factors, [f.detach().numpy() for f in layer.filters], bias)


def error(values, expected):
    return np.abs(values - expected).max() / np.abs(expected).max()


@given(layers(), st.integers(1, 3))
def test_compressed_and_dense_convolutions_equal_torch(case, threads):
    layer, x = case
    expected = channels_last(layer.double()(x.double()))
    image = channels_last(x)
    layer.float()
    assert error(compressed(layer)(image, threads), expected) < 1e-5
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    assert error(Convolution(layer.weight.detach().numpy(), bias)(image, threads), expected) < 1e-5


def test_compressed_layer_of_the_propagator_equals_torch():
    torch.manual_seed(1)
    layer = SeparableConv2d(96, 96, 3, padding=1, bias=False, rank=80)
    x = torch.randn(96, 16, 16)
    assert error(compressed(layer)(channels_last(x)), channels_last(layer(x))) < 1e-5


def test_packed_weights_hold_every_weight_once():
    for channels in (1, LANES, LANES + 1, 4 * LANES, 5 * LANES, 7 * LANES):
        weights = np.arange(1, 1 + 2 * 3 * channels, dtype=np.float32).reshape(2, 3, channels)
        packed = pack(weights)
        assert packed.size == 6 * padded(channels)
        assert sorted(packed[packed > 0]) == sorted(weights.ravel())
        covered = [c for panel in panels(channels) for c in range(panel.start, panel.stop)]
        assert covered == list(range(padded(channels)))


A, B, V, H = np.ones((4, 2)), np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 5))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((A, np.ones((2, 3, 1)), (V, H)), r"input_factor: expected shape \(any, any\), got \(2, 3, 1\)"),
        ((np.ones((4, 3)), B, (V, H)), r"output_factor: expected shape \(any, 2\), got \(4, 3\)"),
        ((A, B, (V, np.ones((3, 5)))), r"filter_x: expected shape \(2, any\), got \(3, 5\)"),
        ((A, B, (np.ones((2, 4)), H)), r"odd filter lengths are needed.*\(4, 5\)"),
        ((A, B, (V,)), "those of y and x, or of z, y and x, got 1"),
        ((A * np.nan, B, (V, H)), "output_factor holds NaN or Inf"),
        ((A, B, (V, H), np.ones(3)), r"bias: expected shape \(4\), got \(3,\)"),
    ],
)
def test_faulty_factors_are_refused(factors, message):
    with pytest.raises(ValueError, match=message):
        CompressedConvolution(*factors)


def test_faulty_dense_kernels_are_refused():
    with pytest.raises(ValueError, match="odd filter lengths"):
        Convolution(np.ones((2, 2, 3, 4)))
    with pytest.raises(ValueError, match="expected shape"):
        Convolution(np.ones((2, 2, 3)))
    with pytest.raises(ValueError, match="expected 2 or 3 filter axes"):
        Convolution(np.ones((2, 2, 3, 3, 3, 3)))
    with pytest.raises(ValueError, match="NaN or Inf"):
        Convolution(np.full((2, 2, 3, 3), np.inf))


@pytest.mark.parametrize("layer", [Convolution(np.ones((4, 3, 3, 3))), CompressedConvolution(A, B, (V, H))])
def test_images_that_do_not_fit_are_refused(layer):
    for shape in ((8, 8, 2), (8, 8), (1, 8, 8, 3), (0, 8, 3)):
        with pytest.raises(ValueError, match=r"expected an image of shape \(n_y, n_x, 3\), channels last"):
            layer(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="floating-point numbers, got int64"):
        layer(np.ones((8, 8, 3), np.int64))


def test_noncontiguous_and_double_images_are_taken():
    layer = CompressedConvolution(A, B, (V, H))
    image = np.random.default_rng(0).standard_normal((3, 9, 8))
    expected = layer(np.ascontiguousarray(np.moveaxis(image, 0, -1), np.float32))
    assert np.array_equal(layer(np.moveaxis(image, 0, -1)), expected)
