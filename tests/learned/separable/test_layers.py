"""Separable layers against torch's dense ones; needs torch."""

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from consolve.learned.separable.canonical import largest_rank  # noqa: E402
from consolve.learned.separable.form import METHODS  # noqa: E402
from consolve.learned.separable.layers import (  # noqa: E402
    SEPARABLE,
    SeparableConv2d,
    SeparableConv3d,
    SeparableConvTranspose2d,
    SeparableConvTranspose3d,
    flops_of,
    parameters_of,
    rank_for,
)

LAYERS = [SeparableConv2d, SeparableConv3d, SeparableConvTranspose2d, SeparableConvTranspose3d]
DOUBLE = {"dtype": torch.float64}


def same_as_dense(layer, x, *args):
    """Output and gradients of input and bias, by each method, are those of torch's dense layer."""
    dense = layer.to_dense()
    assert type(dense) is layer.dense_layer
    expected_input = x.clone().requires_grad_()
    expected = dense(expected_input, *args)
    weight = torch.randn_like(expected)
    expected.backward(weight)
    for method in METHODS:
        layer.method = method
        layer.zero_grad()
        given_input = x.clone().requires_grad_()
        y = layer(given_input, *args)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        y.backward(weight)
        torch.testing.assert_close(given_input.grad, expected_input.grad, rtol=1e-10, atol=1e-10)
        if layer.bias is not None:
            torch.testing.assert_close(layer.bias.grad, dense.bias.grad, rtol=1e-10, atol=1e-10)


def one_each(draw, ndim, low, high):
    values = tuple(draw(st.integers(low, high)) for _ in range(ndim))
    return draw(st.sampled_from([values, values[0]]))


