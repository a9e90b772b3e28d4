"""Compression of whole networks; needs torch."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from consolve.learned.separable.compression import compress  # noqa: E402
from consolve.learned.separable.layers import (  # noqa: E402
    SEPARABLE,
    SeparableConv2d,
    SeparableConv3d,
    SeparableConvTranspose2d,
    parameters_of,
)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift = nn.Conv2d(2, 12, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(12, 12, 3, stride=2, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 12, 4, stride=2, padding=1, bias=False),
        )
        self.mix = nn.Conv2d(12, 12, 1)
        self.project = nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, x):
        return self.project(torch.relu(self.mix(self.body(torch.relu(self.lift(x))))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def kinds(module):
    return {n: type(m).__name__ for n, m in module.named_modules() if "Conv" in type(m).__name__}


def test_every_convolution_but_single_taps_is_replaced(network):
    before = {n: p.clone() for n, p in network.state_dict().items()}
    small, summary = compress(network, rank=3)
    assert kinds(small) == {
        "lift": "SeparableConv2d",
        "body.0": "SeparableConv2d",
        "body.2": "SeparableConvTranspose2d",
        "mix": "Conv2d",
        "project": "SeparableConv2d",
    }
    x = torch.randn(2, 2, 10, 12)
    assert small(x).shape == network(x).shape
    assert summary.parameters == parameters_of(small) < summary.parameters_before == parameters_of(network)
    assert [q.rank for q in summary.layers] == [3, 3, 3, None, 3]
    assert small.body[0].padding_mode == "replicate" and small.body[2].bias is None
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    assert all(torch.equal(p, before[n]) for n, p in network.state_dict().items())
    assert set(kinds(network).values()) == {"Conv2d", "ConvTranspose2d"}


def test_compression_bounds_each_layer(network):
    small, summary = compress(network, compression=4, keep_last=True)
    for layer in summary.layers:
        if layer.rank is not None:
            assert 4 * layer.parameters <= layer.parameters_before
            per_term = sum(layer.kernel)
            assert 4 * (layer.parameters + per_term) > layer.parameters_before
    assert summary.layers[-1].rank is None
    assert summary.compression == parameters_of(network) / parameters_of(small)


def test_names_choose_layers_and_ranks(network):
    small, _ = compress(network, rank=2, exclude=["body.*"], keep_first=True)
    assert [n for n, k in kinds(small).items() if k.startswith("Separable")] == ["project"]
    small, summary = compress(network, rank={"body.0": 5, "body.*": 7})
    assert {q.name: q.rank for q in summary.layers if q.rank} == {"body.0": 5, "body.2": 7}
    small, summary = compress(network, compression={"body.*": 3}, exclude="body.2")
    assert [q.name for q in summary.layers if q.rank] == ["body.0"]
    for options in ({"exclude": ["boby.*"]}, {"rank": {"boby.*": 2}}):
        with pytest.raises(ValueError, match=r"'boby.\*' in .* there are: lift, body.0"):
            compress(network, **{"rank": 2, **options})


def test_cp_keeps_what_a_network_computes(network):
    """Kernels made of low rank are found again, so that the outputs are the same."""
    network.double()
    for name, layer in list(network.named_modules()):
        if type(layer) in SEPARABLE and name != "mix":
            with torch.no_grad():
                low = SEPARABLE[type(layer)].from_dense(layer, 2, starts=1)
                layer.weight.copy_(low.weight)
    small, summary = compress(network, rank=2, init="cp")
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(small(x), network(x), rtol=1e-6, atol=1e-7)
    assert all(q.relative_error < 1e-8 for q in summary.layers if q.rank)
    rough, summary = compress(network, rank=1, init="cp", starts=1)
    errors = {q.name: q.relative_error for q in summary.layers if q.rank}
    assert all(0.01 < e < 1 for e in errors.values())
    assert not torch.allclose(rough(x), network(x), rtol=1e-3)
    assert f"{errors['lift']:.2e}" in str(summary) and "times fewer" in str(summary)


def test_the_seed_decides_random_kernels_and_leaves_the_generator(network):
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    first, again, other = (compress(network, rank=2, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(torch.randn(3), expected)
    assert torch.equal(first.lift.weight, again.lift.weight)
    assert not torch.equal(first.lift.weight, other.lift.weight)
    he = compress(network, rank=2, seed=1, variance="he")[0]
    torch.testing.assert_close(he.lift.weight, first.lift.weight * 6**0.5)


def test_shared_layers_stay_shared_and_flags_are_kept():
    layer = nn.Conv2d(3, 3, 3, padding=1)
    layer.bias.requires_grad_(False)
    network = nn.Sequential(layer, nn.ReLU(), layer).double().eval()
    network.again = network[0]
    small, summary = compress(network, rank=2)
    assert small[0] is small[2] is small.again
    assert len(summary.layers) == 1
    assert small[0].weight.dtype == torch.float64 and not small[0].training
    assert not small[0].bias.requires_grad and small[0].input_factor.requires_grad


def test_a_convolution_itself_and_compressed_ones():
    small, summary = compress(nn.Conv3d(2, 3, 3), rank=2)
    assert isinstance(small, SeparableConv3d) and "(itself)" in str(summary)
    mixed = nn.Sequential(SeparableConv2d(2, 2, 3, rank=1), nn.ConvTranspose2d(2, 2, 3))
    small, _ = compress(mixed, rank=2)
    assert small[0].rank == 1 and isinstance(small[1], SeparableConvTranspose2d)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer, reason",
    [
        (lambda: nn.Conv2d(4, 4, 3, groups=2), "groups=2"),
        (lambda: Doubled(4, 4, 3), "Doubled"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), "Parametrized"),
        (lambda: nn.LazyConv2d(4, 3), "run the network once"),
    ],
)
def test_what_cannot_be_replaced_is_refused_by_name(layer, reason):
    network = nn.Sequential(nn.Conv2d(4, 4, 3), layer())
    with pytest.raises(ValueError, match=f"layer 1 .*{reason}"):
        compress(network, rank=2)


def test_hooks_are_refused_unless_excluded():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    network[1].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"layer 1 has hooks .*exclude=\['1'\]"):
        compress(network, rank=2)
    assert kinds(compress(network, rank=2, exclude=["1"])[0]) == {"0": "SeparableConv2d", "1": "Conv2d"}


def test_bad_arguments_say_what_was_expected(network):
    for options in ({}, {"rank": 2, "compression": 2}):
        with pytest.raises(ValueError, match="one of compression= and rank="):
            compress(network, **options)
    with pytest.raises(ValueError, match="init must be"):
        compress(network, rank=2, init="svd")
    with pytest.raises(TypeError, match="need init='cp': starts"):
        compress(network, rank=2, starts=2)
    with pytest.raises(ValueError, match=r"layer lift: rank 19 .* expected 1 to 18"):
        compress(network, rank=19)
    with pytest.raises(ValueError, match=r"layer lift: compression 30 is out of reach"):
        compress(network, compression=30)
    with pytest.raises(ValueError, match="no convolution to compress"):
        compress(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1)), rank=1)
