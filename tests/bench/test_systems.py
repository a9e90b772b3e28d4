"""Captured systems of a flow, deflated solvers, and solves that note several tolerances on their way."""

from __future__ import annotations

import json

import numpy as np
import pytest

petsc4py = pytest.importorskip("petsc4py")

from direct_solver import DirectSolver  # noqa: E402
from petsc4py import PETSc  # noqa: E402

import consolve.solvers  # noqa: E402, F401
from consolve.bench.captured import capture, read_systems  # noqa: E402
from consolve.bench.deflation import box_space, deflate, krylov_space  # noqa: E402
from consolve.bench.flow import FlowProblem, run_flow  # noqa: E402
from consolve.bench.launch import run_worker  # noqa: E402
from consolve.bench.poisson import Conditions, PoissonProblem, run_poisson  # noqa: E402
from consolve.bench.roster import SOLVERS, stopping_options  # noqa: E402
from consolve.bench.systems_task import systems  # noqa: E402
from consolve.pde.flow.flow import Flow  # noqa: E402
from consolve.pde.flow.scenes import make_scene  # noqa: E402
from consolve.pde.poisson.domains import make_domain  # noqa: E402
from consolve.pde.poisson.right_hand_sides import right_hand_side  # noqa: E402
from consolve.solvers.pressure import PressureSolver, assemble_matrix  # noqa: E402

TOLERANCES = [1e-2, 1e-4, 1e-6]


@pytest.fixture
def options():
    """PETSc options that are withdrawn after the test."""
    given: list[str] = []

    def put(solver: str, ndim: int, **others: str) -> None:
        chosen = stopping_options(TOLERANCES[-1]) | SOLVERS[solver].options(ndim, 1) | others
        for name, value in chosen.items():
            PETSc.Options().setValue(name, value)
            given.append(name)

    yield put
    for name in given:
        PETSc.Options().delValue(name)


@pytest.fixture(scope="module")
def plume(tmp_path_factory):
    path = tmp_path_factory.mktemp("systems") / "plume.npz"
    flow = capture(make_scene("plume", (24, 20)), (5, 2), PressureSolver(), path)
    assert flow.steps == 5
    return path


def task(path, **changes):
    problem = {"dim": 2, "cells": [24, 24], "tolerances": TOLERANCES}
    return {"files": [str(path)], "problem": problem, "repeat": 1, "history": True} | changes


def system(n=20, ndim=2, seed=3):
    operator = make_domain("spheres", (n,) * ndim, seed).operator()
    values = right_hand_side("noise", operator, seed).ravel()[operator.cells]
    A = assemble_matrix(operator, PETSc.COMM_SELF)
    x, b = A.createVecs()
    b.array = values
    return operator, A, x, b


def test_captured_systems_are_those_of_the_flow(plume):
    flow = Flow(make_scene("plume", (24, 20)))
    seen = []
    solve = PressureSolver()

    def watched(operator, rhs):
        seen.append((operator, rhs))
        return solve(operator, rhs)

    for _ in range(5):
        flow.step(watched)
    read = list(read_systems(plume))
    assert [s.frame for s in read] == [2, 5]
    assert read[0].operator is read[1].operator
    for captured in read:
        operator, rhs = seen[captured.frame - 1]
        assert np.array_equal(captured.rhs, rhs)
        assert (captured.operator.to_csr() != operator.to_csr()).nnz == 0


def test_a_moving_body_changes_the_matrix(tmp_path):
    path = tmp_path / "paddle.npz"
    capture(make_scene("plume-moving-body", (24, 24)), (1, 8), PressureSolver(), path)
    first, second = read_systems(path)
    assert (first.operator.active != second.operator.active).any()


def test_bad_frames_are_refused_and_leave_no_file(tmp_path):
    for frames in ((), (0, 3)):
        with pytest.raises(ValueError, match="from 1"):
            capture(make_scene("plume", (16, 16)), frames, PressureSolver(), tmp_path / "none.npz")
    assert not list(tmp_path.iterdir())


def test_every_tolerance_is_reached_where_the_history_says(plume, options):
    options("cg", 2)
    rows = systems(task(plume))["systems"]
    assert [row["frame"] for row in rows] == [2, 5]
    for row in rows:
        assert row["reason"] == "CONVERGED_RTOL" and row["unknowns"] < 480
        assert row["matvecs"] in (row["iterations"], row["iterations"] + 1)
        history, last = row["history"]["residual"], 0.0
        for tolerance in TOLERANCES:
            reached = row["reached"][repr(tolerance)]
            assert history[reached["iterations"]] <= tolerance < history[reached["iterations"] - 1]
            assert reached["relative_residual"] <= 1.01 * tolerance
            assert last <= reached["solve_s"] <= row["solve_s"]
            last = reached["solve_s"]
        assert row["reached"]["1e-06"]["iterations"] == row["iterations"]


def test_what_is_not_reached_is_not_claimed(plume, options):
    options("cg", 2, ksp_max_it="25")
    for row in systems(task(plume))["systems"]:
        assert row["reason"] == "DIVERGED_MAX_IT" and row["iterations"] == 25
        assert set(row["reached"]) <= {"0.01", "0.0001"}
        assert row["relative_residual"] > 1e-6


@pytest.mark.parametrize("solver", ["cg", "dcd"])
def test_a_solve_ends_at_its_limit(plume, options, solver):
    options(solver, 2, ksp_rtol="1e-6")
    for row in systems(task(plume, limit_s=0.0))["systems"]:
        assert row["reason"] == "DIVERGED_MAX_IT: ended after 0 s"
        assert row["iterations"] <= 1 and not row["reached"]


