"""Periodic grids: told by a DMDA, or seen in the couplings from last cells to first ones."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.row_operator import RowOperator
from consolve.solvers import MatrixError
from consolve.solvers.matrix.find_grid import find_grid
from consolve.solvers.matrix.stencil import read_stencil

cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "matrix_cases.py")))


def read(problems, matrix, shape, cells=None, periodic=(), **options):
    cells = np.arange(np.prod(shape)) if cells is None else cells
    axes = tuple(axis in periodic for axis in range(len(shape)))
    grid = GridMap(shape, cells.astype(np.int32), "a test", axes)
    return read_stencil(problems.matrix(matrix), grid, **options)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 10**6), st.integers(2, 3), st.sets(st.integers(0, 2)), st.booleans(),
    st.sampled_from([1.0, -1.0, 1e-9]),
)  # fmt: skip
def test_the_operator_is_the_matrix(problems, seed, ndim, periodic, kept, scale):
    """Sizes from 1 on along periodic axes, missing cells, closed faces, kept Dirichlet rows, either sign."""
    rng = np.random.default_rng(seed)
    periodic = {axis for axis in periodic if axis < ndim}
    shape = tuple(int(n) for n in rng.integers(1, 6, ndim))
    faces, dirichlet = cases.random_fluxes(shape, rng, periodic)
    matrix = cases.fluxes(faces, dirichlet, periodic)
    cells = np.flatnonzero(rng.random(shape) < 0.8)
    if cells.size == 0:
        return
    matrix = cases.on_rows(matrix, cells)
    alone = np.flatnonzero(rng.random(cells.size) < 0.2) if kept else np.empty(0, int)
    matrix = cases.keep_dirichlet_rows(matrix, alone, 2.5)
    stencil = read(problems, scale * matrix, shape, cells, periodic)
    assert isinstance(stencil.operator, RowOperator if periodic else GridOperator)
    got_faces, got_dirichlet, active = cases.to_grid(stencil.operator, shape, cells)
    dense, rows = matrix.toarray(), active.reshape(-1)[cells]
    rebuilt = cases.fluxes(got_faces, got_dirichlet, periodic).toarray()[np.ix_(cells, cells)]
    expected = abs(scale) * np.where(np.outer(rows, rows), dense, 0)
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-10, atol=1e-12 * expected.max(initial=1e-300))
    couplings = dense - np.diag(dense.diagonal())
    np.testing.assert_array_equal(stencil.diagonal_rows, np.flatnonzero(~couplings.any(axis=1)))
    lost = couplings * np.outer(rows, ~rows)
    assert stencil.one_sided == bool(lost.any())


def test_two_cells_share_their_coupling_between_both_faces(problems):
    matrix = np.array([[5.0, -4.0], [-4.0, 6.0]])
    operator = read(problems, matrix, (1, 2), None, {1}).operator
    np.testing.assert_array_equal(operator.face_coefficient[1], [2, 2])
    np.testing.assert_array_equal(operator.dirichlet, [1, 2])
    assert not operator.face_coefficient[0].any() and operator.periodic == (False, True)


@pytest.mark.parametrize("sizes", [(5, 4), (3, 6), (2, 5), (1, 4), (4, 3, 3), (3, 2, 1)])
def test_a_periodic_dmda(problems, sizes):
    """Constant coefficients: each face is 1, on an axis of one cell there is none, of two the entry is 2."""
    dim, boundary = len(sizes), PETSc.DM.BoundaryType.PERIODIC
    dm = PETSc.DMDA().create(
        sizes, dof=1, boundary_type=(boundary,) * dim, stencil_width=1, comm=PETSc.COMM_SELF
    )
    mat = dm.createMatrix()
    row, column = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    add = PETSc.InsertMode.ADD
    for index in np.ndindex(*sizes):
        row.index = index
        for axis in range(dim):
            for step in (-1, 1):
                other = list(index)
                other[axis] += step
                column.index = tuple(other)
                mat.setValueStencil(row, row, 1.0, add)
                mat.setValueStencil(row, column, -1.0, add)
    mat.assemble()
    grid = find_grid(mat, dm)
    stencil = read_stencil(mat, grid)
    assert stencil.operator.periodic == (True,) * dim
    for axis, n in enumerate(sizes[::-1]):
        np.testing.assert_array_equal(stencil.operator.face_coefficient[axis], 1.0 if n > 1 else 0.0)
    np.testing.assert_array_equal(stencil.operator.dirichlet, 0)


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (3, 3), (3, 4, 5)])
@pytest.mark.parametrize("kind", ["star", "box"])
def test_periodic_axes_are_seen_in_the_couplings(problems, shape, kind):
    rng = np.random.default_rng(0)
    for axis in range(len(shape)):
        if kind == "star":
            matrix = cases.fluxes(*cases.random_fluxes(shape, rng, {axis}, closed=0), {axis})
        else:
            elements = tuple(n - (a != axis) for a, n in enumerate(shape))
            matrix, _ = cases.q1(elements, periodic={axis})
        seen = read(problems, matrix, shape)
        told = read(problems, matrix, shape, None, {axis})
        assert seen.operator.periodic == seen.grid.periodic == tuple(a == axis for a in range(len(shape)))
        for a, b in zip(seen.operator.face_coefficient, told.operator.face_coefficient):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(5, 4), (12, 11), (4, 3, 5), (5, 3, 4), (4, 4, 3)])
def test_a_grid_one_cell_too_wide_is_not_taken_for_periodic(problems, shape):
    """Its couplings wrap, and lie along one diagonal: a box stencil would use both."""
    faces, dirichlet = cases.random_fluxes(shape, np.random.default_rng(0), closed=0)
    matrix = cases.fluxes(faces, dirichlet)
    for axis in range(1, len(shape)):
        for by in (-1, 1):
            wrong = list(shape)
            wrong[axis] += by
            wrong[0] = -(-matrix.shape[0] // int(np.prod(wrong[1:])))  # room for all rows
            with pytest.raises(MatrixError, match="not a neighbour"):
                read(problems, matrix, tuple(wrong), np.arange(matrix.shape[0]))


def test_pmat_is_read_where_amat_is_a_shell(problems):
    """A periodic system with a matrix-free operator and an assembled matrix for the preconditioner."""
    matrix = cases.fluxes(*cases.random_fluxes((9, 8), np.random.default_rng(0), {0}), {0})

    class Product:
        def mult(self, mat, x, y):
            y.setArray(matrix @ x.array_r)

    shell = PETSc.Mat().createPython(matrix.shape, Product(), comm=PETSc.COMM_SELF)
    shell.setUp()
    ksp = problems.ksp(shell, pmat=problems.matrix(matrix), pc_cnn_grid="8,9")
    b = np.random.default_rng(1).standard_normal(72)
    solved = problems.solve(ksp, b)
    assert solved.reason > 0 and np.linalg.norm(b - matrix @ solved.x) < 1e-7 * np.linalg.norm(b)
