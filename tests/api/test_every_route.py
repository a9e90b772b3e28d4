"""The same systems by consolve.solve under cg and dcd, by GridSolver and by SciPy with aspreconditioner:
right by each, or refused by each in the same words."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from petsc4py import PETSc

import consolve
import consolve.solvers
from consolve.base.errors import InconsistentRightHandSide, NotConverged
from consolve.pde import GridOperator

WEIGHTS = Path(str(resources.files("consolve.learned") / "weights" / "multilevel-2d.h5"))


def solutions(A, b, shape, cells, operator=None, rtol=1e-6, model="auto"):
    """Solution of each route, by its name."""
    place = {"grid": shape, "cells": cells, "model": model}
    found = {ksp: consolve.solve(A, b, ksp=ksp, rtol=rtol, **place)[0] for ksp in ("cg", "dcd")}
    m = consolve.aspreconditioner(A, **place)
    found["SciPy"], failed = sla.cg(A, b, M=m, atol=rtol * np.linalg.norm(b), tol=0, maxiter=500)
    assert not failed
    if operator is not None:
        image = np.zeros(shape)
        image.reshape(-1)[cells] = b
        found["GridSolver"] = (
            consolve.GridSolver(operator, model).solve(image, rtol=rtol)[0].reshape(-1)[cells]
        )
    return found


def ring(shape, axis, open_cells):
    """Matrix of the open cells of a grid that is periodic along one axis, coefficients 1."""
    size = int(np.prod(shape))
    index, coupling = np.arange(size).reshape(shape), sp.csr_matrix((size, size))
    for a in range(len(shape)):
        up, face = np.roll(index, -1, a), open_cells & np.roll(open_cells, -1, a)
        if a != axis:
            np.moveaxis(face, a, 0)[-1] = False
        half = sp.coo_matrix((1.0 * face.ravel(), (index.ravel(), up.ravel())), (size, size)).tocsr()
        coupling = coupling + half + half.T
    cells = np.flatnonzero(open_cells)
    matrix = sp.diags(np.asarray(coupling.sum(1)).ravel()) - coupling
    return matrix.tocsr()[cells][:, cells], cells


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("shape, axis", [((9, 7), 0), ((5, 9), 1), ((3, 5, 7), 2), ((7, 3, 4), 0)])
def test_a_part_that_hangs_together_around_a_periodic_axis_is_one(shape, axis, held):
    """Of an odd number of cells: there is no level but one that is solved directly."""
    open_cells = np.ones(shape, bool)
    np.moveaxis(open_cells, axis, 0)[shape[axis] // 2] = False
    matrix, cells = ring(shape, axis, open_cells)
    b = np.random.default_rng(0).standard_normal(cells.size)
    pinned = matrix + sp.diags(1.0 * (np.arange(cells.size) == 0))
    if held:
        matrix = pinned
    else:
        b -= b.mean()
    expected = sla.spsolve(pinned.tocsc(), b)
    assert len(consolve.aspreconditioner(matrix, grid=shape, cells=cells)._closed) == (not held)
    for name, x in solutions(matrix, b, shape, cells, rtol=1e-9).items():
        x = x if held else x - x.mean() + expected.mean()
        np.testing.assert_allclose(x, expected, atol=1e-6 * np.abs(expected).max(), err_msg=name)


def test_a_part_that_is_weakly_held_is_not_closed_for_others_that_are():
    """A null space is attached for the closed pockets; links of 1e8 and a Dirichlet part of 1 beside them."""
    active = np.ones((1, 40), bool)
    active[0, [10, 20, 30]] = False
    face = np.where(active & np.roll(active, -1, 1), 1e8, 0.0)
    face[0, -1] = 0
    fixed = np.zeros((1, 40))
    fixed[0, [4, 25]] = 1
    operator = GridOperator((np.zeros((1, 40)), face), fixed, active)
    b = np.where(active, np.random.default_rng(0).standard_normal((1, 40)), 0)
    b = operator.remove_null_space(b).reshape(-1)[operator.cells]
    matrix = operator.to_csr()
    for name, x in solutions(matrix, b, (1, 40), operator.cells, operator).items():
        assert np.linalg.norm(b - matrix @ x) <= 1.001e-6 * np.linalg.norm(b), name


def contrasts(seed, decades, shape=(9, 10)):
    """An operator with weak links among strong ones, 10^decades apart, held at one cell."""
    rng = np.random.default_rng(seed)
    faces = tuple(np.where(rng.random(shape) < 0.5, 1.0, 10.0**decades) for _ in shape)
    for axis, face in enumerate(faces):
        np.moveaxis(face, axis, 0)[-1] = 0
    fixed = np.zeros(shape)
    fixed.reshape(-1)[fixed.size // 2] = 1
    return GridOperator(faces, fixed, np.ones(shape, bool))


@pytest.mark.parametrize("model", ["auto", "file"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decades", [4, 8])
def test_weak_links_among_strong_ones(decades, seed, model):
    """Whatever the name of the model: levels in single precision would not be definite."""
    operator = contrasts(seed, decades)
    matrix, b = operator.to_csr(), np.random.default_rng(seed).standard_normal(operator.shape)
    chosen = model if model == "auto" else str(WEIGHTS)
    for name, x in solutions(
        matrix, b.ravel(), operator.shape, operator.cells, operator, model=chosen
    ).items():
        assert np.linalg.norm(b.ravel() - matrix @ x) <= 1.001e-6 * np.linalg.norm(b), name


@pytest.mark.parametrize("ksp", ["cg", "dcd"])
def test_weak_links_on_a_periodic_grid(ksp):
    """The graph bears them."""
    face = np.where(np.arange(73) % 9 < 7, 1e6, 1.0)
    neighbour = sp.coo_matrix((face, (np.arange(73), (np.arange(73) + 1) % 73)), (73, 73)).tocsr()
    coupling = neighbour + neighbour.T
    matrix = sp.diags(np.asarray(coupling.sum(1)).ravel() + (np.arange(73) == 5)) - coupling
    b = np.random.default_rng(0).standard_normal(73)
    x, info = consolve.solve(matrix, b, grid=(1, 73), ksp=ksp)
    assert info.iterations <= 4
    assert np.linalg.norm(b - matrix @ x) <= 1.001e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("decades", [12, 16])
def test_contrasts_at_the_end_of_double_precision(decades):
    """Right up to the rounding of A x, or an error: that of 1 + 1e16 may make the matrix singular."""
    for seed in range(4):
        operator = contrasts(seed, decades, (1, 40)) if seed % 2 else contrasts(seed, decades)
        b = np.random.default_rng(seed).standard_normal(operator.unknowns)
        matrix = operator.to_csr()
        for ksp in ("cg", "dcd"):
            try:
                x, _ = consolve.solve(operator, b.reshape(operator.shape), ksp=ksp, maxiter=500)
            except (NotConverged, InconsistentRightHandSide):
                continue
            size = np.linalg.norm(abs(matrix) @ np.abs(x.ravel()))
            residual = np.linalg.norm(b - matrix @ x.ravel())
            assert residual <= 1.001e-6 * np.linalg.norm(b) + 1e-15 * size


@pytest.mark.parametrize("scale", [1e-22, 1e-97])
def test_a_solution_beyond_double_precision_is_an_error(scale):
    operator = GridOperator.from_cell_types(np.zeros((6, 8), int), outside=2)
    operator = GridOperator(
        tuple(scale * f for f in operator.face_coefficient), scale * operator.dirichlet, operator.active
    )
    b = np.full((6, 8), 1e300)
    for route in (lambda: consolve.solve(operator, b), lambda: consolve.GridSolver(operator).solve(b)):
        with pytest.raises(NotConverged, match="the solution itself"):
            route()


def refusals(matrix, b, shape, operator):
    """What each route says of a system, by name."""
    cells, image = np.arange(b.size), b.reshape(shape)
    routes = {
        ksp: lambda ksp=ksp: consolve.solve(matrix, b, grid=shape, cells=cells, ksp=ksp)
        for ksp in ("cg", "dcd")
    }
    routes["no grid"] = lambda: consolve.solve(matrix, b)
    routes["SciPy"] = lambda: consolve.aspreconditioner(matrix, grid=shape, cells=cells)
    routes["KSP"] = lambda: set_up_by_petsc(matrix, shape)
    routes["operator"] = lambda: consolve.solve(operator, image)
    routes["GridSolver"] = lambda: consolve.GridSolver(operator).solve(image)
    routes["SciPy of the operator"] = lambda: consolve.aspreconditioner(operator)
    said = {}
    for name, route in routes.items():
        with pytest.raises(ValueError) as caught:
            route()
        said[name] = str(caught.value)
    return said


def set_up_by_petsc(matrix, shape):
    csr = matrix.indptr.astype(PETSc.IntType), matrix.indices.astype(PETSc.IntType), matrix.data
    mat = PETSc.Mat().createAIJ(matrix.shape, csr=csr, comm=PETSc.COMM_SELF)
    consolve.solvers.attach_grid(mat, shape, np.arange(matrix.shape[0]))
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.getPC().setType("cnn")
    try:
        ksp.setUp()
    except PETSc.Error as error:
        raise error.__cause__ or error from None


@pytest.mark.parametrize("stored", [True, False])
def test_a_matrix_of_zeros_is_refused_before_any_solve(stored):
    shape, n = (4, 5), 20
    none = np.zeros(shape)
    operator = GridOperator((none, none), none, np.ones(shape, bool))
    matrix = sp.csr_matrix((n, n))
    if stored:
        matrix = sp.csr_matrix((np.zeros(n), np.arange(n), np.arange(n + 1)), (n, n))
    for name, said in refusals(matrix, np.zeros(n), shape, operator).items():
        assert "the matrix is zero" in said, name


def test_systems_without_couplings_or_without_unknowns():
    shape = (4, 5)
    none = np.zeros(shape)
    boundary = GridOperator((none, none), none + 2, np.ones(shape, bool))
    b = np.arange(20.0)
    for name, x in solutions(sp.identity(20, format="csr") * 2, b, shape, np.arange(20), boundary).items():
        assert np.linalg.norm(x - b / 2) < 1e-6 * np.linalg.norm(b), name
    empty = GridOperator((none, none), none, np.zeros(shape, bool))
    assert not consolve.solve(empty, none)[0].any() and not consolve.GridSolver(empty).solve(none)[0].any()
    assert (consolve.aspreconditioner(empty) @ np.empty(0)).size == 0
    assert consolve.solve(sp.csr_matrix((0, 0)), np.empty(0))[0].size == 0


@pytest.mark.parametrize("kind", ["cg", "dcd"])
def test_a_right_hand_side_in_rows_without_couplings_alone(kind):
    """They are solved before the first iteration, but for rounding: 49 (1 / 49) < 1."""
    pair = 0.04 * np.array([[1, -1], [-1, 1]])
    matrix = sp.block_diag([[[49.0]], pair, [[0.0]]], format="csr")
    csr = matrix.indptr.astype(PETSc.IntType), matrix.indices.astype(PETSc.IntType), matrix.data
    mat = PETSc.Mat().createAIJ(matrix.shape, csr=csr, comm=PETSc.COMM_SELF)
    consolve.solvers.attach_grid(mat, (7, 1), np.array([0, 3, 4, 6]))
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType(kind)
    ksp.getPC().setType("cnn")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-4)
    b, x = mat.createVecs()
    b.array_w[0] = 1
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    np.testing.assert_allclose(x.array, [1 / 49, 0, 0, 0], rtol=1e-9)
