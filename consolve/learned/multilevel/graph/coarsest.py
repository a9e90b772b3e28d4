"""The coarsest level of the graph, solved directly by sparse factors."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle.coarsest import definite_factors
from consolve.pde.poisson.null_space import ClosedComponents

MOST_NODES, MOST_TREE_NODES, MOST_LOOPS, LOOPS_OF_NODES = 400, 300_000, 4_000, 0.15
"""Nodes up to which a level is solved directly: any graph, and one that is nearly a tree; edges that it may
have more than a tree, in number and by node."""

Index = NDArray[np.int32]
Factors = tuple[Index, Index, Index, NDArray[np.float64], NDArray[np.float64]]


def is_coarsest(nodes: int, edges: int) -> bool:
    """True where elimination costs little; ``edges`` counts each edge twice."""
    loops = min(MOST_LOOPS, LOOPS_OF_NODES * nodes)
    return nodes <= MOST_NODES or (nodes <= MOST_TREE_NODES and edges / 2 <= nodes + loops)


def factorise(pointer: NDArray, neighbour: NDArray, coefficient: NDArray, fixed: NDArray) -> Factors:
    """A = P^T L D L^T P of a graph's operator, with L of unit diagonal.

    On components without a Dirichlet part, the first node gets one: a right-hand side that sums to 0 there
    has the same solutions up to a constant.

    Returns
    -------
    Place of each node in the order of elimination; L without its diagonal by columns: begin, row, value; D.
    """
    n = fixed.size
    off = sp.csr_matrix((coefficient.astype(np.float64), neighbour, pointer), (n, n))
    off.eliminate_zeros()
    part = fixed.astype(np.float64)
    diagonal = part + np.asarray(off.sum(1)).ravel()
    closed = ClosedComponents.of_graph(off, part > 0)
    diagonal[closed.first_entries()] += max(float(diagonal.max(initial=0)), 1e-30)
    if n == 0:
        none = np.empty(0, np.int32)
        return none, np.zeros(1, np.int32), none, np.empty(0), np.empty(0)
    factors = definite_factors(sp.diags(diagonal) - off)
    lower = sp.tril(factors.L, -1).tocsc()
    arrays = lower.indptr.astype(np.int32), lower.indices.astype(np.int32), lower.data.astype(np.float64)
    return factors.perm_c.astype(np.int32), *arrays, factors.U.diagonal()
