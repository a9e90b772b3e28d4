"""KSP dcd keeps PETSc's rules: norms, monitors, limits, reasons, options, reuse."""

import numpy as np
import pytest
import scipy.sparse as sp
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import OptionError

Reason = PETSc.KSP.ConvergedReason


class Shell:
    """A preconditioner from a function of NumPy arrays."""

    def __init__(self, function, look=lambda r, z: None):
        self.function, self.look = function, look

    def apply(self, pc, r, z):
        self.look(r, z)
        z.array_w[:] = self.function(r.array_r)


def laplacian(shape=(24, 25), outside=2):
    return GridOperator.from_cell_types(np.zeros(shape, int), outside=outside)


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def relative(csr, x, b):
    return np.linalg.norm(b - csr @ x) / np.linalg.norm(b)


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

    def test_work_vectors_have_the_same_roles_in_each_solve(self, problems, system):
        """Sums over vectors of another alignment may be rounded in another way."""
        _, mat, b = system
        places = []

        def remember(r, z):
            places[-1].append((r.array_r.ctypes.data, z.array_r.ctypes.data))

        ksp = problems.ksp(mat, "dcd", Shell(lambda r: np.roll(r, 3) + r, remember), ksp_dcd_directions=3)
        for _ in range(3):
            places.append([])
            problems.solve(ksp, b)
        assert len(places[0]) > 10 and places[0] == places[1] == places[2]

    def test_reset_and_another_size(self, problems, system):
        _, mat, b = system
        ksp = problems.ksp(mat, "dcd", "icc")
        problems.solve(ksp, b)
        A = laplacian((5, 6)).to_csr()
        ksp.reset()
        ksp.setOperators(problems.matrix(A))
        assert relative(A, problems.solve(ksp, noise(30)).x, noise(30)) < 1.1e-8
