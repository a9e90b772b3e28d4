"""Reading the matrix of an image in one sweep: what the other readers read, or nothing."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consolve.pde import GridOperator
from consolve.pde.matrix import stencil as reader
from consolve.pde.matrix import uniform_rows as uniform_kernels
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.uniform import UniformOperator
from consolve.solvers import MatrixError
from consolve.solvers.matrix.local_matrix import LocalMatrix
from consolve.solvers.matrix.stencil import read_stencil

ROUND_OFF = 1e-13


def image_matrix(seed, ndim, numbering, scale=1.0, longest=9):
    """CSR matrix of a random image with random sides, and its grid."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, longest, ndim))
    image = rng.choice(3, shape, p=[0.8, 0.15, 0.05]).astype(np.uint8)
    operator = GridOperator.from_cell_types(image, [tuple(p) for p in rng.integers(1, 3, (ndim, 2))])
    csr = operator.to_csr(numbering)
    cells = operator.cells if numbering == "active" else np.arange(image.size, dtype=np.int32)
    if scale != 1:
        coupled = np.diff(csr.indptr) > 1
        csr.data[np.repeat(coupled, np.diff(csr.indptr))] *= scale
    return csr, GridMap(shape, cells, "a test")


def both(mat, grid):
    """What this reader says, and what is said without it."""
    with patch.object(reader, "_read_uniform", return_value=None):
        plain = read_stencil(mat, grid)
    return reader._read_uniform(LocalMatrix(mat), grid, ROUND_OFF), plain


def assert_same(uniform, plain):
    assert isinstance(uniform.operator, UniformOperator) and uniform.sign == plain.sign
    for a, b in zip(uniform.operator.face_coefficient, plain.operator.face_coefficient, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(uniform.operator.dirichlet, plain.operator.dirichlet, rtol=1e-12)
    np.testing.assert_array_equal(uniform.operator.active, plain.operator.active)
    np.testing.assert_array_equal(uniform.diagonal_rows, plain.diagonal_rows)
    np.testing.assert_array_equal(uniform.diagonal_inverse, plain.diagonal_inverse)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    ndim=st.integers(2, 3),
    numbering=st.sampled_from(["active", "all"]),
    scale=st.sampled_from([1.0, -1.0, 0.1, -1 / 3, 7e8]),
)
def test_reads_what_the_reader_of_coefficients_reads(problems, seed, ndim, numbering, scale):
    csr, grid = image_matrix(seed, ndim, numbering, scale)
    uniform, plain = both(problems.matrix(csr), grid)
    if np.diff(csr.indptr).max(initial=0) > 1:
        assert_same(uniform, plain)
    else:
        assert uniform is None


@pytest.mark.parametrize("name", ["spheres", "channels", "closed-pockets", "free-surface"])
@pytest.mark.parametrize("shape", [(90, 150), (21, 18, 75)])
@pytest.mark.parametrize("chunks", [1, 2, 7])
def test_parts_read_as_one(name, shape, chunks):
    operator = make_domain(name, shape, seed=4).operator()
    csr, size = operator.to_csr(), np.array((1,) * (3 - len(shape)) + shape)
    table, start, first = uniform_kernels.runs_of_rows(csr.indptr, operator.cells, size, chunks)
    np.testing.assert_array_equal(table, UniformOperator.of(operator).runs.table)
    fixed_start = np.zeros(start.size, np.int32)
    fits, place, part = uniform_kernels.read_uniform_rows(
        csr.indptr, csr.indices, csr.data, table, start, first, size, -1.0, 1, ROUND_OFF, fixed_start
    )  # fmt: skip
    assert fits
    expected = UniformOperator.of(operator).fixed
    np.testing.assert_array_equal(fixed_start, expected.start)
    np.testing.assert_array_equal(place, expected.place)
    np.testing.assert_array_equal(part, expected.part)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([0.5, 2.0, 1 + 1e-15, 0.0, -1.0, np.nan, np.inf]))
def test_one_other_entry_is_left_to_the_other_readers(problems, seed, factor):
    csr, grid = image_matrix(seed, 3, "active", longest=20)
    row = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    off = np.flatnonzero(csr.indices != row)
    if not off.size:
        return
    csr.data[off[seed % off.size]] *= factor
    assert reader._read_uniform(LocalMatrix(problems.matrix(csr)), grid, ROUND_OFF) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.__setitem__((5, 6), -2.0), "not symmetric"),
        (lambda a: a.__setitem__((5, 6), np.nan), "finite|nan"),
        (lambda a: a.__setitem__((5, 40), -1.0), "stencil|neighbour"),
        (lambda a: a.__setitem__((7, 7), 1.0), "dominant|diagonal"),
        (lambda a: a.__setitem__((7, 7), np.inf), "finite|inf"),
    ],
)
def test_faults_are_told_as_before(problems, change, message):
    operator = GridOperator.from_cell_types(np.zeros((9, 11), np.uint8), 2)
    csr = operator.to_csr().tolil()
    change(csr)
    grid = GridMap(operator.shape, operator.cells, "a test")
    with pytest.raises(MatrixError, match=message):
        read_stencil(problems.matrix(csr.tocsr()), grid)


def test_a_stored_zero_a_closed_face_and_rows_out_of_order_take_the_other_way(problems):
    operator = GridOperator.from_cell_types(np.zeros((9, 11), np.uint8), 2)
    grid = GridMap(operator.shape, operator.cells, "a test")
    csr = operator.to_csr()
    i, j = 12, 13
    assert csr[i, j] == -1
    zero = csr.copy()
    zero[i, j] = zero[j, i] = 0.0  # stored
    order = np.random.default_rng(0).permutation(csr.shape[0])
    permuted = csr[order][:, order].tocsr()
    permuted.sort_indices()
    for matrix, place in (
        (zero, grid),
        (permuted, GridMap(operator.shape, operator.cells[order], "a test")),
    ):
        mat = problems.matrix(matrix)
        assert reader._read_uniform(LocalMatrix(mat), place, ROUND_OFF) is None
        stencil = read_stencil(mat, place)
        assert stencil.operator.unknowns == csr.shape[0]
        assert (stencil.operator.face_coefficient[1] == 0).sum() == 9 + (matrix is zero)


def test_dirichlet_parts_of_any_value_are_read(problems):
    rng = np.random.default_rng(5)
    plain = GridOperator.from_cell_types(np.zeros((6, 7, 40), np.uint8))
    part = np.where(rng.random(plain.shape) < 0.5, rng.uniform(0.1, 3, plain.shape), 0)
    operator = GridOperator(plain.face_coefficient, part, plain.active)
    grid = GridMap(operator.shape, operator.cells, "a test")
    uniform, plain = both(problems.matrix(operator.to_csr()), grid)
    assert_same(uniform, plain)
    np.testing.assert_allclose(uniform.operator.dirichlet, part, rtol=0, atol=1e-14)
