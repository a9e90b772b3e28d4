"""Numbers at the ends of float64, copies, processes, threads and failed changes: right, or a clear error."""

import copy
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import consolve
from consolve.pde import AIR, GridOperator
from consolve.solvers import NotConverged

OPERATOR = GridOperator.from_cell_types(np.zeros((20, 23), int), outside=AIR)
MATRIX = OPERATOR.to_csr()
NOISE = np.random.default_rng(0).standard_normal(OPERATOR.shape)


def by_grid(b, x0=None):
    return consolve.GridSolver(OPERATOR).solve(b, x0, rtol=1e-8)[0]


def by_matrix(b, x0=None):
    guess = None if x0 is None else x0.reshape(-1)
    return consolve.solve(MATRIX, b.reshape(-1), x0=guess, rtol=1e-8)[0].reshape(b.shape)


ROUTES = pytest.mark.parametrize("route", [by_grid, by_matrix])


@ROUTES
@pytest.mark.parametrize("exponent", [-1000, -600, -540, 0, 540, 900, 1000])
def test_right_hand_sides_of_any_size_are_solved(route, exponent):
    """Squares of their entries over- and underflow."""
    scale = 2.0**exponent
    x, expected = route(scale * NOISE), sla.spsolve(MATRIX.tocsc(), NOISE.reshape(-1)).reshape(OPERATOR.shape)
    np.testing.assert_allclose(x / scale, expected, rtol=1e-5, atol=1e-6)


@ROUTES
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(route, bad):
    b = NOISE.copy()
    b[3, 4] = bad
    with pytest.raises(ValueError, match="b is not finite at .*; every entry must be finite"):
        route(b)
    with pytest.raises(ValueError, match="x0 is not finite at .*; every entry must be finite"):
        route(NOISE, b)


def test_a_guess_out_of_all_proportion_is_refused():
    with pytest.raises(ValueError, match="x0 reaches 1e.300, out of all proportion to b"):
        by_grid(NOISE, np.full(OPERATOR.shape, 1e300))


@ROUTES
def test_a_flow_that_has_come_to_rest(route):
    """The guess is of a time when b was a million times larger."""
    before = sla.spsolve(MATRIX.tocsc(), NOISE.reshape(-1)).reshape(OPERATOR.shape)
    b = 1e-6 * np.random.default_rng(1).standard_normal(OPERATOR.shape)
    x = route(b, before)
    assert np.linalg.norm(b - OPERATOR.apply(x)) < 1.01e-8 * np.linalg.norm(b)


@pytest.mark.parametrize("ksp", ["cg", "dcd", "fgmres", "gmres"])
@pytest.mark.parametrize("rtol", [1e-6, 1e-10, 1e-13])
def test_a_tolerance_is_met_or_an_error_says_so(ksp, rtol):
    b = NOISE.reshape(-1)
    try:
        x, info = consolve.solve(MATRIX, b, ksp=ksp, rtol=rtol)
    except NotConverged as error:
        assert error.relative_residual > rtol and ksp == "gmres"
        return
    assert np.linalg.norm(b - MATRIX @ x) <= 1.001 * rtol * np.linalg.norm(b) + 1e-14 * np.linalg.norm(b)
    assert info.residual <= 1.001 * rtol + 1e-14


def copies(thing):
    return [copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))]


def test_copies_of_a_grid_solver_solve_by_themselves():
    solver = consolve.GridSolver(OPERATOR, threads=1)
    expected, _ = solver.solve(NOISE)
    for other in copies(solver):
        np.testing.assert_array_equal(other.solve(NOISE)[0], expected)
    del solver
    np.testing.assert_array_equal(other.solve(NOISE)[0], expected)


