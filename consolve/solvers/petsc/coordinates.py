"""Coordinates that a program gives to ``-pc_type cnn`` by ``PCSetCoordinates``.

They become the attribute ``coordinates`` of the PC's Python context.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from consolve.base.messages import say
from consolve.solvers.petsc.versions import LIBRARY, PETSc, wrap_pointer

COMPOSED = b"PCSetCoordinates_C"
"""Name of the function that ``PCSetCoordinates`` looks for in a PC."""

_Receiver = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_ulonglong, ctypes.c_ulonglong, ctypes.c_void_p
)


def set_coordinates(pc: int, dim: int, rows: int, coordinates: int) -> None:
    """Copy coordinates into the Python context of a PC, as ``coordinates``, float64 of shape (rows, dim).

    Parameters
    ----------
    pc
        Address of the PC, whose type is ``cnn``.
    dim, rows
        Axes, and points of this rank, as PetscInt: bits beyond its size are dropped.
    coordinates
        Address of rows * dim numbers (PetscReal), the axes of a point together.

    Raises
    ------
    ValueError
        If there is no such array, or a number in it is not finite.
    """
    dim, rows = _petsc_int(dim), _petsc_int(rows)
    if not 1 <= dim <= 3 or rows < 0 or (rows and not coordinates):
        raise ValueError(
            f"got {rows} points of {dim} coordinates at address {coordinates:#x}, expected 1, 2 or 3 "
            "coordinates for each local row"
        )
    kind = np.dtype(PETSc.RealType)
    buffer: Any = (ctypes.c_char * (rows * dim * kind.itemsize)).from_address(coordinates) if rows else b""
    values = np.frombuffer(buffer, kind).astype(np.float64).reshape(rows, dim)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"the coordinates of local row {row} are {values[row]}; they must be finite")
    wrap_pointer("PC", pc).getPythonContext().coordinates = values


def _petsc_int(bits: int) -> int:
    kind = ctypes.c_int32 if np.dtype(PETSc.IntType).itemsize == 4 else ctypes.c_int64
    return kind(bits).value


@_Receiver
def _receive(pc: int, dim: int, rows: int, coordinates: int | None) -> int:
    try:
        set_coordinates(pc, dim, rows, coordinates or 0)
    except Exception as error:  # ctypes drops what escapes a callback
        say(f"PCSetCoordinates: {error}")
        return 62  # PETSC_ERR_ARG_WRONG
    return 0


def accept_coordinates(pc: int) -> int:
    """Let ``PCSetCoordinates`` reach the PC at this address; returns PETSc's error code.

    A change of type takes that away again.
    """
    return LIBRARY.PetscObjectComposeFunction_Private(ctypes.c_void_p(pc), COMPOSED, _receive)
