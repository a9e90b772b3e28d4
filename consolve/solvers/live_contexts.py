"""Python contexts of solvers that are still alive, released before the interpreter ends.

PETSc finalises after Python is gone; an older PETSc that then still holds a solver of a Python type calls
into nothing and crashes.  So at exit each such solver gets a type without Python in it.
"""

from __future__ import annotations

import atexit
from typing import Any

from consolve.solvers.petsc import PETSc, call

_PLAIN_TYPE = {"PC": b"none", "KSP": b"preonly"}
_pointers: dict[int, tuple[str, int]] = {}


def add(context: Any, kind: str, solver: PETSc.Object) -> None:
    """Note that ``solver`` (of ``kind`` "PC" or "KSP") holds ``context``; keeps neither alive."""
    _pointers[id(context)] = (kind, solver.handle)


def discard(context: Any) -> None:
    """Forget a context that its solver let go."""
    _pointers.pop(id(context), None)


@atexit.register
def _release_all() -> None:
    import ctypes

    if not PETSc.Sys.isInitialized() or PETSc.Sys.isFinalized():
        return
    for kind, pointer in list(_pointers.values()):
        call(f"{kind}SetType", ctypes.c_void_p(pointer), _PLAIN_TYPE[kind])
    _pointers.clear()
