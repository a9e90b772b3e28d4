"""KSP dcd: conjugate gradients in disguise for linear M, convergent for any M, PETSc's rules kept."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import OptionError
from consolve.solvers.safeguard import PATIENCE

Reason = PETSc.KSP.ConvergedReason


class Shell:
    """A preconditioner from a function of NumPy arrays."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def apply(self, pc, r, z):
        self.calls += 1
        z.array_w[:] = self.function(r.array_r)


def laplacian(shape=(24, 25), outside=2):
    return GridOperator.from_cell_types(np.zeros(shape, int), outside=outside)


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def relative(csr, x, b):
    return np.linalg.norm(b - csr @ x) / np.linalg.norm(b)


def reference(A, b, f, directions, iterations):
    """The method as the paper states it, all quantities dense and recomputed; returns residual norms."""
    x, window = np.zeros_like(b), []
    norms = [np.linalg.norm(b)]
    for _ in range(iterations):
        r = b - A @ x
        d = f(r / np.linalg.norm(r))
        for e in window:
            d = d - (d @ (A @ e)) / (e @ (A @ e)) * e
        x = x + (r @ d) / (d @ (A @ d)) * d
        window = [d, *window][:directions]
        norms.append(np.linalg.norm(b - A @ x))
    return np.array(norms)


def f_nonlinear(r):
    """Positively oriented, not linear, not symmetric: a smoothing that depends on the signs of its input."""
    return r * (1 + 0.5 * np.tanh(9 * np.roll(r, 1)))


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_follows_the_paper_step_by_step(problems, directions):
    A = laplacian((7, 8)).to_csr()
    b = noise(56)
    ksp = problems.ksp(
        problems.matrix(A),
        "dcd",
        Shell(f_nonlinear),
        ksp_dcd_directions=directions,
        ksp_max_it=25,
        ksp_rtol=1e-14,
    )
    solved = problems.solve(ksp, b)
    expected = reference(A.toarray(), b, f_nonlinear, directions, 25)
    np.testing.assert_allclose(solved.history, expected, rtol=1e-5)


@pytest.mark.parametrize("pc", ["none", "jacobi", "icc"])
def test_equals_conjugate_gradients_for_linear_preconditioners(problems, pc):
    operator = problems.operator((30, 31), "mixed")
    A, b = operator.to_csr(), noise(operator.unknowns)
    cg, dcd = (problems.solve(problems.ksp(problems.matrix(A), kind, pc), b) for kind in ("cg", "dcd"))
    assert abs(cg.iterations - dcd.iterations) <= 1
    np.testing.assert_allclose(dcd.history[:20], cg.history[:20], rtol=1e-8)
    assert relative(A, dcd.x, b) < 1.01e-8


def test_beats_plain_conjugate_gradients_with_a_network(problems):
    from consolve.solvers import attach_grid

    operator = laplacian((60, 61), outside=((1, 1), (1, 2)))
    mat, b = problems.matrix(operator.to_csr()), noise(operator.unknowns)
    attach_grid(mat, operator)
    plain = problems.solve(problems.ksp(mat, "cg", "none"), b)
    network = problems.solve(problems.ksp(mat, "dcd", "cnn"), b)
    assert 10 * network.iterations < plain.iterations


def random_each_time():
    rng = np.random.default_rng(3)
    return lambda r: rng.standard_normal(r.size)


def now_and_then(every, f, g):
    count = [0]

    def function(r):
        count[0] += 1
        return f(r) if count[0] % every == 0 else g(r)

    return function


def spread_out(r):
    return 10 ** np.linspace(-6, 6, r.size) * r


USELESS = {
    "zero": lambda: np.zeros_like,
    "nan": lambda: lambda r: np.full_like(r, np.nan),
    "one nan": lambda: lambda r: np.where(np.arange(r.size) == 3, np.nan, r),
    "inf": lambda: lambda r: np.full_like(r, np.inf),
    "huge": lambda: lambda r: 1e200 * r,
    "tiny": lambda: lambda r: 1e-200 * r,
    "negative": lambda: np.negative,
    "orthogonal": lambda: lambda r: np.roll(r, 1) - (np.roll(r, 1) @ r) / (r @ r) * r,
    "same direction": lambda: lambda r: np.ones_like(r),
    "random": random_each_time,
    "random linear": lambda: lambda r: np.random.default_rng(1).standard_normal((r.size, 8)) @ r[:8],
    "shift": lambda: lambda r: np.roll(r, 7),
    "sign": lambda: np.sign,
    "cube": lambda: lambda r: r**3,
    "largest only": lambda: lambda r: np.where(np.abs(r) == np.abs(r).max(), r, 0),
    "badly scaled": lambda: spread_out,
    "nan at times": lambda: now_and_then(3, np.zeros_like, np.positive),
    "random at times": lambda: now_and_then(4, random_each_time(), np.positive),
    "sometimes useful": lambda: now_and_then(2, random_each_time(), f_nonlinear),
}


