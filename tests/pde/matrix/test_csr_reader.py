"""A CSR matrix as a GridOperator: what comes out is what went in, and bad matrices are refused by name."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from consolve.pde import GridOperator
from consolve.pde.matrix.csr_reader import OffStencil, read_csr, real_csr


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

    from consolve.pde.matrix.grid_map import GridMap
    from consolve.solvers.matrix.stencil import read_stencil

    csr = GridOperator.from_cell_types(np.zeros((6, 7), int), outside=2).to_csr().tolil()
    for row in range(7):  # Dirichlet rows, whose columns are kept
        csr.rows[row], csr.data[row] = [row], [-2.5]
    csr = sp.csr_matrix(csr)
    read = read_csr(csr, (6, 7), np.arange(42))
    mat = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data), comm=PETSc.COMM_SELF)
    stencil = read_stencil(mat, GridMap((6, 7), np.arange(42, dtype=np.int32), "a test"))
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
        (changed(7, 6, -2.0), ValueError, ["row 6 (cell (1, 1))", "a[7,6] = -2", "not symmetric"]),
        (changed(7, 6, 0.0), ValueError, ["a[6,7] = -1", "a[7,6] = 0", "not symmetric"]),
        (changed(7, 6, 0.5, True), ValueError, ["row 6", "a[6,7] = 0.5", "other sign"]),
        (changed(7, 1, -0.5, True), OffStencil, ["row 1 (cell (0, 1))", "row 7 (cell (1, 2))", "neighbour"]),
        (changed(4, 5, -0.5, True), OffStencil, ["(0, 4)", "(1, 0)"]),
        (changed(7, 7, 3.0), ValueError, ["row 7", "row sum -1", "diagonally dominant"]),
        (changed(7, 7, 0.0), ValueError, ["row 7", "diagonal 0", "not definite"]),
        (changed(7, 7, -4.0), ValueError, ["row 7", "diagonal -4", "not definite"]),
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
