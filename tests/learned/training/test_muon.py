"""The optimiser of the wave surrogates."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.training.muon import SCALE, Muon, orthogonalised  # noqa: E402


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20)])
def test_orthogonalised_keeps_the_singular_vectors_and_levels_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    core = u.T @ orthogonalised(matrix) @ v.T
    values = core.diagonal()
    assert (values > 0.6).all() and (values < 1.3).all()
    assert (core - torch.diag(values)).abs().max() < 1e-6


def test_a_step_of_a_kernel_has_the_stated_size_whatever_the_gradient_s():
    torch.manual_seed(0)
    for factor in (1e-6, 1.0, 1e6):
        kernel = torch.nn.Parameter(torch.zeros(16, 16, 3, 3))
        kernel.grad = factor * torch.randn(16, 16, 3, 3)
        Muon([kernel], lr=0.01).step()
        assert kernel.detach().square().mean().sqrt().item() == pytest.approx(0.01 * SCALE, rel=0.25)


def test_small_and_flat_parameters_take_adam_s_steps():
    torch.manual_seed(0)
    filters = torch.nn.Parameter(torch.randn(30, 3))
    bias = torch.nn.Parameter(torch.randn(30))
    twins = [torch.nn.Parameter(p.detach().clone()) for p in (filters, bias)]
    ours, adam = Muon([filters, bias], lr=0.01), torch.optim.Adam(twins, lr=0.01)
    for _ in range(5):
        for p, q in zip((filters, bias), twins):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        adam.step()
    for p, q in zip((filters, bias), twins):
        torch.testing.assert_close(p, q)


def test_it_solves_an_ill_conditioned_least_squares_problem():
    rng = np.random.default_rng(0)
    scales = torch.tensor(np.geomspace(1, 1e-2, 12), dtype=torch.float32)
    x = torch.tensor(rng.standard_normal((200, 12)), dtype=torch.float32) * scales
    truth = torch.tensor(rng.standard_normal((12, 10)), dtype=torch.float32)
    w = torch.nn.Parameter(torch.zeros(12, 10))
    optimiser = Muon([w], lr=0.1)
    first = None
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        loss = (x @ w - x @ truth).square().mean()
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-3 * first


def test_its_state_survives_saving(tmp_path):
    def run(steps, optimiser, p, q):
        for step in range(*steps):
            torch.manual_seed(step)
            p.grad, q.grad = torch.randn_like(p), torch.randn_like(q)
            optimiser.step()

    def fresh():
        torch.manual_seed(99)
        p, q = torch.nn.Parameter(torch.randn(10, 12)), torch.nn.Parameter(torch.randn(5))
        return Muon([p, q], lr=0.01), p, q

    whole, p, q = fresh()
    run((0, 6), whole, p, q)
    half, a, b = fresh()
    run((0, 3), half, a, b)
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed = Muon([a, b], lr=0.01)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run((3, 6), resumed, a, b)
    assert torch.equal(a, p) and torch.equal(b, q)
