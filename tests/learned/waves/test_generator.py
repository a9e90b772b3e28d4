"""The generator network in torch; needs torch."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.waves.format import GeneratorSettings, WaveWeights  # noqa: E402
from consolve.learned.waves.generator import TorchGenerator, shuffle  # noqa: E402
from consolve.learned.waves.generator_training import field_vrmse  # noqa: E402

SMALL = GeneratorSettings(
    (0.0, -2.0), (1.0, 2.0), 1.5, (16, 8, 12), harmonics=2, hidden=16, seeds=5, width=6, layers=4, factor=2
)
RANKS = (4, 5, 5, 6)


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return TorchGenerator(replace(SMALL, **changes)).requires_grad_(False)


PLACES = torch.tensor([[0.2, 1.0], [0.9, -1.9], [0.5, 0.0]])


@pytest.mark.parametrize("ranks", [None, RANKS])
def test_tensors_are_those_of_the_settings(ranks):
    net = network(ranks=ranks)
    tensors = net.tensors()
    assert {name: t.shape for name, t in tensors.items()} == net.settings.tensor_shapes()
    again, stored = TorchGenerator(net.settings), WaveWeights(net.settings, tensors).tensors
    again.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in stored.items()})
    fields = net(PLACES)
    assert fields.shape == (3, 16, 8, 12) and torch.equal(again(PLACES), fields)


def test_shuffle_puts_every_channel_at_its_point():
    h = torch.randn(2, 27, 2, 4, 5)
    out = shuffle(h, 3)
    assert out.shape == (2, 6, 12, 15)
    for dt, dy, dx in np.ndindex(3, 3, 3):
        assert torch.equal(out[:, dt::3, dy::3, dx::3], h[:, 9 * dt + 3 * dy + dx])


def test_features_are_scaled_parameters_and_their_harmonics():
    low_end, high_end, middle = network().features(torch.tensor([[0.0, -2.0], [1.0, 2.0], [0.5, 1.0]]))
    p = torch.tensor([0.0, 0.5])
    expected = [p]
    for k in (1, 2):
        expected += [torch.sin(k * math.pi / 2 * p), torch.cos(k * math.pi / 2 * p)]
    torch.testing.assert_close(middle, torch.cat(expected))
    assert low_end[:2].tolist() == [-1, -1] and high_end[:2].tolist() == [1, 1]
    # The ends of a range are not taken for one.
    assert (low_end - high_end).abs().max() > 1


def test_fields_are_in_units_of_the_training_set():
    one, two = network(), network(scale=3.0)
    torch.testing.assert_close(two(PLACES), 2 * one(PLACES))


def test_dense_network_with_the_kernels_of_a_compressed_one_makes_the_same_field():
    compressed, dense = network(ranks=RANKS), network(seed=1)
    for layer, convolution in enumerate(compressed.decoder):
        dense.decoder[layer].load_state_dict(convolution.to_dense().state_dict())
    dense.encoder.load_state_dict(compressed.encoder.state_dict())
    torch.testing.assert_close(dense(PLACES), compressed(PLACES), rtol=1e-4, atol=1e-5)


def test_a_field_does_not_depend_on_the_others_of_a_batch():
    net = network(ranks=RANKS)
    torch.testing.assert_close(net(PLACES)[1:2], net(PLACES[1:2]), rtol=1e-5, atol=1e-6)
    assert (net(PLACES)[0] - net(PLACES)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("ranks", [None, (200, 150, 150, 200)])
def test_untrained_convolutions_keep_the_variance(ranks):
    net = network(seeds=24, width=32, ranks=ranks)
    torch.manual_seed(1)
    for convolution in net.decoder:
        x = torch.randn(2, convolution.in_channels, 10, 10, 10)
        y = convolution(x)[..., 1:-1, 1:-1, 1:-1]
        assert 0.5 < float(y.var() / x.var()) < 1.8


def test_field_vrmse_is_one_for_the_mean_and_zero_for_the_truth():
    truth = torch.randn(3, 4, 5, 6, dtype=torch.float64) + 2
    assert not field_vrmse(truth, truth).any()
    mean = truth.flatten(1).mean(1)[:, None, None, None].expand_as(truth)
    torch.testing.assert_close(field_vrmse(mean, truth), torch.ones(3, dtype=torch.float64))
    off = truth + 0.5
    torch.testing.assert_close(field_vrmse(off, truth), 0.5 / truth.flatten(1).std(1, unbiased=False))


def test_gradients_reach_every_parameter():
    net = TorchGenerator(replace(SMALL, ranks=RANKS))
    net(PLACES).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
