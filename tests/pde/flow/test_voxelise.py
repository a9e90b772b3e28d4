"""Voxelised meshes against analytic bodies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, Delaunay

from consolve.pde.flow.flow import Flow
from consolve.pde.flow.geometry import rasterise
from consolve.pde.flow.scenes import Scene
from consolve.pde.flow.voxelise import MeshBody, fitted, inside, voxelise
from consolve.pde.poisson.grid import AIR, SOLID

CUBE = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
CUBE_TRIANGLES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6],
     [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


def ball(subdivisions: int, radius: float, centre: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An octahedron with its triangles cut in four a few times, corners on the sphere."""
    vertices = np.concatenate([np.eye(3), -np.eye(3)])
    triangles = np.array([[i, j, k] for i in (0, 3) for j in (1, 4) for k in (2, 5)])
    for _ in range(subdivisions):
        corners = vertices[triangles]
        middles = (corners + np.roll(corners, -1, axis=1)) / 2
        a, b, c = corners.swapaxes(0, 1)
        ab, bc, ca = middles.swapaxes(0, 1)
        pieces = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        soup = np.concatenate([np.stack(p, axis=1) for p in pieces])
        vertices, numbers = np.unique(soup.reshape(-1, 3).round(12), axis=0, return_inverse=True)
        triangles = numbers.reshape(-1, 3)
    vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    return radius * vertices + np.asarray(centre), triangles


