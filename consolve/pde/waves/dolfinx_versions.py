"""Every difference between DOLFINx 0.5 and 0.9 to 0.11 that this package meets.

Nothing else asks for a version: elsewhere calls are those that all versions share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import dolfinx
    import dolfinx.fem.petsc  # not imported by dolfinx.fem from 0.6 on
    import ufl
    from dolfinx import fem, geometry
    from dolfinx import mesh as meshes
    from petsc4py import PETSc
except ImportError as error:
    raise ImportError(
        f"finite elements need DOLFINx (0.5, or 0.9 and newer) with petsc4py of real scalars, and {error}; "
        f"install python3-dolfinx-real from a Debian archive, fenics-dolfinx from conda-forge or "
        f"dolfinx-solver-real from PyPI"
    ) from error

if np.dtype(PETSc.ScalarType) != np.dtype(np.float64):
    raise ImportError(
        f"DOLFINx works with PETSc scalars of {np.dtype(PETSc.ScalarType)} here; a build of float64 is needed"
    )

_TOUCH = 1e-10
VERSION = tuple(int(part) for part in dolfinx.__version__.split(".")[:2])


def function_space(mesh: Any, family: str, degree: int) -> Any:
    """Scalar function space: ``fem.FunctionSpace`` until 0.7, ``fem.functionspace`` since."""
    make = getattr(fem, "functionspace", None) or fem.FunctionSpace
    return make(mesh, (family, degree))


def assembled_matrix(form: Any) -> Any:
    """PETSc matrix of a bilinear form without constraints, assembled."""
    matrix = dolfinx.fem.petsc.assemble_matrix(fem.form(form))
    matrix.assemble()
    return matrix


def geometry_rows(mesh: Any, width: int) -> NDArray[np.int32]:
    """(cells, width): nodes of the local cells."""
    return rows_of(mesh.geometry.dofmaps[0] if VERSION >= (0, 11) else mesh.geometry.dofmap, width)


def rows_of(connectivity: Any, width: int) -> NDArray[np.int32]:
    """(cells, width) of a dofmap's list: an adjacency list until 0.6, an array since."""
    return np.asarray(getattr(connectivity, "array", connectivity)).reshape(-1, width)


def first_colliding_cells(mesh: Any, points: NDArray[np.float64]) -> NDArray[np.int32]:
    """For each of the points (k, 3) a cell of this rank that holds it, owned or ghost; -1 where none does."""
    dim = mesh.topology.dim
    tree: Any = geometry
    if VERSION >= (0, 7):
        candidates = tree.compute_collisions_points(tree.bb_tree(mesh, dim, padding=_TOUCH), points)
    else:
        candidates = tree.compute_collisions(tree.BoundingBoxTree(mesh, dim, padding=_TOUCH), points)
    cells = geometry.compute_colliding_cells(mesh, candidates, points)
    first = np.full(len(points), -1, np.int32)
    starts, array = np.asarray(cells.offsets), np.asarray(cells.array)
    found = starts[1:] > starts[:-1]
    first[found] = array[starts[:-1][found]]
    return first


def mesh_like(mesh: Any, cells: NDArray[np.int64], x: NDArray[np.float64]) -> Any:
    """Mesh of other cells and nodes, given on any ranks, with the communicator and element of ``mesh``.

    The argument of the element was called ``domain`` until 0.7, and the order of arguments changed in 0.10.
    """
    domain = mesh.ufl_domain()
    domain = ufl.Mesh(domain.ufl_coordinate_element())
    name = "domain" if VERSION < (0, 8) else "e"
    return meshes.create_mesh(mesh.comm, cells=cells, x=x, **{name: domain})
