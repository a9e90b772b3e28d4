"""Where the rows of a matrix lie on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GridMap:
    """Place of each row on a grid.

    Parameters
    ----------
    shape
        Cells along each axis, in NumPy's order: (NY, NX) or (NZ, NY, NX).
    cells
        C-order cell index of each local row: int64 on several ranks and from 2^31 cells on, else int32.
    origin
        What it came from, for messages.
    periodic
        For each axis: the last cell is a neighbour of the first; default: none is.
    """

    shape: tuple[int, ...]
    cells: NDArray[np.int32] | NDArray[np.int64]
    origin: str
    periodic: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.periodic:
            object.__setattr__(self, "periodic", (False,) * len(self.shape))
