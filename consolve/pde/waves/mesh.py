"""DOLFINx meshes of wave problems: cells left out, sides found, values at points."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.dolfinx_versions import (
    first_colliding_cells,
    geometry_rows,
    mesh_like,
    meshes,
)
from consolve.pde.waves.problem import MediumLike

SIDES = {"left": (0, 0.0), "right": (0, 1.0), "bottom": (1, 0.0), "top": (1, 1.0)}
"""Axis and place of the sides of the unit square."""
_CLOSE = 1e-9


def unit_square_mesh(vertices: int, comm: Any = MPI.COMM_WORLD) -> Any:
    """The triangle mesh of :class:`consolve.pde.waves.grid.WaveGrid` with ``vertices`` x ``vertices``."""
    if int(vertices) != vertices or vertices < 2:
        raise ValueError(f"a mesh of the unit square has at least 2 vertices a side, got {vertices}")
    return meshes.create_unit_square(comm, int(vertices) - 1, int(vertices) - 1)


def check_mesh(mesh: Any) -> None:
    """Raise ValueError unless the mesh is of straight triangles in the plane."""
    corners = mesh.geometry.x.shape[0] if mesh.geometry.dim == 2 else -1
    if mesh.topology.dim != 2 or corners < 0 or "triangle" not in str(mesh.topology.cell_name()):
        raise ValueError(
            f"waves are solved on meshes of triangles in 2D, got {mesh.topology.cell_name()} cells in "
            f"{mesh.geometry.dim}D"
        )


def midpoints(mesh: Any) -> NDArray[np.float64]:
    """(cells, 2) of the local cells, ghosts included."""
    nodes = geometry_rows(mesh, 3)
    return mesh.geometry.x[nodes].mean(axis=1)[:, :2]


def without_holes(mesh: Any, medium: MediumLike) -> Any:
    """The mesh without the cells whose midpoint lies in a hole of the medium; ``mesh`` itself if none does.

    Collective.  Cells go to rank 0 and are spread again, so that ranks keep equal shares.

    Raises
    ------
    ValueError
        If no cell is left.
    """
    owned = mesh.topology.index_map(2).size_local
    middle = midpoints(mesh)[:owned]
    kept = ~medium.hole(middle[:, 0], middle[:, 1])
    comm = mesh.comm
    cells, left = comm.allreduce(owned), comm.allreduce(int(kept.sum()))
    if left == cells:
        return mesh
    if left == 0:
        raise ValueError("the holes of the medium leave no cell of the mesh")
    nodes = geometry_rows(mesh, 3)[:owned][kept]
    numbers = mesh.geometry.index_map().local_to_global(nodes.reshape(-1).astype(np.int32)).reshape(-1, 3)
    parts = comm.gather((numbers, mesh.geometry.x[nodes][:, :, :2]))
    if comm.rank == 0:
        numbers, places = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        _, first, triangles = np.unique(numbers, return_index=True, return_inverse=True)
        x, triangles = places.reshape(-1, 2)[first], triangles.reshape(-1, 3)
    else:
        x, triangles = np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    return mesh_like(mesh, np.ascontiguousarray(triangles, np.int64), np.ascontiguousarray(x))


def side_facets(mesh: Any, side: str) -> NDArray[np.int32]:
    """Exterior facets of the mesh on a side of the unit square."""
    axis, place = SIDES[side]
    return meshes.locate_entities_boundary(mesh, 1, lambda x: abs(x[axis] - place) < _CLOSE)


class Probe:
    """Values of functions at points, on all ranks.  Making one and calling it are collective.

    Parameters
    ----------
    mesh
        Of the functions.
    points
        (k, 2).
    required
        Raise if a point lies in no cell; otherwise its value is 0.
    """

    def __init__(self, mesh: Any, points: ArrayLike, required: bool = True) -> None:
        places = np.asarray(points, np.float64)
        if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
            raise ValueError(f"points are an array (k, 2) of finite x and y, got shape {places.shape}")
        spatial = np.column_stack([places, np.zeros(len(places))])
        cells = first_colliding_cells(mesh, spatial)
        rank, size = mesh.comm.rank, mesh.comm.size
        owner = np.where(cells >= 0, rank, size)
        mesh.comm.Allreduce(MPI.IN_PLACE, owner, op=MPI.MIN)
        if required and (owner == size).any():
            x, y = places[int(np.argmax(owner == size))]
            raise ValueError(f"the point ({x:g}, {y:g}) lies outside the mesh")
        self._comm, self._count = mesh.comm, len(places)
        self._mine = np.flatnonzero(owner == rank)
        self._points, self._cells = spatial[self._mine], cells[self._mine]

    def __call__(self, function: Any) -> NDArray[np.float64]:
        """(k,); the ghosts of ``function`` must be up to date."""
        values = np.zeros(self._count)
        if self._mine.size:
            values[self._mine] = function.eval(self._points, self._cells).reshape(-1)
        self._comm.Allreduce(MPI.IN_PLACE, values)
        return values
