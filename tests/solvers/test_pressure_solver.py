"""PressureSolver, solve_system, assemble_matrix: right answers, kept solvers, clear refusals."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import (
    InconsistentRightHandSide,
    MatrixError,
    NotConverged,
    OptionError,
    PressureSolver,
    SystemFileError,
    assemble_matrix,
    solve_system,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def solver():
    made = []

    def make(*arguments, **named):
        made.append(PressureSolver(*arguments, **named))
        return made[-1]

    yield make
    for one in made:
        one.destroy()


def noise(operator, seed=0):
    b = np.where(operator.active, np.random.default_rng(seed).standard_normal(operator.shape), 0)
    return operator.remove_null_space(b)


@pytest.mark.parametrize("shape", [(20, 21), (8, 9, 10)], ids=str)
@pytest.mark.parametrize("boundary", ["mixed", "open", "closed"])
@pytest.mark.parametrize(
    "options",
    [None, "-ksp_type dcd", ["-pc_cnn_model", "mg"], "-pc_type icc", "-pc_type gamg -ksp_rtol 1e-7"],
    ids=str,
)
def test_solves(problems, solver, shape, boundary, options):
    operator = problems.operator(shape, boundary, seed=2)
    if boundary == "closed":  # one component only: icc and gamg cannot do with lone cells
        operator = GridOperator.from_cell_types(np.zeros(shape, int))
    b = noise(operator)
    solve = solver(options)
    p = solve(operator, b)
    record = solve.records[-1]
    true = np.linalg.norm(b - operator.apply(p)) / np.linalg.norm(b)
    assert true < 1.01e-6 and record.relative_residual == pytest.approx(true, rel=0.05)
    assert record.unknowns == operator.unknowns and record.reason == "CONVERGED_RTOL"
    assert len(record.history) == record.iterations + 1
    assert (p[~operator.active] == 0).all()
    np.testing.assert_allclose(p, operator.remove_null_space(p), atol=1e-9 * abs(p).max())


def test_closed_pockets_and_lone_cells(solver):
    types = np.ones((12, 13), int)
    types[1:5, 1:5] = types[7:11, 2:9] = types[2, 8] = types[6, 11] = 0
    operator = GridOperator.from_cell_types(types)
    assert operator.components[1].sum() == 4
    b = noise(operator)
    p = solver("-ksp_rtol 1e-9")(operator, b)
    np.testing.assert_allclose(operator.apply(p), b, atol=1e-7)


def test_more_pockets_than_null_space_vectors(solver):
    types = np.kron(np.ones((9, 9), int), [[0, 0, 1], [0, 0, 1], [1, 1, 1]])
    operator = GridOperator.from_cell_types(types)
    assert operator.components[1].sum() == 81
    b = noise(operator)
    for options in ("", "-pc_type jacobi", "-ksp_type dcd -pc_type none"):
        p = solver(options)(operator, b)
        np.testing.assert_allclose(operator.apply(p), b, atol=1e-5)


def test_solver_is_kept_while_the_operator_is(problems, solver):
    operator = problems.operator((15, 16))
    solve = solver()
    for seed in range(3):
        solve(operator, noise(operator, seed))
    context = solve.ksp.getPC().getPythonContext()
    assert context.setups == 1 and len(solve.records) == 3
    assert solve.records[0].setup_s > 0 and solve.records[1].setup_s == solve.records[1].assemble_s == 0


@pytest.mark.parametrize("options", ["", "-ksp_type dcd", "-pc_type icc"])
def test_changing_operators(problems, solver, options):
    solve = solver(options)
    for shape, seed in [((15, 16), 0), ((15, 16), 1), ((15, 16), 2), ((6, 7, 8), 3), ((15, 16), 0)]:
        operator = problems.operator(shape, "mixed", seed)
        b = noise(operator, seed)
        assert np.linalg.norm(b - operator.apply(solve(operator, b))) < 1.01e-6 * np.linalg.norm(b)


def test_from_closed_to_open_and_back(solver):
    closed = GridOperator.from_cell_types(np.zeros((9, 10), int))
    opened = GridOperator.from_cell_types(np.zeros((9, 10), int), outside=2)
    solve = solver()
    for operator in (closed, opened, closed):
        b = noise(operator)
        assert np.linalg.norm(b - operator.apply(solve(operator, b))) < 1.01e-6 * np.linalg.norm(b)


def test_warm_start(problems, solver):
    operator = problems.operator((20, 21))
    b = noise(operator)
    cold, warm = solver("-pc_type icc"), solver("-pc_type icc", warm_start=True)
    for solve in (cold, warm):
        solve(operator, b)
        p = solve(operator, b + 1e-4 * noise(operator, 1))
        assert np.linalg.norm(b + 1e-4 * noise(operator, 1) - operator.apply(p)) < 1.1e-6 * np.linalg.norm(b)
    assert warm.records[1].iterations < 0.7 * cold.records[1].iterations
    other = problems.operator((20, 21), seed=7)
    warm(other, noise(other))


def test_several_at_once_do_not_share_options(problems, solver):
    operator = problems.operator((9, 10))
    first, second = solver("-ksp_type dcd"), solver("-ksp_type fcg -pc_type jacobi")
    assert first.prefix == "pressure_" and second.prefix == "pressure2_"
    for _ in range(2):
        first(operator, noise(operator))
        second(operator, noise(operator))
    assert (first.ksp.getType(), second.ksp.getType()) == ("dcd", "fcg")
    assert (first.ksp.getPC().getType(), second.ksp.getPC().getType()) == ("cnn", "jacobi")


def test_options_are_withdrawn(problems):
    solve = PressureSolver("-ksp_type dcd", prefix="gone_")
    assert PETSc.Options("gone_").hasName("ksp_type")
    solve.destroy()
    assert not PETSc.Options("gone_").hasName("ksp_type")
    PressureSolver("-ksp_type dcd", prefix="gone_")
    assert not PETSc.Options("gone_").hasName("ksp_type")


def test_the_command_line_goes_first(problems, solver):
    PETSc.Options("line_")["ksp_rtol"] = 1e-3
    try:
        solve = solver("-ksp_rtol 1e-9", prefix="line_")
        operator = problems.operator((9, 10))
        solve(operator, noise(operator))
        assert solve.ksp.getTolerances()[0] == 1e-3
    finally:
        PETSc.Options("line_").delValue("ksp_rtol")


def test_misspelt_options_are_told(problems, solver):
    operator = problems.operator((9, 10))
    with pytest.warns(UserWarning, match="-pc_cnn_modle"):
        solver("-pc_cnn_modle mg")(operator, noise(operator))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        solver("-ksp_type dcd -pc_cnn_model mg")(operator, noise(operator))


def test_divergence_is_an_exception_with_facts(problems, solver):
    operator = problems.operator((20, 21))
    solve = solver("-pc_type none -ksp_max_it 3")
    with pytest.raises(NotConverged, match="DIVERGED_MAX_IT after 3 iterations.*-ksp_max_it") as caught:
        solve(operator, noise(operator))
    assert caught.value.iterations == 3 and caught.value.relative_residual > 1e-3
    assert solve.records[-1].reason == "DIVERGED_MAX_IT"


def test_bad_right_hand_sides(problems, solver):
    operator = GridOperator.from_cell_types(np.zeros((9, 10), int))
    solve = solver()
    with pytest.raises(InconsistentRightHandSide, match=r"sums to 9\.000e\+01.*90 rows"):
        solve(operator, np.ones((9, 10)))
    with pytest.raises(ValueError, match=r"\(10, 9\)"):
        solve(operator, np.ones((10, 9)))
    b = noise(operator)
    b[4, 5] = np.nan
    with pytest.raises(ValueError, match=r"nan at cell \(4, 5\)"):
        solve(operator, b)


def test_degenerate_systems(solver):
    solve = solver()
    solid = GridOperator.from_cell_types(np.ones((4, 5), int))
    np.testing.assert_array_equal(solve(solid, np.zeros((4, 5))), 0)
    lone = GridOperator.from_cell_types(np.pad([[0]], 1, constant_values=2))
    assert solve(lone, np.full((3, 3), 8.0))[1, 1] == 2.0
    operator = GridOperator.from_cell_types(np.zeros((4, 5), int), outside=2)
    np.testing.assert_array_equal(solve(operator, np.zeros((4, 5))), 0)


@pytest.mark.parametrize("text", ["ksp_type cg", "-ksp_type cg fcg", "5"])
def test_unreadable_options(text):
    with pytest.raises(OptionError, match="stands where"):
        PressureSolver(text)


@pytest.mark.parametrize("boundary", ["mixed", "closed"])
def test_assembled_matrix(problems, boundary):
    operator = problems.operator((7, 8), boundary, seed=4)
    mat = assemble_matrix(operator)
    indptr, indices, data = mat.getValuesCSR()
    assert abs(sp.csr_matrix((data, indices, indptr)) - operator.to_csr()).max() == 0
    assert bool(mat.getNullSpace()) == operator.is_singular
    if operator.is_singular:
        assert mat.getNullSpace().test(mat)


PARALLEL = """
import numpy as np
from petsc4py import PETSc
import consolve.solvers as solvers
from consolve.pde import GridOperator
world = PETSc.COMM_WORLD
for outside in (1, 2):
    types = np.zeros((14, 15), int)
    types[3:6, 4:9] = 1
    operator = GridOperator.from_cell_types(types, outside=outside)
    mat = solvers.assemble_matrix(operator, world)
    assert mat.getOwnershipRange()[1] > mat.getOwnershipRange()[0]
    x, b = mat.createVecs()
    b.setRandom()
    b.shift(-b.sum() / b.getSize())
    for kind, pc in (("cg", "jacobi"), ("dcd", "bjacobi"), ("dcd", "none"), ("cg", "cnn"), ("dcd", "cnn")):
        ksp = PETSc.KSP().create(world)
        ksp.setOperators(mat)
        ksp.setType(kind)
        ksp.getPC().setType(pc)
        ksp.setTolerances(rtol=1e-8)
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        ksp.solve(b, x)
        r = b.duplicate()
        mat.mult(x, r)
        r.aypx(-1, b)
        assert ksp.reason > 0 and r.norm() < 1.1e-8 * b.norm(), (kind, pc, outside)
        assert pc != "cnn" or ksp.its <= 12, ksp.its
        PETSc.Sys.Print(kind, pc, outside, ksp.its)