@pytest.mark.parametrize("name", USELESS)
def test_converges_whatever_the_preconditioner_does(problems, name):
    A = laplacian((40, 41), outside=((1, 1), (1, 2))).to_csr()
    b = noise(A.shape[0])
    mat = problems.matrix(A)
    plain = problems.solve(problems.ksp(mat, "cg", "none", ksp_max_it=10**4), b)
    solved = problems.solve(problems.ksp(mat, "dcd", Shell(USELESS[name]()), ksp_max_it=10**4), b)
    assert solved.reason > 0 and relative(A, solved.x, b) < 1.01e-8
    assert solved.iterations <= 2.5 * plain.iterations + 2 * PATIENCE


@pytest.mark.parametrize("name", ["zero", "nan", "inf", "huge", "tiny", "negative", "orthogonal", "one nan"])
def test_is_exactly_conjugate_gradients_with_nothing_to_go_by(problems, name):
    A = laplacian((20, 21), outside=((1, 1), (1, 2))).to_csr()
    b = noise(A.shape[0])
    plain = problems.solve(problems.ksp(problems.matrix(A), "cg", "none"), b)
    solved = problems.solve(problems.ksp(problems.matrix(A), "dcd", Shell(USELESS[name]())), b)
    assert abs(solved.iterations - plain.iterations) <= 1
    np.testing.assert_allclose(solved.history[:15], plain.history[:15], rtol=1e-8)


