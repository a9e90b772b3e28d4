"""KSP dcd: conjugate gradients in disguise for linear M, convergent for any M, on singular systems too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from consolve.pde import GridOperator


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
    assert solved.iterations <= 2.5 * plain.iterations + 20


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
