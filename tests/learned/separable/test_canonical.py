"""Canonical polyadic decomposition: exact ranks, best approximations, bounded terms."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolve.learned.separable.canonical import canonical_decomposition, largest_rank


def kernel_of_rank(shape, rank, seed=0):
    random = np.random.default_rng(seed)
    letters = "abcdefg"[: len(shape)]
    factors = [random.standard_normal((n, rank)) for n in shape]
    return np.einsum(f"{','.join(q + 'z' for q in letters)}->{letters}", *factors)


def distance(x, y):
    return np.linalg.norm(x - y) / np.linalg.norm(x)


@pytest.mark.parametrize(
    "shape, rank",
    [((8, 6, 3, 3), 4), ((16, 16, 3, 3), 12), ((8, 8, 3, 3, 3), 10), ((5, 7, 1, 4), 4), ((32, 32, 3, 3), 20)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_tensor_of_the_rank_is_recovered(shape, rank, seed):
    x = kernel_of_rank(shape, rank, seed)
    found = canonical_decomposition(x, rank)
    assert [f.shape for f in found.factors] == [(n, rank) for n in shape]
    assert found.relative_error < 1e-9
    assert distance(x, found.tensor()) < 1e-9


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 10))
def test_the_largest_rank_represents_every_tensor(shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    found = canonical_decomposition(x, largest_rank(shape), sweeps=3000, starts=10)
    assert distance(x, found.tensor()) == pytest.approx(found.relative_error, abs=1e-12)
    assert found.relative_error < 1e-5


def test_a_matrix_gets_the_best_approximation_of_its_rank():
    """Two axes: the truncated singular value decomposition (Eckart and Young)."""
    x = np.random.default_rng(0).standard_normal((12, 9))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    for rank in (1, 3, 7):
        found = canonical_decomposition(x, rank, regularisation=0, tolerance=1e-12)
        assert found.relative_error == pytest.approx(np.linalg.norm(s[rank:]) / np.linalg.norm(s), rel=1e-7)
        assert distance((u[:, :rank] * s[:rank]) @ v[:rank], found.tensor()) < 1e-3


def test_an_orthogonal_tensor_gets_its_largest_terms():
    """sum_r s_r a_r b_r c_r with orthonormal vectors: the best approximation keeps the largest s_r."""
    random = np.random.default_rng(1)
    a, b, c = (np.linalg.qr(random.standard_normal((n, 5)))[0] for n in (9, 8, 5))
    sizes = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    x = np.einsum("r,ar,br,cr->abc", sizes, a, b, c)
    found = canonical_decomposition(x, 3)
    assert found.relative_error == pytest.approx(np.sqrt(5 / 55), rel=1e-4)
    terms = np.prod([np.linalg.norm(f, axis=0) for f in found.factors], axis=0)
    np.testing.assert_allclose(np.sort(terms)[::-1], [5, 4, 3], rtol=1e-2)


def test_vectors_of_a_term_have_equal_norms():
    found = canonical_decomposition(np.random.default_rng(2).standard_normal((6, 5, 3, 3)), 7)
    norms = np.array([np.linalg.norm(f, axis=0) for f in found.factors])
    np.testing.assert_allclose(norms, norms[:1].repeat(4, axis=0), rtol=1e-10)


def test_regularisation_bounds_terms_where_no_best_approximation_exists():
    """Slices I and a quarter turn: rank 3, and two terms that approach it grow and cancel."""
    x = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]])
    largest, errors = [], []
    for weight in (0.0, 1e-3):
        found = canonical_decomposition(x, 2, regularisation=weight, sweeps=3000, tolerance=0, seed=1)
        largest.append(np.prod([np.linalg.norm(f, axis=0) for f in found.factors], axis=0).max())
        errors.append(found.relative_error)
    assert largest[0] > 4 * largest[1]
    assert errors == pytest.approx([0.5, 0.5], rel=0.01)
    assert canonical_decomposition(x, 3).relative_error < 1e-9


def test_the_gradient_of_the_objective_vanishes():
    """log |X - X'|^2 + w sum |F|^2 has the gradient 2 (w F - (X - X') K / |X - X'|^2)."""
    x = np.random.default_rng(6).standard_normal((5, 4, 3))
    x /= np.linalg.norm(x)
    weight = 0.02
    found = canonical_decomposition(x, 2, regularisation=weight, sweeps=5000, tolerance=0, starts=1)
    a, b, c = found.factors
    residual = x - found.tensor()
    pairs = ((a, "ijk,jr,kr->ir", b, c), (b, "ijk,ir,kr->jr", a, c), (c, "ijk,ir,jr->kr", a, b))
    for factor, product, *others in pairs:
        pull = np.einsum(product, residual, *others) / found.relative_error**2
        np.testing.assert_allclose(pull, weight * factor, atol=1e-8)
        assert np.abs(weight * factor).max() > 1e-3


def test_more_terms_are_no_worse():
    x = np.random.default_rng(3).standard_normal((10, 9, 3, 3))
    errors = [canonical_decomposition(x, rank).relative_error for rank in (1, 3, 8, 16, 30)]
    assert all(later < 0.97 * earlier for earlier, later in pairwise(errors))


def test_scaling_the_tensor_scales_the_terms_only():
    x = np.random.default_rng(4).standard_normal((6, 5, 3, 3))
    one, large = canonical_decomposition(x, 4), canonical_decomposition(1e6 * x, 4)
    assert one.relative_error == pytest.approx(large.relative_error, rel=1e-6)
    np.testing.assert_allclose(large.tensor(), 1e6 * one.tensor(), rtol=1e-4, atol=1)


def test_the_seed_decides_and_the_start_needs_none_within_the_axes():
    x = np.random.default_rng(5).standard_normal((6, 5, 4, 4))
    kept, again, other = (canonical_decomposition(x, 6, seed=s, starts=1) for s in (0, 0, 1))
    assert all(np.array_equal(p, q) for p, q in zip(kept.factors, again.factors))
    assert not np.allclose(kept.factors[2], other.factors[2])
    few = [canonical_decomposition(x, 4, seed=s, starts=1) for s in (0, 1)]
    assert all(np.array_equal(p, q) for p, q in zip(few[0].factors, few[1].factors))


def test_zero_has_no_error():
    found = canonical_decomposition(np.zeros((3, 4, 2)), 2)
    assert found.relative_error == 0 and not found.tensor().any() and found.tensor().shape == (3, 4, 2)


def test_largest_rank_leaves_out_the_longest_axis():
    assert largest_rank((64, 32, 3, 3)) == 32 * 9
    assert largest_rank((2, 2, 5, 3)) == 12
    assert largest_rank((1, 1, 3, 3)) == 3


def test_bad_arguments_say_what_was_expected():
    x = np.ones((4, 3, 3))
    for rank in (0, 10):
        with pytest.raises(ValueError, match=f"rank {rank} .* 4 x 3 x 3: expected 1 to 9"):
            canonical_decomposition(x, rank)
    with pytest.raises(TypeError, match="integer"):
        canonical_decomposition(x, 1.5)
    with pytest.raises(ValueError, match="NaN or infinite"):
        canonical_decomposition(np.where(x > 0, np.inf, x), 1)
    with pytest.raises(ValueError, match="2 axes"):
        canonical_decomposition(np.ones(3), 1)
    with pytest.raises(ValueError, match="with entries"):
        canonical_decomposition(np.ones((0, 3)), 1)
    with pytest.raises(ValueError, match="at least 1"):
        canonical_decomposition(x, 1, starts=0)
    with pytest.raises(ValueError, match="at least 0"):
        canonical_decomposition(x, 1, regularisation=-1)