@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 4))
@settings(max_examples=20)
def test_random_systems_and_preconditioners(seed, directions, spread):
    """Any SPD matrix, and an M that errs at random in every way that it can."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (q * 10 ** rng.uniform(0, spread, n)) @ q.T
    b = rng.standard_normal(n)

    def f(r):
        kind = rng.integers(6)
        if kind == 0:
            return np.full_like(r, np.nan)
        if kind == 1:
            return rng.standard_normal(n) * 10.0 ** rng.integers(-9, 9)
        return [np.linalg.solve(A, r), r, -r, np.zeros(n)][kind - 2]

    mat = PETSc.Mat().createDense((n, n), array=0.5 * (A + A.T), comm=PETSc.COMM_SELF)
    mat.assemble()
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPythonContext().directions = directions
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(Shell(f))
    ksp.setTolerances(rtol=1e-8, max_it=20000)
    rhs, x = mat.createVecs()
    rhs.array_w[:] = b
    ksp.solve(rhs, x)
    assert ksp.getConvergedReason() > 0
    assert relative(A, x.array_r, b) < 1.1e-8


def test_safeguard_counts_are_shown(problems, tmp_path):
    A = laplacian((20, 21)).to_csr()
    ksp = problems.ksp(problems.matrix(A), "dcd", Shell(USELESS["zero"]()), ksp_dcd_directions=3)
    solved = problems.solve(ksp, noise(A.shape[0]))
    assert ksp.getPythonContext().fallbacks == solved.iterations
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"), comm=PETSc.COMM_SELF)
    ksp.view(viewer)
    viewer.destroy()
    text = (tmp_path / "view").read_text()
    assert "type: dcd" in text and "directions kept 3" in text
    assert f"{solved.iterations} iterations along the residual" in text
    assert "UNPRECONDITIONED" in text


def test_good_proposals_are_never_replaced(problems):
    A = laplacian((20, 21)).to_csr()
    ksp = problems.ksp(problems.matrix(A), "dcd", "icc")
    problems.solve(ksp, noise(A.shape[0]))
    assert ksp.getPythonContext().fallbacks == 0


class TestPetscRules:
    @pytest.fixture
    def system(self, problems):
        A = laplacian((16, 17)).to_csr()
        return A, problems.matrix(A), noise(A.shape[0])

    def test_history_monitor_and_norm_agree(self, problems, system):
        A, mat, b = system
        ksp, seen = problems.ksp(mat, "dcd", "icc"), []
        ksp.setMonitor(lambda _, k, norm: seen.append((k, norm)))
        solved = problems.solve(ksp, b)
        assert [k for k, _ in seen] == list(range(solved.iterations + 1))
        np.testing.assert_array_equal([norm for _, norm in seen], solved.history)
        assert solved.history[0] == pytest.approx(np.linalg.norm(b))
        assert solved.norm == solved.history[-1] == pytest.approx(np.linalg.norm(b - A @ solved.x), rel=1e-6)

    def test_nonzero_initial_guess(self, problems, system):
        A, mat, b = system
        exact = np.linalg.solve(A.toarray(), b)
        ksp = problems.ksp(mat, "dcd", "icc")
        assert problems.solve(ksp, b, guess=exact).iterations == 0
        near = problems.solve(ksp, b, guess=exact + 1e-4 * noise(b.size, 5))
        cold = problems.solve(ksp, b)
        assert 0 < near.iterations < cold.iterations and relative(A, near.x, b) < 1.1e-8

    def test_zero_right_hand_side(self, problems, system):
        _, mat, b = system
        for guess in (None, 0 * b):
            solved = problems.solve(problems.ksp(mat, "dcd", "icc"), 0 * b, guess)
            assert solved.reason == Reason.CONVERGED_ATOL and solved.iterations == 0
            np.testing.assert_array_equal(solved.x, 0)

    def test_iteration_limit(self, problems, system):
        _, mat, b = system
        for limit in (0, 1, 3):
            solved = problems.solve(problems.ksp(mat, "dcd", "none", ksp_max_it=limit), b)
            assert (solved.reason, solved.iterations) == (Reason.DIVERGED_MAX_IT, limit)
            assert len(solved.history) == limit + 1

    def test_no_norm_means_a_fixed_number_of_iterations(self, problems, system):
        _, mat, b = system
        options = {"ksp_max_it": 4, "ksp_norm_type": "none", "ksp_convergence_test": "skip"}
        solved = problems.solve(problems.ksp(mat, "dcd", "icc", **options), b)
        assert (solved.reason, solved.iterations) == (Reason.CONVERGED_ITS, 4)

    @pytest.mark.parametrize("norm", ["preconditioned", "natural"])
    def test_other_norms_are_refused(self, problems, system, norm):
        _, mat, b = system
        with pytest.raises(PETSc.Error):
            problems.solve(problems.ksp(mat, "dcd", "icc", ksp_norm_type=norm), b)

    def test_user_convergence_test(self, problems, system):
        _, mat, b = system
        ksp = problems.ksp(mat, "dcd", "none")
        ksp.setConvergenceTest(lambda _, k, norm: Reason.CONVERGED_ITS if k >= 5 else Reason.ITERATING)
        solved = problems.solve(ksp, b)
        assert (solved.reason, solved.iterations) == (Reason.CONVERGED_ITS, 5)

    def test_transposed_solve_is_refused(self, problems, system):
        _, mat, b = system
        ksp = problems.ksp(mat, "dcd", "none")
        with pytest.raises((NotImplementedError, PETSc.Error)):
            ksp.solveTranspose(problems.vector(b), problems.vector(b))

    def test_bad_numbers(self, problems, system):
        _, mat, b = system
        for value in (np.nan, np.inf):
            solved = problems.solve(
                problems.ksp(mat, "dcd", "none"), np.where(np.arange(b.size) == 5, value, b)
            )
            assert solved.reason == Reason.DIVERGED_NANORINF

    def test_nan_in_the_matrix(self, problems, system):
        A, _, b = system
        A = A.copy()
        A.data[10] = np.nan
        assert problems.solve(problems.ksp(problems.matrix(A), "dcd", "none"), b).reason < 0

    @pytest.mark.parametrize("sign", [-1.0, 1.0])
    def test_indefinite_matrix(self, problems, sign):
        d = np.linspace(-1, 2, 30)
        solved = problems.solve(problems.ksp(problems.matrix(sp.diags(sign * d)), "dcd", "none"), np.ones(30))
        assert solved.reason == Reason.DIVERGED_INDEFINITE_MAT

    @pytest.mark.parametrize("proposals", ["none", "jacobi", "residual", "zero"])
    def test_negative_definite_matrix(self, problems, system, proposals):
        """As plain CG, dcd takes -A; one KSP may then get A again."""
        A, _, b = system
        pc = {"residual": Shell(lambda r: r), "zero": Shell(lambda r: 0 * r)}.get(proposals, proposals)
        ksp = problems.ksp(problems.matrix(-A), "dcd", pc)
        for matrix in (-A, A, -A):
            ksp.setOperators(problems.matrix(matrix))
            solved = problems.solve(ksp, b)
            assert solved.reason == Reason.CONVERGED_RTOL
            assert np.linalg.norm(b - matrix @ solved.x) <= 1.01e-8 * np.linalg.norm(b)

    def test_proposal_of_negative_curvature_shows_an_indefinite_matrix(self, problems):
        d = np.ones(30)
        d[7] = -1
        b = np.ones(30)
        b[7] = 0.1
        unit = np.eye(30)[7]
        ksp = problems.ksp(problems.matrix(sp.diags(d)), "dcd", Shell(lambda r: unit))
        assert problems.solve(ksp, b).reason == Reason.DIVERGED_INDEFINITE_MAT

    def test_error_if_not_converged(self, problems, system):
        _, mat, b = system
        ksp = problems.ksp(mat, "dcd", "none", ksp_error_if_not_converged=None)
        b[3] = np.nan
        with pytest.raises(PETSc.Error):
            problems.solve(ksp, b)

    @pytest.mark.parametrize(
        "option, value",
        [("ksp_dcd_directions", v) for v in ("0", "-1", "two", "1.5")]
        + [("ksp_dcd_true_residual_every", v) for v in ("-1", "never")],
    )
    def test_bad_options(self, problems, system, option, value):
        with pytest.raises((OptionError, PETSc.Error)) as caught:
            problems.ksp(system[1], "dcd", "none", **{option: value})
        error = caught.value if isinstance(caught.value, OptionError) else caught.value.__cause__
        assert option in str(error) and value in str(error)

    def test_many_solves_with_one_ksp(self, problems, system):
        _, mat, b = system
        ksp = problems.ksp(mat, "dcd", "icc")
        first = problems.solve(ksp, b)
        problems.solve(ksp, noise(b.size, 9))
        again = problems.solve(ksp, b)
        np.testing.assert_array_equal(first.x, again.x)

    def test_reset_and_another_size(self, problems, system):
        _, mat, b = system
        ksp = problems.ksp(mat, "dcd", "icc")
        problems.solve(ksp, b)
        A = laplacian((5, 6)).to_csr()
        ksp.reset()
        ksp.setOperators(problems.matrix(A))
        assert relative(A, problems.solve(ksp, noise(30)).x, noise(30)) < 1.1e-8


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


@pytest.mark.parametrize("pc", ["none", "jacobi", "random"])
def test_singular_system_with_null_space(problems, pc):
    operator = laplacian((18, 19), outside=1)
    A = operator.to_csr()
    mat = problems.matrix(A)
    mat.setNullSpace(PETSc.NullSpace().create(constant=True, comm=PETSc.COMM_SELF))
    b = noise(A.shape[0])
    solved = problems.solve(problems.ksp(mat, "dcd", Shell(random_each_time()) if pc == "random" else pc), b)
    assert solved.reason > 0
    part = b - b.mean()
    assert np.linalg.norm(part - A @ solved.x) < 1.1e-8 * np.linalg.norm(b)
    assert abs(solved.x.mean()) < 1e-8 * abs(solved.x).max()


def test_proposals_in_the_null_space_are_useless(problems):
    operator = laplacian((18, 19), outside=1)
    mat = problems.matrix(operator.to_csr())
    mat.setNullSpace(PETSc.NullSpace().create(constant=True, comm=PETSc.COMM_SELF))
    ksp = problems.ksp(mat, "dcd", Shell(np.ones_like))
    solved = problems.solve(ksp, noise(342))
    assert solved.reason > 0 and ksp.getPythonContext().fallbacks == solved.iterations


def test_singular_system_without_null_space(problems):
    operator = laplacian((18, 19), outside=1)
    b = noise(342) - noise(342).mean()
    ksp = problems.ksp(problems.matrix(operator.to_csr()), "dcd", Shell(np.ones_like))
    solved = problems.solve(ksp, b)
    assert solved.reason > 0 and relative(operator.to_csr(), solved.x, b) < 1.1e-8


def test_inconsistent_singular_system_does_not_pretend(problems):
    mat = problems.matrix(laplacian((8, 9), outside=1).to_csr())
    solved = problems.solve(problems.ksp(mat, "dcd", "none"), np.ones(72))
    assert solved.reason < 0


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
