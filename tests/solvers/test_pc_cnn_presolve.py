"""What PC cnn refuses, or warns of, before a Krylov method begins: KSP options only."""

import warnings

import numpy as np
import pytest
from petsc4py import PETSc

import consolve.solvers  # noqa: F401
from consolve.pde import GridOperator
from consolve.solvers import attach_grid


def solve_by_options(csr, b, shape, ksp_type, norm="default"):
    """As a program does that knows nothing of null spaces: KSP options only."""
    mat = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data))
    attach_grid(mat, shape)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType(ksp_type)
    ksp.getPC().setType("cnn")
    ksp.setTolerances(rtol=1e-8, max_it=200)
    rhs, x = mat.createVecs()
    rhs.array_w[:] = b
    try:
        ksp.solve(rhs, x)
        return ksp.getConvergedReason(), x.array_r.copy()
    finally:
        for thing in (ksp, mat, rhs, x):
            thing.destroy()


@pytest.mark.parametrize("ksp_type", ["cg", "fcg", "gmres", "dcd"])
def test_inconsistent_right_hand_side_is_refused(ksp_type):
    shape = (24, 20)
    csr = GridOperator.from_cell_types(np.zeros(shape, int)).to_csr()
    b = np.random.default_rng(0).standard_normal(csr.shape[0])
    with pytest.raises(Exception) as caught:
        solve_by_options(csr, b + 1, shape, ksp_type)
    assert "closed component of 480 rows" in messages(caught.value)
    reason, x = solve_by_options(csr, b - b.mean(), shape, ksp_type)
    assert reason > 0
    assert np.linalg.norm(csr @ x - b + b.mean()) < 1e-5 * np.linalg.norm(b)


def test_right_hand_side_on_a_zero_row_is_refused():
    types = np.zeros((12, 12), int)
    types[4:7, 4:7] = 1
    types[5, 5] = 0
    operator = GridOperator.from_cell_types(types, outside=2)
    csr = operator.to_csr("active")
    zero = int(np.flatnonzero(csr.diagonal() == 0)[0])
    b = np.ones(csr.shape[0])
    with pytest.raises(Exception) as caught:
        solve_by_options(csr, b, operator, "cg")
    assert f"row {zero} of the matrix is zero" in messages(caught.value)
    b[zero] = 0
    reason, x = solve_by_options(csr, b, operator, "cg")
    assert reason > 0
    assert np.linalg.norm(csr @ x - b) < 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("ksp_type", ["cg", "dcd", "fgmres", "fcg"])
@pytest.mark.parametrize("guess", [False, True])
def test_one_sided_dirichlet_rows(problems, ksp_type, guess):
    """MatZeroRows leaves couplings to the boundary: symmetric methods begin with its values."""
    shape = (16, 18)
    csr = GridOperator.from_cell_types(np.zeros(shape, int), 2).to_csr().tolil()
    for row in range(18):
        csr.rows[row], csr.data[row] = [row], [2.0]
    csr = csr.tocsr()
    rng = np.random.default_rng(0)
    ksp = problems.ksp(problems.matrix(csr), ksp_type, pc_cnn_grid="18,16")
    ksp.setInitialGuessNonzero(guess)
    for _ in range(2):
        b = rng.standard_normal(csr.shape[0])
        vec_b, vec_x = problems.vector(b), problems.vector(rng.standard_normal(b.size))
        ksp.solve(vec_b, vec_x)
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 8
        assert np.linalg.norm(csr @ vec_x.array_r - b) <= 1.01e-8 * np.linalg.norm(b)
        assert ksp.getInitialGuessNonzero() == guess  # as the program left it


def test_methods_that_single_precision_misleads_are_warned_of():
    shape = (16, 16)
    csr = GridOperator.from_cell_types(np.zeros(shape, int), 2).to_csr()
    b = np.random.default_rng(0).standard_normal(csr.shape[0])
    with pytest.warns(UserWarning, match="single precision"):
        solve_by_options(csr, b, shape, "gmres")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for ksp_type in ("cg", "fcg", "fgmres", "dcd"):
            reason, x = solve_by_options(csr, b, shape, ksp_type)
            assert reason > 0
            assert np.linalg.norm(csr @ x - b) < 1e-7 * np.linalg.norm(b)


def messages(error):
    """Texts of an exception and of those behind it: PETSc's own versions wrap what Python raised."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(texts)
