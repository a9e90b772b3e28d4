"""The rows of a PETSc matrix that one rank holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from consolve.base.errors import MatrixError
from consolve.pde.matrix.local_rows import LocalRows
from consolve.solvers.petsc.versions import PETSc, csr_arrays, mpi_aij_parts


def communicator(mat: PETSc.Mat) -> Any:
    """The mpi4py communicator of ``mat``; None on one rank, which needs no mpi4py."""
    return mat.comm.tompi4py() if mat.comm.size > 1 else None


def as_aij(mat: PETSc.Mat) -> PETSc.Mat:
    """``mat`` itself if it is AIJ, else a copy of that type; collective.

    Raises
    ------
    MatrixError
        If PETSc cannot convert it.
    """
    kind = mat.getType()
    if kind == ("seqaij" if mat.comm.size == 1 else "mpiaij"):
        return mat
    try:
        return mat.convert("aij" if mat.comm.size > 1 else "seqaij", PETSc.Mat())
    except PETSc.Error as error:
        raise MatrixError(f"the matrix of type {kind!r} cannot be converted to AIJ ({error})") from error


class LocalMatrix(LocalRows):
    """The local rows of an AIJ matrix, without copies: valid as long as the matrix is unchanged.

    Parameters
    ----------
    mat
        An AIJ matrix.
    """

    def __init__(self, mat: PETSc.Mat) -> None:
        self._held = mat, *(parts := () if mat.comm.size == 1 else mpi_aij_parts(mat))
        if not parts:
            super().__init__(csr_arrays(mat))
            return
        own, others, ghosts = parts
        ranges = np.asarray(mat.getOwnershipRanges())
        super().__init__(csr_arrays(own), csr_arrays(others), ghosts, ranges, communicator(mat))
