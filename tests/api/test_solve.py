"""consolve.solve: right answers over dimension x boundary x storage x dtype, and clear refusals."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

pytest.importorskip("petsc4py")
from petsc4py import PETSc

import consolve
from consolve.pde import AIR, FLUID, SOLID, GridOperator
from consolve.pde.poisson.domains import make_domain
from consolve.solvers import InconsistentRightHandSide, MatrixError, NotConverged, OptionError, attach_grid

SHAPES = {2: (9, 11), 3: (5, 6, 7)}


def make_operator(ndim, boundary):
    """Whole coefficients, so that every dtype holds them."""
    shape = SHAPES[ndim]
    if boundary == "dirichlet":
        return GridOperator.from_cell_types(np.zeros(shape, int), outside=AIR)
    if boundary == "mixed":
        return GridOperator.from_cell_types(
            np.zeros(shape, int), outside=((SOLID, AIR), *((SOLID, SOLID),) * (ndim - 1))
        )
    if boundary == "neumann":
        return GridOperator.from_cell_types(np.zeros(shape, int))
    types = np.zeros(shape, int)
    types[2:4, 2:5] = SOLID
    types[0] = AIR
    return GridOperator.from_cell_types(types)


def stored(operator, storage, dtype):
    """The matrix over the unknowns, as ``storage``."""
    csr = operator.to_csr()
    if storage == "GridOperator":
        return operator
    if storage == "PETSc":
        arrays = csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data
        mat = PETSc.Mat().createAIJ(csr.shape, csr=arrays, comm=PETSc.COMM_SELF)
        attach_grid(mat, operator)
        return mat
    csr = csr.astype(dtype)
    return csr.toarray() if storage == "dense" else csr.asformat(storage)


def right_hand_side(operator, seed=0):
    b = np.random.default_rng(seed).standard_normal(operator.unknowns)
    return b - b.mean() if operator.is_singular else b


def reference(operator, b):
    """By a direct solve; with mean 0 where A is singular."""
    csr = operator.to_csr()
    if not operator.is_singular:
        return spsolve(csr.tocsc(), b)
    x = np.append(spsolve(csr[:-1, :-1].tocsc(), b[:-1]), 0.0)
    return x - x.mean()


STORAGES = ["csr", "csc", "coo", "dia", "dense"]
COMBINATIONS = [
    (ndim, boundary, storage, dtype)
    for ndim in (2, 3)
    for boundary in ("dirichlet", "mixed", "neumann", "obstacle")
    for storage, dtypes in [(s, (np.float64, np.float32, np.int64)) for s in STORAGES]
    + [("GridOperator", (np.float64,)), ("PETSc", (np.float64,))]
    for dtype in dtypes
]


@pytest.mark.parametrize(
    "ndim, boundary, storage, dtype",
    COMBINATIONS,
    ids=[f"{d}D-{boundary}-{s}-{np.dtype(t).name}" for d, boundary, s, t in COMBINATIONS],
)
def test_every_kind_of_system_against_a_direct_solve(ndim, boundary, storage, dtype):
    operator = make_operator(ndim, boundary)
    b = right_hand_side(operator)
    A = stored(operator, storage, dtype)
    x, info = consolve.solve(A, b, rtol=1e-10)
    expected = reference(operator, b)
    assert x.dtype == np.float64 and x.shape == b.shape
    np.testing.assert_allclose(x, expected, atol=1e-7 * abs(expected).max())
    true = np.linalg.norm(b - operator.to_csr() @ x) / np.linalg.norm(b)
    assert true <= 1e-9 and info.residual == pytest.approx(true, rel=0.5, abs=1e-13)
    assert info.reason == "CONVERGED_RTOL" and 1 <= info.iterations <= 20
    assert sorted(info.grid)[-1] >= 5


def test_there_are_many_combinations():
    assert len(set(COMBINATIONS)) == 136


@pytest.mark.parametrize("ksp", ["cg", "dcd", "fcg", "fgmres"])
@pytest.mark.parametrize("model", ["auto", "mg"])
def test_methods_and_models(ksp, model):
    operator = make_operator(2, "obstacle")
    b = right_hand_side(operator)
    x, info = consolve.solve(operator, b, ksp=ksp, model=model, rtol=1e-8)
    np.testing.assert_allclose(operator.to_csr() @ x, b, atol=1e-6)
    assert info.iterations <= 15


def test_variable_coefficients_in_single_precision():
    """Row sums of a float32 Neumann matrix are 0 to round-off only: it is singular all the same."""
    mobility = np.random.default_rng(0).uniform(0.1, 3, (12, 13))
    operator = GridOperator.from_cell_types(np.zeros((12, 13), int), mobility=mobility)
    A = operator.to_csr().astype(np.float32)
    b = right_hand_side(operator)
    x, info = consolve.solve(A, b, rtol=1e-8)
    expected = reference(operator, b)
    assert info.residual < 1.1e-8 and abs(x.mean()) < 1e-12
    np.testing.assert_allclose(x, expected, atol=1e-4 * abs(expected).max())
    with pytest.raises(InconsistentRightHandSide):
        consolve.solve(A, np.ones(156))


class TestShapes:
    def test_right_hand_sides_as_columns(self):
        operator = make_operator(3, "mixed")
        b = np.random.default_rng(0).standard_normal((operator.unknowns, 3))
        x, info = consolve.solve(operator.to_csr(), b, rtol=1e-9)
        assert x.shape == b.shape and len(info.records) == 3
        np.testing.assert_allclose(operator.to_csr() @ x, b, atol=1e-7)
        assert info.records[0].setup_s > 0 == info.records[1].setup_s

    def test_one_column(self):
        operator = make_operator(2, "mixed")
        b = right_hand_side(operator)[:, None]
        assert consolve.solve(operator.to_csr(), b)[0].shape == b.shape

    def test_no_columns_and_no_rows(self):
        operator = make_operator(2, "mixed")
        assert consolve.solve(operator.to_csr(), np.zeros((99, 0)))[0].shape == (99, 0)
        x, info = consolve.solve(sp.csr_matrix((0, 0)), np.zeros(0))
        assert x.shape == (0,) and info.iterations == 0 and info.residual == 0

    @pytest.mark.parametrize("boundary", ["mixed", "neumann", "obstacle"])
    def test_arrays_of_the_grid(self, boundary):
        operator = make_operator(3, boundary)
        b = np.zeros(operator.shape)
        b[operator.active] = right_hand_side(operator)
        x, _ = consolve.solve(operator, b, rtol=1e-9)
        assert x.shape == operator.shape and (x[~operator.active] == 0).all()
        np.testing.assert_allclose(operator.apply(x), b, atol=1e-7)

    def test_lists_and_integers(self):
        A = [[2, -1, 0], [-1, 2, -1], [0, -1, 2]]
        np.testing.assert_allclose(consolve.solve(A, [1, 0, 1], rtol=1e-12)[0], 1.0)

    def test_a_zero_right_hand_side(self):
        x, info = consolve.solve(make_operator(2, "mixed"), np.zeros((9, 11)))
        assert not x.any() and info.residual == 0


class TestPlaces:
    def test_grid(self):
        operator = make_operator(2, "mixed")
        b = right_hand_side(operator)
        x, info = consolve.solve(operator.to_csr(), b, grid=(9, 11), rtol=1e-9)
        np.testing.assert_allclose(operator.to_csr() @ x, b, atol=1e-7)
        assert info.grid == (9, 11)

    def test_mask(self, tmp_path):
        domain = make_domain("spheres", (30, 31))
        operator = domain.operator()
        b = right_hand_side(operator)
        np.save(tmp_path / "cells.npy", domain.cell_type)
        for mask in (domain.cell_type, tmp_path / "cells.npy", str(tmp_path / "cells.npy")):
            x, info = consolve.solve(operator.to_csr(), b, mask=mask, rtol=1e-9)
            np.testing.assert_allclose(operator.to_csr() @ x, b, atol=1e-6)
            assert info.grid == (30, 31)

    def test_cells(self):
        operator = make_operator(3, "obstacle")
        order = np.random.default_rng(0).permutation(operator.unknowns)
        A = operator.to_csr()[order][:, order]
        b = right_hand_side(operator)
        x, _ = consolve.solve(A, b, grid=operator.shape, cells=operator.cells[order], rtol=1e-9)
        np.testing.assert_allclose(A @ x, b, atol=1e-7)

    def test_any_numbering_without_a_word(self):
        operator = make_domain("rotor", (40, 41)).operator()
        order = np.random.default_rng(0).permutation(operator.unknowns)
        A = operator.to_csr()[order][:, order]
        b = right_hand_side(operator)
        x, info = consolve.solve(A, b, rtol=1e-9)
        np.testing.assert_allclose(A @ x, b, atol=1e-6)
        assert info.iterations <= 12

    def test_periodic_grids(self):
        ring = sp.lil_matrix(sp.diags([-np.ones(15), 2 * np.ones(16), -np.ones(15)], [-1, 0, 1]))
        ring[0, 15] = ring[15, 0] = -1
        line = sp.diags([-np.ones(11), 2 * np.ones(12), -np.ones(11)], [-1, 0, 1])
        A = sp.kron(line, sp.identity(16)) + sp.kron(sp.identity(12), ring)
        b = np.random.default_rng(0).standard_normal(192)
        x, info = consolve.solve(A, b, rtol=1e-9)
        np.testing.assert_allclose(x, spsolve(A.tocsc(), b), rtol=1e-6, atol=1e-7)
        assert info.iterations <= 15

    def test_box_stencils(self):
        mass = sp.diags([np.ones(11), 4 * np.ones(12), np.ones(11)], [-1, 0, 1]) / 6
        stiff = sp.diags([-np.ones(11), 2 * np.ones(12), -np.ones(11)], [-1, 0, 1])
        A = sp.kron(mass, stiff) + sp.kron(stiff, mass)
        b = np.random.default_rng(0).standard_normal(144)
        x, info = consolve.solve(A, b, rtol=1e-9)
        np.testing.assert_allclose(x, spsolve(A.tocsc(), b), rtol=1e-6, atol=1e-7)
        assert info.iterations <= 25

    def test_dirichlet_rows_whose_columns_are_kept(self):
        """cg is right although the matrix is not symmetric: the known values are in its first iterate."""
        A = GridOperator.from_cell_types(np.zeros((12, 13), int), outside=AIR).to_csr().tolil()
        for row in range(13):
            A.rows[row], A.data[row] = [row], [2.0]
        A = sp.csr_matrix(A)
        b = np.random.default_rng(0).standard_normal(156)
        for x0 in (None, np.full(156, 0.3)):
            x, _ = consolve.solve(A, b, x0=x0, rtol=1e-10)
            np.testing.assert_allclose(x, spsolve(A.tocsc(), b), atol=1e-7)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_diagonal_matrix(self, sign):
        x, _ = consolve.solve(sign * sp.diags([1.0, 2.0, 4.0]), [1.0, 2.0, 3.0])
        np.testing.assert_allclose(x, sign * np.array([1, 1, 0.75]))

    def test_negative_definite(self):
        operator = make_operator(2, "dirichlet")
        b = right_hand_side(operator)
        x, _ = consolve.solve(-operator.to_csr(), b, rtol=1e-10)
        np.testing.assert_allclose(x, -reference(operator, b), atol=1e-8)


class TestControl:
    def test_first_guess(self):
        operator = make_operator(2, "mixed")
        b = right_hand_side(operator)
        x, cold = consolve.solve(operator, b, rtol=1e-8)
        again, warm = consolve.solve(operator, b, rtol=1e-8, x0=x * (1 + 1e-6))
        assert warm.iterations < cold.iterations
        np.testing.assert_allclose(again, x, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("ksp", ["cg", "dcd"])
    def test_callback_sees_every_iterate(self, ksp):
        operator = make_operator(2, "mixed")
        b, seen = right_hand_side(operator), []
        x, info = consolve.solve(operator.to_csr(), b, callback=seen.append, ksp=ksp)
        assert len(seen) == info.iterations
        residuals = [np.linalg.norm(b - operator.to_csr() @ one) for one in seen]
        np.testing.assert_allclose(
            residuals, info.records[0].history[1:], rtol=1e-3 if ksp == "dcd" else 1e-5
        )
        np.testing.assert_array_equal(seen[-1], x)

    def test_absolute_tolerance(self):
        operator = make_operator(2, "mixed")
        b = right_hand_side(operator)
        x, info = consolve.solve(operator, b, rtol=0, atol=1e-3)
        assert np.linalg.norm(b - operator.to_csr() @ x) <= 1e-3
        assert info.reason == "CONVERGED_ATOL"

    def test_not_converged_is_an_error_with_facts(self):
        operator = make_operator(2, "mixed")
        with pytest.raises(NotConverged, match="DIVERGED_MAX_IT after 2 iterations.*maxiter") as caught:
            consolve.solve(operator, right_hand_side(operator), maxiter=2, rtol=1e-12)
        assert caught.value.iterations == 2 and caught.value.relative_residual > 1e-12

    def test_convergence_by_the_methods_own_account_only_is_none(self):
        """GMRES takes M as exactly linear, and stops with a true residual of single precision."""
        operator = make_domain("spheres", (64, 64)).operator()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                _, info = consolve.solve(operator, right_hand_side(operator), ksp="gmres", rtol=1e-12)
                assert info.residual < 1e-11
            except NotConverged as error:
                assert error.relative_residual > 1e-11

    def test_other_preconditioners(self):
        A = sp.csr_matrix(sp.random(50, 50, 0.1, random_state=0))
        A = A @ A.T + sp.identity(50)
        x, info = consolve.solve(A, np.ones(50), options="-pc_type jacobi", rtol=1e-9)
        np.testing.assert_allclose(A @ x, 1, atol=1e-7)
        assert info.grid is None

    def test_misspelt_options_are_told(self):
        with pytest.warns(UserWarning, match="-ksp_rtoll"):
            consolve.solve(make_operator(2, "mixed"), np.ones((9, 11)), options="-ksp_rtoll 3")

    def test_the_callers_arrays_are_left_alone(self):
        A = make_operator(2, "mixed").to_csr()
        b, before = np.ones(99), A.copy()
        consolve.solve(A, b)
        assert (b == 1).all() and abs(A - before).max() == 0


class TestSingular:
    def test_inconsistent_right_hand_sides_have_no_solution(self):
        operator = make_operator(2, "neumann")
        for A in (operator, operator.to_csr()):
            with pytest.raises(InconsistentRightHandSide, match=r"sums to 9\.900e\+01.*99 rows"):
                consolve.solve(A, np.ones(99))

    def test_closed_pockets(self):
        types = np.ones((12, 13), int)
        types[1:5, 1:5] = types[7:11, 2:9] = types[2, 8] = FLUID
        operator = GridOperator.from_cell_types(types)
        b = operator.remove_null_space(np.random.default_rng(0).standard_normal((12, 13)))
        x, _ = consolve.solve(operator, b, rtol=1e-9)
        np.testing.assert_allclose(operator.apply(x), b, atol=1e-7)
        np.testing.assert_allclose(operator.remove_null_space(x), x, atol=1e-12)
        flat = consolve.solve(operator.to_csr(), b[operator.active], rtol=1e-9)[0]
        np.testing.assert_allclose(flat, x[operator.active], atol=1e-7)


MATRIX = sp.csr_matrix(GridOperator.from_cell_types(np.zeros((6, 7), int), outside=AIR).to_csr())


@pytest.mark.parametrize(
    "A, b, named, error, words",
    [
        (sp.identity(4, format="csr")[:3], np.ones(3), {}, MatrixError, "3 x 4"),
        (MATRIX.astype(complex), np.ones(42), {}, MatrixError, "complex"),
        (np.ones(4), np.ones(4), {}, MatrixError, "matrix is 4, expected a square"),
        (np.array([["a"]]), np.ones(1), {}, MatrixError, "expected a real one"),
        (MATRIX, np.ones(41), {}, ValueError, r"b has shape \(41,\), expected \(42,\)"),
        (MATRIX, np.ones((1, 42)), {}, ValueError, r"\(1, 42\)"),
        (MATRIX, np.full(42, np.nan), {}, ValueError, "b is not finite at row 0"),
        (MATRIX, 1j * np.ones(42), {}, ValueError, "complex"),
        (MATRIX, np.ones(42), {"x0": np.ones(41)}, ValueError, "x0 has shape"),
        (MATRIX, np.ones(42), {"x0": np.ones((42, 1))}, ValueError, "expected the same"),
        (MATRIX, np.ones(42), {"x0": np.full(42, np.inf)}, ValueError, "x0 is not finite"),
        (MATRIX, np.ones(42), {"grid": (6, 8)}, ValueError, "48 cells, the matrix 42 rows"),
        (MATRIX, np.ones(42), {"grid": (42,)}, ValueError, "2 or 3 positive sizes"),
        (MATRIX, np.ones(42), {"grid": (7, 6)}, MatrixError, "not a neighbour"),
        (MATRIX, np.ones(42), {"cells": np.arange(42)}, ValueError, "without grid"),
        (MATRIX, np.ones(42), {"grid": (6, 7), "cells": np.zeros(42, int)}, ValueError, "own"),
        (MATRIX, np.ones(42), {"grid": (6, 7), "cells": np.arange(1, 43)}, ValueError, r"0\.\.41"),
        (MATRIX, np.ones(42), {"grid": (6, 7), "cells": np.arange(41)}, ValueError, "expected"),
        (MATRIX, np.ones(42), {"mask": np.ones((6, 7), int)}, ValueError, "0 fluid cells"),
        (MATRIX, np.ones(42), {"mask": np.zeros((6, 7), bool)}, ValueError, "integer image"),
        (MATRIX, np.ones(42), {"mask": np.zeros((6, 7), int), "grid": (6, 7)}, ValueError, "give one"),
        (MATRIX, np.ones(42), {"rtol": -1}, ValueError, "rtol"),
        (MATRIX, np.ones(42), {"rtol": 0}, ValueError, "not both 0"),
        (MATRIX, np.ones(42), {"maxiter": 0}, ValueError, "maxiter"),
        (MATRIX, np.ones(42), {"model": "none"}, OptionError, "no model and no file"),
        (50 * np.eye(40) - np.ones((40, 40)), np.ones(40), {}, MatrixError, "looked for"),
        (MATRIX + sp.identity(42) * -6, np.ones(42), {}, MatrixError, "dominant|positive|sign"),
    ],
)  # fmt: skip
def test_refusals_say_what_came_and_what_to_do(A, b, named, error, words):
    with pytest.raises(error, match=words):
        consolve.solve(A, b, **named)


def test_importing_consolve_is_light():
    """Neither PETSc nor torch comes with it, and both functions are there."""
    code = (
        "import sys, consolve; "
        "assert {'solve', 'aspreconditioner'} <= set(dir(consolve)); "
        "heavy = {'petsc4py', 'torch', 'numba', 'scipy', 'dolfinx'} & set(sys.modules); "
        "assert not heavy, heavy; "
        "consolve.aspreconditioner; assert 'petsc4py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'solver'"):
        consolve.solver  # noqa: B018


@pytest.mark.parametrize("A", [np.zeros((0, 0)), sp.csr_matrix((0, 0))])
@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_a_matrix_without_rows(A, shape):
    x, info = consolve.solve(A, np.zeros(shape))
    assert x.shape == shape and info.records == ()
    assert (consolve.aspreconditioner(A) @ np.zeros(shape)).shape == shape


@pytest.mark.parametrize(
    "options, words",
    [
        ("-ksp_rtol abc", "-ksp_rtol abc: Input string abc has no numeric value"),
        ("-ksp_max_it 1.5", "-ksp_max_it 1.5: Input string 1.5 has no integer value"),
        ("-ksp_type nonsense", "-ksp_type nonsense: Unable to find requested KSP type nonsense"),
        ("-ksp_norm_type foo", "-ksp_norm_type foo: Unknown option foo for -ksp_norm_type"),
    ],
)
def test_options_that_petsc_does_not_take(options, words):
    line = sp.diags([-np.ones(7), 2 * np.ones(8), -np.ones(7)], [-1, 0, 1])
    A = sp.kron(line, sp.identity(8)) + sp.kron(sp.identity(8), line)
    with pytest.raises(OptionError, match=words) as caught:
        consolve.solve(A, np.ones(64), options=options)
    assert "\n" not in str(caught.value) and "KSPSetFromOptions" not in str(caught.value)
