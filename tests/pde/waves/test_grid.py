"""The structured P1 operator: symmetric, semi-definite, exact for linear fields; eigenvalue bounds hold."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import (
    ALL_MEDIA,
    CONDITIONS,
    Boundaries,
    Medium,
    PixelMedium,
    Source,
    WaveProblem,
)


@st.composite
def grids(draw, conditions=CONDITIONS):
    """A grid of 3 to 9 vertices a side with random speeds, fixed cells, holes and boundaries."""
    n = draw(st.integers(3, 9))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (n - 1, n - 1)
    blocked = draw(st.sampled_from([0.0, 0.2, 0.5]))
    medium = PixelMedium(rng.uniform(0.5, 3, shape), rng.random(shape) < blocked, rng.random(shape) < blocked)
    problem = WaveProblem(medium, None, Boundaries(*(draw(st.sampled_from(conditions)) for _ in range(4))))
    try:
        return problem, WaveGrid.of(problem, n)
    except ValueError as error:
        assert "no unknown" in str(error)
        assume(False)


def dense_stiffness(grid):
    n = grid.vertices
    return grid.stiffness_product(np.eye(n * n).reshape(-1, n, n)).reshape(n * n, n * n)


@given(grids())
def test_the_stiffness_is_symmetric_and_positive_semidefinite(case):
    _, grid = case
    matrix = dense_stiffness(grid)
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix)[0] > -1e-12 * abs(matrix).max()
    assert abs(matrix.sum(axis=1)).max() < 1e-12


@given(grids())
def test_the_bounds_hold_the_largest_eigenvalue_and_are_tight(case):
    _, grid = case
    free = grid.free.reshape(-1)
    root = np.sqrt(grid.mass.reshape(-1)[free])
    exact = np.linalg.eigvalsh(dense_stiffness(grid)[np.ix_(free, free)] / np.outer(root, root))[-1]
    low, high = grid.largest_eigenvalue()
    assert low <= exact * (1 + 1e-12) and exact <= high * (1 + 1e-12)
    assert high < 1.1 * exact
    assert high >= exact


@given(grids(conditions=("free", "fixed")), st.integers(0, 100))
def test_the_stable_step_is_stable_in_any_medium(case, seed):
    problem, grid = case
    n = grid.vertices
    u = np.random.default_rng(seed).normal(size=(n, n))
    stable = LeapFrog(problem, n).stable_step()
    run = LeapFrog(problem, n, step=0.9999 * stable, initial=(u, np.zeros((n, n))))
    states = run.run(run.step * np.array([0, 1, 7, 500, 501]))
    # From rest every mode is multiplied by a cosine, so the norm of M cannot grow.
    norms = np.sqrt(np.sum(grid.mass * states**2, axis=(1, 2)))
    assert (norms <= norms[0] * (1 + 1e-9)).all()


def test_the_mass_is_the_area_and_linear_fields_have_the_energy_of_their_gradient():
    hole = np.zeros((10, 10), bool)
    hole[3:6, 2:9] = True
    speed = np.random.default_rng(0).uniform(1, 2, (10, 10))
    grid = WaveGrid.of(WaveProblem(PixelMedium(speed, hole=hole)), 11)
    cell = 0.01
    assert abs(grid.mass.sum() - cell * (~hole).sum()) < 1e-14
    x, y = grid.places[None, :], grid.places[:, None]
    u = 3 * x - 2 * y
    exact = 13 * np.sum((speed**2)[~hole]) * cell
    assert abs(np.sum(u * grid.stiffness_product(u)) - exact) < 1e-12 * exact
    # c of each absorbing side, once: no hole touches a side here.
    sides = speed[0].sum() + speed[-1].sum() + speed[:, 0].sum() + speed[:, -1].sum()
    assert abs(grid.damping.sum() - 0.1 * sides) < 1e-12


def test_vertices_are_unknowns_unless_fixed_or_without_cells():
    fixed, hole = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    fixed[1, 1] = True
    hole[4:6, 4:6] = True
    medium = PixelMedium(np.ones((8, 8)), fixed, hole)
    free = WaveGrid.of(WaveProblem(medium, None, Boundaries(left="fixed")), 9).free
    expected = np.ones((9, 9), bool)
    expected[:, 0] = False
    expected[1:3, 1:3] = False
    expected[5, 5] = False
    assert np.array_equal(free, expected)


@pytest.mark.parametrize("vertices, limit", [(64, 0.001), (127, 0.001)])
def test_the_stable_step_of_a_constant_medium_with_fixed_sides_is_that_of_the_five_point_stencil(
    vertices, limit
):
    problem = WaveProblem(PixelMedium([[2.0]]), None, Boundaries.all("fixed"))
    h = 1 / (vertices - 1)
    exact = h / (2.0 * np.sqrt(2) * np.cos(np.pi * h / 2))
    assert 0 <= exact / LeapFrog(problem, vertices).stable_step() - 1 < limit


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_the_bounds_are_tight_in_all_media(kind):
    low, high = WaveGrid.of(WaveProblem(Medium(kind, 2)), 64).largest_eigenvalue()
    assert low < high < 1.01 * low


@pytest.mark.parametrize("vertices", [2, 10.5, 10**6])
def test_grids_of_unusable_size_are_refused(vertices):
    with pytest.raises(ValueError, match="3 to 8193 vertices"):
        WaveGrid.of(WaveProblem(PixelMedium([[1.0]])), vertices)


def test_a_source_that_a_coarse_grid_sees_in_a_hole_is_refused():
    hole = np.zeros((9, 9), bool)
    hole[4, 4] = True  # the centre of one of the 3 x 3 cells
    problem = WaveProblem(PixelMedium(np.ones((9, 9)), hole=hole), Source(0.6, 0.6, 3.0))
    with pytest.raises(ValueError, match=r"on 4 x 4 vertices the source at \(0.6, 0.6\) lies in a hole"):
        WaveGrid.of(problem, 4)
    assert WaveGrid.of(problem, 10).free.all()
