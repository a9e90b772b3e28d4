"""r = b - A x by all threads, for a matrix of one rank: PETSc 3.18's own product of AIJ uses one."""

from __future__ import annotations

import numba
import numpy as np
from numba import njit

from consolve.base.jit import STRICT
from consolve.base.threads import run_lines
from consolve.solvers.petsc.versions import PETSc, csr_arrays

_1, _2, _3, _4, _5, _6 = (np.uint64(n) for n in range(1, 7))
_WHOLE = np.uint64(7)


@njit(fastmath={"contract"}, **STRICT)
def _residual_of_rows(indptr, indices, values, b, x, r, first, last):
    """Sum of squares of r on rows first..last - 1.  Bytes per row of m entries: 12 m + 4 and 24 for the
    vectors."""
    square = 0.0
    q = np.uint64(indptr[first])
    for row in range(first, last):
        stop = np.uint64(indptr[row + 1])
        total = b[row]
        if stop - q == _WHOLE:  # the rows of cells with all neighbours: most of them, and without a loop
            left = values[q] * x[np.uint64(indices[q])] + values[q + _1] * x[np.uint64(indices[q + _1])]
            middle = (
                values[q + _2] * x[np.uint64(indices[q + _2])]
                + values[q + _3] * x[np.uint64(indices[q + _3])]
            )
            right = (
                values[q + _4] * x[np.uint64(indices[q + _4])]
                + values[q + _5] * x[np.uint64(indices[q + _5])]
            )
            total -= (left + middle) + (right + values[q + _6] * x[np.uint64(indices[q + _6])])
            q = stop
        while q < stop:
            total -= values[q] * x[np.uint64(indices[q])]
            q += _1
        r[row] = total
        square += total * total
    return square


@njit(**STRICT)
def _residual(indptr, indices, values, b, x, r, parts, square, first, end):
    rows = indptr.size - 1
    for part in range(first, end):
        square[part] = _residual_of_rows(
            indptr, indices, values, b, x, r, rows * part // parts, rows * (part + 1) // parts
        )


def residual_norm(A: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec, r: PETSc.Vec) -> float:
    """r = b - A x, and its 2-norm; A is of type ``seqaij``."""
    parts = numba.get_num_threads()
    square = np.zeros(parts)
    run_lines(_residual, parts, parts, *csr_arrays(A), b.array_r, x.array_r, r.array_w, parts, square)
    return float(np.sqrt(square.sum()))
