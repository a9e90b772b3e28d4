"""The networks of the deep conjugate direction method: size, shapes, and what they compute."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights  # noqa: E402
from consolve.learned.dcdm.network import build_network, image_channels, network_of  # noqa: E402
from consolve.pde import GridOperator  # noqa: E402


def network(seed=0, **settings):
    torch.manual_seed(seed)
    return build_network(DCDMSettings(**settings))


def evaluated(net, x):
    with torch.inference_mode():
        return net(torch.as_tensor(x, dtype=torch.float32)).numpy()


@pytest.mark.parametrize(
    "ndim, variant, convolutions, parameters",
    [(3, 64, 14, 97_457), (3, 128, 22, 152_881), (2, 64, 14, 32_657), (2, 128, 22, 51_217)],
)
def test_published_parameter_counts(ndim, variant, convolutions, parameters):
    """1 -> 16, then 16 -> 16 with bias, then 16 -> 1 per cell: counted from the paper's picture."""
    taps = 3**ndim
    assert parameters == (taps * 16 + 16) + convolutions * (taps * 16 * 16 + 16) + (16 + 1)
    settings = DCDMSettings(ndim, variant=variant)
    net = build_network(settings)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert DCDMWeights(settings, net.tensors()).parameters == parameters
    assert {k: t.shape for k, t in net.tensors().items()} == settings.tensor_shapes()


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 5), (16, 2), (3, 5, 4), (2, 7, 1)])
def test_any_size_comes_out_as_it_went_in(shape, image):
    net = network(ndim=len(shape), width=3, image=image)
    x = np.random.default_rng(0).standard_normal((2, net.settings.inputs, *shape))
    y = evaluated(net, x)
    assert y.shape == (2, 1, *shape) and np.isfinite(y).all()


def test_odd_sizes_are_as_even_ones_with_zeros_behind():
    net = network(ndim=2, width=4)
    x = np.random.default_rng(0).standard_normal((1, 1, 7, 9))
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    np.testing.assert_array_equal(evaluated(net, x), evaluated(net, padded)[:, :, :7, :9])


@pytest.mark.parametrize("shift, same", [(2, True), (4, True), (1, False)])
def test_commutes_with_shifts_by_the_pooling(shift, same):
    """Away from the ends a shift by whole pooled blocks shifts the result; by one cell it does not."""
    net = network(ndim=2, width=4)
    x = np.zeros((1, 1, 80, 80))
    x[..., 38:42, 38:42] = np.random.default_rng(0).standard_normal((4, 4))
    y, moved = evaluated(net, x), evaluated(net, np.roll(x, shift, axis=(2, 3)))
    inside = slice(36, 44)
    difference = np.abs(np.roll(moved, -shift, axis=(2, 3)) - y)[..., inside, inside].max()
    assert (difference < 1e-5 * np.abs(y).max()) == same


@pytest.mark.parametrize("ndim", [2, 3])
def test_by_hand_on_constant_cells(ndim):
    """Width 1, all weights 0 but the central taps: the formula of DCDMSettings on one number per cell."""
    settings = DCDMSettings(ndim, width=1)
    rng = np.random.default_rng(1)
    tensors, centre = {}, (0, 0, *(1,) * ndim)
    for name, shape in settings.tensor_shapes().items():
        tensors[name] = np.zeros(shape, np.float32)
        where = centre if name.endswith("weight") and name != "last.weight" else (0,) * len(shape)
        tensors[name][where] = rng.uniform(-0.2, 1)
    w = {k: float(t.sum()) for k, t in tensors.items()}

    def convolution(name, h):
        return w[f"{name}.weight"] * h + w[f"{name}.bias"]

    def relu(h):
        return max(h, 0.0)

    def pairs(name, count, h):
        for k in range(0, 2 * count, 2):
            h += relu(convolution(f"{name}.{k + 1}", relu(convolution(f"{name}.{k}", h))))
        return h

    for value in (-1.3, 0.4, 2.0):
        h = relu(convolution("fine.0", convolution("first", value)))
        h += relu(convolution("fine.2", relu(convolution("fine.1", h))))
        h = relu(convolution("fine.3", h))
        h += pairs("coarse", 3, h)
        expected = convolution("last", pairs("after", 2, h))
        y = evaluated(network_of(DCDMWeights(settings, tensors)), np.full((1, 1, *(4,) * ndim), value))
        np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_pools_over_blocks_and_returns_to_them():
    """Fine path closed: what comes out is constant over 2 x 2 blocks, and is their mean."""
    settings = DCDMSettings(2, width=1)
    tensors = {k: np.zeros(s, np.float32) for k, s in settings.tensor_shapes().items()}
    for name in ("first", "fine.0", "fine.3"):
        tensors[f"{name}.weight"][0, 0, 1, 1] = 1
    tensors["last.weight"][:] = 1
    x = np.random.default_rng(0).random((1, 1, 6, 8))
    y = evaluated(network_of(DCDMWeights(settings, tensors)), x)
    mean = x.reshape(3, 2, 4, 2).mean(axis=(1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(y[0, 0], x[0, 0] + mean, rtol=1e-6)


def test_image_channels_show_the_active_cells_and_the_open_boundary():
    types = np.zeros((4, 5), int)
    types[1, 2] = 1
    operator = GridOperator.from_cell_types(types, outside=((2, 1), (1, 1)))
    scaled = GridOperator(
        tuple(9 * f for f in operator.face_coefficient), 9 * operator.dirichlet, operator.active
    )
    for op in (operator, scaled):
        image = image_channels(op)
        assert image.shape == (2, 4, 5) and image.dtype == np.float32
        np.testing.assert_array_equal(image[0], types == 0)
        np.testing.assert_allclose(image[1], np.arange(4)[:, None] == np.zeros((4, 5)), rtol=1e-6)
