"""Rows with a diagonal only that other rows still couple to, as MatZeroRows leaves them: eliminated from a
preconditioner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from consolve.pde.matrix.boundary_couplings import Couplings
from consolve.solvers.petsc.versions import PETSc


class BoundaryRows:
    """The boundary part b of A = [[A_bb, 0], [A_ib, A_ii]], with A_bb diagonal; its methods are collective.

    A preconditioner S of the symmetric A_ii becomes ::

        M = [[A_bb^-1, 0], [-S A_ib A_bb^-1, S]],    M A = [[1, 0], [0, S A_ii]]

    so that A is as good as eliminated, whatever the residual of the boundary rows is.

    Parameters
    ----------
    mat
        A.
    couplings
        A_ib.
    rows, inverse
        Local rows b, and 1 / a_bb of each, 0 where a_bb = 0.
    """

    def __init__(
        self, mat: PETSc.Mat, couplings: Couplings, rows: NDArray[np.int32], inverse: NDArray[np.float64]
    ) -> None:
        row, column, value = couplings
        local = mat.getLocalSize()[0]
        pointers = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=local))))
        csr = pointers.astype(PETSc.IntType), column.astype(PETSc.IntType), value
        self._couplings = PETSc.Mat().createAIJ(mat.getSizes(), csr=csr, comm=mat.comm)
        self._values, self._result = self._couplings.createVecs()
        self._values.set(0.0)
        self._rows, self._inverse = rows, inverse

    def eliminate(self, r: PETSc.Vec) -> PETSc.Vec:
        """r_i - A_ib A_bb^-1 r_b in the place of r_i: in ``r`` itself where r_b = 0, else in a vector that is
        good until the next call."""
        boundary = r.array_r[self._rows]
        if r.comm.size == 1 and not boundary.any():
            return r
        self._values.array_w[self._rows] = self._inverse * boundary
        self._couplings.mult(self._values, self._result)
        self._result.aypx(-1.0, r)
        return self._result

    def substitute(self, z: PETSc.Vec) -> None:
        """z_b - A_bb^-1 A_ib' z_i in the place of z_b: the transpose of ``eliminate``."""
        self._couplings.multTranspose(z, self._result)
        z.array_w[self._rows] -= self._inverse * self._result.array_r[self._rows]

    def destroy(self) -> None:
        """Give up what PETSc holds."""
        for held in (self._couplings, self._values, self._result):
            held.destroy()
