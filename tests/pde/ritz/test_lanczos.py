"""Lanczos against dense and ARPACK eigenpairs, and the identities that it must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import AIR, GridOperator
from consolve.pde.ritz.lanczos import Lanczos, project_out, rank

CASES = [
    ("box", (12, 12)),
    ("spheres", (20, 14)),
    ("two-phase", (9, 11)),
    ("closed-box", (10, 7)),
    ("closed-pockets", (16, 12)),
    ("box", (6, 6, 6)),
    ("closed-box", (5, 5, 5)),
]


def finished(operator, vectors=None, seed=0, dtype=np.float64):
    lanczos = Lanczos(operator, vectors or rank(operator), seed, dtype)
    lanczos.run()
    return lanczos


def null_space(operator):
    labels, closed = operator.components
    inside = labels[operator.active]
    return np.array([inside == k for k in np.flatnonzero(closed)]).reshape(-1, inside.size)


@pytest.mark.parametrize(("dtype", "accuracy"), [(np.float64, 1e-13), (np.float32, 1e-7)])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_all_vectors_give_all_eigenvalues_but_those_of_the_null_space(name, shape, dtype, accuracy):
    operator = make_domain(name, shape, 3).operator()
    lanczos = finished(operator, dtype=dtype)
    values, _, residuals = lanczos.ritz()
    exact = np.linalg.eigvalsh(operator.to_csr().toarray())
    assert lanczos.vectors == (exact > 1e-10).sum()
    assert abs(values - exact[-lanczos.vectors :]).max() < accuracy * exact[-1]
    assert residuals.max() == 0  # the range of A is exhausted


@pytest.mark.parametrize("name", ["box", "closed-spheres"])
def test_the_largest_ritz_values_are_those_of_eigsh(name):
    operator = make_domain(name, (24, 24), 1).operator()
    matrix = operator.to_csr()
    values, coefficients, residuals = (lanczos := finished(operator, 120)).ritz()
    exact, vectors = eigsh(matrix, k=4, which="LA")
    assert abs(values[-4:] - np.sort(exact)).max() < 1e-10
    assert residuals[-4:].max() < 1e-6
    ours = coefficients[-1] @ lanczos.basis
    assert abs(abs(ours @ vectors[:, np.argmax(exact)]) - 1) < 1e-8


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "shape"), [("spheres", (30, 30)), ("closed-pockets", (24, 24))])
def test_the_lanczos_relation_holds(name, shape, dtype):
    operator = make_domain(name, shape, 2).operator()
    lanczos = finished(operator, 60, dtype=dtype)
    matrix, q = operator.to_csr(), lanczos.basis.astype(np.float64)
    t = np.diag(lanczos.diagonal)
    t += np.diag(lanczos.off_diagonal[:-1], 1) + np.diag(lanczos.off_diagonal[:-1], -1)
    rest = matrix @ q.T - q.T @ t
    rest[:, -1] -= lanczos.off_diagonal[-1] * lanczos.following
    eps = np.finfo(dtype).eps
    assert abs(rest).max() < 50 * eps
    assert abs(q @ q.T - np.eye(60)).max() < 20 * eps
    assert abs(q @ lanczos.following).max() < 20 * eps
    assert abs(null_space(operator) @ q.T).max(initial=0) < 200 * eps


def test_the_residual_of_a_ritz_pair_is_what_its_last_entry_says():
    operator = make_domain("boxes", (20, 20), 4).operator()
    lanczos = finished(operator, 30)
    values, coefficients, residuals = lanczos.ritz()
    vectors = coefficients @ lanczos.basis
    true = np.linalg.norm(operator.to_csr() @ vectors.T - vectors.T * values, axis=0)
    assert np.allclose(true, residuals, rtol=1e-8, atol=1e-12)
    assert residuals.max() > 1e-3  # and it is not nothing


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_step_restarts_on_a_multiple_of_the_identity(dtype):
    shape = (4, 5)
    faces = tuple(np.zeros(shape) for _ in shape)
    operator = GridOperator(faces, np.full(shape, 3.0), np.ones(shape, np.bool_))
    lanczos = finished(operator, dtype=dtype)
    assert not lanczos.off_diagonal.any()
    assert abs(lanczos.ritz()[0] - 3).max() < 1e-6
    q = lanczos.basis.astype(np.float64)
    assert abs(q @ q.T - np.eye(20)).max() < 10 * np.finfo(dtype).eps


def test_multiple_eigenvalues_are_found_as_often_as_they_occur():
    operator = make_domain("closed-box", (4, 4, 4)).operator()
    values = finished(operator).ritz()[0]
    one = 2 - 2 * np.cos(np.pi * np.arange(4) / 4)
    exact = np.sort((one[:, None, None] + one[:, None] + one).ravel())[1:]
    assert abs(values - exact).max() < 1e-13


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=2, max_size=3), st.booleans())
def test_random_domains(seed, shape, open_side):
    rng = np.random.default_rng(seed)
    types = rng.choice(3, size=shape, p=(0.7, 0.2, 0.1)).astype(np.uint8)
    outside = [(1, 1)] * len(shape)
    if open_side:
        outside[0] = (AIR, 1)
    operator = GridOperator.from_cell_types(types, outside, rng.uniform(0.1, 10, shape))
    if rank(operator) == 0:
        with pytest.raises(ValueError, match="rank 0"):
            Lanczos(operator, 1)
        return
    values = finished(operator, seed=seed).ritz()[0]
    exact = np.linalg.eigvalsh(operator.to_csr().toarray())[-rank(operator) :]
    assert abs(values - exact).max() < 1e-12 * exact[-1]


def test_the_seed_fixes_every_bit_and_another_gives_others():
    operator = make_domain("box", (9, 9)).operator()
    a, b, c = finished(operator, 20, 1), finished(operator, 20, 1), finished(operator, 20, 2)
    assert (a.basis == b.basis).all() and (a.diagonal == b.diagonal).all()
    assert abs(a.basis[0] - c.basis[0]).max() > 0.1


def test_restored_steps_go_on_to_the_same_bits():
    operator = make_domain("closed-box", (5, 5)).operator()
    whole, again = finished(operator, dtype=np.float32), Lanczos(operator, rank(operator), 0, np.float32)
    first = Lanczos(operator, rank(operator), 0, np.float32)
    for j in range(17):
        first.step()
        again.restore(first.diagonal[j], first.off_diagonal[j], first.following.copy())
    again.run()
    assert (again.basis == whole.basis).all() and (again.off_diagonal == whole.off_diagonal).all()


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_projecting_out_rows_is_the_dense_projection(rows):
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((50, rows)))[0].T.copy()
    r = rng.standard_normal(50)
    expected = r - q.T @ (q @ r)
    project_out(q, r)
    assert np.allclose(r, expected, rtol=0, atol=1e-14)


def test_wrong_arguments_are_refused():
    operator = make_domain("closed-box", (4, 4)).operator()
    with pytest.raises(ValueError, match="rank 15: expected 1 to 15"):
        Lanczos(operator, 16)
    with pytest.raises(ValueError, match="expected 1 to 15"):
        Lanczos(operator, 0)
    with pytest.raises(ValueError, match="float32 or float64"):
        Lanczos(operator, 3, dtype=np.float16)
    lanczos = Lanczos(operator, 3)
    with pytest.raises(ValueError, match="no Lanczos step"):
        lanczos.ritz()
    lanczos.run()
    with pytest.raises(ValueError, match="all 3 Lanczos steps are done"):
        lanczos.step()
