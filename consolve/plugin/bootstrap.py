"""First Python code of a program that loads the PETSc plugin; compiled into it as text.

It is not imported: ``consolve`` may still have to be found.  The functions return None, or a message.
"""

from __future__ import annotations


def start(petsc: int, failed: int, version: str, paths: str) -> str | None:
    """Find and import consolve; see :func:`consolve.plugin.start.start`.

    Parameters
    ----------
    petsc
        Address of the program's ``PetscInitialize``.
    failed
        Address of what is to be called when a method in Python has failed.
    version
        Version (such as 3.11) of the Python that built the plugin.
    paths
        Where that Python found consolve and its other packages, one a line; used if the Python that runs has
        the same version and lacks consolve or petsc4py.
    """
    import importlib.util
    import sys

    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        found = all(importlib.util.find_spec(name) for name in ("consolve", "petsc4py"))
        if not found and running == version:
            sys.path.extend(path for path in paths.splitlines() if path not in sys.path)
        from consolve.plugin.start import start as start_consolve
    except Exception as error:
        return (
            f"Python {running} ({sys.executable}) cannot import consolve: {type(error).__name__}: {error}; "
            "install it there, or (in a program that is not Python) name another Python by CONSOLVE_PYTHON"
        )
    return start_consolve(petsc, failed)


def set_coordinates(pc: int, dim: int, rows: int, coordinates: int) -> str | None:
    """``PCSetCoordinates``; see :func:`consolve.solvers.petsc.coordinates.set_coordinates`."""
    try:
        from consolve.solvers.petsc.coordinates import set_coordinates as keep

        keep(pc, dim, rows, coordinates)
    except Exception as error:
        return f"PCSetCoordinates: {type(error).__name__}: {error}"
    return None


def flush() -> None:
    """Write out what Python has printed."""
    import sys

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # no stream, or a reader that has gone
            pass
