"""Triangle meshes as solid cells: which points of a grid lie inside a closed surface.

A ray along each axis of the grid through each row of points crosses the surface; a point with an odd number
of crossings before it is inside, and the three axes vote, so that a small hole in the surface, which rays of
one axis pass through, does no harm.  A ray meets a triangle if it is below an odd number of its edges, seen
along the ray (the even-odd rule of polygons).  Each edge gives the same answer to both of its triangles, so
that each ray crosses a closed surface an even number of times, in floating point and through corners, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_fill_holes

from consolve.base.jit import STRICT


def voxelise(
    vertices: ArrayLike,
    triangles: ArrayLike,
    shape: Sequence[int],
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    spacing: float = 1.0,
) -> NDArray[np.bool_]:
    """Cells of a grid whose centres are inside a closed surface.

    Parameters
    ----------
    vertices
        (vertices, 3), lengths: coordinate ``a`` runs along axis ``a`` of the grid.
    triangles
        (triangles, 3) integers: the vertices of each; in any order, so that normals may point either way.
    shape
        Cells along each of 3 axes.
    origin
        Corner of the first cell.
    spacing
        Side of a cell: cell ``i`` has its centre at ``origin + (i + 0.5) spacing``.

    Returns
    -------
    Boolean, of ``shape``: True for solid cells.

    Raises
    ------
    ValueError
        If an array is of another shape, a coordinate is not finite, a triangle names no vertex, or the grid
        is empty.

    Examples
    --------
    A mesh file, by ``meshio`` (``pip install meshio``)::

        mesh = meshio.read("body.stl")
        solid = voxelise(mesh.points, mesh.cells_dict["triangle"], (64, 64, 64), spacing=1 / 64)
    """
    if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(f"a grid to voxelise on has 3 axes of at least one cell, got shape {tuple(shape)}")
    if len(origin) != 3 or not np.isfinite(origin).all():
        raise ValueError(f"origin must be 3 finite numbers, got {tuple(origin)}")
    if not (np.isfinite(spacing) and spacing > 0):
        raise ValueError(f"spacing must be positive, got {spacing}")
    points = [o + (np.arange(int(n)) + 0.5) * spacing for o, n in zip(origin, shape)]
    return inside(vertices, triangles, points)


def inside(vertices: ArrayLike, triangles: ArrayLike, points: Sequence[ArrayLike]) -> NDArray[np.bool_]:
    """Which points of a tensor grid are inside a closed surface.

    Parameters
    ----------
    vertices, triangles
        As for :func:`voxelise`.
    points
        Coordinates along each of 3 axes, any number of them, in any order.

    Returns
    -------
    Boolean, one axis for each of ``points``.

    Raises
    ------
    ValueError
        As :func:`voxelise`.
    """
    v, t = _checked(vertices, triangles)
    given = [np.asarray(p, np.float64).ravel() for p in points]
    if len(given) != 3 or any(p.size == 0 or not np.isfinite(p).all() for p in given):
        raise ValueError("points must be finite coordinates along each of 3 axes, at least one of each")
    order = [np.argsort(p, kind="stable") for p in given]
    x = [p[o] for p, o in zip(given, order)]
    votes = np.zeros([p.size for p in x], np.int8)
    for axis in range(3):
        across, down = (a for a in range(3) if a != axis)
        crossings = np.zeros((x[across].size, x[down].size, x[axis].size), np.bool_)
        _cross(v[:, across].copy(), v[:, down].copy(), v[:, axis].copy(), t, x[across], x[down], x[axis],
               crossings)  # fmt: skip
        odd = np.logical_xor.accumulate(crossings, axis=2)
        votes += np.moveaxis(odd, 2, axis)
    return (votes >= 2)[np.ix_(*(np.argsort(o, kind="stable") for o in order))]


@dataclass(frozen=True, eq=False)
class MeshBody:
    """A triangle mesh at rest in a flow: a :class:`~consolve.pde.flow.bodies.Body`; in 2D a slice of one.

    Parameters
    ----------
    vertices, triangles
        As for :func:`voxelise`, in the lengths of the scene; coordinate 0 points up.
    slice_at
        In a flow of 2 axes, the third coordinate at which the mesh is cut.
    hollow
        False to make cavities solid, too: fluid in them would have no way out.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64]
    slice_at: float = 0.0
    hollow: bool = False

    @property
    def moving(self) -> bool:
        return False

    @cached_property
    def _checked(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        return _checked(self.vertices, self.triangles)

    def bounds(self, time: float) -> tuple[NDArray, NDArray]:
        vertices, triangles = self._checked
        corners = vertices[triangles].reshape(-1, 3) if len(triangles) else np.zeros((1, 3))
        return corners.min(axis=0), corners.max(axis=0)

    def covers(self, points: Sequence[NDArray], time: float) -> NDArray[np.bool_]:
        if any(p.size == 0 for p in points):
            return np.zeros(np.broadcast_shapes(*(p.shape for p in points)), np.bool_)
        axes = list(points) if len(points) == 3 else [*points, np.array([self.slice_at])]
        covered = inside(*self._checked, axes)
        if len(points) == 2:
            covered = covered[..., 0]
        return covered if self.hollow else binary_fill_holes(covered)

    def velocity(self, axis: int, points: Sequence[NDArray], time: float) -> NDArray:
        return np.zeros(np.broadcast_shapes(*(x.shape for x in points)))


def fitted(vertices: ArrayLike, centre: Sequence[float], size: float, up: int = 2) -> NDArray[np.float64]:
    """Vertices turned, scaled and moved: axis ``up`` of the file becomes axis 0, the longest side ``size``.

    Parameters
    ----------
    vertices
        (vertices, 3) as of a file.
    centre
        Where the middle of the bounding box goes.
    size
        Longest side of the bounding box.
    up
        Axis of the file that points up.
    """
    v = np.asarray(vertices, np.float64)
    if v.ndim != 2 or v.shape[1] != 3 or not len(v):
        raise ValueError(f"vertices must be of shape (n, 3), n > 0, got {v.shape}")
    v = np.roll(v, -up, axis=1)
    low, high = v.min(axis=0), v.max(axis=0)
    longest = float((high - low).max())
    if not longest > 0:
        raise ValueError("all vertices are the same point")
    return (v - (low + high) / 2) * (size / longest) + np.asarray(centre, np.float64)


def _checked(vertices: ArrayLike, triangles: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    v, t = np.ascontiguousarray(vertices, np.float64), np.asarray(triangles)
    if v.ndim != 2 or v.shape[1] != 3:
        raise ValueError(f"vertices must be of shape (n, 3), got {v.shape}")
    if t.ndim != 2 or t.shape[1] != 3 or not np.issubdtype(t.dtype, np.integer):
        raise ValueError(f"triangles must be integers of shape (n, 3), got {t.dtype}{t.shape}")
    t = np.ascontiguousarray(t, np.int64)
    if t.size and not 0 <= t.min() <= t.max() < len(v):
        bad = int(np.flatnonzero(((t < 0) | (t >= len(v))).any(axis=1))[0])
        raise ValueError(f"triangle {bad} names vertices {t[bad].tolist()}; there are 0 to {len(v) - 1}")
    if not np.isfinite(v[t]).all():
        bad = int(np.flatnonzero(~np.isfinite(v).all(axis=1))[0])
        raise ValueError(f"vertex {bad} is at {v[bad].tolist()}; coordinates must be finite")
    return v, t


@njit(**STRICT)
def _is_below(ax, ay, bx, by, x, y):  # type: ignore[no-untyped-def]
    """Whether (x, y) has the edge from a to b above it, along y; the same for the edge from b to a."""
    if (ax <= x) == (bx <= x):
        return False
    if ax > bx:
        ax, ay, bx, by = bx, by, ax, ay
    return (bx - ax) * (y - ay) < (by - ay) * (x - ax)


@njit(**STRICT)
def _cross(u, v, w, triangles, across, down, along, crossings):  # type: ignore[no-untyped-def]
    """Turn over ``crossings[i, j, k]`` where the ray (across[i], down[j]) meets a triangle between the points
    ``along[k - 1]`` and ``along[k]``; a crossing beyond the last point is left out."""
    for n in range(triangles.shape[0]):
        a, b, c = triangles[n]
        first = np.searchsorted(across, min(u[a], u[b], u[c]), side="left")
        last = np.searchsorted(across, max(u[a], u[b], u[c]), side="right")
        top = np.searchsorted(down, min(v[a], v[b], v[c]), side="left")
        bottom = np.searchsorted(down, max(v[a], v[b], v[c]), side="right")
        if first == last or top == bottom:
            continue
        normal_u = (v[b] - v[a]) * (w[c] - w[a]) - (w[b] - w[a]) * (v[c] - v[a])
        normal_v = (w[b] - w[a]) * (u[c] - u[a]) - (u[b] - u[a]) * (w[c] - w[a])
        normal_w = (u[b] - u[a]) * (v[c] - v[a]) - (v[b] - v[a]) * (u[c] - u[a])
        low, high = min(w[a], w[b], w[c]), max(w[a], w[b], w[c])
        for i in range(first, last):
            for j in range(top, bottom):
                x, y = across[i], down[j]
                meets = (
                    _is_below(u[a], v[a], u[b], v[b], x, y)
                    ^ _is_below(u[b], v[b], u[c], v[c], x, y)
                    ^ _is_below(u[c], v[c], u[a], v[a], x, y)
                )
                if not meets:
                    continue
                height = (low + high) / 2  # of a triangle seen edge-on that rounding lets the ray meet
                if normal_w != 0:
                    height = w[a] - (normal_u * (x - u[a]) + normal_v * (y - v[a])) / normal_w
                k = np.searchsorted(along, min(max(height, low), high), side="left")
                if k < along.size:
                    crossings[i, j, k] = not crossings[i, j, k]