"""


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs mpiexec")
def test_two_ranks(tmp_path):
    """The matrix that assemble_matrix spreads serves every KSP and PC."""
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "NUMBA_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = ["mpiexec", "-n", "2", sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dcd") == 6
    assert done.stdout.count("cnn") == 4


class TestSolveSystem:
    @pytest.fixture
    def system(self, tmp_path):
        operator = GridOperator.from_cell_types(np.zeros((9, 12), int), outside=((1, 1), (1, 2)))
        sp.save_npz(tmp_path / "A.npz", operator.to_csr())
        b = np.random.default_rng(0).standard_normal(108)
        np.save(tmp_path / "b.npy", b)
        return operator.to_csr(), b, tmp_path

    @pytest.mark.parametrize("options", [None, "-ksp_type dcd", "-pc_cnn_grid 12,9"])
    def test_solves_a_file(self, system, options):
        csr, b, path = system
        grid = None if options and "grid" in options else "12,9"
        solution = solve_system(path / "A.npz", path / "b.npy", grid=grid, options=options)
        assert np.linalg.norm(b - csr @ solution.x) < 1.01e-6 * np.linalg.norm(b)
        assert solution.record.iterations <= 10

    def test_default_right_hand_side_is_reproducible(self, system):
        first, second = (solve_system(system[2] / "A.npz", grid="12,9").x for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert np.std(first) > 0.5

    def test_the_grid_is_read_from_the_pattern(self, system):
        csr, b, _ = system
        order = np.random.default_rng(0).permutation(108)
        for matrix, right in ((csr, b), (csr[order][:, order], b[order])):
            solution = solve_system(matrix, right)
            assert np.linalg.norm(right - matrix @ solution.x) < 1.01e-6 * np.linalg.norm(b)

    def test_mask(self, system, problems):
        operator = problems.operator((9, 12))
        types = problems.cell_types((9, 12), "mixed")
        np.save(system[2] / "cells.npy", types)
        solution = solve_system(operator.to_csr(), mask=system[2] / "cells.npy")
        assert solution.record.relative_residual < 1.01e-6

    def test_singular_system(self):
        csr = GridOperator.from_cell_types(np.zeros((9, 12), int)).to_csr()
        b = np.random.default_rng(0).standard_normal(108)
        solution = solve_system(csr, b - b.mean(), grid="12,9")
        assert abs(solution.x.mean()) < 1e-12
        with pytest.raises(InconsistentRightHandSide, match="108 rows"):
            solve_system(csr, np.ones(108), grid="12,9")

    def test_refusals(self, system):
        csr, b, path = system
        with pytest.raises(SystemFileError, match="absent"):
            solve_system(path / "absent.npz")
        with pytest.raises(SystemFileError, match="108 entries, the matrix 5 rows"):
            solve_system(sp.eye(5), path / "b.npy", options="-pc_type none")
        with pytest.raises(MatrixError, match="90 cells, the matrix 108 rows"):
            solve_system(csr, b, grid="10,9")
        with pytest.raises((MatrixError, PETSc.Error)):
            solve_system(50 * np.eye(40) - np.ones((40, 40)), np.ones(40))
        with pytest.raises((MatrixError, PETSc.Error)):
            solve_system(csr, b, grid="9,12")
        with pytest.raises(ValueError, match="inf at row 3"):
            solve_system(csr, np.where(np.arange(108) == 3, np.inf, b), grid="12,9")
        with pytest.raises(MatrixError, match="4 x 5"):
            solve_system(sp.eye(4, 5))
        with pytest.raises(NotConverged):
            solve_system(csr, b, options="-pc_type none -ksp_max_it 1")
        csr.data[30] = np.nan
        with pytest.raises(MatrixError, match="nan in column"):
            solve_system(csr, b, options="-pc_type none")

    def test_matrix_market(self, system):
        csr, b, path = system
        scipy.io.mmwrite(path / "A.mtx", csr, symmetry="symmetric")
        scipy.io.mmwrite(path / "b.mtx", b.reshape(-1, 1))
        solution = solve_system(str(path / "A.mtx"), str(path / "b.mtx"), grid="12,9")
        assert np.linalg.norm(b - csr @ solution.x) < 1.01e-6 * np.linalg.norm(b)
