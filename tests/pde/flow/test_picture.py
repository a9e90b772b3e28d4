"""Pictures: sizes, what is drawn where, and the optics of the ray-marcher."""

import imageio.v3 as imageio
import numpy as np
import pytest

from consolve.pde.flow.bodies import Sphere
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.picture import render, save_animation, save_picture
from consolve.pde.flow.raymarch import Camera, march
from consolve.pde.flow.scenes import Scene
from consolve.pde.poisson.grid import SOLID


def still(shape, bodies=()):
    return Flow(Scene("still", shape, ((SOLID, SOLID),) * len(shape), bodies))


@pytest.mark.parametrize("shape", [(20, 30), (12, 10, 11)])
def test_smoke_shows_where_it_is(shape):
    flow = still(shape)
    empty = render(flow, 60).astype(int)
    assert empty.shape[0] == 60 and empty.shape[2] == 3
    top = slice(-shape[0] // 3, None)
    flow.density[top] = flow.temperature[top] = 1.0
    change = np.abs(render(flow, 60).astype(int) - empty).sum(-1)
    assert change[:15].max() > 100
    assert change[-15:].max() < 10, "axis 0 points up"


def test_hot_and_cool_smoke_differ():
    flow = still((20, 20))
    flow.density[:] = 1.0
    cool = render(flow, 40)
    flow.temperature[:] = 1.0
    assert np.abs(render(flow, 40).astype(int) - cool).mean() > 30


def test_a_plane_is_drawn_upright_with_square_cells():
    assert render(still((20, 30)), 100).shape == (100, 150, 3)
    body = Sphere((0.8, 0.3), 0.1)
    with_body, without = (render(still((20, 20), b), 100).astype(int) for b in ((body,), ()))
    change = np.abs(with_body - without).sum(-1)
    rows, columns = np.nonzero(change > 60)
    assert rows.mean() == pytest.approx(20, abs=1.5) and columns.mean() == pytest.approx(30, abs=1.5)
    assert np.count_nonzero(change > 60) == pytest.approx(np.pi * 100, rel=0.2)


def test_a_body_hides_what_is_behind_it():
    shape = (16, 16, 16)
    density, body = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    body[4:12, 4:12, 4:12] = 1
    camera = Camera.facing(shape, 40)
    _, opacity = march(density, density, body, np.ones((256, 3)), np.ones(3), camera)
    assert opacity[20, camera.width // 2] == 1 and opacity[0, 0] == 0


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.0, 0.0), (0.6, 0.3), (-1.2, 0.1)])
def test_opacity_follows_the_law_of_absorption(azimuth, elevation):
    shape, extinction = (20, 20, 20), 2.0
    density = np.full(shape, 0.6, np.float32)
    camera = Camera.facing(shape, 41, azimuth, elevation)
    _, opacity = march(
        density, density, np.zeros(shape, np.float32), np.ones((256, 3)), np.ones(3), camera, extinction
    )
    # Through the middle of the cube, from face to face.
    path = 20 / np.abs(camera.forward).max()
    expected = 1 - np.exp(-extinction / 20 * 0.6 * path)
    assert opacity[20, camera.width // 2] == pytest.approx(expected, rel=0.03)


def test_directions_of_the_camera_are_orthonormal():
    camera = Camera.facing((10, 20, 30), 50)
    frame = np.array([camera.forward, camera.up, camera.right])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-14)
    assert camera.up[0] > 0
    edges = camera.box_edges((10, 20, 30))
    assert set(np.unique(edges)) == {0, 1} and edges.sum() > 50


def test_files_are_written_whole(tmp_path):
    flow = still((16, 12))
    save_picture(flow, tmp_path / "a.png", 32)
    assert np.array_equal(imageio.imread(tmp_path / "a.png"), render(flow, 32))
    frames = []
    for level in (0.0, 0.5, 1.0):
        flow.density[:] = level
        frames.append(render(flow, 32))
    save_animation(frames, tmp_path / "a.gif")
    assert len(imageio.imread(tmp_path / "a.gif", index=None)) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.png"]
    with pytest.raises(OSError):
        save_picture(flow, tmp_path / "missing" / "a.png", 32)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 16 pixels"):
        render(still((8, 8)), 3)
    with pytest.raises(ValueError, match="at least one frame"):
        save_animation([], tmp_path / "a.gif")


def test_a_thin_body_shows_on_a_coarse_grid():
    thin = Sphere((0.5, 0.5, 0.5), 0.06)
    with_body, without = (render(still((9, 9, 9), b), 80).astype(int) for b in ((thin,), ()))
    assert np.abs(with_body - without).max() > 60


def test_the_raster_of_bodies_must_fit_the_smoke():
    camera, smoke = Camera.facing((4, 4, 4), 20), np.zeros((4, 4, 4), np.float32)
    with pytest.raises(ValueError, match="not a multiple"):
        march(smoke, smoke, np.zeros((8, 8, 9), np.float32), np.ones((256, 3)), np.ones(3), camera)
