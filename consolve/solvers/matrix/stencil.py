"""A PETSc matrix as the Poisson operator of a structured grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from consolve.base.errors import MatrixError
from consolve.pde.matrix import stencil
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.stencil import Stencil
from consolve.solvers.matrix.local_matrix import LocalMatrix, as_aij
from consolve.solvers.petsc.versions import PETSc


def read_stencil(mat: PETSc.Mat, grid: GridMap, null_space: PETSc.NullSpace | None = None) -> Stencil:
    """Read an assembled matrix, AIJ or of a type that PETSc converts to AIJ; collective.

    See ``consolve.pde.matrix.stencil.read_stencil``; `check_matrix` has to have passed.
    """
    rows = None if null_space is None else null_rows(mat, null_space)
    return stencil.read_stencil(LocalMatrix(as_aij(mat)), grid, rows)


def null_rows(mat: PETSc.Mat, null_space: PETSc.NullSpace) -> NDArray[np.bool_]:
    """The local rows in which the constant vector lies in a null space; collective."""
    ones = mat.createVecRight()
    ones.set(1.0)
    null_space.remove(ones)
    rows = np.abs(ones.array_r) < 1e-6
    ones.destroy()
    return rows


def check_matrix(mat: PETSc.Mat) -> None:
    """Raise MatrixError if ``mat`` is of a kind that cannot be read, whatever its grid."""
    if np.issubdtype(PETSc.ScalarType, np.complexfloating):
        raise MatrixError("this PETSc is built with complex scalars; PC cnn needs a build with real scalars")
    (rows, columns), block = mat.getSize(), mat.getBlockSize()
    if rows != columns:
        raise MatrixError(f"the matrix is {rows} x {columns}, expected a square one")
    if block > 1:
        raise MatrixError(
            f"the matrix has blocks of {block} unknowns; PC cnn solves scalar equations: split the fields "
            "(-pc_type fieldsplit with -fieldsplit_pc_type cnn), or use -pc_type gamg"
        )
    kind = mat.getType()
    if kind in ("python", "shell", "mffd"):
        raise MatrixError(
            f"the matrix to build the preconditioner from is of type {kind!r}, whose entries cannot be read; "
            "pass an assembled AIJ matrix as the second (preconditioning) operator"
        )
    if not mat.isAssembled():
        raise MatrixError("the matrix is not assembled; call MatAssemblyBegin and MatAssemblyEnd first")
