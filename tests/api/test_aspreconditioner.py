"""consolve.aspreconditioner in SciPy's Krylov methods: right, fast, symmetric, updatable, without PETSc."""

import inspect
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg, spsolve

import consolve
from consolve.pde import AIR, SOLID, GridOperator
from consolve.pde.poisson.domains import make_domain
from consolve.solvers import attach_grid

TOLERANCE = "rtol" if "rtol" in inspect.signature(cg).parameters else "tol"


def solved(A, b, M=None, tolerance=1e-9):
    """Solution and iterations of SciPy's cg, old or new."""
    count = []
    x, failed = cg(A, b, M=M, **{TOLERANCE: tolerance}, atol=0, callback=count.append, maxiter=3000)
    assert failed == 0
    return x, len(count)


def system(name, shape, seed=0):
    operator = make_domain(name, shape).operator()
    b = np.random.default_rng(seed).standard_normal(operator.unknowns)
    if operator.is_singular:
        image = np.zeros(shape)
        image[operator.active] = b
        b = operator.remove_null_space(image)[operator.active]
    return operator, operator.to_csr(), b


@pytest.mark.parametrize("name", ["box", "spheres", "free-surface", "closed-spheres", "pockets", "two-phase"])
@pytest.mark.parametrize("shape", [(48, 50), (14, 15, 16)], ids=str)
def test_conjugate_gradients_need_few_iterations(name, shape):
    _, A, b = system(name, shape)
    x, iterations = solved(A, b, consolve.aspreconditioner(A))
    assert np.linalg.norm(b - A @ x) < 1.1e-9 * np.linalg.norm(b)
    assert iterations <= 16
    assert iterations < 0.5 * solved(A, b)[1]


@pytest.mark.parametrize("storage", ["csr", "csc", "coo", "dia", "dense", "array", "GridOperator"])
@pytest.mark.parametrize("model", ["auto", "mg"])
def test_every_storage_gives_the_same_operator(storage, model):
    operator, A, b = system("box", (20, 21))
    given = {"dense": A.toarray(), "array": sp.csr_array(A), "GridOperator": operator}.get(storage)
    given = A.asformat(storage) if given is None else given
    M = consolve.aspreconditioner(given, model=model)
    expected = consolve.aspreconditioner(A, grid=(20, 21), model=model)
    np.testing.assert_allclose(M @ b, expected @ b, rtol=1e-5, atol=1e-5 * abs(expected @ b).max())
    assert isinstance(M, LinearOperator) and M.shape == A.shape and M.dtype == np.float64


@pytest.mark.parametrize("name", ["spheres", "closed-spheres", "pockets"])
def test_symmetric_and_positive_definite(name):
    _, A, _ = system(name, (10, 11))
    M = consolve.aspreconditioner(A)
    dense = M @ np.eye(A.shape[0])
    np.testing.assert_allclose(dense, dense.T, atol=1e-5 * abs(dense).max())
    values = np.linalg.eigvalsh(0.5 * (dense + dense.T))
    assert values[0] > -1e-5 * values[-1]
    assert M.H is M and M.T is M
    np.testing.assert_array_equal(M.rmatvec(A[:, :1].toarray().ravel()), M @ A[:, :1].toarray().ravel())


def test_the_same_as_pc_cnn(problems):
    operator, A, b = system("spheres", (24, 25))
    mat = problems.matrix(A)
    attach_grid(mat, operator)
    ksp = problems.ksp(mat)
    ksp.setUp()
    M = consolve.aspreconditioner(A, grid=operator.shape, cells=operator.cells)
    np.testing.assert_allclose(M @ b, problems.apply(ksp, b), rtol=1e-6, atol=1e-6 * abs(M @ b).max())


def test_negative_definite():
    _, A, b = system("spheres", (24, 25))
    M = consolve.aspreconditioner(A)
    np.testing.assert_allclose(consolve.aspreconditioner(-A) @ b, -(M @ b), rtol=1e-6)


def test_identity_rows():
    operator, _, _ = system("spheres", (24, 25))
    A = operator.to_csr("all")
    A[0, 0] *= 1 if operator.active[0, 0] else 4
    b = np.random.default_rng(0).standard_normal(600)
    M = consolve.aspreconditioner(A)
    solid = np.flatnonzero(~operator.active)
    np.testing.assert_allclose((M @ b)[solid], b[solid] / A.diagonal()[solid])
    np.testing.assert_allclose(A @ solved(A, b, M)[0], b, atol=1e-6)


