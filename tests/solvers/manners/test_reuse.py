"""One KSP used again and again: kept preconditioners, changed matrices and sizes, several solvers at once."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import MatrixError, attach_grid
from consolve.solvers.petsc.versions import call, handle

Reason = PETSc.KSP.ConvergedReason
KINDS = ["cg", "dcd"]


def box(shape, outside=2):
    return GridOperator.from_cell_types(np.zeros(shape, int), outside=outside)


def with_obstacle(shape):
    cells = np.zeros(shape, int)
    cells[2 : shape[0] // 2, 3 : shape[1] // 2] = 1
    return GridOperator.from_cell_types(cells, outside=2)


def noise(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size)


def matrix(problems, operator):
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    return mat


def check(problems, ksp, csr, seed=0):
    """Solve, and compare with a direct solver."""
    b = noise(csr.shape[0], seed)
    solved = problems.solve(ksp, b)
    assert solved.reason > 0
    exact = spla.spsolve(sp.csc_matrix(csr), b)
    np.testing.assert_allclose(solved.x, exact, atol=2e-6 * np.abs(exact).max())
    return solved


def context(ksp):
    return ksp.getPC().getPythonContext()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["call", "option"])
def test_a_kept_preconditioner_stays_bit_identical(problems, kind, how):
    operator = box((18, 21))
    mat = matrix(problems, operator)
    options = {"ksp_reuse_preconditioner": None} if how == "option" else {}
    ksp = problems.ksp(mat, kind, **options)
    check(problems, ksp, operator.to_csr())
    if how == "call":
        ksp.getPC().setReusePreconditioner(True)
    r = noise(operator.unknowns, 4)
    before = problems.apply(ksp, r)
    shifted = operator.to_csr() + sp.diags(np.linspace(0, 1, operator.unknowns))
    mat.setValuesCSR(shifted.indptr.astype("i4"), shifted.indices.astype("i4"), shifted.data)
    mat.assemble()
    solved = check(problems, ksp, shifted, seed=1)
    np.testing.assert_array_equal(problems.apply(ksp, r), before)
    assert context(ksp).setups == 1
    ksp.getPC().setReusePreconditioner(False)
    fresh = check(problems, ksp, shifted, seed=1)
    assert context(ksp).setups == 2 and fresh.iterations < solved.iterations


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_in_the_same_pattern(problems, kind):
    operator = box((18, 21))
    csr, mat = operator.to_csr(), matrix(problems, operator)
    ksp = problems.ksp(mat, kind)
    first = check(problems, ksp, csr)
    for step, factor in enumerate((1e-3, 7.0, 1e9)):
        changed = factor * csr + sp.diags(np.full(csr.shape[0], factor * step))
        mat.setValuesCSR(csr.indptr, csr.indices, changed.tocsr().data)
        mat.assemble()
        assert check(problems, ksp, changed, seed=step).iterations <= first.iterations + 1
    assert context(ksp).setups == 4


@pytest.mark.parametrize("kind", KINDS)
def test_another_matrix_of_the_same_size(problems, kind):
    """Same rows and grid, other couplings: walls move."""
    grid = (12, 17)
    ksp = problems.ksp(problems.matrix(box(grid).to_csr("all")), kind, pc_cnn_grid="17,12")
    for operator in (box(grid), with_obstacle(grid), box(grid, outside=((2, 1), (1, 1)))):
        csr = operator.to_csr("all")
        ksp.setOperators(problems.matrix(csr))
        check(problems, ksp, csr)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["ksp", "both"])
def test_another_size_after_a_reset(problems, kind, reset):
    ksp = problems.ksp(matrix(problems, box((18, 21))), kind)
    check(problems, ksp, box((18, 21)).to_csr())
    for operator in (box((7, 5)), with_obstacle((30, 24)), box((6, 7, 8)), box((18, 21))):
        if reset == "both":
            ksp.getPC().reset()
        ksp.reset()
        ksp.setOperators(matrix(problems, operator))
        check(problems, ksp, operator.to_csr())


@pytest.mark.parametrize("kind", KINDS)
def test_another_size_without_a_reset_is_refused_by_petsc(problems, kind):
    ksp = problems.ksp(matrix(problems, box((18, 21))), kind)
    check(problems, ksp, box((18, 21)).to_csr())
    with pytest.raises(PETSc.Error):
        ksp.setOperators(matrix(problems, box((7, 5))))


def test_reset_frees_the_network_and_set_up_brings_it_back(problems):
    operator = with_obstacle((20, 22))
    ksp = problems.ksp(matrix(problems, operator))
    before = check(problems, ksp, operator.to_csr())
    ksp.getPC().reset()
    assert context(ksp).network is None and context(ksp)._stencil is None
    ksp.reset()
    ksp.setOperators(matrix(problems, operator))
    ksp.getPC().setUp()
    again = check(problems, ksp, operator.to_csr())
    np.testing.assert_array_equal(before.x, again.x)


def test_options_survive_a_reset(problems):
    operator = box((12, 13))
    ksp = problems.ksp(matrix(problems, operator), pc_cnn_model="mg", pc_cnn_threads=1)
    ksp.setUp()
    ksp.reset()
    ksp.setOperators(matrix(problems, operator))
    ksp.setUp()
    assert (context(ksp).model, context(ksp).threads) == ("mg", 1)
    assert context(ksp).network.weights.hidden == 0


def test_several_solvers_with_options_of_their_own(problems):
    """Turns taken between solvers of other sizes, models and threads change no bit of any result."""
    cases = [
        (box((18, 21)), "cg", {"pc_cnn_model": "mg", "pc_cnn_threads": 1}),
        (with_obstacle((9, 30)), "dcd", {"pc_cnn_model": "multilevel"}),
        (box((6, 7, 8)), "fcg", {"pc_cnn_threads": 1}),
        (with_obstacle((9, 30)), "cg", {"pc_cnn_model": "mg"}),
    ]
    solvers = [problems.ksp(matrix(problems, case[0]), case[1], **case[2]) for case in cases]
    alone = [check(problems, ksp, case[0].to_csr()).x for ksp, case in zip(solvers, cases)]
    for seed in (0, 0):
        for ksp, case, x in zip(solvers, cases, alone):
            np.testing.assert_array_equal(check(problems, ksp, case[0].to_csr(), seed).x, x)
    for ksp, case in zip(solvers, cases):
        assert context(ksp).model == case[2].get("pc_cnn_model", "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_block_of_right_hand_sides(problems, kind):
    operator = with_obstacle((14, 15))
    csr, n = operator.to_csr(), operator.unknowns
    ksp = problems.ksp(matrix(problems, operator), kind)
    B = PETSc.Mat().createDense((n, 4), array=noise((n, 4)).copy(order="F"), comm=PETSc.COMM_SELF)
    X = PETSc.Mat().createDense((n, 4), comm=PETSc.COMM_SELF)
    for mat in (B, X):
        mat.setUp()
        mat.assemble()
    ksp.setUp()
    call("KSPMatSolve", handle(ksp), handle(B), handle(X))  # petsc4py 3.18 has no name for it
    exact = spla.spsolve(sp.csc_matrix(csr), B.getDenseArray())
    np.testing.assert_allclose(X.getDenseArray(), exact, atol=2e-6 * np.abs(exact).max())


def test_a_matrix_that_turns_unfit_is_refused_and_the_solver_recovers(problems):
    operator = box((10, 11))
    csr = operator.to_csr("all")
    ksp = problems.ksp(problems.matrix(csr), pc_cnn_grid="11,10")
    check(problems, ksp, csr)
    unfit = csr.copy().tolil()
    unfit[0, 57] = unfit[57, 0] = -1.0
    ksp.setOperators(problems.matrix(unfit))
    with pytest.raises((MatrixError, PETSc.Error)):
        problems.solve(ksp, noise(110))
    ksp.setOperators(problems.matrix(csr))
    check(problems, ksp, csr)


def test_a_solver_changes_its_type_and_comes_back(problems):
    operator = box((10, 11))
    mat = matrix(problems, operator)
    ksp = problems.ksp(mat)
    first = check(problems, ksp, operator.to_csr())
    for kind, pc in (("gmres", "jacobi"), ("dcd", "cnn"), ("dcd", "none"), ("cg", "cnn")):
        ksp.setType(kind)
        ksp.getPC().setType(pc)
        last = check(problems, ksp, operator.to_csr())
    np.testing.assert_array_equal(last.x, first.x)
