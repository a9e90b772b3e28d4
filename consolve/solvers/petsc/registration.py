"""The PETSc types ``-pc_type cnn`` and ``-ksp_type dcd``, registered from Python without a compiler.

Each is PETSc's type ``python`` with its class set, under a name of its own.  The plugin for other programs
(``consolve/plugin/consolve_petsc.c``) does the same in C.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from consolve.base.messages import say
from consolve.solvers.petsc.coordinates import accept_coordinates
from consolve.solvers.petsc.versions import LIBRARY, call

TYPES = {("PC", "cnn"): "consolve.solvers.PCCNN", ("KSP", "dcd"): "consolve.solvers.KSPDCD"}
"""PETSc class and type name -> Python class, as in ``-pc_python_type`` and ``-ksp_python_type``."""

_Creator = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_creators: list[Callable] = []
"""PETSc keeps only the addresses of these."""


def _creator(kind: str, name: str, python_class: str) -> Callable:
    steps = (
        # a solver that was of type "python" before would else be taken for one already created
        ("PetscObjectChangeTypeName", name.encode()),
        (f"{kind}SetType", b"python"),
        (f"{kind}PythonSetType", python_class.encode()),
        ("PetscObjectChangeTypeName", name.encode()),
    )

    @_Creator
    def create(pointer: int) -> int:
        try:
            for function, argument in steps:
                code = getattr(LIBRARY, function)(ctypes.c_void_p(pointer), argument)
                if code:
                    return code
            if kind == "PC":
                return accept_coordinates(pointer)
        except BaseException as error:  # ctypes drops what escapes a callback
            say(f"cannot create {kind} {name}: {error!r}")
            return 101
        return 0

    return create


def register() -> None:
    """Make ``cnn`` and ``dcd`` known to PETSc; harmless when done twice, or after the plugin did it.

    Raises
    ------
    RuntimeError
        If PETSc refuses.
    """
    if _creators:
        return
    for (kind, name), python_class in TYPES.items():
        if _is_known(kind, name):
            continue
        creator = _creator(kind, name, python_class)
        _creators.append(creator)
        code = getattr(LIBRARY, f"{kind}Register")(name.encode(), creator)
        if code:
            raise RuntimeError(f"{kind}Register({name!r}) returned PETSc's error {code}")


def _is_known(kind: str, name: str) -> bool:
    found = ctypes.c_void_p()
    types = ctypes.c_void_p.in_dll(LIBRARY, f"{kind}List")
    call("PetscFunctionListFind_Private", types, name.encode(), ctypes.byref(found))
    return bool(found.value)
