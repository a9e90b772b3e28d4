"""The propagator network in torch; needs torch."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.waves.format import PropagatorSettings, WaveWeights  # noqa: E402
from consolve.learned.waves.medium import medium_channels  # noqa: E402
from consolve.learned.waves.propagator import TorchPropagator  # noqa: E402
from consolve.learned.waves.propagator_training import propagator_of  # noqa: E402

SMALL = PropagatorSettings(past=3, ahead=2, factor=2, width=8, layers=4, gate_width=4)
RANKS = (5, 6, 7, 8)


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return TorchPropagator(replace(SMALL, **changes)).double().requires_grad_(False)


def medium(shape=(16, 12), runs=2, seed=0):
    rng = np.random.default_rng(seed)
    fixed = (rng.random((runs, *shape)) < 0.1).astype(np.uint8)
    return torch.from_numpy(medium_channels(rng.uniform(0.5, 1, (runs, *shape)), fixed)).double()


def snapshots(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("ranks", [None, RANKS])
def test_tensors_are_those_of_the_settings(ranks):
    net = network(ranks=ranks).float()
    tensors = net.tensors()
    assert {name: t.shape for name, t in tensors.items()} == net.settings.tensor_shapes()
    assert all(t.dtype == np.float32 for t in tensors.values())
    again = propagator_of(net.settings, WaveWeights(net.settings, tensors).tensors)
    u, m = snapshots(2, 3, 16, 12).float(), medium().float()
    assert torch.equal(again(u, m, 4), net(u, m, 4))
    tensors["gate.0.bias"] += 1  # copies: the network does not change
    assert not np.array_equal(net.tensors()["gate.0.bias"], tensors["gate.0.bias"])


@pytest.mark.parametrize("ranks", [None, RANKS])
def test_a_forecast_is_linear_in_the_wave(ranks):
    net, m = network(ranks=ranks), medium()
    u, v = snapshots(2, 3, 16, 12), snapshots(2, 3, 16, 12, seed=2)
    both = net(2 * u - 3 * v, m, 6)
    torch.testing.assert_close(both, 2 * net(u, m, 6) - 3 * net(v, m, 6), rtol=1e-10, atol=1e-10)
    assert not net(torch.zeros_like(u), m, 6).any()
    assert (net(u, m, 6) - net(u, medium(seed=5), 6)).abs().max() > 1e-3  # the medium does matter


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6])
def test_a_rollout_is_repeated_steps(ahead, steps):
    net, m, u = network(ahead=ahead), medium(), snapshots(2, 3, 16, 12)
    gates, kernels = net.gates(m), net.kernels()
    history = list(u.unbind(1))
    while len(history) < 3 + steps:
        history += net.step(torch.stack(history[-3:], 1), gates, kernels).unbind(1)
    forecast = net(u, m, steps)
    assert forecast.shape == (2, steps, 16, 12)
    torch.testing.assert_close(forecast, torch.stack(history[3 : 3 + steps], 1), rtol=1e-12, atol=1e-12)


def test_one_step_is_the_formula_of_the_settings():
    """Against loops over layers in NumPy, with space to depth written out point by point."""
    net, m, u = network(ranks=RANKS), medium(runs=1), snapshots(1, 3, 16, 12)
    f, ny, nx = 2, 8, 6

    def unshuffle(a):
        out = np.empty((len(a) * f * f, ny, nx))
        for c in range(len(a)):
            for dy in range(f):
                for dx in range(f):
                    out[c * f * f + f * dy + dx] = a[c, dy::f, dx::f]
        return out

    def convolve(w, h, bias=None):
        k = w.shape[-1] // 2
        padded = np.pad(h, ((0, 0), (k, k), (k, k)))
        out = np.zeros((len(w), ny, nx))
        for y in range(w.shape[2]):
            for x in range(w.shape[3]):
                out += np.einsum("oi,iyx->oyx", w[:, :, y, x], padded[:, y : y + ny, x : x + nx])
        return out if bias is None else out + bias[:, None, None]

    def gelu(x):
        return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()

    t = {name: p.numpy() for name, p in net.named_parameters()}
    w = [
        np.einsum(
            "or,ri,ry,rx->oiyx",
            *(t[f"wave.{k}.{n}"] for n in ("output_factor", "input_factor", "filter_y", "filter_x")),
        )
        for k in range(4)
    ]
    g = unshuffle(m[0].numpy())
    g = gelu(convolve(t["gate.0.weight"], g, t["gate.0.bias"]))
    g = gelu(convolve(t["gate.1.weight"], g, t["gate.1.bias"]))
    gates = convolve(t["gate.2.weight"], g, t["gate.2.bias"]).reshape(3, 8, ny, nx)
    h = gates[0] * convolve(w[0], unshuffle(u[0].numpy()))
    for layer in (1, 2):
        h = h + gates[layer] * convolve(w[layer], h)
    change = convolve(w[3], h)
    expected = np.empty((2, 16, 12))
    for k in range(2):
        for dy in range(f):
            for dx in range(f):
                free = 1 - m[0, 1, dy::f, dx::f].numpy()
                update = free * change[k * f * f + f * dy + dx]
                expected[k, dy::f, dx::f] = u[0, -1, dy::f, dx::f].numpy() + update
    np.testing.assert_allclose(net(u, m, 2)[0].numpy(), expected, rtol=1e-10, atol=1e-10)


def test_dense_network_with_the_kernels_of_a_compressed_one_forecasts_the_same():
    compressed, dense = network(ranks=RANKS), network(seed=1)
    for layer, convolution in enumerate(compressed.wave):
        dense.wave[layer].load_state_dict(convolution.to_dense().state_dict())
    dense.gate.load_state_dict(compressed.gate.state_dict())
    u, m = snapshots(2, 3, 16, 12), medium()
    torch.testing.assert_close(dense(u, m, 6), compressed(u, m, 6), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ranks", [None, RANKS])
def test_a_shift_by_the_factor_shifts_the_forecast(ranks):
    """In a constant medium, 7 coarse points from the sides: 4 convolutions of the wave, 2 of the gates."""
    net = network(ranks=ranks)
    m = torch.from_numpy(medium_channels(np.full((1, 40, 40), 0.7), np.zeros((1, 40, 40)))).double()
    u = torch.zeros(1, 3, 40, 40, dtype=torch.float64)
    u[:, :, 16:22, 16:22] = snapshots(1, 3, 6, 6)
    moved = torch.roll(u, (2, -4), (2, 3))
    there, here = net(moved, m, 1), torch.roll(net(u, m, 1), (2, -4), (2, 3))
    inner = (..., slice(14, -14), slice(14, -14))
    torch.testing.assert_close(there[inner], here[inner], rtol=1e-10, atol=1e-10)
    assert here[inner].abs().max() > 0.1
    odd = net(torch.roll(u, 1, 3), m, 1) - torch.roll(net(u, m, 1), 1, 3)
    assert odd[inner].abs().max() > 1e-6  # the factor is no accident of the test


@pytest.mark.parametrize("ranks", [None, (120, 96, 96, 120)])
def test_untrained_layers_keep_the_variance(ranks):
    net = network(width=64, factor=4, ranks=ranks)
    torch.manual_seed(3)
    for kernel in net.kernels()[:-1]:
        x = torch.randn(2, kernel.shape[1], 24, 24, dtype=torch.float64)
        y = torch.nn.functional.conv2d(x, kernel)
        assert 0.6 < float(y.var() / x.var()) < 1.6
    last = net.kernels()[-1]
    fan = last[0].numel()
    assert 0.006 < float(last.square().mean() * fan) < 0.016  # a hundredth of 1 / fan in


def test_an_untrained_step_nearly_repeats_the_last_snapshot():
    net, u = network(width=64, factor=4), snapshots(2, 3, 32, 32)
    change = net(u, medium((32, 32)), 1) - u[:, -1:]
    assert 0.01 < float(change.std()) < 0.6


def test_fixed_vertices_keep_their_value():
    net, m, u = network(ranks=RANKS), medium(), snapshots(2, 3, 16, 12)
    fixed = (m[:, 1:2] > 0).expand(-1, 6, -1, -1)
    assert fixed.any()
    change = net(u, m, 6) - u[:, -1:]
    assert not change[fixed].any() and change[~fixed].abs().min() > 0


def test_gradients_reach_every_parameter():
    net = TorchPropagator(replace(SMALL, ranks=RANKS)).double()
    net(snapshots(2, 3, 16, 12), medium(), 5).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