@pytest.mark.parametrize("A", [MATRIX, -2.5 * MATRIX, OPERATOR], ids=["matrix", "negative", "operator"])
def test_copies_of_a_preconditioner_apply_by_themselves(A):
    preconditioner = consolve.aspreconditioner(A)
    expected = preconditioner @ NOISE.reshape(-1)
    for other in copies(preconditioner):
        np.testing.assert_array_equal(other @ NOISE.reshape(-1), expected)
        other.update(A)
        assert other.setups == 2 and preconditioner.setups == 1
    text = pickle.dumps(preconditioner)
    del preconditioner
    np.testing.assert_array_equal(pickle.loads(text) @ NOISE.reshape(-1), expected)


def not_converged(maxiter):
    consolve.GridSolver(OPERATOR, threads=1).solve(NOISE, rtol=1e-12, maxiter=maxiter)


def test_errors_come_through_a_process_pool():
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(NotConverged) as caught:
        pool.apply(not_converged, (1,))
    assert caught.value.reason == "DIVERGED_MAX_IT" and caught.value.iterations == 1
    assert "raise maxiter" in str(caught.value) and caught.value.relative_residual > 0


def test_a_forked_child_is_told_to_spawn():
    code = """
import multiprocessing, numpy as np, numba, consolve
from consolve.pde import GridOperator
operator = GridOperator.from_cell_types(np.zeros((40, 50), int), 2)
solver = consolve.GridSolver(operator)
solver.solve(np.ones((40, 50)))
def job(_):
    try:
        return solver.solve(np.ones((40, 50)))[1].iterations
    except RuntimeError as error:
        return str(error)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(numba.threading_layer(), pool.map_async(job, [0]).get(60)[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    layer, _, said = done.stdout.partition(" ")
    assert done.returncode == 0 and ("spawn" in said if layer == "omp" else said.strip().isdigit()), done


@pytest.mark.parametrize(
    "use",
    [
        "GridOperator.from_cell_types(np.zeros((40, 50), int), 2)",
        "operator.apply(np.ones((40, 50)))",
        "consolve.solve(matrix, np.ones(2000))",
        "consolve.aspreconditioner(matrix)",
        "preconditioner @ np.ones(2000)",
        "Flow(make_scene('plume', (16, 24)))",
    ],
)
def test_whatever_a_forked_child_does_it_is_told_to_spawn(use):
    code = f"""
import os, numpy as np, numba, consolve
from consolve.pde import GridOperator
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.scenes import make_scene
operator = GridOperator.from_cell_types(np.zeros((40, 50), int), 2)
matrix = operator.to_csr()
preconditioner = consolve.aspreconditioner(matrix)
preconditioner @ np.ones(2000)
layer = numba.threading_layer()
child = os.fork()
if child == 0:
    try:
        {use}
    except RuntimeError as error:
        os._exit(3 if "spawn" in str(error) else 4)
    os._exit(0)
_, status = os.waitpid(child, 0)
print(layer, os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    layer, _, status = done.stdout.partition(" ")
    assert done.returncode == 0 and status.strip() == ("3" if layer == "omp" else "0"), done


def test_one_solver_in_many_threads():
    solver, M = consolve.GridSolver(OPERATOR), consolve.aspreconditioner(MATRIX)
    sides = [np.random.default_rng(seed).standard_normal(OPERATOR.shape) for seed in range(12)]
    expected = [solver.solve(b)[0] for b in sides], [M @ b.reshape(-1) for b in sides]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda b: solver.solve(b)[0], sides))
        applied = list(pool.map(lambda b: M @ b.reshape(-1), sides))
    for a, b, c, d in zip(found, expected[0], applied, expected[1]):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(c, d, rtol=1e-10, atol=1e-12)


def test_a_change_that_fails_changes_nothing():
    solver = consolve.GridSolver(OPERATOR)
    with pytest.raises(ValueError, match="the operator is 3D, this solver is for 2D grids"):
        solver.update(GridOperator.from_cell_types(np.zeros((5, 6, 7), int), outside=AIR))
    x, _ = solver.solve(NOISE, rtol=1e-8)
    assert np.linalg.norm(NOISE - OPERATOR.apply(x)) < 1.01e-8 * np.linalg.norm(NOISE)
