"""The Python side of the plugin's start, inside the program that solves."""

from __future__ import annotations

import ctypes
import importlib.machinery
import sys
from pathlib import Path


def start(petsc: int, failed: int) -> str | None:
    """Import ``consolve.solvers`` for the PETSc whose ``PetscInitialize`` is at the address ``petsc``.

    ``failed`` is the address of what is to be called when a method of it has failed.

    Importing a petsc4py that is linked with another PETSc would start that one too, in a process that has
    initialised MPI already, and end in a crash; so it is looked at before it is imported.

    Returns
    -------
    None, or a message that says why it cannot be done.
    """
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})"
    try:
        extension = petsc4py_extension()
    except ImportError as error:
        return f"{python} cannot import petsc4py: {error}; install it there, built for the program's PETSc"
    try:
        own = ctypes.cast(ctypes.CDLL(str(extension)).PetscInitialize, ctypes.c_void_p).value or 0
    except OSError as error:
        return (
            f"the petsc4py of {python} cannot be loaded beside the program's PETSc {library_at(petsc)}: "
            f"{error}; install one that is built for that PETSc"
        )
    if own != petsc:
        return (
            f"the petsc4py of {python} is linked with another PETSc than the program: {extension} uses "
            f"{library_at(own)}, the program {library_at(petsc)}; install a petsc4py that is built for the "
            "program's PETSc, or name a Python that has one by CONSOLVE_PYTHON"
        )
    try:
        import consolve.solvers  # noqa: F401
    except Exception as error:
        return f"{python} cannot import consolve.solvers: {type(error).__name__}: {error}"
    from petsc4py import PETSc

    scalar = PETSc.ScalarType().dtype.name
    if scalar != "float64":
        return f"the program's PETSc {library_at(petsc)} computes in {scalar}; consolve needs one for float64"
    from consolve.solvers.petsc.reporting import translators

    translators.append(ctypes.CFUNCTYPE(None)(failed))
    return None


def petsc4py_extension() -> Path:
    """The file of petsc4py that is linked with PETSc, found without loading it.

    Raises
    ------
    ImportError
        If there is no petsc4py, or no such file in it.
    """
    loaded = sys.modules.get("petsc4py.PETSc")
    if loaded is not None:
        return Path(str(loaded.__file__))
    import petsc4py.lib

    folder = Path(*petsc4py.lib.getPathArchPETSc())
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (folder / f"PETSc{suffix}").is_file():
            return folder / f"PETSc{suffix}"
    raise ImportError(f"there is no extension module PETSc in {folder}")


class _SymbolInfo(ctypes.Structure):
    """``Dl_info`` of dlfcn.h."""

    _fields_ = (
        ("library", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def library_at(address: int) -> str:
    """Path of the loaded library, or program, that holds the address."""
    info = _SymbolInfo()
    find = ctypes.CDLL(None).dladdr
    find.argtypes = ctypes.c_void_p, ctypes.POINTER(_SymbolInfo)
    if not find(address, ctypes.byref(info)) or not info.library:
        return "an unknown library"
    return info.library.decode(errors="replace")
