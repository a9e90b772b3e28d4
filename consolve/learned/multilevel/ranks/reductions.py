"""Facts and sums over all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np


class Reductions:
    """Reductions over a communicator; each is collective.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._addend, self._added = np.empty(1), np.empty(1)

    def sum(self, value: Any) -> Any:
        """Of any object that can be added."""
        return value if self._comm is None else self._comm.allreduce(value)

    def total(self, value: float) -> float:
        """Sum of a number only: faster than that of any object."""
        if self._comm is None:
            return value
        self._addend[0] = value
        self._comm.Allreduce(self._addend, self._added)
        return float(self._added[0])

    def maximum(self, value: float) -> float:
        """The greatest of a number."""
        if self._comm is None:
            return value
        from mpi4py import MPI

        return float(self._comm.allreduce(value, MPI.MAX))

    def all(self, fact: bool) -> bool:
        """True where it is so on every rank."""
        return not self.any(not fact)

    def any(self, fact: bool) -> bool:
        """True where it is so on some rank."""
        return bool(self.sum(int(fact)))
