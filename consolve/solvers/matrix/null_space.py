"""The null space of an operator without Dirichlet rows: constants on each closed component."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.pde.matrix.stencil_kernels import group_sums, remove_means, subtract_means
from consolve.solvers.matrix.assembly import check_sums


class ClosedComponents:
    """Rows that no path through open faces joins to a Dirichlet boundary, by component.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    group
        int32: number of each local row's closed component, -1 for rows of none.
    size
        Rows of each over all ranks.
    """

    def __init__(self, comm: Any, group: NDArray[np.int32], size: NDArray[np.int64]) -> None:
        self._comm, self._group, self.size = comm, group, size

    def remove(self, source: NDArray[np.float64], target: NDArray[np.float64]) -> None:
        """target = source less its mean over each component; collective."""
        if self._comm is None:
            remove_means(self._group, self.size, source, target)
            return
        total = group_sums(self._group, self.size.size, source)[0]
        everywhere = np.empty_like(total)
        self._comm.Allreduce(total, everywhere)
        subtract_means(self._group, everywhere / self.size, source, target)

    def check_consistent(self, b: NDArray[np.float64]) -> None:
        """Raise InconsistentRightHandSide on all ranks if ``b`` sums to more than round-off over one."""
        sums = np.array(group_sums(self._group, self.size.size, b))
        largest = float(np.abs(b).max(initial=0))
        if self._comm is not None:
            from mpi4py import MPI

            everywhere = np.empty_like(sums)
            self._comm.Allreduce(sums, everywhere)
            sums, largest = everywhere, self._comm.allreduce(largest, MPI.MAX)
        total, size, rows = sums
        check_sums(total, size, rows, largest)
