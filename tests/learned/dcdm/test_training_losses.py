"""Losses of the deep conjugate direction method against NumPy in double precision; needs torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.energy import energy_loss, random_errors  # noqa: E402
from consolve.learned.dcdm.training import direction_loss  # noqa: E402
from consolve.learned.dcdm.unrolled import unrolled_loss  # noqa: E402
from consolve.learned.training.domains import random_operator, random_right_hand_side  # noqa: E402
from consolve.learned.training.operator import TorchOperator, norm  # noqa: E402
from consolve.pde.poisson.domains import make_domain  # noqa: E402


def batch(seed, ndim=2, count=3, shape=None):
    """Operators of one shape, and right-hand sides (count, 1, *grid) in their ranges."""
    rng = np.random.default_rng(seed)
    shape = shape or tuple(int(n) for n in rng.integers(6, 11, ndim))
    operators = [random_operator(rng, shape) for _ in range(count)]
    b = np.stack([random_right_hand_side(rng, op) for op in operators])
    return operators, torch.from_numpy(b)[:, None]


def solution(operator, b):
    """Least-squares solution of A x = b by dense algebra."""
    x = np.zeros(operator.shape)
    x[operator.active] = np.linalg.pinv(operator.to_csr().toarray(), rcond=1e-10) @ b[operator.active]
    return x


def inverse(operators):
    """A^-1 as a network, without gradient."""

    def direction(r):
        ops = operators if len(operators) > 1 else operators * len(r)
        x = [solution(op, s.numpy().astype(float)) for op, s in zip(ops, r[:, 0])]
        return torch.from_numpy(np.stack(x).astype(np.float32))[:, None]

    return direction


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_products_are_those_of_the_grid_operators(seed, ndim):
    operators, _ = batch(seed, ndim)
    x = np.random.default_rng(seed).standard_normal((3, 1, *operators[0].shape)).astype(np.float32)
    product = TorchOperator(operators).product(torch.from_numpy(x)).numpy()
    single = TorchOperator(operators[:1]).product(torch.from_numpy(x)).numpy()
    for k, op in enumerate(operators):
        np.testing.assert_allclose(product[k, 0], op.apply(x[k, 0]), atol=1e-5)
        np.testing.assert_allclose(single[k, 0], operators[0].apply(x[k, 0]), atol=1e-5)


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_the_null_space_removed_is_that_of_the_grid_operators(seed, ndim):
    operators, _ = batch(seed, ndim, count=4)
    x = np.random.default_rng(seed).standard_normal((4, 1, *operators[0].shape)).astype(np.float32)
    removed = TorchOperator(operators).remove_null_space(torch.from_numpy(x)).numpy()
    for k, op in enumerate(operators):
        np.testing.assert_allclose(removed[k, 0], op.remove_null_space(x[k, 0]), atol=1e-5)


def test_closed_domains_are_among_the_random_ones():
    closed = [op.is_singular for seed in range(20) for op in batch(seed)[0]]
    assert 5 < sum(closed) < 55


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_the_published_loss_is_that_of_numpy(seed, ndim):
    operators, b = batch(seed, ndim)
    d = torch.from_numpy(np.random.default_rng(seed).standard_normal(b.shape).astype(np.float32))
    losses = direction_loss(TorchOperator(operators), lambda r: d, b).numpy()
    for k, op in enumerate(operators):
        f, right = np.where(op.active, d[k, 0].numpy(), 0).astype(float), b[k, 0].numpy().astype(float)
        product = op.apply(f.astype(np.float32)).astype(float)
        alpha = np.vdot(right, f) / np.vdot(f, product)
        assert losses[k] == pytest.approx(((right - alpha * product) ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_published_loss_of_the_inverse_is_zero_at_any_scale(ndim):
    operators, b = batch(1, ndim)
    exact = inverse(operators)
    loss = direction_loss(TorchOperator(operators), lambda r: 1e-3 * exact(r), b)
    assert float(loss.max()) < 1e-8
    assert float(direction_loss(TorchOperator(operators), torch.zeros_like, b).sub(1).abs().max()) < 1e-5


def test_gradient_of_the_published_loss():
    operators, b = batch(3)
    operator = TorchOperator(operators)
    rng = np.random.default_rng(0)
    d, step = (torch.from_numpy(rng.standard_normal(b.shape).astype(np.float32)) for _ in range(2))
    d.requires_grad_()
    direction_loss(operator, lambda r: d, b).mean().backward()
    with torch.no_grad():
        moved = [d + scale * step for scale in (1e-3, -1e-3)]
        high, low = (direction_loss(operator, lambda r, to=to: to, b).mean() for to in moved)
    assert d.grad is not None
    assert float((d.grad * step).sum()) == pytest.approx(float(high - low) / 2e-3, rel=2e-2)
    assert not d.grad[operator.active.expand_as(d) == 0].any()


def conjugate_gradients(operator, b, steps):
    """Norms of the residuals 0..steps of plain conjugate gradients in double precision."""
    a, r = operator.to_csr().toarray(), b[operator.active].astype(float)
    p, norms = r.copy(), [np.linalg.norm(r)]
    for _ in range(steps):
        alpha = r @ r / (p @ a @ p)
        following = r - alpha * (a @ p)
        p = following + (following @ following) / (r @ r) * p
        r = following
        norms.append(np.linalg.norm(r))
    return np.array(norms)


@pytest.mark.parametrize(("ndim", "steps", "before"), [(2, 5, 0), (2, 3, 4), (3, 4, 2), (2, 1, 0)])
def test_with_the_residual_as_direction_the_method_is_conjugate_gradients(ndim, steps, before):
    operators, _ = batch(5, ndim)
    rng = np.random.default_rng(5)  # white noise: with few modes rounding takes over soon
    noise = [op.remove_null_space(rng.standard_normal(op.shape)).astype(np.float32) for op in operators]
    b = torch.from_numpy(np.stack(noise))[:, None]
    losses = unrolled_loss(TorchOperator(operators), lambda r: r, b, steps, before).numpy()
    for k, op in enumerate(operators):
        norms = conjugate_gradients(op, b[k, 0].numpy(), before + steps)
        assert losses[k] == pytest.approx(np.log10(norms[-1] / norms[before]) / steps, abs=2e-3)


def test_one_step_with_the_inverse_ends_the_iteration():
    operators, b = batch(7)
    exact = inverse(operators)
    assert float(unrolled_loss(TorchOperator(operators), exact, b, 1).max()) < -4
    two = unrolled_loss(TorchOperator(operators), exact, b, 2)
    assert float(two.max()) < -2.5 and float(two.min()) >= -3.5 - 1e-6  # the floor of float32 over two steps


def test_gradients_pass_through_all_steps_but_not_through_the_warm_up():
    operators, b = batch(9)
    operator = TorchOperator(operators)
    seen = []

    def direction(r):
        weight = torch.ones(1, requires_grad=torch.is_grad_enabled())
        seen.append(weight)
        return r * (1 + 0.3 * weight * torch.linspace(-1, 1, r.shape[-1]))

    unrolled_loss(operator, direction, b, 3, before=2).mean().backward()
    assert [w.grad is not None and float(w.grad.abs()) > 1e-5 for w in seen] == [False] * 2 + [True] * 3


@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e25])
def test_directions_of_any_size_give_finite_gradients(scale):
    operators, b = batch(11)
    weight = torch.ones(1, requires_grad=True)
    loss = unrolled_loss(TorchOperator(operators), lambda r: weight * scale * r, b, 4, before=1).mean()
    loss.backward()
    assert torch.isfinite(loss) and weight.grad is not None and torch.isfinite(weight.grad)


def test_a_direction_given_twice_does_no_harm():
    """Made conjugate to itself it is rounding errors alone."""
    operators, b = batch(13)
    fixed = torch.randn(b.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = unrolled_loss(TorchOperator(operators), lambda r: fixed, b, 4).mean()
    loss.backward()
    assert float(loss.detach()) < 0.5 and fixed.grad is not None and torch.isfinite(fixed.grad).all()


def test_norms_have_gradients_at_zero():
    x = torch.zeros(2, 1, 3, 3, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None and not x.grad.any()


def test_one_operator_serves_a_whole_batch_with_gradients():
    operator = make_domain("spheres", (8, 9), seed=1).operator()
    x = torch.randn(4, 1, *operator.shape, requires_grad=True)
    product = TorchOperator([operator]).product(x)
    (product * x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * product.detach().numpy(), atol=1e-4)


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_the_energy_left_is_the_least_along_the_direction(seed, ndim):
    """Against the energy of e - alpha d at the alpha of the method and at its neighbours."""
    operators, e = batch(seed, ndim)
    d = torch.from_numpy(np.random.default_rng(seed).standard_normal(e.shape).astype(np.float32))
    losses = energy_loss(TorchOperator(operators), lambda r: d, e).numpy()
    for k, op in enumerate(operators):
        a = op.to_csr().toarray()
        error, step = (x[k, 0].numpy()[op.active].astype(float) for x in (e, d))
        alpha = step @ a @ error / (step @ a @ step)
        left = [
            (error - s * step) @ a @ (error - s * step) / (error @ a @ error) for s in (alpha, 0.9 * alpha)
        ]
        assert losses[k] == pytest.approx(left[0], abs=1e-4) and losses[k] < left[1] + 1e-4


def test_no_energy_is_left_along_the_error_and_all_across_it():
    operators, e = batch(15)
    operator = TorchOperator(operators)
    assert float(energy_loss(operator, lambda r: 1e-3 * e, e).max()) < 1e-5
    d = torch.randn(e.shape, generator=torch.Generator().manual_seed(0)) * operator.active
    product = operator.product(e)
    across = d - (d * product).sum((1, 2, 3), keepdim=True) / (e * product).sum((1, 2, 3), keepdim=True) * e
    assert float(energy_loss(operator, lambda r: across, e).sub(1).abs().max()) < 1e-5


@pytest.mark.parametrize("shape", [(32, 32), (16, 24, 10)])
def test_random_errors_have_energy_in_every_octave(shape):
    """On the closed box, whose eigenvectors are the cosines: the constant has none."""
    from scipy.fft import dctn

    errors = random_errors(np.random.default_rng(0), 200, shape)
    assert errors.shape == (200, *shape) and errors.dtype == np.float32
    coefficients = dctn(errors.astype(float), axes=range(1, len(shape) + 1), norm="ortho")
    along = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in shape]
    eigenvalue = np.add.outer(along[0], along[1])
    if len(shape) == 3:
        eigenvalue = np.add.outer(eigenvalue, along[2])
    energy = eigenvalue * coefficients**2
    edges = eigenvalue[eigenvalue > 0].min() * (1 - 1e-9) * 2.0 ** np.arange(20)
    octaves = [(eigenvalue >= low) & (eigenvalue < 2 * low) for low in edges if low < eigenvalue.max()]
    parts = [energy[:, octave].sum(1) for octave in octaves if octave.sum() > 3]
    means = np.array([np.exp(np.log(part).mean()) for part in parts])
    assert len(means) >= 5 and means.max() / means.min() < 2
    assert all(np.log(part).std() == pytest.approx(4 / 3**0.5, rel=0.25) for part in parts)
    assert all(0.1 < np.median(energy[:, octave].sum(1)) < 3 for octave in octaves)
