"""The points of the unknowns of a DMPlex."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.solvers.petsc.versions import PETSc


class PlexPoints:
    """``points_of_plex``, kept until the mesh or its coordinates change."""

    def __init__(self) -> None:
        self._key: tuple[int, ...] = ()
        self._points: NDArray[np.float64] | None = None

    def points(self, dm: PETSc.DM | None, rows: int, comm: Any) -> NDArray[np.float64] | None:
        """Those of a DM; see ``points_of_plex``."""
        if not dm or dm.getType() != "plex" or not dm.getCoordinatesLocal():
            return None
        places = dm.getCoordinatesLocal()
        key = dm.handle, places.handle, places.stateGet(), rows
        same = key == self._key
        if not (same if comm is None else all(comm.allgather(same))):
            self._points, self._key = points_of_plex(dm, rows, comm), key
        return self._points


def points_of_plex(dm: PETSc.DM | None, rows: int, comm: Any) -> NDArray[np.float64] | None:
    """Where the local unknowns of a DMPlex lie: at vertices, and in the middles of edges, faces and cells.

    Parameters
    ----------
    dm
        What the solver carries, or the matrix was made by.
    rows
        Local rows of the matrix.
    comm
        mpi4py communicator, or None: one rank; collective.

    Returns
    -------
    (rows, dim); None on all ranks where it is another DM, or unknowns are not the rows, one a point.
    """
    if not dm or dm.getType() != "plex" or not dm.getCoordinatesLocal():
        return None
    points = _local_points(dm, rows)
    everywhere = [points is not None] if comm is None else comm.allgather(points is not None)
    return points if all(everywhere) else None


def _local_points(dm: PETSc.DM, rows: int) -> NDArray[np.float64] | None:
    section, where, places = (
        dm.getGlobalSection(),
        dm.getCoordinateSection(),
        dm.getCoordinatesLocal().array_r,
    )
    first, last = dm.getDepthStratum(0)
    dim = dm.getCoordinateDim()
    vertex = np.array([places[where.getOffset(v) :][:dim] for v in range(first, last)]).reshape(-1, dim)
    free = [(p, section.getDof(p) - section.getConstraintDof(p)) for p in range(*section.getChart())]
    held = [p for p, count in free if count > 0]  # a negative number of unknowns: another rank's
    if len(held) != rows or any(count > 1 for _, count in free):
        return None
    found = np.empty((rows, dim))
    start = min((section.getOffset(p) for p in held), default=0)
    for p in held:
        corners = p
        if not first <= p < last:
            closure = dm.getTransitiveClosure(p)[0]
            corners = closure[(closure >= first) & (closure < last)]
        found[section.getOffset(p) - start] = vertex[corners - first].reshape(-1, dim).mean(axis=0)
    return found
