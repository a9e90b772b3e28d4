"""PETSc through petsc4py and ctypes: all that differs between versions, or that petsc4py does not wrap.

Every other file of the package takes ``PETSc`` from here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

LIBRARY = ctypes.CDLL(PETSc.__file__)
"""Reaches the symbols of the PETSc library that petsc4py is linked with."""

_HOST_MEMORY = 0
_API = PETSc.__pyx_capi__
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))


def call(function: str, *arguments: Any) -> None:
    """Call a function of PETSc that returns an error code; raise ``PETSc.Error`` unless it is 0."""
    code = getattr(LIBRARY, function)(*arguments)
    if code:
        raise PETSc.Error(code)


def innermost(error: PETSc.Error) -> str:
    """What an error says, without PETSc's stack."""
    lines = [line.partition("] ")[2] or line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "PETSc error"


def handle(petsc_object: PETSc.Object) -> ctypes.c_void_p:
    """The C pointer of an object."""
    return ctypes.c_void_p(petsc_object.handle)


def wrap_pointer(kind: str, pointer: int) -> PETSc.Object:
    """The petsc4py object (``kind``: "PC", "KSP", "IS" or "Mat") of a C pointer; takes its own reference."""
    capsule = _API[f"PyPetsc{kind}_New"]
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p)(
        _capsule_pointer(capsule, _capsule_name(capsule))
    )
    return new(pointer)


def self_communicator() -> ctypes.c_void_p:
    """MPI's communicator of this rank alone, as an argument for `LIBRARY`: a pointer or a number."""
    capsule = _API["PyPetscComm_Get"]
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(
        _capsule_pointer(capsule, _capsule_name(capsule))
    )
    return ctypes.c_void_p(get(PETSc.COMM_SELF))


def csr_arrays(mat: PETSc.Mat) -> tuple[NDArray, NDArray, NDArray]:
    """Row pointers, columns and values of a ``seqaij`` matrix.

    Views of the matrix's own memory where it is in host memory, copies elsewhere: read them only, and only
    while ``mat`` lives unchanged.
    """
    rows = mat.getLocalSize()[0]
    if hasattr(LIBRARY, "MatSeqAIJGetCSRAndMemType") and mat.getType() == "seqaij":
        indptr, indices, values = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        memory = ctypes.c_int(-1)
        call(
            "MatSeqAIJGetCSRAndMemType",
            handle(mat),
            *(ctypes.byref(p) for p in (indptr, indices, values, memory)),
        )
        if memory.value == _HOST_MEMORY and indptr.value:
            offsets = _view(indptr, rows + 1, PETSc.IntType)
            entries = int(offsets[-1])
            return offsets, _view(indices, entries, PETSc.IntType), _view(values, entries, PETSc.ScalarType)
    return mat.getValuesCSR()


def mpi_aij_parts(mat: PETSc.Mat) -> tuple[PETSc.Mat, PETSc.Mat, NDArray]:
    """Columns of this rank, the other columns, and the global numbers of those, of an ``mpiaij`` matrix.

    Nothing is copied: both parts (``seqaij``) and the numbers live as long as ``mat`` is unchanged.
    """
    own, others, numbers = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    call("MatMPIAIJGetSeqAIJ", handle(mat), *(ctypes.byref(p) for p in (own, others, numbers)))
    parts = wrap_pointer("Mat", own.value or 0), wrap_pointer("Mat", others.value or 0)
    return *parts, _view(numbers, parts[1].getSize()[1], PETSc.IntType)


def _view(pointer: ctypes.c_void_p, size: int, dtype: type[np.generic]) -> NDArray:
    if size == 0 or pointer.value is None:
        return np.empty(0, dtype)
    buffer: Any = (ctypes.c_char * (size * np.dtype(dtype).itemsize)).from_address(pointer.value)
    array = np.frombuffer(buffer, dtype)
    array.flags.writeable = False
    return array


def dot_products(x: PETSc.Vec, others: Sequence[PETSc.Vec]) -> NDArray[np.float64]:
    """(x, y) for each y of ``others`` (x may be one of them), by one reduction over the ranks."""
    result = np.zeros(len(others), PETSc.ScalarType)
    if others:
        count = (ctypes.c_int64 if np.dtype(PETSc.IntType).itemsize == 8 else ctypes.c_int32)(len(others))
        pointers = (ctypes.c_void_p * len(others))(*(y.handle for y in others))
        call("VecMDot", handle(x), count, pointers, ctypes.c_void_p(result.ctypes.data))
    return result


def row_range(mat: PETSc.Mat) -> tuple[int, int]:
    """First row of this rank, and one past its last; collective.

    ``MatGetOwnershipRange``, except where PETSc 3.18 forgets it: in what MatConvert makes of a parallel AIJ
    matrix for the type ``sell``.
    """
    start, stop = mat.getOwnershipRange()
    rows = mat.getLocalSize()[0]
    if mat.comm.size == 1 or mat.getType() != "mpisell":
        return start, stop
    last = mat.comm.tompi4py().scan(rows)
    return last - rows, last


def support_only_true_residual(ksp: PETSc.KSP) -> None:
    """Let ``ksp`` offer the unpreconditioned norm, or none; another is then an error of PETSc's."""
    norm, side = PETSc.KSP.NormType, PETSc.PC.Side
    priorities = {(norm.UNPRECONDITIONED, side.LEFT): 3, (norm.NONE, side.LEFT): 1}
    for kind in (norm.NONE, norm.PRECONDITIONED, norm.UNPRECONDITIONED, norm.NATURAL):
        for where in (side.LEFT, side.RIGHT, side.SYMMETRIC):
            priority = priorities.get((kind, where), 0)
            call("KSPSetSupportedNorm", handle(ksp), int(kind), int(where), priority)


def is_option_used(name: str) -> bool:
    """True if PETSc has asked its database for the option ``name`` (with prefix, without dash)."""
    used = ctypes.c_int(0)
    call("PetscOptionsUsed", None, name.encode(), ctypes.byref(used))
    return bool(used.value & 0xFF)


def options_of(petsc_object: PETSc.Object) -> PETSc.Options:
    """The options database under the prefix of ``petsc_object``; what is read counts as used."""
    return PETSc.Options(petsc_object.getOptionsPrefix())
