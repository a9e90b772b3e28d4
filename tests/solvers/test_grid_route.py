"""KSP dcd in grid space: the same solutions as with the matrix, true residuals, and when it stays out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

PETSc = pytest.importorskip("petsc4py.PETSc")

from consolve.learned.multilevel.engine.grid_directions import SLOTS  # noqa: E402
from consolve.pde import AIR, FLUID, SOLID, GridOperator  # noqa: E402
from consolve.pde.poisson.domains import make_domain  # noqa: E402
from consolve.solvers import assemble_matrix, attach_grid  # noqa: E402

CG = {2: 40, 3: 14}


def make_ksp(mat, rtol=1e-8, pmat=None, **options):
    ksp = PETSc.KSP().create(mat.comm)
    ksp.setOperators(mat, pmat)
    ksp.setOptionsPrefix("route_")
    database = PETSc.Options("route_")
    chosen = {"ksp_type": "dcd", "pc_type": "cnn", "ksp_max_it": 200} | options
    for name, value in chosen.items():
        database.setValue(name, value)
    ksp.setTolerances(rtol=rtol)
    ksp.setConvergenceHistory(reset=True)
    ksp.setFromOptions()
    for name in chosen:
        database.delValue(name)
    return ksp


def solved(mat, b, guess=None, **options):
    """Solution, KSP, and the relative residual by the matrix."""
    ksp = make_ksp(mat, **options)
    rhs, x = mat.createVecLeft(), mat.createVecRight()
    rhs.array_w[:] = b
    if guess is not None:
        x.array_w[:] = guess
        ksp.setInitialGuessNonzero(True)
    ksp.solve(rhs, x)
    residual = rhs.duplicate()
    mat.mult(x, residual)
    residual.aypx(-1.0, rhs)
    return x.array_r.copy(), ksp, residual.norm() / rhs.norm()


def context(ksp):
    return ksp.getPythonContext()


def random_image(rng, ndim, closed):
    shape = tuple(int(n) for n in rng.integers(5, CG[ndim], ndim))
    types = rng.choice([FLUID, SOLID, AIR], shape, p=[0.75, 0.2, 0.05])
    types[types == AIR] = SOLID if closed else AIR
    return GridOperator.from_cell_types(types, SOLID if closed else AIR)


@given(
    st.integers(0, 10**6), st.sampled_from([2, 3]), st.booleans(), st.sampled_from([1.0, -1.0, 1e-12, 3e9]),
    st.sampled_from(["active", "all"]), st.booleans(),
)  # fmt: skip
def test_solves_random_images_as_the_matrix_route_does(seed, ndim, closed, factor, numbering, guess):
    rng = np.random.default_rng(seed)
    operator = random_image(rng, ndim, closed)
    if operator.unknowns < 2:
        return
    A = (factor * operator.to_csr(numbering)).tocsr()
    mat = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=PETSc.COMM_SELF)
    attach_grid(mat, operator)
    b = A @ rng.standard_normal(A.shape[0])
    if not b.any():
        return
    start = rng.standard_normal(A.shape[0]) if guess else None
    x, ksp, error = solved(mat, b, start)
    assert ksp.getConvergedReason() > 0 and error <= 1e-8
    y, slow, _ = solved(mat, b, start, ksp_dcd_fused="false")
    assert context(slow).grid_iterations == 0
    np.testing.assert_allclose(A @ x, A @ y, rtol=0, atol=4e-8 * np.linalg.norm(b))
    assert ksp.getIterationNumber() <= slow.getIterationNumber() + 4


@pytest.mark.parametrize("shape", [(200, 130), (40, 30, 36)])
@pytest.mark.parametrize("name", ["spheres", "free-surface", "closed-spheres"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-9, 1e-12])
def test_the_end_is_declared_by_the_true_residual(shape, name, rtol):
    operator = make_domain(name, shape, 3).operator()
    rng = np.random.default_rng(0)
    b = operator.remove_null_space(rng.standard_normal(shape))[operator.active]
    _, ksp, error = solved(assemble_matrix(operator), b, rtol=rtol)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.CONVERGED_RTOL and error <= rtol
    assert context(ksp).grid_iterations == ksp.getIterationNumber() <= 18
    history = ksp.getConvergenceHistory()
    assert len(history) == ksp.getIterationNumber() + 1
    assert (
        history[-1]
        == pytest.approx(ksp.getResidualNorm())
        == pytest.approx(error * np.linalg.norm(b), rel=1e-6)
    )


def test_full_slots_are_emptied_on_the_way(monkeypatch):
    """More iterations than slots before the residual is computed anew, on a smooth right-hand side."""
    monkeypatch.setattr("consolve.learned.multilevel.graph.choice.MOST_SPLIT", 1.0)
    operator = make_domain("plates", (64, 64), 3).operator()
    b = np.ones(operator.unknowns)
    _, ksp, error = solved(assemble_matrix(operator), b, rtol=1e-6)
    assert context(ksp).grid_iterations > SLOTS + 2 and error <= 1e-6
    _, slow, _ = solved(assemble_matrix(operator), b, rtol=1e-6, ksp_dcd_fused="false")
    assert abs(ksp.getIterationNumber() - slow.getIterationNumber()) <= 2


def test_monitors_can_ask_for_the_iterate():
    operator = make_domain("spheres", (60, 50), 3).operator()
    mat = assemble_matrix(operator)
    ksp = make_ksp(mat)
    b, x = mat.createVecs()
    b.setRandom()
    norms = []

    def monitor(ksp, iteration, norm):
        residual = b.duplicate()
        mat.mult(ksp.buildSolution(), residual)
        residual.aypx(-1.0, b)
        norms.append((residual.norm(), norm))

    ksp.setMonitor(monitor)
    ksp.solve(b, x)
    assert context(ksp).grid_iterations == len(norms) - 1 > 3
    np.testing.assert_allclose(*zip(*norms), rtol=0, atol=2e-7 * b.norm())


def mixed(shape, coefficient=1.0):
    types = np.zeros(shape, int)
    types[3:5, 2:9] = SOLID
    mobility = None if coefficient == 1 else np.where(np.arange(shape[0]) < 6, 1.0, coefficient)
    if mobility is not None:
        mobility = np.broadcast_to(mobility.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()
    return GridOperator.from_cell_types(types, AIR, mobility)


@pytest.mark.parametrize("case", ["jump", "another matrix", "changed matrix", "model", "mg", "option"])
def test_stays_out_where_the_operator_is_not_the_matrix(case):
    operator = mixed((30, 20), 3.0 if case == "jump" else 1.0)
    mat = assemble_matrix(operator)
    options = {"option": dict(ksp_dcd_fused="0"), "mg": dict(pc_cnn_model="mg")}.get(case, {})
    ksp = make_ksp(mat, pmat=mat.copy() if case == "another matrix" else None, **options)
    if case == "model":
        ksp.getPC().setType("jacobi")
    b, x = mat.createVecs()
    b.setRandom()
    ksp.setUp()
    if case == "changed matrix":
        mat.shift(0.01)
        ksp.getPC().setReusePreconditioner(True)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    residual = b.duplicate()
    mat.mult(x, residual)
    residual.aypx(-1.0, b)
    assert residual.norm() <= 1.0001e-8 * b.norm()
    assert (context(ksp).grid_iterations > 0) == (case == "mg")


@pytest.mark.parametrize("shift", [0.5, 0.01])
def test_goes_on_with_the_matrix_where_the_operator_is_not_what_was_read(shift):
    """The entries change behind PETSc's back: the residual does not agree, and the matrix decides."""
    operator = mixed((30, 20))
    mat = assemble_matrix(operator)
    ksp = make_ksp(mat)
    ksp.setUp()
    ksp.getPC().setReusePreconditioner(True)
    mat.shift(shift)
    ksp.getPC().getPythonContext()._state = mat.stateGet()
    b, x = mat.createVecs()
    b.setRandom()
    ksp.solve(b, x)
    residual = b.duplicate()
    mat.mult(x, residual)
    residual.aypx(-1.0, b)
    assert ksp.getConvergedReason() > 0 and residual.norm() <= 1.0001e-8 * b.norm()
    assert 0 < context(ksp).grid_iterations < ksp.getIterationNumber()


