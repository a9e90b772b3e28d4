"""The null space of a Poisson operator: constants on each connected component without a Dirichlet part.

Such a component is *closed*.  Who numbers closed components, takes means over them away or asks whether a
right-hand side is in the range of an operator does it here: operators of grids, matrices, graphs, and the
parts of a grid that several ranks hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from consolve.base.errors import InconsistentRightHandSide
from consolve.pde.poisson.group_kernels import group_sums, remove_means, subtract_means

CONSISTENCY_TOLERANCE = 1e-6
"""Sum of a right-hand side over a closed component, relative to the sum of its absolute values."""
ROUND_OFF = 1e-12
"""The same relative to the largest entry anywhere; a row sum of a matrix relative to its magnitudes."""


class ClosedComponents:
    """The entries of vectors by closed component; false if there is no such component.

    Parameters
    ----------
    group
        int32: number of each entry's closed component, -1 for entries of none; of this rank's entries.
    size
        Entries of each over all ranks.
    comm
        mpi4py communicator, or None: one rank.
    """

    def __init__(self, group: NDArray[np.int32], size: NDArray[np.int64], comm: Any = None) -> None:
        self.group, self.size, self._comm = group, size, comm

    @classmethod
    def of(cls, operator: Any, cells: NDArray[np.integer] | None = None) -> ClosedComponents:
        """Of a GridOperator's active cells in C order, or of the given cells."""
        if not operator.is_singular:
            return cls.none()
        labels, closed = operator.components
        number = np.append(closed_numbers(~closed), np.int32(-1))
        group = number[labels.reshape(-1)[operator.cells if cells is None else cells]]
        return cls.of_groups(group, int(closed.sum()))

    @classmethod
    def of_graph(cls, couplings: Any, is_open: NDArray[np.bool_]) -> ClosedComponents:
        """Of the vertices of a graph that a SciPy sparse matrix gives, some of them with a Dirichlet part."""
        count, label = connected_components(couplings, directed=False)
        number = closed_numbers(np.bincount(label, is_open, minlength=count) > 0)
        return cls.of_groups(number[label], int(number.max(initial=-1)) + 1)

    @classmethod
    def of_matrix(cls, csr: sp.csr_matrix, round_off: float = ROUND_OFF) -> ClosedComponents:
        """Of the rows of a symmetric matrix: connected rows whose sums are all 0, up to ``round_off`` times
        the sum of the row's magnitudes."""
        stored = csr.copy()
        stored.eliminate_zeros()
        size = np.asarray(abs(csr).sum(axis=1)).reshape(-1)
        total = np.abs(np.asarray(csr.sum(axis=1)).reshape(-1))
        return cls.of_graph(stored, total > round_off * size)

    @classmethod
    def of_groups(cls, group: NDArray[np.int32], count: int, comm: Any = None) -> ClosedComponents:
        """Of numbered entries, over all ranks; collective."""
        size = np.bincount(group[group >= 0], minlength=count)
        if comm is not None:
            total = np.empty_like(size)
            comm.Allreduce(size, total)
            size = total
        return cls(group, size, comm)

    @classmethod
    def none(cls) -> ClosedComponents:
        """Of a regular operator."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.size.size

    def remove(self, source: NDArray[np.float64], target: NDArray[np.float64]) -> None:
        """target = source less its mean over each component; collective."""
        if not len(self):
            if target is not source:
                target[...] = source
        elif self._comm is None:
            remove_means(self.group, self.size, source, target)
        else:
            total = group_sums(self.group, len(self), source)[0]
            everywhere = np.empty_like(total)
            self._comm.Allreduce(total, everywhere)
            subtract_means(self.group, everywhere / self.size, source, target)

    def without_means(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``x`` less its mean over each component: itself if there are none, else a new array."""
        if not len(self):
            return x
        result = np.empty_like(x)
        self.remove(x, result)
        return result

    def consistent(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        """``b`` without the round-off that its sums hold; raises as ``check_consistent``."""
        self.check_consistent(b)
        return self.without_means(b)

    def check_consistent(self, b: NDArray[np.float64]) -> None:
        """Refuse a right-hand side for which A x = b has no solution; collective.

        Raises
        ------
        InconsistentRightHandSide
            On all ranks, if ``b`` sums to more than round-off over a component.
        """
        if not len(self):
            return
        sums = np.array(group_sums(self.group, len(self), b))
        largest = max(float(b.max(initial=0)), -float(b.min(initial=0)))
        if self._comm is not None:
            everywhere = np.empty_like(sums)
            self._comm.Allreduce(sums, everywhere)
            sums, largest = everywhere, max(self._comm.allgather(largest))
        total, size, rows = sums
        wrong = np.flatnonzero(np.abs(total) > CONSISTENCY_TOLERANCE * size + ROUND_OFF * largest)
        if wrong.size:
            number = wrong[np.argmax(np.abs(total[wrong]))]
            raise InconsistentRightHandSide(
                f"the operator is singular and the right-hand side sums to {total[number]:.3e} over a closed "
                f"component of {int(rows[number])} rows (sum of magnitudes {size[number]:.3e}); a solution "
                "needs 0: subtract the mean over the component (GridOperator.remove_null_space), attach the "
                "null space to the matrix (MatSetNullSpace), or open a boundary"
            )

    def first_entries(self) -> NDArray[np.intp]:
        """One entry of each component: with these pinned, the operator is regular."""
        if not len(self):
            return np.empty(0, np.intp)
        return np.unique(self.group, return_index=True)[1][-len(self) :]


def closed_numbers(is_open: NDArray[np.bool_], pairs: NDArray[np.integer] | None = None) -> NDArray[np.int32]:
    """Number of the closed component that each part belongs to, -1 if it belongs to none.

    Parameters
    ----------
    is_open
        Whether each part has a Dirichlet part.
    pairs
        (pairs, 2): parts that are joined to one component; default: none are.
    """
    if pairs is None or not len(pairs):
        return np.where(is_open, -1, np.cumsum(~is_open) - 1).astype(np.int32)
    graph = sp.coo_matrix((np.ones(len(pairs)), pairs.T), (is_open.size, is_open.size))
    count, component = connected_components(graph, directed=False)
    joined = closed_numbers(np.bincount(component, is_open, minlength=count) > 0)
    return joined[component]
