"""The same systems by consolve.solve under cg and dcd, by GridSolver and by SciPy with aspreconditioner:
right by each, or refused by each in the same words."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla

import consolve
from consolve.pde import GridOperator


def solutions(A, b, shape, cells, operator=None, rtol=1e-6):
    """Solution of each route, by its name."""
    place = {"grid": shape, "cells": cells}
    found = {ksp: consolve.solve(A, b, ksp=ksp, rtol=rtol, **place)[0] for ksp in ("cg", "dcd")}
    m = consolve.aspreconditioner(A, **place)
    found["SciPy"], failed = sla.cg(A, b, M=m, atol=rtol * np.linalg.norm(b), tol=0, maxiter=500)
    assert not failed
    if operator is not None:
        image = np.zeros(shape)
        image.reshape(-1)[cells] = b
        found["GridSolver"] = consolve.GridSolver(operator).solve(image, rtol=rtol)[0].reshape(-1)[cells]
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