@pytest.mark.parametrize("box", [False, True])
def test_stored_zeros_do_not_keep_it_out(box):
    """A DMDA with a box stencil stores 27 entries a row; true couplings along diagonals keep it out."""
    operator = mixed((30, 20))
    A = operator.to_csr().tolil()
    A[40, 61] = A[61, 40] = -1e-3 if box else 1.0
    A[40, 40] += 1e-3 if box else 0.0
    A[61, 61] += 1e-3 if box else 0.0
    A = A.tocsr()
    if not box:
        A[40, 61] = A[61, 40] = 0.0  # stays stored
    assert A.nnz == operator.to_csr().nnz + 2
    mat = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=PETSc.COMM_SELF)
    attach_grid(mat, operator)
    _, ksp, error = solved(mat, np.ones(A.shape[0]))
    assert ksp.getConvergedReason() > 0 and error <= 1e-8
    assert context(ksp).grid_iterations == (0 if box else ksp.getIterationNumber())


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_the_limit_of_iterations_is_kept(most):
    operator = make_domain("spheres", (60, 50), 3).operator()
    b = np.random.default_rng(0).standard_normal(operator.unknowns)
    _, ksp, error = solved(assemble_matrix(operator), b, rtol=1e-13, ksp_max_it=most)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT
    assert ksp.getIterationNumber() == most == len(ksp.getConvergenceHistory()) - 1
    assert ksp.getResidualNorm() == pytest.approx(error * np.linalg.norm(b), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_faults_in_the_right_hand_side_end_the_solve(bad):
    operator = mixed((30, 20))
    b = np.ones(operator.unknowns)
    b[17] = bad
    _, ksp, _ = solved(assemble_matrix(operator), b)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF
    _, again, error = solved(assemble_matrix(operator), np.ones(operator.unknowns))
    assert again.getConvergedReason() > 0 and error <= 1e-8


def test_a_moving_body_uses_the_memory_again():
    ksp = first = None
    for step in range(4):
        types = np.zeros((60, 44), int)
        types[10 + 3 * step : 20 + 3 * step, 10:20] = SOLID
        operator = GridOperator.from_cell_types(types, AIR)
        A = operator.to_csr("all")
        mat = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=PETSc.COMM_SELF)
        attach_grid(mat, operator)
        b, x = mat.createVecs()
        b.setRandom()
        if ksp is None:
            ksp = make_ksp(mat)
        ksp.setOperators(mat)
        ksp.solve(b, x)
        model = ksp.getPC().getPythonContext().network
        first = model._directions if step == 0 else first
        residual = b.duplicate()
        mat.mult(x, residual)
        residual.aypx(-1.0, b)
        assert model._directions is first and residual.norm() <= 1e-8 * b.norm()
        assert context(ksp).grid_iterations == ksp.getIterationNumber()