@st.composite
def convolutions(draw):
    cls = draw(st.sampled_from(LAYERS))
    ndim = len(cls.axes)
    kernel = one_each(draw, ndim, 1, 4)
    options = {
        "dilation": one_each(draw, ndim, 1, 3),
        "stride": one_each(draw, ndim, 1, 3),
        "bias": draw(st.booleans()),
    }
    if cls.transposed:
        # torch wants the output padding of each axis below its stride or dilation
        options["padding"] = one_each(draw, ndim, 0, 1)
        stride = options["stride"] if isinstance(options["stride"], tuple) else (options["stride"],) * ndim
        options["output_padding"] = tuple(draw(st.integers(0, s - 1)) for s in stride)
    else:
        options["padding"] = draw(st.sampled_from(["same", "valid", one_each(draw, ndim, 0, 3)]))
        options["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        if options["padding"] == "same":
            options["stride"] = 1
    channels = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    lengths = kernel if isinstance(kernel, tuple) else (kernel,) * ndim
    rank = draw(st.integers(1, largest_rank((*channels, *lengths))))
    size = [draw(st.integers(10, 13)) for _ in range(ndim)]
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    return cls, (*channels, kernel), {**options, "rank": min(rank, 6)}, (*batch, channels[0], *size)


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_layers_equal_torch_dense_layers(case):
    cls, arguments, options, shape = case
    torch.manual_seed(0)
    layer = cls(*arguments, **options, **DOUBLE)
    same_as_dense(layer, torch.randn(shape, **DOUBLE))


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("stride, padding, dilation", list(itertools.product((1, 2), (0, 1), (1, 2))))
def test_layers_equal_torch_on_the_cross_product(cls, stride, padding, dilation):
    torch.manual_seed(1)
    for kernel in (1, 2, 3, 5):
        layer = cls(3, 2, kernel, stride, padding, dilation=dilation, rank=2, **DOUBLE)
        same_as_dense(layer, torch.randn((2, 3, *(11, 12, 10)[: len(cls.axes)]), **DOUBLE))


def test_the_kernel_is_the_sum_of_products_of_one_way_filters():
    torch.manual_seed(0)
    layer = SeparableConv3d(3, 4, (2, 3, 5), rank=7, **DOUBLE)
    a, b, (t, v, h) = layer.output_factor, layer.input_factor, layer.filters
    expected = torch.einsum("or,ri,rz,ry,rx->oizyx", a, b, t, v, h)
    torch.testing.assert_close(layer.weight, expected)
    turned = SeparableConvTranspose2d(3, 4, (2, 5), rank=6, **DOUBLE)
    expected = torch.einsum("or,ri,ry,rx->ioyx", turned.output_factor, turned.input_factor, *turned.filters)
    torch.testing.assert_close(turned.weight, expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cls", LAYERS)
def test_gradients_of_all_factors(cls, method):
    torch.manual_seed(2)
    ndim = len(cls.axes)
    layer = cls(2, 3, (2, 3, 2)[:ndim], stride=(1, 2, 1)[:ndim], padding=1, rank=3, method=method, **DOUBLE)
    names, parameters = zip(*layer.named_parameters())
    assert len(names) == 3 + ndim
    x = torch.randn((1, 2, *(4, 5, 3)[:ndim]), **DOUBLE, requires_grad=True)

    def compute(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), x)

    assert torch.autograd.gradcheck(compute, (x, *(p.detach().clone().requires_grad_() for p in parameters)))


@pytest.mark.parametrize("cls", [SeparableConvTranspose2d, SeparableConvTranspose3d])
def test_output_size_of_transposed_layers(cls):
    ndim = len(cls.axes)
    layer = cls(2, 3, 3, stride=3, padding=1, rank=2, **DOUBLE)
    x = torch.randn((2, 2, *(4, 5, 3)[:ndim]), **DOUBLE)
    for size in ((10, 14, 9)[:ndim], (2, 3, *(11, 13, 8)[:ndim])):
        same_as_dense(layer, x, list(size))
    for wrong in ((9, 13, 7)[:ndim], (13, 13, 7)[:ndim]):
        with pytest.raises(ValueError, match="expected"):
            layer(x, wrong)
    with pytest.raises(ValueError, match="expected"):
        layer(x, (10,))


def test_channels_last_and_float32():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 10).to(memory_format=torch.channels_last)
    layer = SeparableConv2d(8, 6, 3, padding="same", rank=4)
    dense = layer.to_dense()
    for method in METHODS:
        layer.method = method
        torch.testing.assert_close(layer(x), dense(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variance, gain", [("torch", 1 / 3), ("he", 2.0)])
@pytest.mark.parametrize("cls", LAYERS)
def test_initial_kernels_have_the_variance_of_dense_ones(cls, variance, gain):
    """Mean and mean square over 400 kernels, within four standard errors."""
    torch.manual_seed(3)
    layer = cls(6, 10, 3, rank=5, **DOUBLE)
    fan = (10 if cls.transposed else 6) * 3 ** len(cls.axes)
    squares, means = [], []
    for _ in range(400):
        layer.reset_parameters(variance)
        squares.append(float(layer.weight.detach().square().mean()))
        means.append(float(layer.weight.detach().mean()))
        assert layer.bias.abs().max() <= 1 / math.sqrt(fan)
    for sample, expected in ((squares, gain / fan), (means, 0.0)):
        error = np.std(sample) / math.sqrt(len(sample))
        assert abs(np.mean(sample) - expected) < 4 * error
    assert np.std(squares) / math.sqrt(400) < 0.03 * gain / fan  # sharp enough to see 12 per cent


def test_initial_outputs_have_the_variance_of_torch():
    torch.manual_seed(4)
    x = torch.randn(2, 16, 12, 12)
    kept = {"separable": [], "dense": []}
    for _ in range(150):
        kept["separable"].append(SeparableConv2d(16, 16, 3, rank=6, bias=False)(x).var().item())
        kept["dense"].append(nn.Conv2d(16, 16, 3, bias=False)(x).var().item())
    mean = {name: np.mean(v) for name, v in kept.items()}
    error = math.hypot(*(np.std(v) / math.sqrt(len(v)) for v in kept.values()))
    assert abs(mean["separable"] - mean["dense"]) < 4 * error
    assert error < 0.02 * mean["dense"]


@pytest.mark.parametrize("cls", LAYERS)
def test_from_dense_is_exact_at_the_rank_of_the_kernel(cls):
    torch.manual_seed(5)
    truth = cls(6, 5, 3, stride=2, padding=1, rank=4, **DOUBLE)
    dense = truth.to_dense()
    found = cls.from_dense(dense, 4, seed=1)
    assert found.relative_error < 1e-9
    torch.testing.assert_close(found.weight, dense.weight, rtol=1e-7, atol=1e-9)
    x = torch.randn((2, 6, 7, 8, 6)[: 2 + len(cls.axes)], **DOUBLE)
    torch.testing.assert_close(found(x), dense(x), rtol=1e-7, atol=1e-8)


def test_from_dense_at_the_largest_rank_represents_any_kernel():
    torch.manual_seed(6)
    dense = nn.Conv2d(4, 16, 3)
    found = SeparableConv2d.from_dense(dense, largest_rank((16, 4, 3, 3)))
    assert found.relative_error < 1e-6
    torch.testing.assert_close(found.weight, dense.weight, rtol=1e-4, atol=1e-5)


def test_from_dense_is_deterministic_and_says_its_error():
    torch.manual_seed(7)
    dense = nn.ConvTranspose2d(6, 7, 3, 2, 1, 1)
    first, again = (SeparableConvTranspose2d.from_dense(dense, 3, seed=4, starts=1) for _ in range(2))
    for p, q in zip(first.parameters(), again.parameters()):
        assert torch.equal(p, q)
    error = ((first.weight - dense.weight).norm() / dense.weight.norm()).item()
    assert error == pytest.approx(first.relative_error, rel=1e-4)
    assert 0.5 < error < 1.0  # noise has no low rank
    better = SeparableConvTranspose2d.from_dense(dense, 20, seed=4, starts=1)
    assert better.relative_error < error
    assert torch.equal(better.bias, dense.bias)


@pytest.mark.parametrize("cls", LAYERS)
def test_to_dense_keeps_every_option(cls):
    options = {"stride": 2, "padding": 1, "dilation": 2, "bias": False}
    options |= {"output_padding": 1} if cls.transposed else {"padding_mode": "circular"}
    dense = cls(2, 3, 3, **options, rank=2, dtype=torch.float64).eval().to_dense()
    ndim = len(cls.axes)
    assert not dense.training and dense.bias is None and dense.weight.dtype == torch.float64
    assert (dense.stride, dense.padding, dense.dilation) == ((2,) * ndim, (1,) * ndim, (2,) * ndim)
    assert dense.padding_mode == options.get("padding_mode", "zeros")
    assert dense.output_padding == ((1,) * ndim if cls.transposed else (0,) * ndim)
    assert SEPARABLE[type(dense)] is cls


@pytest.mark.parametrize("cls", LAYERS)
def test_state_dict_round_trip(cls, tmp_path):
    layer = cls(3, 4, 3, rank=5)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = cls(3, 4, 3, rank=5)
    x = torch.randn((1, 3, 6, 6, 6)[: 2 + len(cls.axes)])
    assert not torch.equal(layer(x), other(x))
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(layer(x), other(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    filters = [f"filter_{axis}" for axis in cls.axes]
    assert sorted(layer.state_dict()) == sorted(["output_factor", "input_factor", *filters, "bias"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        cls(3, 4, 3, rank=6).load_state_dict(layer.state_dict())


def test_a_layer_can_be_trained_to_a_dense_one():
    """Gradient descent through the factors reaches a kernel of the rank."""
    torch.manual_seed(8)
    target = SeparableConv2d(2, 2, 3, rank=1).to_dense()
    layer = SeparableConv2d(2, 2, 3, rank=2)
    x = torch.randn(4, 2, 8, 8)
    optimiser = torch.optim.Adam(layer.parameters(), 0.02)
    with torch.no_grad():
        wanted = target(x)
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        loss = (layer(x) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_auto_is_depthwise_for_small_kernels():
    assert SeparableConv2d(4, 4, 3, rank=2).method == "depthwise"
    assert SeparableConv2d(4, 4, 5, rank=2).method == "factored"
    assert SeparableConv3d(4, 4, 3, rank=2).method == "factored"
    layer = SeparableConv2d(4, 4, 3, rank=2, method="dense")
    assert layer.method == "dense" and "dense" in repr(layer) and "rank=2" in repr(layer)


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_parameter_counts(cls, bias):
    ndim = len(cls.axes)
    kernel = (2, 3, 5)[:ndim]
    dense = cls.dense_layer(4, 6, kernel, bias=bias)
    layer = cls(4, 6, kernel, bias=bias, rank=3)
    assert parameters_of(dense) == 24 * math.prod(kernel) + 6 * bias
    assert parameters_of(layer) == 3 * (10 + sum(kernel)) + 6 * bias
    assert parameters_of(nn.Sequential(dense, nn.Linear(3, 3), layer, dense)) == (
        parameters_of(dense) + parameters_of(layer)
    )


def test_flop_counts_by_hand():
    dense = nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2))
    layer = SeparableConv2d(4, 6, (3, 5), stride=2, padding=(1, 2), rank=7)
    # 8 x 10 points in; 4 x 10 after the filters along y; 4 x 5 out
    assert flops_of(dense, (3, 4, 8, 10)) == 3 * 20 * 4 * 6 * 15
    assert flops_of(layer, (3, 4, 8, 10)) == 3 * 7 * (80 * 4 + 40 * 3 + 20 * 5 + 20 * 6)
    assert flops_of(layer, (4, 8, 10)) == flops_of(layer, (1, 4, 8, 10))
    up = SeparableConvTranspose2d(4, 6, (3, 5), stride=2, padding=(1, 2), output_padding=1, rank=7)
    assert flops_of(up.to_dense(), (4, 8, 10)) == 80 * 4 * 6 * 15
    assert flops_of(up, (4, 8, 10)) == 7 * (80 * 4 + 80 * 3 + 160 * 5 + 320 * 6)
    assert flops_of(nn.Conv2d(4, 6, 3, groups=2, padding="same"), (4, 8, 10)) == 80 * 12 * 9


@pytest.mark.parametrize("cls", LAYERS)
def test_dense_flops_are_those_that_torch_counts(cls):
    from torch.utils.flop_counter import FlopCounterMode

    dense = cls.dense_layer(3, 5, 3, stride=2, padding=1)
    x = torch.randn((2, 3, 7, 8, 6)[: 2 + len(cls.axes)])
    with FlopCounterMode(display=False) as counter:
        dense(x)
    assert counter.get_total_flops() == 2 * flops_of(dense, x.shape)


@given(
    st.floats(1, 40),
    st.integers(1, 64),
    st.integers(1, 64),
    st.lists(st.integers(1, 5), min_size=2, max_size=3),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_rank_for_is_the_largest_rank_within_the_budget(compression, into, out, kernel, bias):
    fixed = out * bias
    budget = (into * out * math.prod(kernel) + fixed) / compression

    def stored(rank):
        return rank * (into + out + sum(kernel)) + fixed

    if stored(1) > budget:
        with pytest.raises(ValueError, match="out of reach"):
            rank_for(compression, into, out, kernel, bias)
    else:
        rank = rank_for(compression, into, out, kernel, bias)
        assert stored(rank) <= budget
        assert stored(rank + 1) > budget
        assert rank <= largest_rank((out, into, *kernel))


def test_rank_for_refuses_nonsense():
    for compression in (0.5, 0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="compression must be"):
            rank_for(compression, 8, 8, (3, 3))
    with pytest.raises(ValueError, match="rank 1 compresses 26.18 times"):  # 8 * 8 * 9 / 22
        rank_for(27, 8, 8, (3, 3))
    assert rank_for(26, 8, 8, (3, 3)) == 1
    with pytest.raises(ValueError, match="kernel_size must be"):
        rank_for(2, 8, 8, (3,))


@pytest.mark.parametrize("cls", LAYERS)
def test_bad_arguments_say_what_was_expected(cls):
    ndim = len(cls.axes)
    with pytest.raises(ValueError, match=r"groups=2 came, only 1"):
        cls(4, 4, 3, groups=2, rank=1)
    most = largest_rank((4, 8, *(3,) * ndim))
    cls(4, 8, 3, rank=most)
    for rank in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"rank {rank} .* expected 1 to {most}"):
            cls(4, 8, 3, rank=rank)
    for rank in (2.0, True, "2"):
        with pytest.raises(TypeError, match="rank must be an integer"):
            cls(4, 8, 3, rank=rank)
    with pytest.raises(ValueError, match="kernel_size must be"):
        cls(4, 4, (3,) * (ndim + 1), rank=1)
    with pytest.raises(ValueError, match="stride must be"):
        cls(4, 4, 3, stride=0, rank=1)
    with pytest.raises(ValueError, match="in_channels"):
        cls(0, 4, 3, rank=1)
    with pytest.raises(ValueError, match="method must be"):
        cls(4, 4, 3, rank=1, method="fft")
    with pytest.raises(ValueError, match="padding_mode must be"):
        cls(4, 4, 3, rank=1, padding_mode="mirror")
    with pytest.raises(ValueError, match="padding must be"):
        cls(4, 4, 3, rank=1, padding="full")
    with pytest.raises(ValueError, match="variance must be"):
        cls(4, 4, 3, rank=1).reset_parameters("glorot")
    for shape in ((2, 3, *(8,) * ndim), (4, 8), (1, 1, 4, *(8,) * ndim)):
        with pytest.raises(ValueError, match="expected an input of shape"):
            cls(4, 4, 3, rank=1)(torch.zeros(shape))
        with pytest.raises(ValueError, match="does not suit"):
            flops_of(cls(4, 4, 3, rank=1), shape)


def test_from_dense_refuses_other_layers():
    with pytest.raises(TypeError, match=r"expects a torch.nn.Conv2d, got Conv3d"):
        SeparableConv2d.from_dense(nn.Conv3d(2, 2, 3), 1)
    with pytest.raises(ValueError, match="groups"):
        SeparableConv2d.from_dense(nn.Conv2d(2, 2, 3, groups=2), 1)
    broken = nn.Conv2d(2, 2, 3)
    nn.init.constant_(broken.weight, math.nan)
    with pytest.raises(ValueError, match="NaN"):
        SeparableConv2d.from_dense(broken, 1)
    with pytest.raises(ValueError, match="stride 1"):
        SeparableConv2d(2, 2, 3, stride=2, padding="same", rank=1)
    with pytest.raises(TypeError, match="not, and does not contain"):
        parameters_of(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="Linear"):
        flops_of(nn.Linear(2, 2), (2,))