def test_a_diagonal_matrix():
    M = consolve.aspreconditioner(sp.diags([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(M @ np.ones(3), [1, 0.5, 0.25])
    assert "3 without couplings" in repr(M)


@pytest.mark.parametrize("how", ["mask", "cells", "inferred"])
def test_places(how):
    domain = make_domain("spheres", (40, 41))
    operator = domain.operator()
    order = np.arange(operator.unknowns)
    named = {"mask": {"mask": domain.cell_type}, "cells": {"grid": (40, 41), "cells": operator.cells}}
    if how != "mask":
        order = np.random.default_rng(0).permutation(order)
    if how == "cells":
        named["cells"]["cells"] = operator.cells[order]
    A = sp.csr_matrix(operator.to_csr()[order][:, order])
    b = np.random.default_rng(1).standard_normal(operator.unknowns)
    assert solved(A, b, consolve.aspreconditioner(A, **named.get(how, {})))[1] <= 14


def test_box_stencils_and_periodic_grids_by_the_petsc_reader():
    mass = sp.diags([np.ones(15), 4 * np.ones(16), np.ones(15)], [-1, 0, 1]) / 6
    line = sp.diags([-np.ones(15), 2 * np.ones(16), -np.ones(15)], [-1, 0, 1])
    ring = sp.lil_matrix(line)
    ring[0, 15] = ring[15, 0] = -1
    box = sp.kron(mass, line) + sp.kron(line, mass)
    periodic = sp.kron(line, sp.identity(16)) + sp.kron(sp.identity(16), ring)
    torus = sp.kron(ring, sp.identity(16)) + sp.kron(sp.identity(16), ring)
    b = np.random.default_rng(0).standard_normal(256)
    for A, most in ((box, 25), (periodic, 15), (torus, 15)):
        A = sp.csr_matrix(A)
        right = b - b.mean() if A is torus else b
        M = consolve.aspreconditioner(A)
        right = right - right.mean() if abs(A.sum(axis=1)).max() < 1e-12 else right
        x, iterations = solved(A, right, M)
        np.testing.assert_allclose(A @ x, right, atol=1e-6)
        assert iterations <= most
        assert M.grid == (16, 16) and len(M.levels) >= 1
        M.update(2 * A)
        np.testing.assert_allclose(
            M @ right, 0.5 * (consolve.aspreconditioner(A) @ right), rtol=1e-4, atol=1e-5
        )


class TestUpdate:
    def test_a_changed_matrix(self):
        _, A, b = system("box", (24, 25))
        M = consolve.aspreconditioner(A)
        before = M @ b
        rng = np.random.default_rng(0)
        other = GridOperator.from_cell_types(np.zeros((24, 25), int), AIR, rng.uniform(0.1, 5, (24, 25)))
        M.update(other.to_csr())
        fresh = consolve.aspreconditioner(other.to_csr())
        np.testing.assert_array_equal(M @ b, fresh @ b)
        assert M.setups == 2 and not np.allclose(M @ b, before)

    def test_from_open_to_closed_and_back(self):
        closed = GridOperator.from_cell_types(np.zeros((12, 13), int))
        opened = GridOperator.from_cell_types(np.zeros((12, 13), int), outside=AIR)
        M = consolve.aspreconditioner(closed)
        assert abs((M @ np.ones(156)).sum()) < 1e-9
        M.update(opened)
        assert (M @ np.ones(156)).sum() > 1
        M.update(closed.to_csr())
        assert abs((M @ np.ones(156)).sum()) < 1e-9

    def test_another_size_is_refused(self):
        M = consolve.aspreconditioner(system("box", (12, 13))[1])
        with pytest.raises(ValueError, match="110 rows, the preconditioner 156"):
            M.update(system("box", (10, 11))[1])


class TestLooks:
    def test_table(self):
        operator, A, _ = system("spheres", (64, 66))
        M = consolve.aspreconditioner(A, grid=(64, 66), cells=operator.cells)
        lines = repr(M).splitlines()
        assert lines[0] == "consolve.Preconditioner"
        assert f"{A.shape[0]}, 0 without couplings, {A.nnz} nonzeros" in repr(M)
        rows = [line for line in lines if re.match(r"\s+\d+ ", line)]
        assert len(rows) == len(M.levels) >= 4
        assert str(A.shape[0]) in rows[0] and "64 x 66" in rows[0]
        shares = [float(re.search(r"\[([\d.]+)%\]", row)[1]) for row in rows]
        assert sum(shares) == pytest.approx(100, abs=0.1)
        assert 1 < M.grid_complexity() < 1.6 and f"{M.grid_complexity():.3f}" in repr(M)

    def test_levels(self):
        operator, A, _ = system("box", (64, 66))
        levels = consolve.aspreconditioner(A).levels
        assert levels[0].shape == (64, 66) and levels[0].unknowns == operator.unknowns
        assert all(fine.unknowns > coarse.unknowns for fine, coarse in pairwise(levels))


class TestThreads:
    def test_programs_own_number_is_kept(self):
        import numba

        before = numba.get_num_threads()
        _, A, b = system("box", (24, 25))
        M = consolve.aspreconditioner(A, threads=1)
        np.testing.assert_allclose(M @ b, consolve.aspreconditioner(A) @ b, rtol=1e-6, atol=1e-7)
        assert numba.get_num_threads() == before

    @pytest.mark.parametrize("threads", [0, -1, 100_000])
    def test_numbers_out_of_reach_are_refused(self, threads):
        with pytest.raises(ValueError, match="threads"):
            consolve.aspreconditioner(sp.identity(4), threads=threads)


@pytest.mark.parametrize(
    "A, named, words",
    [
        (sp.identity(4, format="csr")[:3], {}, "3 x 4"),
        (1j * sp.identity(4, format="csr"), {}, "complex"),
        (50 * np.eye(40) - np.ones((40, 40)), {}, "40 rows.*looked for.*mask="),
        (sp.identity(12), {"grid": (3, 5)}, "15 cells, the matrix 12 rows"),
        (sp.diags([[-1.0] * 11, [3.0] * 12, [-1.0] * 11], [-1, 0, 1]), {"grid": (3, 4)}, "not a neighbour"),
        (sp.identity(12), {"model": "none"}, "none"),
        (GridOperator.from_cell_types(np.zeros((3, 4), int)), {"grid": (3, 4)}, "grid of its own"),
    ],
)
def test_refusals_say_what_came(A, named, words):
    with pytest.raises(ValueError, match=words):
        consolve.aspreconditioner(A, **named)


def test_petsc_is_not_needed():
    """In a Python without petsc4py and mpi4py: 5- and 9-point systems solve."""
    code = """
import sys
sys.modules["petsc4py"] = sys.modules["mpi4py"] = None
import numpy as np, scipy.sparse as sp, consolve
from scipy.sparse.linalg import cg
line = sp.diags([-np.ones(31), 2 * np.ones(32), -np.ones(31)], [-1, 0, 1])
A = sp.csr_matrix(sp.kron(line, sp.identity(32)) + sp.kron(sp.identity(32), line))
x, failed = cg(A, np.ones(1024), M=consolve.aspreconditioner(A), maxiter=12)
assert not failed and np.linalg.norm(1 - A @ x) < 1e-3
for call in (lambda: consolve.solve(A, np.ones(1024)), lambda: consolve.aspreconditioner(A @ A)):
    try:
        call()
        raise SystemExit("not refused")
    except (ImportError, ValueError) as error:
        print(error)
mass = sp.diags([np.ones(31), 4 * np.ones(32), np.ones(31)], [-1, 0, 1])
box = sp.csr_matrix(sp.kron(mass, line) + sp.kron(line, mass))
assert consolve.aspreconditioner(box).operator.unknowns == 1024
x, failed = cg(box, np.ones(1024), M=consolve.aspreconditioner(box), maxiter=20)
assert not failed and np.linalg.norm(1 - box @ x) < 1e-3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "consolve.solve needs petsc4py" in done.stdout and "looked for" in done.stdout


def test_direct_solution():
    """M serves to solve what a direct solver confirms."""
    operator = GridOperator.from_cell_types(
        np.zeros((9, 10, 11), int), outside=((SOLID, AIR), (SOLID, SOLID), (AIR, SOLID))
    )
    A, b = operator.to_csr(), np.random.default_rng(0).standard_normal(990)
    x, _ = solved(A, b, consolve.aspreconditioner(A), 1e-11)
    np.testing.assert_allclose(x, spsolve(A.tocsc(), b), atol=1e-8)
