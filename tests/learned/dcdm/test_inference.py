"""A DCDM network as a preconditioner: z = |r| f(r / |r|) on the rows of an operator."""

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.dcdm import inference as dcdm_inference  # noqa: E402
from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights  # noqa: E402
from consolve.learned.dcdm.inference import DCDMPreconditioner  # noqa: E402
from consolve.learned.dcdm.network import build_network, image_channels, network_of  # noqa: E402
from consolve.pde import GridOperator  # noqa: E402


def random_weights(ndim=2, width=4, seed=0, **settings):
    torch.manual_seed(seed)
    chosen = DCDMSettings(ndim, width=width, **settings)
    return DCDMWeights(chosen, build_network(chosen).tensors())


def box(shape, solids=0.0, seed=0):
    types = (np.random.default_rng(seed).random(shape) < solids).astype(int)
    return GridOperator.from_cell_types(types, outside=2)


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def applied(preconditioner, r):
    z = np.full(r.size, 7.0)
    preconditioner.apply(r, z)
    return z


def expected(weights, operator, r, cells=None):
    """By the plain network, on arrays of the whole grid."""
    cells = operator.cells if cells is None else cells
    active = operator.active.reshape(-1)[cells]
    inputs = np.zeros((weights.settings.inputs, operator.active.size), np.float32)
    size = np.linalg.norm(r[active])
    inputs[0, cells[active]] = r[active] / size
    if weights.settings.image:
        inputs[1:] = image_channels(operator).reshape(2, -1)
    with torch.inference_mode():
        x = torch.from_numpy(inputs.reshape(1, -1, *operator.shape))
        y = network_of(weights)(x).numpy().reshape(-1)
    return np.where(active, size * y[cells], 0)


