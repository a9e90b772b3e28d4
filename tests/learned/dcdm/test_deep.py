"""The deep network of the method: symmetric, positive definite, over all levels; needs torch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights  # noqa: E402
from consolve.learned.dcdm.network import build_network, network_of  # noqa: E402


def network(ndim=2, seed=0, **sizes):
    """A random network in float64, its gates far from 1."""
    torch.manual_seed(seed)
    net = build_network(DCDMSettings(ndim, "dcdm-deep", **sizes)).double()
    with torch.no_grad():
        for block in (net.fine, net.coarse):
            block.gates[-1].weight *= 3
            block.gates[-1].bias.normal_()
    return net


def image(shape, seed=0):
    """A random cell image (1, 2, *shape)."""
    rng = np.random.default_rng(seed)
    active = rng.random(shape) < 0.7
    return torch.from_numpy(np.stack([active, rng.random(shape) * active])[None])


def matrix(net, shape, seed=0):
    """The network's matrix, column by column."""
    cells = int(np.prod(shape))
    unit = torch.eye(cells, dtype=torch.float64).view(cells, 1, *shape)
    x = torch.cat([unit, image(shape, seed).expand(cells, *[-1] * (len(shape) + 1))], 1)
    with torch.no_grad():
        return net(x).reshape(cells, cells).T.numpy()


shapes = st.one_of(
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
)


@given(shapes, st.integers(0, 99), st.sampled_from([1, 2]))
@settings(max_examples=30, deadline=None)
def test_symmetric_positive_definite_for_any_weights_and_grid(shape, seed, pairs):
    M = matrix(network(len(shape), seed, width=5, pairs=pairs), shape, seed)
    assert abs(M - M.T).max() <= 1e-12 * abs(M).max()
    assert np.linalg.eigvalsh(M).min() > 0.99 * np.exp(-3.0)  # no less than exp(floor)


@pytest.mark.parametrize("ndim, parameters", [(2, 11_410), (3, 33_010)])
def test_parameters_are_those_of_the_formula(ndim, parameters):
    settings = DCDMSettings(ndim, "dcdm-deep")
    taps, w, h = 3**ndim, 16, 8
    pairs, gates = 2 * w * w * taps, (2 * h * taps + h) + (h * h * taps + h) + (h * 2 * w + 2 * w)
    assert sum(np.prod(s, dtype=int) for s in settings.tensor_shapes().values()) == parameters
    assert parameters == w * taps + 2 * (pairs + gates) + 2


def test_every_cell_reaches_every_other_whatever_the_grid():
    M = matrix(network(2), (64, 3))
    assert (abs(M) > 1e-9 * abs(M).max()).all()


def test_levels_are_shared_between_residuals_and_made_once():
    net, shape = network(2), (11, 6)
    levels = net.levels(image(shape))
    assert [tuple(level.scale.shape[2:]) for level in levels] == [(11, 6), (6, 3), (3, 2)]
    assert levels[1].block is levels[2].block is net.coarse and levels[0].block is net.fine
    r = torch.randn(3, 1, *shape, dtype=torch.float64)
    x = torch.cat([r, image(shape).expand(3, -1, -1, -1)], 1)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(r, levels))


def test_the_coarse_correction_of_a_smooth_residual_grows_fourfold_with_each_level():
    # One channel that passes everything on: E r on level l is gain^l times the average of r over its cells,
    # so M adds up (gain^2 / 2^ndim)^l = 4^l times the same average, spread again.
    torch.manual_seed(0)
    net = build_network(DCDMSettings(2, "dcdm-deep", width=1)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.gain.fill_(4.0)
        net.floor.fill_(-40.0)
        net.first.weight[0, 0, 1, 1] = 1.0
        d = net(torch.ones(1, 3, 16, 16, dtype=torch.float64))
    torch.testing.assert_close(d, torch.full_like(d, 1 + 4 + 16))


@pytest.mark.parametrize("ndim", [2, 3])
def test_inference_computes_what_training_does(ndim):
    net = network(ndim).float()
    weights = DCDMWeights(net.settings, net.tensors())
    shape = (9, 14) if ndim == 2 else (5, 8, 6)
    x = torch.cat([torch.randn(1, 1, *shape), image(shape).float()], 1)
    trained = net(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(network_of(weights)(x), trained, rtol=1e-4, atol=1e-4)
