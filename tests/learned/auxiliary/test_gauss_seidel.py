"""Gauss-Seidel sweeps with the matrix: against their formula, symmetric and definite whatever the blocks."""

import mesh_cases
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from consolve.base.errors import MatrixError
from consolve.learned.auxiliary.gauss_seidel import GaussSeidel
from consolve.pde.matrix.local_rows import rows_of_csr
from consolve.pde.mesh.rows import read_mesh


def as_matrix(apply, size):
    columns = []
    for column in np.eye(size):
        z = np.empty(size)
        apply(column, z)
        columns.append(z)
    return np.array(columns).T


def nothing(t, c):
    c[:] = 0


@pytest.mark.parametrize("sweeps", [1, 2, 3])
@pytest.mark.parametrize("moved", [False, True])
def test_one_block_is_the_textbook_sweep(sweeps, moved):
    """I - M S = (I - G' S)^s (I - G S)^s with G = (L + D)^-1 in the new order."""
    matrix, points = mesh_cases.system(2, 5)
    n = len(points)
    order = np.random.default_rng(0).permutation(n) if moved else np.arange(n)
    smoother = GaussSeidel(
        read_mesh(rows_of_csr(matrix), points), np.array([0, n]), order if moved else None, sweeps
    )
    found = as_matrix(lambda r, z: smoother.apply(r, z, nothing), n)
    s = matrix.toarray()[order][:, order]
    down, up = (np.eye(n) - np.linalg.solve(part(s), s) for part in (np.tril, np.triu))
    error = np.linalg.matrix_power(up, sweeps) @ np.linalg.matrix_power(down, sweeps)
    expected = (np.eye(n) - error) @ np.linalg.inv(s)
    np.testing.assert_allclose(found[order][:, order], expected, atol=2e-6 * np.abs(expected).max())


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 2), st.floats(-30, 30))
def test_symmetric_and_definite_whatever_the_blocks(seed, blocks, sweeps, exponent):
    """Dense random matrices with couplings of both signs, nearly singular ones among them."""
    random = np.random.default_rng(seed)
    n = int(random.integers(blocks, 30))
    factor = random.standard_normal((n, n)) * (random.random((n, n)) < 0.4)
    s = factor @ factor.T + np.diag(10.0 ** random.uniform(-3, 1, n))
    matrix = sp.csr_matrix(s * 10.0**exponent)
    rows = read_mesh(rows_of_csr(matrix), random.random((n, 2)))
    bounds = np.unique(np.append([0, n], random.integers(0, n + 1, blocks - 1)))
    smoother = GaussSeidel(rows, bounds, random.permutation(n), sweeps)
    found = as_matrix(lambda r, z: smoother.apply(r, z, nothing), n)
    size = np.abs(found).max()
    np.testing.assert_allclose(found, found.T, atol=1e-5 * size)
    # Row scales cancel: eigenvalues of M S lie in (0, 1].
    half = np.linalg.cholesky(matrix.toarray())
    values = np.linalg.eigvalsh(half.T @ (0.5 * (found + found.T)) @ half)
    assert values.min() > -1e-4 and values.max() < 1 + 1e-4


def test_a_correction_stands_between_the_sweeps():
    """With the exact inverse as correction nothing is left to the second sweep."""
    matrix, points = mesh_cases.system(2, 6)
    smoother = GaussSeidel(read_mesh(rows_of_csr(matrix), points))
    r = np.random.default_rng(2).standard_normal(len(points))
    z = np.empty_like(r)
    smoother.apply(r, z, lambda t, c: c.__setitem__(slice(None), sp.linalg.spsolve(matrix.tocsc(), t)))
    np.testing.assert_allclose(matrix @ z, r, atol=1e-5)


def test_rows_without_couplings_get_nothing():
    matrix, points = mesh_cases.system(2, 6, boundary="kept")
    smoother = GaussSeidel(read_mesh(rows_of_csr(matrix), points))
    fixed = mesh_cases.on_boundary(points, 2)
    z = np.full(len(points), np.nan)
    smoother.apply(np.ones(len(points)), z, nothing)
    assert not z[fixed].any() and (z[~fixed] > 0).all()


def test_the_result_does_not_hang_on_threads():
    import numba

    matrix, points = mesh_cases.system(2, 80)
    rows = read_mesh(rows_of_csr(matrix), points)
    r, results = np.random.default_rng(4).standard_normal(len(points)), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        z = np.empty_like(r)
        GaussSeidel(rows).apply(r, z, nothing)
        results.append(z)
    np.testing.assert_array_equal(*results)


def test_diagonals_beyond_single_precision_are_refused():
    matrix, points = mesh_cases.system(2, 5)
    scale = sp.diags(np.where(np.arange(len(points)) < 3, 1e-25, 1.0))
    rows = read_mesh(rows_of_csr(sp.csr_matrix(scale @ matrix @ scale)), points)
    with pytest.raises(MatrixError, match="single precision"):
        GaussSeidel(rows)