CASES = {
    "all cells": ((8, 9), 0.0, {}),
    "solids": ((9, 12), 0.3, {}),
    "image": ((10, 7), 0.3, {"image": True}),
    "large": ((40, 44), 0.2, {"width": 16}),
    "3D": ((5, 6, 7), 0.2, {"ndim": 3}),
    "deep": ((19, 12), 0.2, {"network": "dcdm-deep"}),
    "deep 3D": ((9, 6, 7), 0.2, {"ndim": 3, "network": "dcdm-deep", "pairs": 2}),
    "variant 128": ((6, 7, 8), 0.0, {"ndim": 3, "variant": 128, "image": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_network(case):
    shape, solids, settings = CASES[case]
    weights, operator = random_weights(**settings), box(shape, solids)
    r = 3 * noise(operator.unknowns)
    z = applied(DCDMPreconditioner(operator, weights), r)
    reference = expected(weights, operator, r)
    np.testing.assert_allclose(z, reference, rtol=1e-4, atol=1e-5 * abs(reference).max())


def test_rows_in_any_order_and_rows_of_cells_that_are_not_active():
    weights, operator = random_weights(), box((9, 10), 0.3)
    cells = np.random.default_rng(1).permutation(90)[:80].astype(np.int32)
    r = noise(80)
    z = applied(DCDMPreconditioner(operator, weights, cells), r)
    inactive = ~operator.active.reshape(-1)[cells]
    assert inactive.any() and (z[inactive] == 0).all()
    np.testing.assert_allclose(z, expected(weights, operator, r, cells), rtol=1e-4, atol=1e-6)
    r[inactive] *= 1e9  # the network does not see them
    np.testing.assert_array_equal(applied(DCDMPreconditioner(operator, weights, cells), r), z)


@pytest.mark.parametrize("solids", [0.0, 0.3])
def test_homogeneous_but_not_linear(solids):
    operator = box((12, 13), solids)
    f = DCDMPreconditioner(operator, random_weights())
    r, s = noise(operator.unknowns), noise(operator.unknowns, 1)
    z = applied(f, r)
    for exponent in (-900, -200, 3, 200, 900):
        np.testing.assert_allclose(applied(f, np.ldexp(r, exponent)), np.ldexp(z, exponent), rtol=1e-5)
    difference = applied(f, r + s) - z - applied(f, s)
    assert not f.is_symmetric and np.linalg.norm(difference) > 1e-3 * np.linalg.norm(z)


def test_linear_networks_are_linear_preconditioners():
    operator = box((12, 13), 0.2)
    f = DCDMPreconditioner(operator, random_weights(network="dcdm-deep"))
    r, s = noise(operator.unknowns), noise(operator.unknowns, 1)
    z = 2 * applied(f, r) - 3 * applied(f, s)
    np.testing.assert_allclose(applied(f, 2 * r - 3 * s), z, rtol=1e-4, atol=1e-5 * abs(z).max())
    assert f.is_symmetric
    assert not DCDMPreconditioner(operator, f.weights, precision="bfloat16").is_symmetric


def test_zero_gives_zero_and_nothing_finite_comes_of_nan():
    operator = box((6, 6))
    f = DCDMPreconditioner(operator, random_weights())
    assert (applied(f, np.zeros(36)) == 0).all()
    for bad in (np.nan, np.inf, -np.inf):
        r = noise(36)
        r[5] = bad
        assert np.isnan(applied(f, r)).all()


def test_what_overflows_in_the_network_is_passed_on():
    weights = random_weights()
    tensors = {k: t * np.float32(1e30) for k, t in weights.tensors.items()}
    z = applied(DCDMPreconditioner(box((6, 6)), DCDMWeights(weights.settings, tensors)), noise(36))
    assert not np.isfinite(z).any()


def test_read_only_vectors_are_read_without_a_copy():
    f = DCDMPreconditioner(box((64, 64)), random_weights(width=1))
    r, z = noise(64 * 64), np.empty(64 * 64)
    f.apply(r, z)
    expected_z = z.copy()
    before = r.copy()
    r.flags.writeable = False
    assert dcdm_inference.shared(r).data_ptr() == r.ctypes.data
    tracemalloc.start()
    f.apply(r, z)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(z, expected_z)
    np.testing.assert_array_equal(r, before)
    assert peak < r.nbytes / 2


def test_an_update_keeps_the_network_and_takes_the_new_operator(monkeypatch):
    weights = random_weights(image=True)
    first, second = box((9, 10), 0.2), box((9, 10), 0.4, seed=3)
    f = DCDMPreconditioner(first, weights)
    network = f.network
    monkeypatch.setattr(dcdm_inference, "network_of", lambda _: pytest.fail("built again"))
    f.update(second)
    assert f.network is network and f.setups == 2
    r = noise(second.unknowns)
    np.testing.assert_allclose(applied(f, r), expected(weights, second, r), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_bfloat16_is_close(ndim):
    operator, weights = box((12,) * ndim, 0.2), random_weights(ndim)
    r = noise(operator.unknowns)
    exact, rounded = (
        applied(DCDMPreconditioner(operator, weights, precision=p), r) for p in ("auto", "bfloat16")
    )
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-6 < error < 0.05


def test_the_threads_of_the_program_are_restored():
    before = torch.get_num_threads()
    seen = []
    f = DCDMPreconditioner(box((6, 6)), random_weights(), threads=before + 1)
    f.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    applied(f, noise(36))
    assert seen == [before + 1] and torch.get_num_threads() == before


@pytest.mark.parametrize("variant, image", [(64, False), (128, True)])
def test_operations_are_counted(variant, image):
    """By hand for an even grid: a convolution of t taps costs 2 t in out a cell."""
    f = DCDMPreconditioner(box((8, 6)), random_weights(width=4, variant=variant, image=image))
    applied(f, noise(48))
    fine, coarse, after = {64: (4, 6, 4), 128: (6, 10, 6)}[variant]
    per_cell = 2 * 9 * 4 * (3 if image else 1) + 2 * 9 * 16 * (fine + after + coarse / 4) + 2 * 4
    assert f.flops == 48 * per_cell
    applied(f, noise(48))
    assert f.flops == 48 * per_cell


def test_memory_held():
    operator = box((32, 32))
    f = DCDMPreconditioner(operator, random_weights(width=16))
    assert f.bytes == 4 * 32_657 + 4 * 32 * 32


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"cells": np.array([0, 36])}, r"cells must lie in 0\.\.35"),
        ({"weights": random_weights(3)}, "weights for 3D grids, the operator is 2D"),
        ({"device": "cuda:99"}, "device 'cuda:99': torch .* CUDA devices; install .* or use the device cpu"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        DCDMPreconditioner(**({"operator": box((6, 6)), "weights": random_weights()} | arguments))


def test_vectors_of_another_length_are_refused():
    f = DCDMPreconditioner(box((6, 6)), random_weights())
    with pytest.raises(ValueError, match="must have 36 entries"):
        f.apply(np.zeros(35), np.zeros(36))
    with pytest.raises(ValueError, match="operator is 3D"):
        f.update(box((3, 3, 3)))
