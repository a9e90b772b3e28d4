"""KSP dcd declares convergence of b - A x, from which the recurrence of r may have drifted."""

import numpy as np
import pytest
import scipy.sparse as sp
from petsc4py import PETSc

from consolve.pde import GridOperator


def laplacian(shape=(24, 25), outside=2):
    return GridOperator.from_cell_types(np.zeros(shape, int), outside=outside)


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def relative(csr, x, b):
    return np.linalg.norm(b - csr @ x) / np.linalg.norm(b)


class DriftingMatrix:
    """A matrix-free A whose products err a little: the recurrence of r drifts from b - A x."""

    def __init__(self, csr, error):
        self.csr, self.error, self.rng = csr, error, np.random.default_rng(0)

    def mult(self, mat, x, y):
        y.array_w[:] = self.csr @ x.array_r
        y.array_w[:] *= 1 + self.error * self.rng.standard_normal(y.size)


def test_convergence_is_never_declared_on_the_recurrence(problems):
    """With rounding and an ill-conditioned A, the recurrence converges where b - A x does not."""
    d = np.logspace(0, 14, 60)
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 60)))
    A = (q * d) @ q.T
    A = 0.5 * (A + A.T)
    b = A @ np.random.default_rng(1).standard_normal(60)
    mat = problems.matrix(sp.csr_matrix(A))
    for every in (0, 50):
        options = {"ksp_rtol": 1e-15, "ksp_max_it": 300, "ksp_dcd_true_residual_every": every}
        solved = problems.solve(problems.ksp(mat, "dcd", "none", **options), b)
        true = relative(A, solved.x, b)
        assert solved.reason < 0 or true < 1.5e-15


def test_residual_is_recomputed_now_and_then(problems):
    operator = laplacian((30, 31), outside=((1, 1), (1, 2)))
    matrix = DriftingMatrix(operator.to_csr(), 1e-7)
    shell = PETSc.Mat().createPython((930, 930), matrix, comm=PETSc.COMM_SELF)
    shell.setUp()
    b = noise(930)
    options = {"ksp_dcd_true_residual_every": 10, "ksp_max_it": 30, "ksp_rtol": 1e-12}
    solved = problems.solve(problems.ksp(shell, "dcd", "none", **options), b)
    true = np.linalg.norm(b - matrix.csr @ solved.x)
    assert solved.norm == pytest.approx(true, rel=1e-3)


class RoundedProduct:
    """Context of a matrix whose products are rounded to single precision: recurrences drift from b - A x."""

    def __init__(self, dense):
        self.dense = dense

    def mult(self, mat, x, y):
        y.array_w[:] = (self.dense @ x.array_r).astype(np.float32)


def test_convergence_is_declared_of_the_true_residual_only():
    n = 40
    dense = np.diag(np.linspace(1, 30, n)) - 0.4 * (np.eye(n, k=1) + np.eye(n, k=-1))
    mat = PETSc.Mat().createPython((n, n), RoundedProduct(dense), comm=PETSc.COMM_SELF)
    mat.setUp()
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPC().setType("none")
    ksp.getPythonContext().true_residual_every = 0
    b, x = mat.createVecs()
    b.array_w[:] = np.random.default_rng(0).standard_normal(n)
    for rtol, reached in ((1e-5, True), (1e-12, False)):
        ksp.setTolerances(rtol=rtol, max_it=300)
        ksp.solve(b, x)
        residual = np.linalg.norm(b.array_r - (dense @ x.array_r).astype(np.float32))
        assert (ksp.getConvergedReason() > 0) == reached
        assert (residual <= 1.001 * rtol * b.norm()) == reached
    for thing in (ksp, mat, b, x):
        thing.destroy()


def test_stagnation_of_the_true_residual_ends_a_solve(problems):
    """Products in single precision never allow 1e-12: the solve says so, and does not go on to the limit."""
    n = 400
    dense = np.diag(np.linspace(1, 30, n)) - 0.4 * (np.eye(n, k=1) + np.eye(n, k=-1))
    mat = PETSc.Mat().createPython((n, n), RoundedProduct(dense), comm=PETSc.COMM_SELF)
    mat.setUp()
    solved = problems.solve(problems.ksp(mat, "dcd", "none", ksp_rtol=1e-12, ksp_max_it=10_000), noise(n))
    assert solved.reason == PETSc.KSP.ConvergedReason.DIVERGED_BREAKDOWN
    assert solved.iterations < 300 and relative(dense, solved.x, noise(n)) < 1e-5


def test_newton_with_finite_differences_ends(problems):
    """-snes_mf, Bratu's problem: a product by finite differences is no linear function of x, so that b - A x
    stagnates above the tolerance that the recurrence meets."""
    n, strength = 33, 6.0 / 34**2

    def residual(snes, x, f):
        u = np.pad(x.array_r.reshape(n, n), 1)
        beside = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
        f.array_w[:] = (4 * u[1:-1, 1:-1] - beside - strength * np.exp(u[1:-1, 1:-1])).reshape(-1)

    iterations = {}
    for kind in ("cg", "dcd"):
        snes, x = PETSc.SNES().create(PETSc.COMM_SELF), PETSc.Vec().createSeq(n * n)
        f = x.duplicate()
        snes.setFunction(residual, f)
        snes.setUseMF(True)
        snes.ksp.setType(kind)
        snes.ksp.pc.setType("none")
        snes.ksp.setTolerances(rtol=1e-6, max_it=2000)
        snes.solve(None, x)
        assert snes.getConvergedReason() > 0
        iterations[kind] = snes.getLinearSolveIterations()
        for thing in (snes, x, f):
            thing.destroy()
    assert iterations["dcd"] < 4 * iterations["cg"]
