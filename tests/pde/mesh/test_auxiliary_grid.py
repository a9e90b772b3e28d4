"""The grid that is laid over the points of a mesh, and its operator."""

import mesh_cases
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from consolve.base.errors import MatrixError
from consolve.pde.matrix.local_rows import rows_of_csr
from consolve.pde.mesh import auxiliary_grid
from consolve.pde.mesh.auxiliary_grid import AuxiliaryGrid
from consolve.pde.mesh.rows import read_mesh


def laid(matrix, points):
    matrix = sp.csr_matrix(matrix)
    rows = read_mesh(rows_of_csr(matrix), points)
    return AuxiliaryGrid(rows), rows


def places_of(grid):
    """Centres of all cells, x first."""
    axes = [low + h * np.arange(n) for low, h, n in zip(grid._low[-grid.ndim :], grid.spacing, grid.shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, grid.ndim)[:, ::-1]


@pytest.mark.parametrize("ndim, n", [(2, 24), (3, 9)])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_linear_functions_pass_from_cells_to_points(ndim, n, boundary):
    """P is exact for them, so that corrections of smooth errors lose nothing."""
    matrix, points = mesh_cases.system(ndim, n, boundary=boundary)
    grid, _ = laid(matrix, points)
    slope = np.arange(1.0, ndim + 1)
    found = np.empty(len(points))
    grid.prolong(places_of(grid) @ slope + 3, found)
    np.testing.assert_allclose(found, points[grid.order] @ slope + 3, rtol=1e-5)


@pytest.mark.parametrize("ndim, n", [(2, 40), (3, 12)])
def test_restriction_is_the_transpose(ndim, n, monkeypatch):
    monkeypatch.setattr(auxiliary_grid, "CHUNK", 50)
    matrix, points = mesh_cases.system(ndim, n)
    grid, _ = laid(matrix, points)
    assert grid.bounds.size > 2 and grid.bounds[-1] == len(points)
    random = np.random.default_rng(1)
    r, cells = random.standard_normal(len(points)), random.standard_normal(int(np.prod(grid.shape)))
    down, up = np.zeros_like(cells), np.empty_like(r)
    grid.restrict(r, down)
    grid.prolong(cells, up)
    assert down @ cells == pytest.approx(up @ r, rel=1e-9)


@pytest.mark.parametrize("ndim, n, degree", [(2, 40, 1), (2, 20, 2), (3, 12, 1), (3, 7, 2)])
def test_energies_of_linear_functions_are_those_of_the_mesh(ndim, n, degree):
    """|grad u|^2 integrates to the volume for u = x, and sums of couplings give it exactly: so do the faces,
    less what lies over the edge of the grid's cells."""
    matrix, points = mesh_cases.system(ndim, n, degree, "neumann")
    grid, rows = laid(matrix, points)
    operator = grid.operator(rows)
    for axis in range(ndim):
        h = grid.spacing[ndim - 1 - axis]
        face = operator.face_coefficient[ndim - 1 - axis]
        exact = points[:, axis] @ matrix @ points[:, axis]
        assert face.sum() * h * h == pytest.approx(exact, rel=0.01)
    assert operator.is_singular and len(operator.null_space) == 1
    assert not operator.dirichlet.any()


@pytest.mark.parametrize("chunk", [40, 10**9])
def test_chunks_change_round_off_only(monkeypatch, chunk):
    matrix, points = mesh_cases.system(2, 40)
    expected = [f.copy() for f in laid_operator(matrix, points).face_coefficient]
    monkeypatch.setattr(auxiliary_grid, "CHUNK", chunk)
    for face, other in zip(laid_operator(matrix, points).face_coefficient, expected):
        np.testing.assert_allclose(face, other, rtol=1e-10, atol=1e-12 * other.max())


def laid_operator(matrix, points):
    grid, rows = laid(matrix, points)
    return grid.operator(rows)


def test_row_sums_are_kept():
    """What eliminated neighbours add to the diagonal is added to the grid's."""
    matrix, points = mesh_cases.system(2, 32)
    operator = laid_operator(matrix, points)
    assert operator.dirichlet.sum() == pytest.approx(matrix.sum(), rel=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.floats(-6, 6), st.floats(0.05, 20))
def test_units_and_places_do_not_matter(seed, ndim, exponent, stretch):
    """A mesh moved, in other units and stretched along an axis has the grid moved and stretched with it."""
    matrix, points = mesh_cases.system(ndim, 8 if ndim == 2 else 5, seed=seed % 7)
    scale = np.full(ndim, 10.0**exponent)
    scale[0] *= stretch
    first = laid(matrix, points)[0]
    second = laid(matrix, points * scale + 5 * scale)[0]
    lengths = second.spacing[::-1] / scale
    assert np.log(lengths / first.spacing[::-1]) == pytest.approx(0, abs=0.3)
    assert np.abs(np.subtract(first.shape, second.shape)).max() <= 2 + 0.3 * max(first.shape)


def test_sparse_points_do_not_make_a_huge_grid():
    """A ring of points in the plane; the box around them is nearly empty."""
    angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    points = np.column_stack((np.cos(angle), np.sin(angle)))
    ring = sp.diags([2.001 * np.ones(1000)], [0]) - sp.csr_matrix(
        (
            np.ones(2000),
            (np.tile(np.arange(1000), 2), np.r_[np.roll(np.arange(1000), 1), np.roll(np.arange(1000), -1)]),
        )
    )
    grid, _ = laid(ring, points)
    assert np.prod(grid.shape) <= 1.5 * auxiliary_grid.MOST_CELLS * 1000 + 200


def test_points_that_all_coincide_are_refused():
    matrix, points = mesh_cases.system(2, 6)
    with pytest.raises(MatrixError, match="all lie at"):
        laid(matrix, np.ones_like(points))
