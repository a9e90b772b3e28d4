"""Closed components: numbered, averaged and asked alike for grids, matrices, graphs and ranks."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import consolve
from consolve.base.errors import InconsistentRightHandSide
from consolve.pde import AIR, FLUID, SOLID, GridOperator
from consolve.pde.poisson.null_space import ClosedComponents, closed_numbers


def random_operator(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, int(rng.integers(2, 4))))
    types = rng.choice([FLUID, SOLID, AIR], shape, p=[0.6, 0.37, 0.03])
    return GridOperator.from_cell_types(types, outside=SOLID)


@given(st.integers(0, 10**6))
def test_of_a_grid_and_of_its_matrix_are_one(seed):
    operator = random_operator(seed)
    of_grid, of_matrix = operator.null_space, ClosedComponents.of_matrix(operator.to_csr())
    isolated = np.asarray(abs(operator.to_csr()).sum(axis=1)).reshape(-1) == 0
    assert len(of_grid) == len(of_matrix) == operator.components[1].sum()
    for group in range(len(of_grid)):
        inside = of_grid.group == group
        numbers = np.unique(of_matrix.group[inside])
        assert numbers.size == 1 and (of_matrix.size[numbers[0]] == of_grid.size[group] == inside.sum())
    assert not operator.unknowns or (of_matrix.group[isolated] >= 0).all()


@given(st.integers(0, 10**6))
def test_the_null_space_is_that_of_the_dense_matrix(seed):
    operator = random_operator(seed)
    if operator.unknowns == 0:
        return
    dense = operator.to_csr().toarray()
    closed = operator.null_space
    assert np.linalg.matrix_rank(dense) == operator.unknowns - len(closed)
    x = np.random.default_rng(seed).standard_normal(operator.unknowns)
    rest = x - closed.without_means(x)  # the orthogonal projection onto the null space
    np.testing.assert_allclose(dense @ rest, 0, atol=1e-12)
    np.testing.assert_allclose(rest @ (x - rest), 0, atol=1e-11)
    pinned = dense.copy()
    pinned[closed.first_entries(), closed.first_entries()] += 1
    assert np.linalg.matrix_rank(pinned) == operator.unknowns


class Rank:
    """A communicator of two ranks, of which this is one and the other has nothing."""

    size, rank = 2, 0

    def Allreduce(self, mine, everywhere):
        everywhere[...] = mine

    def allgather(self, value):
        return [value, value]


def test_over_ranks_as_on_one():
    group = np.array([0, 1, -1, 1, 0, 0], np.int32)
    one, many = ClosedComponents.of_groups(group, 2), ClosedComponents.of_groups(group, 2, Rank())
    x = np.arange(6.0)
    np.testing.assert_array_equal(one.size, many.size)
    np.testing.assert_allclose(one.without_means(x), many.without_means(x))
    np.testing.assert_allclose(one.without_means(x), [-3, -1, 2, 1, 1, 2])
    for closed in (one, many):
        with pytest.raises(InconsistentRightHandSide, match="over a closed component of 3 rows"):
            closed.check_consistent(np.array([1.0, 0, 0, 0, 1, 1]))


def test_parts_that_are_joined():
    is_open = np.array([True, False, False, False, False])
    assert list(closed_numbers(is_open)) == [-1, 0, 1, 2, 3]
    assert list(closed_numbers(is_open, np.array([[0, 3], [1, 4]]))) == [-1, 0, 1, -1, 0]


def test_nothing_to_remove():
    x = np.arange(3.0)
    target = np.zeros(3)
    ClosedComponents.none().remove(x, target)
    assert not ClosedComponents.none() and ClosedComponents.none().without_means(x) is x
    np.testing.assert_array_equal(target, x)


def with_pocket(cells):
    """An open box with an enclosed pocket of some cells."""
    image = np.zeros((12, 14), int)
    image[4:7, 4:8] = SOLID
    image[tuple(np.transpose(cells))] = FLUID
    return GridOperator.from_cell_types(image, outside=AIR)


def by_grid_solver(operator, b):
    return consolve.GridSolver(operator).solve(b, rtol=1e-8)[0]


def by_solve(operator, b):
    pytest.importorskip("petsc4py")
    return consolve.solve(operator, b, rtol=1e-8)[0]


def by_matrix(operator, b):
    pytest.importorskip("petsc4py")
    x = np.zeros(operator.shape)
    x[operator.active] = consolve.solve(operator.to_csr(), b[operator.active], rtol=1e-8)[0]
    return x


def by_pressure_solver(operator, b):
    pytest.importorskip("petsc4py")
    from consolve.solvers import PressureSolver

    solver = PressureSolver("-ksp_rtol 1e-8")
    try:
        return solver(operator, b)
    finally:
        solver.destroy()


ROUTES = (by_grid_solver, by_solve, by_matrix, by_pressure_solver)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("cells", [[(5, 5)], [(5, 5), (5, 6)]])
def test_round_off_in_a_pocket_is_no_reason_to_refuse(route, cells):
    """One rule: what a right-hand side sums to is held against its largest entry anywhere, too."""
    operator = with_pocket(cells)
    b = np.random.default_rng(0).standard_normal(operator.shape) * operator.active
    for cell in cells:
        b[cell] = 1e-17
    x = route(operator, b)
    residual = (b - operator.apply(x))[operator.active]
    assert np.linalg.norm(residual) < 1e-7 * np.linalg.norm(b)
    assert all(abs(x[cell]) < 1e-12 for cell in cells)


def test_an_inconsistent_pocket_is_refused_by_one_sentence():
    operator = with_pocket([(5, 5), (5, 6)])
    b = np.ones(operator.shape) * operator.active
    texts = set()
    for route in ROUTES:
        with pytest.raises(InconsistentRightHandSide) as caught:
            route(operator, b)
        texts.add(str(caught.value))
    assert len(texts) == 1, "\n".join(texts)


def test_a_matrix_with_round_off_in_its_row_sums():
    ring = sp.diags([-np.ones(7), 2 * np.ones(8), -np.ones(7)], [-1, 0, 1]).tolil()
    ring[0, 7] = ring[7, 0] = -1
    matrix = ring.tocsr()
    assert len(ClosedComponents.of_matrix(matrix + 1e-13 * sp.identity(8))) == 1
    assert len(ClosedComponents.of_matrix(sp.csr_matrix(matrix + 1e-6 * sp.identity(8)))) == 0
