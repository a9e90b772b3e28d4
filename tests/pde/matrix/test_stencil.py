"""A CSR matrix as the operator of a grid, without PETSc: what comes out is what went in, and bad matrices are
refused by name."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from consolve.base.errors import MatrixError
from consolve.pde import GridOperator
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.local_rows import real_csr, rows_of_csr
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.matrix.stencil import read_stencil


def read_csr(csr, shape, cells):
    return read_stencil(rows_of_csr(csr), GridMap(shape, np.asarray(cells, np.int32), "a test"))


@given(st.integers(0, 10**6), st.integers(2, 3), st.sampled_from([1.0, -1.0]), st.booleans(), st.booleans())
def test_reads_back_what_was_assembled(seed, ndim, sign, every, shuffle):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 6, ndim))
    types = rng.choice(3, shape, p=[0.7, 0.2, 0.1])
    operator = GridOperator.from_cell_types(types, mobility=10 ** rng.uniform(-3, 3, shape))
    if operator.unknowns == 0 and not every:
        return
    csr = sign * operator.to_csr("all" if every else "active")
    cells = np.arange(types.size) if every else operator.cells
    if shuffle:
        order = rng.permutation(cells.size)
        csr, cells = csr[order][:, order], cells[order]
    read = read_csr(sp.csr_matrix(csr), shape, cells)
    active = read.operator.active
    assert read.sign == (sign if active.any() else 1)
    scale = operator.diagonal().max(initial=0.0)
    for a, b in zip(read.operator.face_coefficient, operator.face_coefficient):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    expected = np.where(active, operator.dirichlet, 0)
    np.testing.assert_allclose(read.operator.dirichlet, expected, rtol=1e-6, atol=1e-9 * scale)
    diagonal = csr.diagonal()[read.diagonal_rows]
    np.testing.assert_allclose(read.diagonal_inverse[diagonal != 0] * diagonal[diagonal != 0], 1)
    assert read.diagonal_rows.size == cells.size - np.count_nonzero(active)


def test_agrees_with_the_reader_of_petsc_matrices():
    pytest.importorskip("petsc4py")
    from petsc4py import PETSc

    from consolve.solvers.matrix import stencil as of_petsc

    csr = GridOperator.from_cell_types(np.zeros((6, 7), int), outside=2).to_csr().tolil()
    for row in range(7):  # Dirichlet rows, whose columns are kept
        csr.rows[row], csr.data[row] = [row], [-2.5]
    csr = sp.csr_matrix(csr)
    read = read_csr(csr, (6, 7), np.arange(42))
    mat = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data), comm=PETSc.COMM_SELF)
    stencil = of_petsc.read_stencil(mat, GridMap((6, 7), np.arange(42, dtype=np.int32), "a test"))
    for a, b in zip(read.operator.face_coefficient, stencil.operator.face_coefficient):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(read.operator.dirichlet, stencil.operator.dirichlet)
    np.testing.assert_array_equal(read.diagonal_rows, stencil.diagonal_rows)
    np.testing.assert_array_equal(read.diagonal_inverse, stencil.diagonal_inverse)


def test_round_off_couplings_are_none():
    csr = GridOperator.from_cell_types(np.zeros((6, 7), int), outside=2).to_csr().tolil()
    csr[0, 40], csr[3, 11] = 1e-17, -1e-16
    assert read_csr(sp.csr_matrix(csr), (6, 7), np.arange(42)).operator.unknowns == 42


def changed(row, column, value, both=False):
    dense = GridOperator.from_cell_types(np.zeros((4, 5), int), outside=2).to_csr().toarray()
    dense[row, column] = value
    if both:
        dense[column, row] = value
    return sp.csr_matrix(dense)


@pytest.mark.parametrize(
    "csr, error, words",
    [
        (changed(7, 6, -2.0), MatrixError, ["row 6 (cell (1, 1))", "a[7,6] = -2", "not symmetric"]),
        (changed(7, 6, 0.0), MatrixError, ["a[6,7] = -1", "a[7,6] = 0", "not symmetric"]),
        (changed(7, 6, 0.5, True), MatrixError, ["row 6", "a[6,7] = 0.5", "other sign"]),
        (changed(4, 5, -0.5, True), MatrixError, ["(0, 4)", "(1, 0)"]),
        (changed(7, 7, 0.0), MatrixError, ["row 7", "zero diagonal", "must be definite"]),
        (changed(7, 7, -4.0), MatrixError, ["row 7", "diagonal -4", "indefinite"]),
    ],
)
def test_unfit_matrices_are_refused_by_row_and_value(csr, error, words):
    with pytest.raises(error) as caught:
        read_csr(csr, (4, 5), np.arange(20))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dia", "lil", "bsr", "dense", "array"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, bool])
def test_any_storage_becomes_the_same_csr(kind, dtype):
    dense = np.array([[2, 0, 1], [0, 1, 0], [1, 0, 0]]).astype(dtype)
    given = dense if kind == "dense" else sp.csr_array(dense) if kind == "array" else sp.csr_matrix(dense)
    given = given.asformat(kind) if kind not in ("dense", "array", "csr") else given
    csr = real_csr(given)
    assert csr.dtype == np.float64 and csr.has_sorted_indices and isinstance(csr, sp.csr_matrix)
    np.testing.assert_array_equal(csr.toarray(), dense.astype(float))


def test_duplicates_are_added_up():
    coo = sp.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 1], [0, 0, 1])), (2, 2))
    np.testing.assert_array_equal(real_csr(coo).toarray(), [[3, 0], [0, 4]])
    assert real_csr(coo).nnz == 2


def box(n, three_dimensional):
    """Bi- or trilinear elements of the Laplacian on n^d nodes, Dirichlet eliminated."""
    k = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1]) * n
    m = sp.diags([np.ones(n - 1), 4 * np.ones(n), np.ones(n - 1)], [-1, 0, 1]) / (6 * n)
    if not three_dimensional:
        return sp.csr_matrix(sp.kron(k, m) + sp.kron(m, k)), (n, n)
    terms = sp.kron(sp.kron(k, m), m) + sp.kron(sp.kron(m, k), m) + sp.kron(sp.kron(m, m), k)
    return sp.csr_matrix(terms), (n, n, n)


@pytest.mark.parametrize("three_dimensional", [False, True])
def test_box_stencils_become_equivalent_operators(three_dimensional):
    csr, shape = box(6, three_dimensional)
    read = read_csr(csr, shape, np.arange(csr.shape[0]))
    assert not read.is_exact and isinstance(read.operator, GridOperator)
    lumped = read.operator.to_csr().toarray()
    eigenvalues = np.linalg.eigvals(np.linalg.solve(lumped, csr.toarray())).real
    least = 1 / 9 if three_dimensional else 1 / 3
    assert least - 1e-12 < eigenvalues.min() and eigenvalues.max() < 1 + 1e-12


def test_periodic_axes_are_seen():
    ring = sp.diags([-np.ones(7), 2 * np.ones(8), -np.ones(7)], [-1, 0, 1]).tolil()
    ring[0, 7] = ring[7, 0] = -1
    line = sp.diags([-np.ones(5), 2 * np.ones(6), -np.ones(5)], [-1, 0, 1])
    csr = sp.csr_matrix(sp.kron(line, sp.identity(8)) + sp.kron(sp.identity(6), ring.tocsr()))
    read = read_csr(csr, (6, 8), np.arange(48))
    assert isinstance(read.operator, RowOperator) and read.grid.periodic == (False, True) and read.is_exact


def newton(strength, shape=(12, 13)):
    """A Laplacian less a reaction in the inner cells: symmetric, with negative row sums."""
    operator = GridOperator.from_cell_types(np.zeros(shape, int), outside=2)
    inner = np.zeros(shape)
    inner[1:-1, 1:-1] = strength
    return sp.csr_matrix(operator.to_csr() - sp.diags(inner.reshape(-1)))


def test_reactions_of_the_wrong_sign_are_served_where_the_matrix_is_definite():
    csr = newton(0.1)
    assert np.linalg.eigvalsh(csr.toarray()).min() > 0
    read = read_csr(csr, (12, 13), np.arange(156))
    assert not read.is_exact and (read.operator.dirichlet >= 0).all()
    assert all((face >= 0).all() for face in read.operator.face_coefficient)


def test_an_indefinite_component_is_refused_by_its_row():
    with pytest.raises(MatrixError, match=r"row 14 .*row sum -3: it is not diagonally dominant"):
        read_csr(newton(3.0), (12, 13), np.arange(156))
    types = np.zeros((4, 9), int)
    types[:, 4] = 1  # two halves, one of them closed and made indefinite
    operator = GridOperator.from_cell_types(types, outside=((1, 1), (1, 2)))
    csr = operator.to_csr().tolil()
    csr[0, 0] -= 0.1
    with pytest.raises(MatrixError, match=r"row 0 .*row sum -0.1"):
        read_csr(sp.csr_matrix(csr), (4, 9), operator.cells)
