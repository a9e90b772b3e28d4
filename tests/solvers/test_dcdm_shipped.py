"""The shipped networks of the deep conjugate direction method on domains that no training drew."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.format import load_dcdm_weights  # noqa: E402
from consolve.pde.poisson.domains import make_domain  # noqa: E402
from consolve.pde.poisson.right_hand_sides import right_hand_side  # noqa: E402
from consolve.solvers import assemble_matrix  # noqa: E402


def solved(problems, kind, model, shape, domain, rtol=1e-6, seed=1001):
    """Solution by the shipped model, and the relative residual that it really has."""
    operator = make_domain(domain, shape, seed=seed).operator()
    b = right_hand_side("noise", operator, seed).reshape(-1)[operator.cells]
    ksp = problems.ksp(assemble_matrix(operator), kind, pc_cnn_model=model, ksp_rtol=rtol)
    found = problems.solve(ksp, b)
    return found, np.linalg.norm(b - operator.to_csr() @ found.x) / np.linalg.norm(b)


@pytest.mark.parametrize("domain", ["box", "spheres", "boxes", "free-surface", "rotor", "closed-spheres"])
@pytest.mark.parametrize(
    "shape, most", [((64, 64), 12), ((97, 150), 13), ((256, 256), 14), ((32, 32, 32), 16)]
)
def test_the_deep_network_needs_few_iterations_on_any_grid(problems, shape, most, domain):
    found, residual = solved(problems, "dcd", "dcdm-deep", shape, domain)
    assert found.reason > 0 and residual <= 1.001e-6
    assert found.iterations <= most


def test_conjugate_gradients_take_the_deep_network_down_to_full_precision(problems):
    found, residual = solved(problems, "cg", "dcdm-deep", (80, 80), "spheres", rtol=1e-12)
    assert found.reason > 0 and residual < 1e-11 and found.iterations <= 30


@pytest.mark.parametrize("shape, most", [((64, 64), 26), ((128, 128), 40), ((32, 32, 32), 40)])
def test_the_published_network_needs_few_iterations_near_the_size_it_was_trained_at(problems, shape, most):
    boxed, _ = solved(problems, "dcd", "dcdm", shape, "box", rtol=1e-4)
    found, residual = solved(problems, "dcd", "dcdm", shape, "spheres", rtol=1e-4)
    assert boxed.iterations <= most and found.iterations <= 1.5 * most
    assert found.reason > 0 and residual <= 1.001e-4


@pytest.mark.parametrize("domain", ["box", "spheres", "free-surface", "rotor", "closed-spheres"])
@pytest.mark.parametrize("shape, most", [((64, 64), 26), ((32, 32, 32), 30)])
def test_the_network_that_sees_the_image_serves_every_kind_of_boundary(problems, shape, most, domain):
    found, residual = solved(problems, "dcd", "dcdm-image", shape, domain, rtol=1e-4)
    assert found.reason > 0 and residual <= 1.001e-4
    assert found.iterations <= most


@pytest.mark.parametrize("name", ["dcdm", "dcdm-image", "dcdm-deep"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_shipped_weights_say_how_they_came_about(name, ndim):
    record = load_dcdm_weights(name, ndim).record
    assert record["command"].startswith("consolve train dcdm ")
    assert {"seed", "data_hash", "revision", "scores", "domain"} <= set(record)
