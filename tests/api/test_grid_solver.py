"""consolve.GridSolver: solutions on a grid without a matrix."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse.linalg as spla
from hypothesis import given
from hypothesis import strategies as st

from consolve import GridSolver, aspreconditioner
from consolve.base.errors import InconsistentRightHandSide, NotConverged
from consolve.pde import AIR, FLUID, SOLID, GridOperator
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.uniform import UniformOperator
from consolve.pde.poisson.uniform_residual import residual


def random_operator(rng, ndim, closed=False, jumps=False):
    shape = tuple(int(n) for n in rng.integers(3, 30 if ndim == 2 else 12, ndim))
    types = rng.choice([FLUID, SOLID, AIR], shape, p=[0.75, 0.2, 0.05])
    if closed:
        types[types == AIR] = SOLID
    mobility = np.exp(rng.standard_normal(shape)) if jumps else None
    return GridOperator.from_cell_types(types, SOLID if closed else AIR, mobility)


@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.booleans(), st.booleans(), st.booleans())
def test_solves_random_operators(seed, ndim, closed, jumps, guess):
    rng = np.random.default_rng(seed)
    operator = random_operator(rng, ndim, closed, jumps)
    b = operator.remove_null_space(rng.standard_normal(operator.shape))
    x0 = rng.standard_normal(operator.shape) if guess else None
    x, facts = GridSolver(operator).solve(b, x0, rtol=1e-10)
    error = np.linalg.norm(b - operator.apply(x))
    size = np.linalg.norm(b)
    assert error <= 1e-10 * size and not x[~operator.active].any()
    if size > 0:
        assert facts.residual == pytest.approx(error / size, rel=1e-3, abs=1e-13)
    np.testing.assert_allclose(operator.remove_null_space(x), x, atol=1e-9 * (1 + np.abs(x).max()))


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_residual_of_an_image_is_that_of_its_matrix(seed, ndim):
    rng = np.random.default_rng(seed)
    operator = UniformOperator.of(random_operator(rng, ndim))
    if operator is None:
        return
    b, x = rng.standard_normal((2, *operator.shape))
    x[~operator.active] = rng.standard_normal()
    r, fixed = np.empty_like(b), operator.fixed
    volumes = [a.reshape((1,) * (3 - ndim) + a.shape) for a in (b, x, r)]
    active = operator.active.reshape(volumes[0].shape).view(np.uint8)
    square = residual(active, operator.coefficient, fixed.start, fixed.place, fixed.part, *volumes)
    exact = b[operator.active] - operator.to_csr() @ x[operator.active]
    np.testing.assert_allclose(r[operator.active], exact, atol=1e-12)
    assert not r[~operator.active].any() and square == pytest.approx(exact @ exact)


@pytest.mark.parametrize("shape", [(70, 90), (30, 20, 26)])
def test_equals_a_direct_solver(shape):
    operator = make_domain("free-surface", shape, 3).operator()
    b = np.random.default_rng(0).standard_normal(shape)
    x, _ = GridSolver(operator).solve(b, rtol=1e-12)
    exact = spla.spsolve(operator.to_csr().tocsc(), b[operator.active])
    np.testing.assert_allclose(x[operator.active], exact, atol=1e-9 * np.abs(exact).max())


def test_update_follows_a_moving_body_in_the_same_memory():
    types = np.zeros((60, 44), int)
    solver = GridSolver(GridOperator.from_cell_types(types, AIR))
    first = solver._network._hierarchy
    for step in range(3):
        types[:] = FLUID
        types[10 + 9 * step : 20 + 9 * step, 10:20] = SOLID
        operator = GridOperator.from_cell_types(types, AIR)
        solver.update(operator)
        b = np.ones(types.shape)
        x, _ = solver.solve(b, rtol=1e-9)
        assert np.linalg.norm((b - operator.apply(x))[operator.active]) <= 1e-9 * np.sqrt(operator.unknowns)
        assert solver._network._hierarchy is first


def test_history_begins_with_the_first_residual_and_ends_with_the_last():
    operator = make_domain("spheres", (50, 60), 3).operator()
    b = np.ones(operator.shape)
    _, facts = GridSolver(operator).solve(b)
    assert len(facts.history) == facts.iterations + 1
    assert facts.history[0] == pytest.approx(np.sqrt(operator.unknowns))
    assert facts.history[-1] / facts.history[0] == pytest.approx(facts.residual)


def test_what_cannot_be_solved_is_told():
    closed = GridOperator.from_cell_types(np.zeros((20, 20), int))
    with pytest.raises(InconsistentRightHandSide, match="closed component of 400 rows"):
        GridSolver(closed).solve(np.ones((20, 20)))
    operator = make_domain("spheres", (50, 60), 3).operator()
    with pytest.raises(ValueError, match=r"b has shape \(60, 50\), the grid \(50, 60\)"):
        GridSolver(operator).solve(np.ones((60, 50)))
    with pytest.raises(NotConverged, match="DIVERGED_MAX_IT after 2 iterations"):
        GridSolver(operator).solve(np.ones((50, 60)), rtol=1e-12, maxiter=2)
    with pytest.raises(ValueError, match=r"b is not finite at cell \(0, 0\); every entry must be finite"):
        GridSolver(operator).solve(np.full((50, 60), np.nan))


def test_no_right_hand_side_no_iterations():
    operator = make_domain("spheres", (50, 60), 3).operator()
    x, facts = GridSolver(operator).solve(np.zeros((50, 60)))
    assert facts.iterations == 0 and not x.any()


def test_needs_neither_petsc_nor_torch():
    program = (
        "import sys, numpy as np, consolve; from consolve.pde import GridOperator; "
        "operator = GridOperator.from_cell_types(np.zeros((20, 20), int), 2); "
        "consolve.GridSolver(operator).solve(np.ones((20, 20)));"
        "assert not {'petsc4py', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 10**6])
def test_numbers_of_threads_that_cannot_be(threads):
    operator = GridOperator.from_cell_types(np.zeros((8, 8), int), outside=AIR)
    for make in (GridSolver, aspreconditioner):
        with pytest.raises(ValueError, match=f"threads is {threads!r}, expected 1 to "):
            make(operator, threads=threads)


def test_what_is_no_operator_is_refused():
    operator = GridOperator.from_cell_types(np.zeros((8, 8), int), outside=AIR)
    for other in (operator.to_csr(), operator.to_csr().toarray(), None):
        with pytest.raises(ValueError, match=r"expected a GridOperator; a matrix is for consolve\.solve"):
            GridSolver(other)
        with pytest.raises(ValueError, match="expected a GridOperator"):
            GridSolver(operator).update(other)
