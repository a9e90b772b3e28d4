"""Matrix -> grid operator: what comes out is what went in, and bad matrices are refused by name."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.pde.matrix import regular_kernels
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.row_reader import RowReader
from consolve.solvers import MatrixError
from consolve.solvers.matrix.local_matrix import LocalMatrix
from consolve.solvers.matrix.stencil import check_matrix, read_stencil


def all_cells(shape):
    return GridMap(shape, np.arange(np.prod(shape), dtype=np.int32), "a test")


def fluid_cells(operator):
    return GridMap(operator.shape, operator.cells, "a test")


def assert_same_operator(read: GridOperator, expected: GridOperator, scale: float = 1.0) -> None:
    for a, b in zip(read.face_coefficient, expected.face_coefficient):
        np.testing.assert_allclose(a, scale * b, rtol=1e-12)
    np.testing.assert_allclose(read.dirichlet, scale * expected.dirichlet, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("shape", [(5, 7), (1, 6), (6, 1), (4, 5, 3), (1, 4, 5), (3, 1, 4), (2, 3, 1)])
@pytest.mark.parametrize("boundary", ["mixed", "open", "closed"])
@pytest.mark.parametrize("numbering", ["active", "all"])
def test_reads_back_what_was_assembled(problems, shape, boundary, numbering):
    operator = problems.operator(shape, boundary, seed=3)
    csr = operator.to_csr(numbering)
    grid = fluid_cells(operator) if numbering == "active" else all_cells(shape)
    stencil = read_stencil(problems.matrix(csr), grid)
    assert_same_operator(
        stencil.operator,
        GridOperator(
            operator.face_coefficient,
            np.where(stencil.operator.active, operator.dirichlet, 0),
            stencil.operator.active,
        ),
    )
    off = csr.copy()
    off.setdiag(0)
    off.eliminate_zeros()
    alone = np.flatnonzero(np.diff(off.indptr) == 0)
    np.testing.assert_array_equal(stencil.diagonal_rows, alone)
    d = csr.diagonal()[alone]
    np.testing.assert_allclose(stencil.diagonal_inverse, np.divide(1, d, out=np.zeros_like(d), where=d != 0))


@given(st.integers(0, 10**6), st.integers(2, 3), st.sampled_from([1.0, -1.0]), st.floats(-12, 12))
def test_random_variable_coefficients(seed, ndim, sign, exponent):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 6, ndim))
    types = rng.choice(3, shape, p=[0.7, 0.2, 0.1])
    operator = GridOperator.from_cell_types(types, mobility=10 ** rng.uniform(-3, 3, shape))
    scale = 10.0**exponent
    csr = sign * scale * operator.to_csr()
    assume(csr.count_nonzero() > 0)
    arrays = csr.indptr, csr.indices, csr.data
    stencil = read_stencil(PETSc.Mat().createAIJ(csr.shape, csr=arrays), fluid_cells(operator))
    coupled = stencil.operator.active
    for a, b in zip(stencil.operator.face_coefficient, operator.face_coefficient):
        np.testing.assert_allclose(a, scale * b, rtol=1e-9)
    np.testing.assert_allclose(
        stencil.operator.dirichlet[coupled],
        scale * operator.dirichlet[coupled],
        rtol=1e-6,
        atol=1e-9 * scale * operator.diagonal().max(),
    )
    assert stencil.sign == (sign if coupled.any() else 1)


def test_any_order_of_rows(problems):
    operator = problems.operator((6, 5), "mixed")
    order = np.random.default_rng(1).permutation(operator.unknowns)
    csr = operator.to_csr()[order][:, order]
    stencil = read_stencil(problems.matrix(csr), GridMap(operator.shape, operator.cells[order], "a test"))
    for a, b in zip(stencil.operator.face_coefficient, operator.face_coefficient):
        np.testing.assert_array_equal(a, b)


def test_dirichlet_rows_kept_in_a_nonsymmetric_matrix(problems):
    """Rows of an outer layer are diagonal only while inner rows couple to them, with stored zeros."""
    shape = (6, 7)
    full = GridOperator.from_cell_types(np.zeros(shape, int), outside=2)
    csr = full.to_csr().tolil()
    border = np.ones(shape, bool)
    border[1:-1, 1:-1] = False
    kept = np.flatnonzero(border)
    for row in kept:
        columns = csr.rows[row]
        csr.data[row] = [-2.5 if c == row else 0.0 for c in columns]
    stencil = read_stencil(problems.matrix(csr.tocsr()), all_cells(shape))
    inner = GridOperator.from_cell_types(np.where(border, 2, 0))
    assert_same_operator(stencil.operator, inner)
    np.testing.assert_array_equal(stencil.diagonal_rows, kept)
    np.testing.assert_array_equal(stencil.diagonal_inverse, -0.4)


def test_stored_zeros_off_the_stencil_are_ignored(problems):
    operator = problems.operator((4, 5), "open")
    dense = operator.to_csr("all").toarray()
    csr = sp.csr_matrix(np.ones_like(dense))
    csr.data[:] = dense.reshape(-1)
    stencil = read_stencil(problems.matrix(csr), all_cells((4, 5)))
    np.testing.assert_array_equal(
        stencil.operator.dirichlet[operator.active], operator.dirichlet[operator.active]
    )


def test_round_off_of_row_sums_is_no_dirichlet_part(problems):
    rng = np.random.default_rng(0)
    operator = GridOperator.from_cell_types(np.zeros((9, 8), int), mobility=rng.random((9, 8)) + 0.1)
    csr = operator.to_csr()
    csr = sp.diags(np.ones(72)) @ csr
    csr.setdiag(csr.diagonal() * (1 + 1e-15 * rng.standard_normal(72)))
    assert read_stencil(problems.matrix(csr), all_cells((9, 8))).operator.is_singular


def test_single_precision_coefficients_are_singular_where_a_null_space_says_so(problems):
    rng = np.random.default_rng(0)
    operator = GridOperator.from_cell_types(np.zeros((9, 8), int), mobility=rng.random((9, 8)) + 0.1)
    csr = operator.to_csr()
    csr.data = csr.data.astype(np.float32).astype(float)
    mat = problems.matrix(csr)
    assert not read_stencil(mat, all_cells((9, 8))).operator.is_singular
    constant = PETSc.NullSpace().create(constant=True, comm=mat.comm)
    assert read_stencil(mat, all_cells((9, 8)), constant).operator.is_singular


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("rounded", [True, False])
def test_a_null_space_is_that_of_its_rows_alone(problems, uniform, rounded):
    """Left of a wall the domain is closed; right of it a Dirichlet part of 1e-7 diagonals holds it."""
    image = np.zeros((9, 8), int)
    image[:, 4] = 1
    faces, fixed = GridOperator.from_cell_types(image).face_coefficient, np.zeros((9, 8))
    fixed[3, 7] = 4e-7
    if not uniform:
        faces = tuple(f * (1 + 0.1 * np.random.default_rng(0).random(f.shape)) for f in faces)
    operator = GridOperator(faces, fixed, image == 0)
    csr = operator.to_csr()
    if rounded:
        csr.setdiag(csr.diagonal() * (1 + 1e-8 * (operator.null_space.group >= 0)))
    mat = problems.matrix(csr)
    mode = mat.createVecRight()
    mode.array_w[:] = operator.null_space.group >= 0
    mode.normalize()
    null_space = PETSc.NullSpace().create(vectors=[mode], comm=mat.comm)
    found = read_stencil(mat, fluid_cells(operator), null_space).operator
    np.testing.assert_allclose(found.dirichlet, fixed, atol=1e-15)
    assert len(found.null_space) == 1 and found.null_space.size[0] == 36


def test_a_small_shift_is_kept(problems):
    operator = problems.operator((5, 5), "closed")
    csr = operator.to_csr("all") + 1e-9 * sp.eye(25)
    stencil = read_stencil(problems.matrix(csr), all_cells((5, 5)))
    np.testing.assert_allclose(stencil.operator.dirichlet[stencil.operator.active], 1e-9, rtol=1e-5)


@pytest.mark.parametrize("kind", ["seqsbaij", "seqdense", "seqbaij", "seqsell", "is"])
def test_other_types_are_converted(problems, kind):
    operator = problems.operator((5, 4), "open")
    mat = problems.matrix(operator.to_csr("all"))
    mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    stencil = read_stencil(mat.convert(kind, PETSc.Mat()), all_cells((5, 4)))
    np.testing.assert_array_equal(stencil.operator.face_coefficient[0], operator.face_coefficient[0])


@pytest.mark.parametrize("kind", ["mpiaij", "nest"])
def test_parallel_types_on_one_rank(problems, kind):
    operator = problems.operator((5, 4), "open")
    csr = operator.to_csr("all")
    if kind == "nest":
        parts = slice(0, 12), slice(12, 20)
        blocks = [[problems.matrix(csr[rows][:, columns]) for columns in parts] for rows in parts]
        mat = PETSc.Mat().createNest(blocks, comm=PETSc.COMM_SELF)
        mat.assemble()
    else:
        mat = problems.matrix(csr).convert(kind, PETSc.Mat())
    assert mat.getType() == kind
    stencil = read_stencil(mat, all_cells((5, 4)))
    np.testing.assert_array_equal(stencil.operator.face_coefficient[0], operator.face_coefficient[0])


def test_the_matrix_is_not_changed(problems):
    operator = problems.operator((5, 4), "mixed")
    mat = problems.matrix(operator.to_csr())
    state = mat.stateGet()
    read_stencil(mat, fluid_cells(operator))
    assert mat.stateGet() == state
    assert abs(sp.csr_matrix(mat.getValuesCSR()[::-1]) - operator.to_csr()).max() == 0


def broken(change):
    """A sound 4 x 5 matrix after ``change(dense)``."""
    operator = GridOperator.from_cell_types(np.zeros((4, 5), int), outside=2)
    dense = operator.to_csr().toarray()
    change(dense)
    return sp.csr_matrix(dense)


def set_entry(row, column, value):
    def change(dense):
        dense[row, column] = value

    return change


def both(row, column, value):
    def change(dense):
        dense[row, column] = dense[column, row] = value

    return change


@pytest.mark.parametrize(
    "change, words",
    [
        (set_entry(7, 6, np.nan), ["row 7", "(1, 2)", "a[7,6] = nan", "finite"]),
        (set_entry(7, 7, np.inf), ["row 7", "inf", "finite"]),
        (set_entry(7, 6, -2.0), ["a[6,7] = -1", "a[7,6]", "-2", "not symmetric"]),
        (set_entry(7, 6, 0.0), ["row 6", "a[7,6] = 0", "not symmetric"]),
        (both(7, 6, 0.5), ["row 6", "a[6,7] = 0.5", "M-matrix"]),
        (both(7, 17, -0.5), ["row 7", "(1, 2)", "column 17", "(3, 2)", "not a neighbour", "5-point"]),
        (both(4, 5, -1.0), ["row 4", "(0, 4)", "(1, 0)", "not a neighbour"]),
        (set_entry(7, 7, 0.01), ["row 7", "diagonal 0.01", "row sum -3.99", "not diagonally dominant"]),
        (set_entry(7, 7, 0.0), ["row 7", "zero diagonal"]),
        (set_entry(7, 7, -4.0), ["row 7", "diagonal -4", "indefinite"]),
    ],
)
def test_unfit_matrices_are_refused_by_row_and_value(problems, change, words):
    with pytest.raises(MatrixError) as caught:
        read_stencil(problems.matrix(broken(change)), all_cells((4, 5)))
    for word in words:
        assert word in str(caught.value)


def test_transposed_grid_is_refused(problems):
    operator = GridOperator.from_cell_types(np.zeros((4, 5), int), outside=2)
    with pytest.raises(MatrixError, match="not a neighbour.*order"):
        read_stencil(problems.matrix(operator.to_csr()), all_cells((5, 4)))


@pytest.mark.parametrize("case", ["rectangular", "blocks", "python", "unassembled"])
def test_unfit_kinds_of_matrix(problems, case):
    if case == "rectangular":
        mat, word = problems.matrix(sp.eye(4, 6)), "4 x 6"
    elif case == "blocks":
        mat, word = problems.matrix(sp.eye(6)), "blocks of 2"
        mat.setBlockSize(2)
    elif case == "python":
        mat, word = PETSc.Mat().createPython((6, 6), object()), "'python'"
        mat.setUp()
    else:
        mat, word = PETSc.Mat().createAIJ((6, 6), nnz=1), "not assembled"
    with pytest.raises(MatrixError, match=word):
        check_matrix(mat)


def quick_reader(csr, shape, cells, chunks):
    """What the reader of matrices without peculiarities makes of one: (accepted, arrays)."""
    size = int(np.prod(shape))
    faces = [np.zeros(size) for _ in range(3)]
    arrays = [*faces, np.zeros(size), np.zeros(size, bool), np.empty(csr.shape[0], np.uint8)]
    arrays.append(np.empty(csr.shape[0]))
    none = np.zeros(1, PETSc.IntType), csr.indices[:0].astype(PETSc.IntType), csr.data[:0]
    own = csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data
    volume = np.array((1,) * (3 - len(shape)) + shape, np.int64), np.zeros(3, bool)
    fine = regular_kernels.read_plain(*own, *none, none[2], cells, *volume, 1, 1e-13, *arrays, chunks)
    return fine, arrays


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(2, 3), st.integers(1, 5))
def test_the_quick_reader_agrees_with_the_careful_one(problems, seed, ndim, chunks):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 7, ndim))
    operator = GridOperator.from_cell_types(rng.choice(3, shape, p=[0.7, 0.2, 0.1]))
    csr = operator.to_csr("active")
    accepted, (*faces, dirichlet, active, kind, diagonal) = quick_reader(csr, shape, operator.cells, chunks)
    assert accepted
    grid = GridMap(shape, operator.cells, "a test")
    matrix = LocalMatrix(problems.matrix(csr))
    rows = RowReader(matrix, grid, 1e-13)._read_any()
    for a, b in zip(faces[-ndim:], rows.faces):
        np.testing.assert_array_equal(a.reshape(-1), b)
    np.testing.assert_array_equal(dirichlet.reshape(-1), rows.dirichlet)
    np.testing.assert_array_equal(active.reshape(-1), rows.active)
    np.testing.assert_array_equal(kind, rows.kind)
    np.testing.assert_array_equal(diagonal, rows.diagonal)


@pytest.mark.parametrize("chunks", [1, 2, 5, 20])
@pytest.mark.parametrize(
    "change", ["one side", "other side", "missing", "zero", "nan", "positive", "indefinite", "far"]
)
def test_the_quick_reader_leaves_peculiar_matrices_alone(change, chunks):
    operator = GridOperator.from_cell_types(np.zeros((4, 5), int), 2)
    csr = operator.to_csr().tolil()
    if change == "one side":
        csr[3, 4] = -1.5
    elif change == "other side":  # the row before is of another part, with some numbers of parts
        csr[9, 4] = -1.5
    elif change == "missing":
        csr[4, 3] = 0
    elif change == "nan":
        csr[3, 3] = np.nan
    elif change == "positive":
        csr[3, 4] = csr[4, 3] = 0.5
    elif change == "indefinite":
        csr[7, 7] = 2
    elif change == "far":
        csr[0, 7] = csr[7, 0] = -0.1
    csr = csr.tocsr()
    csr.sort_indices()
    if change == "zero":
        csr.data[csr.indptr[3]] = 0
    accepted, _ = quick_reader(csr, (4, 5), operator.cells, chunks)
    assert not accepted