def test_out_of_time_begins_no_more_systems(plume, options):
    options("cg", 2)
    first, second = systems(task(plume, budget_s=1e-9))["systems"]
    assert first["iterations"] > 0
    assert second["reason"].startswith("not begun") and "iterations" not in second


def test_chosen_frames_only(plume, options):
    options("cg", 2)
    assert [row["frame"] for row in systems(task(plume, frames=[5]))["systems"]] == [5]


def test_rising_tolerances_are_refused(plume):
    problem = {"dim": 2, "cells": [24, 24], "tolerances": [1e-6, 1e-4]}
    with pytest.raises(ValueError, match="must fall"):
        systems(task(plume, problem=problem))


@pytest.mark.parametrize("ndim", [2, 3])
def test_boxes_are_sixteen_equal_ones(ndim):
    operator = make_domain("box", (16,) * ndim).operator()
    A = assemble_matrix(operator, PETSc.COMM_SELF)
    W = box_space(A, A.createVecLeft(), operator.shape, operator.cells)
    dense = W.convert("dense").getDenseArray()
    assert dense.shape == (16**ndim, 16)
    assert (dense.sum(axis=0) == 16 ** (ndim - 1)).all() and (dense.sum(axis=1) == 1).all()
    first = operator.cells[dense[:, 0] > 0]
    corner = [i.max() for i in np.unravel_index(first, operator.shape)]
    assert corner == ([3, 3] if ndim == 2 else [3, 7, 7])


def test_boxes_without_fluid_have_no_column():
    types = np.zeros((16, 16), np.uint8)
    types[:4, :4] = 1
    from consolve.pde.poisson.grid import GridOperator

    operator = GridOperator.from_cell_types(types, ((1, 2), (1, 1)))
    A = assemble_matrix(operator, PETSc.COMM_SELF)
    assert box_space(A, A.createVecLeft(), operator.shape, operator.cells).getSize() == (240, 15)


def test_krylov_space_holds_the_powers_of_a():
    operator, A, _, b = system()
    basis = krylov_space(A, b, operator.shape, operator.cells).convert("dense").getDenseArray()
    assert basis.shape[1] == 16
    assert np.allclose(basis.T @ basis, np.eye(16), atol=1e-13)
    power, dense = b.array / b.norm(), operator.to_csr()
    for _ in range(16):
        assert np.linalg.norm(power - basis @ (basis.T @ power)) < 1e-8
        power = dense @ power
        power /= np.linalg.norm(power)


def test_an_invariant_krylov_space_ends_early():
    operator = make_domain("box", (1, 6)).operator()
    A = assemble_matrix(operator, PETSc.COMM_SELF)
    b = A.createVecLeft()
    b.set(1.0)  # an eigenvector: one row of cells, open to one side
    assert krylov_space(A, b, operator.shape, operator.cells).getSize() == (6, 1)


@pytest.mark.parametrize("kind", ["boxes", "ritz"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_deflated_solutions_are_those_of_a_direct_solver(kind, ndim, options):
    options("dpcg", ndim, ksp_rtol="1e-10")
    operator, A, x, b = system(12, ndim)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(A)
    ksp.setFromOptions()
    deflate(ksp, kind, b, operator.shape, operator.cells)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    assert ksp.getPC().getType() == "deflation"
    rhs = np.zeros(operator.shape)
    rhs.ravel()[operator.cells] = b.array
    exact = DirectSolver()(operator, rhs).ravel()[operator.cells]
    assert np.linalg.norm(x.array - exact) <= 1e-8 * np.linalg.norm(exact)


def iterations(kind, operator, A, x, b):
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(A)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-6)
    ksp.setType("cg")
    ksp.getPC().setType("deflation" if kind else "none")
    if kind:
        deflate(ksp, kind, b, operator.shape, operator.cells)
    x.set(0)
    ksp.solve(b, x)
    return ksp.getIterationNumber()


def test_boxes_save_iterations_and_ritz_vectors_only_the_steps_that_made_them():
    operator, A, x, b = system(64)
    plain, boxes, ritz = (iterations(kind, operator, A, x, b) for kind in ("", "boxes", "ritz"))
    assert boxes < 0.75 * plain
    assert abs(plain - 16 - ritz) <= 1


def test_unknown_deflation_space_is_named():
    operator, A, _, b = system(8)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(A)
    with pytest.raises(ValueError, match="known: boxes, ritz"):
        deflate(ksp, "wavelets", b, operator.shape, operator.cells)


def test_a_flow_says_that_deflated_solvers_are_not_for_it():
    document = run_flow(FlowProblem("plume", 2, (16, 16), 1), [SOLVERS["dpcg"]], Conditions())
    (row,) = document["results"]
    assert row["iterations_mean"] is None and "single systems" in row["reason"]


def test_deflated_solvers_take_part_in_a_poisson_benchmark():
    problem = PoissonProblem(2, (32, 32), "spheres", 1, "noise", 1e-6)
    plain, boxes = run_poisson(problem, [SOLVERS["cg"], SOLVERS["dpcg"]], Conditions())["results"]
    assert boxes["reason"] == "CONVERGED_RTOL" and boxes["relative_residual"] <= 1.01e-6
    assert boxes["iterations"] < 0.6 * plain["iterations"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_worker_solves_captured_systems_by_a_deflated_solver(plume, ranks):
    chosen = task(plume, task="systems", ranks=ranks, threads=1, deflation="boxes")
    chosen["options"] = stopping_options(1e-6) | SOLVERS["dpcg"].options(2, ranks)
    result = run_worker(json.loads(json.dumps(chosen)), ranks=ranks)
    assert [row["reason"] for row in result["systems"]] == ["CONVERGED_RTOL"] * 2
    assert all(0 < row["relative_residual"] <= 1.01e-6 for row in result["systems"])
    assert result["first_use_s"] > 0
