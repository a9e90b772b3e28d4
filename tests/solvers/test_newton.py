"""Newton's matrices of Bratu's problem: symmetric positive definite, with reactions of the wrong sign."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

import consolve
from consolve.pde import GridOperator


def bratu(n, strength):
    """The Jacobian at the solution of -lap u = strength exp(u) on n x n nodes, u = 0 around them."""
    laplacian = GridOperator.from_cell_types(np.zeros((n, n), int), outside=2).to_csr()
    laplacian = sp.csr_matrix(laplacian + sp.diags(4.0 - laplacian.diagonal()))
    u, h = np.zeros(n * n), 1 / (n + 1)
    for _ in range(8):
        reaction = strength * h**2 * np.exp(u)
        u -= spsolve(sp.csc_matrix(laplacian - sp.diags(reaction)), laplacian @ u - reaction)
    return sp.csr_matrix(laplacian - sp.diags(reaction))


@pytest.mark.parametrize("kind", ["cg", "dcd"])
@pytest.mark.parametrize("strength", [1.0, 6.0])
def test_as_few_iterations_as_for_poisson(kind, strength):
    jacobian, b = bratu(40, strength), np.random.default_rng(0).standard_normal(1600)
    x, info = consolve.solve(jacobian, b, ksp=kind, rtol=1e-8)
    assert np.linalg.norm(b - jacobian @ x) < 1.01e-8 * np.linalg.norm(b)
    assert info.records[0].iterations <= 10


def test_a_shift_of_the_right_sign_is_as_good_as_none():
    jacobian = sp.csr_matrix(bratu(40, 0.0) + 0.3 * sp.identity(1600))
    x, info = consolve.solve(jacobian, np.ones(1600), rtol=1e-8)
    assert np.linalg.norm(1 - jacobian @ x) < 1.01e-8 * 40 and info.records[0].iterations <= 8
