"""The rows of a matrix that couple to each other, for sweeps with the matrix itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.pde.matrix.local_rows import LocalRows


@dataclass(frozen=True)
class CoupledRows:
    """A = sign * S on the coupled rows, S symmetric with a positive diagonal.

    Couplings to rows with a diagonal only are no part of S.

    Parameters
    ----------
    matrix
        The local rows.
    kind
        Of local rows and ghosts: coupled, or with a diagonal only; see stencil_kernels.
    diagonal
        Of A, of the local rows at least.
    sign
        1 or -1.
    """

    matrix: LocalRows
    kind: NDArray[np.uint8]
    diagonal: NDArray[np.float64]
    sign: int

    @property
    def csr(self) -> tuple[NDArray, ...]:
        """Row pointers, columns and values of this rank's columns, then of ghosts."""
        return *self.matrix.own, *self.matrix.others