def volume_of(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """By the divergence theorem; triangles as of ``ball`` may point either way from the middle."""
    a, b, c = (vertices[triangles] - vertices.mean(axis=0)).swapaxes(0, 1)
    return float(np.abs((a * np.cross(b, c)).sum(axis=1)).sum() / 6)


def test_volume_of_a_ball_converges():
    vertices, triangles = ball(4, 0.4, (0.5, 0.47, 0.52))
    exact = volume_of(vertices, triangles)
    errors = []
    for n in (12, 48):
        solid = voxelise(vertices, triangles, (n, n, n), spacing=1 / n)
        errors.append(abs(solid.sum() / n**3 / exact - 1))
    assert errors[0] < 0.05
    assert errors[1] < 0.005


def test_cells_of_a_ball_are_those_of_the_analytic_ball():
    vertices, triangles = ball(5, 0.4, (0.5, 0.47, 0.52))
    n = 40
    solid = voxelise(vertices, triangles, (n, n, n), spacing=1 / n)
    x = (np.arange(n) + 0.5) / n
    distance = np.sqrt((x[:, None, None] - 0.5) ** 2 + (x[:, None] - 0.47) ** 2 + (x - 0.52) ** 2)
    clear = np.abs(distance - 0.4) > 1e-3  # the facets lie up to 5e-4 inside the sphere
    assert np.array_equal(solid[clear], (distance < 0.4)[clear])
    assert clear.mean() > 0.98


def test_box_with_faces_between_centres_is_exact():
    low, high = np.array([2.0, 3, 4]), np.array([7.0, 5, 9])
    solid = voxelise(low + CUBE * (high - low), CUBE_TRIANGLES, (10, 10, 10))
    expected = np.zeros((10, 10, 10), bool)
    expected[2:7, 3:5, 4:9] = True
    assert np.array_equal(solid, expected)


def test_edges_and_corners_on_rays_leave_no_stripes():
    # Every edge, every diagonal of a face and every corner lies on rays through cell centres.
    solid = voxelise(2.5 + CUBE * 4, CUBE_TRIANGLES, (10, 10, 10))
    expected = [np.flatnonzero(solid.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = np.zeros_like(solid)
    box[np.ix_(*expected)] = True
    assert np.array_equal(solid, box)
    assert all(len(e) in (4, 5) and e[0] in (2, 3) for e in expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_convex_hulls_of_random_points_agree_with_delaunay(seed, on_lattice):
    rng = np.random.default_rng(seed)
    points = rng.uniform(1, 9, (12, 3))
    if on_lattice:
        points = np.unique(points.round() + 0.5, axis=0)
        if np.linalg.matrix_rank(points - points[0]) < 3:
            return
    hull = ConvexHull(points, qhull_options="Qt")
    solid = voxelise(points, hull.simplices, (11, 11, 11))
    centres = np.stack(np.meshgrid(*[np.arange(11) + 0.5] * 3, indexing="ij"), axis=-1)
    levels = centres @ hull.equations[:, :3].T + hull.equations[:, 3]
    clear = np.abs(levels).min(axis=-1) > 1e-9
    within = Delaunay(points).find_simplex(centres) >= 0
    assert np.array_equal(solid[clear], within[clear])
    assert not solid[levels.max(axis=-1) > 1e-9].any()


def test_normals_and_shared_vertices_do_not_matter():
    rng = np.random.default_rng(1)
    vertices, triangles = ball(3, 3.2, (5.0, 5.0, 5.0))
    solid = voxelise(vertices, triangles, (10, 10, 10))
    turned = triangles.copy()
    some = rng.random(len(turned)) < 0.5
    turned[some] = turned[some, ::-1]
    soup = vertices[turned].reshape(-1, 3)  # as of an STL file: three vertices for each triangle
    assert np.array_equal(voxelise(vertices, turned, (10, 10, 10)), solid)
    assert np.array_equal(voxelise(soup, np.arange(len(soup)).reshape(-1, 3), (10, 10, 10)), solid)


def test_a_hole_is_closed_by_the_vote_of_the_other_axes():
    vertices, triangles = ball(4, 7.3, (10.1, 10.2, 9.9))
    whole = voxelise(vertices, triangles, (20, 20, 20))
    middles = vertices[triangles].mean(axis=1) - (10.1, 10.2, 9.9)
    holed = triangles[middles[:, 0] < 6.7]
    assert len(holed) < len(triangles)
    assert np.array_equal(voxelise(vertices, holed, (20, 20, 20)), whole)


def test_a_body_inside_a_body_is_a_cavity():
    outer, triangles = ball(3, 8.0, (10.0, 10.0, 10.0))
    inner, _ = ball(3, 4.0, (10.0, 10.0, 10.0))
    both = np.concatenate([outer, inner])
    solid = voxelise(both, np.concatenate([triangles, triangles + len(outer)]), (20, 20, 20))
    expected = voxelise(outer, triangles, (20,) * 3) & ~voxelise(inner, triangles, (20,) * 3)
    assert np.array_equal(solid, expected)
    assert not solid[10, 10, 10]
    assert solid[10, 10, 4]


def test_parts_outside_the_grid_are_cut_off():
    vertices, triangles = ball(3, 6.0, (0.0, 5.0, 11.0))
    large = voxelise(vertices, triangles, (20, 20, 20), origin=(-8, -5, -2))
    small = voxelise(vertices, triangles, (7, 8, 9))
    assert np.array_equal(small, large[8:15, 5:13, 2:11])
    assert small.any() and not small.all()


def test_points_need_not_be_evenly_spaced():
    vertices, triangles = ball(3, 0.8, (0.0, 0.0, 0.0))
    x = np.array([-0.9, -0.7, 0.1, 0.5, 0.79])
    within = inside(vertices, triangles, (x, [0.0], [0.01]))
    assert within.shape == (5, 1, 1)
    assert within.ravel().tolist() == [False, True, True, True, True]


def test_points_may_come_in_any_order():
    vertices, triangles = ball(3, 0.8, (0.1, 0.0, -0.1))
    rng = np.random.default_rng(0)
    x = [np.sort(rng.uniform(-1, 1, n)) for n in (9, 8, 7)]
    orders = [rng.permutation(len(p)) for p in x]
    shuffled = inside(vertices, triangles, [p[o] for p, o in zip(x, orders)])
    assert np.array_equal(shuffled, inside(vertices, triangles, x)[np.ix_(*orders)])
    assert 0 < shuffled.mean() < 1


def test_fitted_turns_the_upward_axis_to_the_first():
    points = fitted([[0, 0, 0], [1, 2, 8.0]], (0.5, 0.25, 0.75), 0.4)
    assert np.allclose(points.mean(axis=0), (0.5, 0.25, 0.75))
    assert np.allclose(points[1] - points[0], (0.4, 0.05, 0.1))  # z, x, y of the file


def test_a_mesh_stands_in_a_flow():
    vertices, triangles = ball(4, 0.2, (0.5, 0.5, 0.5))
    body = MeshBody(vertices, triangles)
    outside = ((SOLID, AIR), (SOLID, SOLID), (SOLID, SOLID))
    flow = Flow(Scene("mesh", (20, 20, 20), outside, (body,)))
    assert np.array_equal(flow.solid, voxelise(vertices, triangles, (20,) * 3, spacing=0.05))
    assert flow.operator.unknowns == 8000 - flow.solid.sum()
    assert not body.moving


def test_a_slice_of_a_mesh_stands_in_a_flow_of_two_axes():
    vertices, triangles = ball(5, 0.2, (0.5, 0.5, 0.0))
    middle = rasterise((MeshBody(vertices, triangles),), 0.0, (50, 50), 0.02) >= 0
    aside = rasterise((MeshBody(vertices, triangles, slice_at=0.16),), 0.0, (50, 50), 0.02) >= 0
    assert abs(middle.sum() * 0.02**2 / (np.pi * 0.2**2) - 1) < 0.02
    assert abs(aside.sum() * 0.02**2 / (np.pi * 0.12**2) - 1) < 0.06


@pytest.mark.parametrize("ndim", [2, 3])
def test_cavities_of_a_mesh_in_a_flow_are_solid_unless_it_is_hollow(ndim):
    outer, triangles = ball(3, 0.4, (0.5, 0.5, 0.5))
    inner, _ = ball(3, 0.2, (0.5, 0.5, 0.5))
    both = np.concatenate([outer, inner]), np.concatenate([triangles, triangles + len(outer)])
    shape = (20,) * ndim
    full = rasterise((MeshBody(*both, slice_at=0.49),), 0.0, shape, 0.05)
    hollow = rasterise((MeshBody(*both, slice_at=0.49, hollow=True),), 0.0, shape, 0.05)
    assert np.array_equal(full, rasterise((MeshBody(outer, triangles, slice_at=0.49),), 0.0, shape, 0.05))
    assert full[(10,) * ndim] == 0 and hollow[(10,) * ndim] == -1


@pytest.mark.parametrize(
    ("vertices", "triangles", "shape", "said"),
    [
        (CUBE[:, :2], CUBE_TRIANGLES, (4, 4, 4), "shape"),
        (CUBE, CUBE_TRIANGLES.astype(float), (4, 4, 4), "integers"),
        (CUBE, CUBE_TRIANGLES + 1, (4, 4, 4), "triangle 2 names vertices"),
        (CUBE * [1, np.nan, 1], CUBE_TRIANGLES, (4, 4, 4), "finite"),
        (CUBE, CUBE_TRIANGLES, (4, 4), "3 axes"),
        (CUBE, CUBE_TRIANGLES, (4, 0, 4), "3 axes"),
    ],
)
def test_bad_input_is_named(vertices, triangles, shape, said):
    with pytest.raises(ValueError, match=said):
        voxelise(vertices, triangles, shape)


def test_bad_grids_are_named():
    with pytest.raises(ValueError, match="spacing"):
        voxelise(CUBE, CUBE_TRIANGLES, (4, 4, 4), spacing=0)
    for points in (([0], [0]), ([0], [], [0]), ([0], [np.inf], [0])):
        with pytest.raises(ValueError, match="points must be"):
            inside(CUBE, CUBE_TRIANGLES, points)
    with pytest.raises(ValueError, match="same point"):
        fitted(np.ones((3, 3)), (0, 0, 0), 1.0)


def test_no_triangles_are_no_body():
    assert not voxelise(CUBE, np.empty((0, 3), int), (4, 4, 4)).any()
