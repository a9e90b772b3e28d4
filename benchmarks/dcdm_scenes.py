"""Scenes of the paper's experiment: a smoke plume in an empty box, and one past a body from a mesh file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from consolve.pde.flow.scenes import Scene, Source
from consolve.pde.flow.voxelise import MeshBody, fitted
from consolve.pde.poisson.grid import AIR, SOLID

SCENES = ("plume", "body")
BODY_CENTRE, BODY_SIZE = (0.40, 0.5, 0.5), 0.42


class MissingMesh(Exception):
    """No mesh, or no reader for it."""


def bunny() -> Path:
    """The Stanford bunny that the package pymeshfix ships as an example; its code is not loaded.

    Raises
    ------
    MissingMesh
        If it is not installed.
    """
    package = find_spec("pymeshfix")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder, "examples", "StanfordBunny.ply")
        if path.is_file():
            return path
    raise MissingMesh(
        "no pymeshfix with examples/StanfordBunny.ply: pip install pymeshfix, or give --mesh FILE"
    )


def body(path: Path, up: int, ndim: int) -> MeshBody:
    """The mesh of a file, read by meshio, in the middle of a unit box; for a flow of 2 axes its middle slice.

    Parameters
    ----------
    path
        PLY, STL, OBJ or whatever else meshio reads, of triangles.
    up
        Axis of the file that points up.
    ndim
        Axes of the flow.

    Raises
    ------
    MissingMesh
        If meshio is not installed, or cannot read triangles from the file.
    """
    try:
        import meshio
    except ImportError:
        raise MissingMesh(f"reading {path} needs meshio: pip install meshio") from None
    try:
        mesh = meshio.read(path)
    except (OSError, meshio.ReadError) as error:
        raise MissingMesh(f"{path}: {error or 'cannot be read'}") from error
    except SystemExit:  # what meshio's readers do on a file that they cannot parse
        raise MissingMesh(f"{path}: meshio cannot read it") from None
    if "triangle" not in mesh.cells_dict:
        raise MissingMesh(f"{path} holds {', '.join(mesh.cells_dict) or 'no cells'}, expected triangles")
    vertices = fitted(mesh.points, BODY_CENTRE, BODY_SIZE, up)
    return MeshBody(vertices, mesh.cells_dict["triangle"], slice_at=BODY_CENTRE[2] if ndim == 2 else 0.0)


def make(name: str, ndim: int, n: int, mesh: Path | None, up: int) -> Scene:
    """A scene of ``SCENES`` on a grid of n cells a side: walls solid, top open, hot smoke from the floor."""
    source = Source((0.0, 0.5, 0.5)[:ndim], 0.10 if ndim == 2 else 0.14)
    bodies = (body(mesh or bunny(), up, ndim),) if name == "body" else ()
    outside = ((SOLID, AIR), *[(SOLID, SOLID)] * (ndim - 1))
    return Scene(
        name, (n,) * ndim, outside, bodies, (source,), vorticity_confinement=0.08, cooling=0.3, seed=0
    )
