"""Python contexts of solvers that are still alive, released before the interpreter ends.

PETSc finalises after Python is gone; an older PETSc that then still holds a solver of a Python type calls
into nothing and crashes.  So at exit each such solver gets a type without Python in it.
"""

from __future__ import annotations

import atexit

from consolve.solvers.petsc import events
from consolve.solvers.petsc.versions import PETSc, call

_PLAIN_TYPE = {"PC": b"none", "KSP": b"preonly"}
_pointers: set[tuple[str, int]] = set()
_generation = [0]


def add(kind: str, solver: PETSc.Object) -> None:
    """Note that ``solver`` (of ``kind`` "PC" or "KSP") holds a context of ours; does not keep it alive."""
    if _generation[0] != events.generation:  # what an earlier PETSc left alive is no one's any more
        _generation[0] = events.generation
        _pointers.clear()
    _pointers.add((kind, solver.handle))


def discard(kind: str, solver: PETSc.Object) -> None:
    """Forget a solver that let its context go."""
    _pointers.discard((kind, solver.handle))


@atexit.register
def _release_all() -> None:
    import ctypes

    if not PETSc.Sys.isInitialized() or PETSc.Sys.isFinalized():
        return
    for kind, pointer in list(_pointers):
        call(f"{kind}SetType", ctypes.c_void_p(pointer), _PLAIN_TYPE[kind])
    _pointers.clear()
