"""The unknowns of a coarse level: connected components of the nodes within each block.

Kernels work on lines I * N1 + J of the coarse grid, whose block (I, J, K) holds the fine cells from
``b0[I], b1[J], b2[K]`` up to, and without, ``b0[I + 1], b1[J + 1], b2[K + 1]``.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT
from consolve.learned.multilevel.graph.finest_kernels import INNER

NONE = -1


@njit(**STRICT)
def count_nodes(count, b0, b1, b2, nodes, first, end):
    """Number of nodes of each block."""
    N1, N2 = b1.size - 1, b2.size - 1
    for line in range(first, end):
        i0, j0 = line // N1, line % N1
        for k0 in range(N2):
            m = 0
            for i in range(b0[i0], b0[i0 + 1]):
                for j in range(b1[j0], b1[j0 + 1]):
                    for k in range(b2[k0], b2[k0 + 1]):
                        m += count[i, j, k]
            nodes[line * N2 + k0] = m


@njit(**STRICT)
def _weight(direction, i, j, k, s0, s1, s2):
    """Squared distance of the centres on the two sides of an edge of cell (i, j, k): c times this is what it
    would be on cubes, up to the volume."""
    if direction < 2:
        return s0[(i if i + direction > 0 else s0.size - 1) - 1 + direction]
    if direction < 4:
        return s1[(j if j + direction > 2 else s1.size - 1) - 3 + direction]
    if direction < INNER:
        return s2[(k if k + direction > 4 else s2.size - 1) - 5 + direction]
    return s0[s0.size - 1]


@njit(**STRICT)
def _root(parent, p):
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@njit(**STRICT)
def split(
    start, count, pointer, neighbour, coefficient, direction, fixed, b0, b1, b2, s0, s1, s2, weakest, most,
    largest, members_begin, members, block, place, strongest, component, kept, first, end,
):  # fmt: skip
    """Components of the nodes of each block, and how many get an unknown.

    Two nodes of a block are connected by an edge that is at least ``weakest`` times the strongest one of
    either, both measured as on cubes.  Components beyond the ``most``-th by size get one unknown together.
    Those without an edge to another one get none, unless they have several nodes and a Dirichlet part.

    Parameters
    ----------
    s0, s1, s2
        Squared distance of neighbouring centres, by axis; the last but one from last to first cell, the last
        for edges within a cell.
    weakest, most, largest
        As above; nodes of the largest block.
    members_begin, members
        Nodes of each block.
    block, place, strongest
        Of each node: its block (-1 before), its place among the members, its strongest edge.
    component, kept
        Of each node: which unknown of its block, or NONE.  Of each block: number of unknowns.
    """
    N1, N2 = b1.size - 1, b2.size - 1
    parent, size = np.empty(largest, np.int64), np.empty(largest, np.int64)
    rank = np.empty(largest, np.int64)
    corner = np.empty((largest, 3), np.int64)
    outside = np.empty(largest, np.bool_)
    for line in range(first, end):
        i0, j0 = line // N1, line % N1
        for k0 in range(N2):
            here = line * N2 + k0
            begin, m = members_begin[here], 0
            for i in range(b0[i0], b0[i0 + 1]):
                for j in range(b1[j0], b1[j0 + 1]):
                    for k in range(b2[k0], b2[k0 + 1]):
                        for node in range(start[i, j, k], start[i, j, k] + count[i, j, k]):
                            strong = 0.0
                            if weakest > 0:
                                for e in range(pointer[node], pointer[node + 1]):
                                    w = coefficient[e] * _weight(direction[e], i, j, k, s0, s1, s2)
                                    strong = max(strong, w)
                            strongest[node], block[node], place[node] = strong, here, m
                            corner[m, 0], corner[m, 1], corner[m, 2] = i, j, k
                            members[begin + m] = node
                            parent[m], size[m], outside[m], rank[m] = m, 0, False, NONE
                            m += 1
            for p in range(m):
                node = members[begin + p]
                i, j, k = corner[p, 0], corner[p, 1], corner[p, 2]
                for e in range(pointer[node], pointer[node + 1]):
                    other = neighbour[e]
                    if block[other] == here and other > node:
                        strong = weakest * max(strongest[node], strongest[other])
                        if (
                            strong == 0
                            or coefficient[e] * _weight(direction[e], i, j, k, s0, s1, s2) >= strong
                        ):
                            parent[_root(parent, p)] = _root(parent, place[other])
            for p in range(m):
                size[_root(parent, p)] += 1
            for p in range(m):
                node, root = members[begin + p], _root(parent, p)
                if fixed[node] > 0 and size[root] > 1:
                    outside[root] = True
                if not outside[root]:
                    for e in range(pointer[node], pointer[node + 1]):
                        other = neighbour[e]
                        if block[other] != here or _root(parent, place[other]) != root:
                            outside[root] = True
                            break
            number = 0
            for p in range(m):
                if parent[p] == p and outside[p]:
                    rank[p] = number
                    number += 1
            if number > most:
                for p in range(m):
                    if rank[p] != NONE:
                        larger = 0
                        for q in range(m):
                            if rank[q] != NONE and (size[q] > size[p] or (size[q] == size[p] and q < p)):
                                larger += 1
                        rank[p] = min(larger, most - 1)
                number = most
            kept[here] = number
            for p in range(m):
                component[members[begin + p]] = rank[_root(parent, p)]


@njit(**STRICT)
def assign(
    members_begin, counted, members, component, kept, begin, most, child, child_begin, size, home, aggregate,
    place, first, end,
):  # fmt: skip
    """Number of each unknown in its level, and its nodes one after the other; for blocks first <= b < end.

    Parameters
    ----------
    begin
        First unknown of each block.
    most
        Unknowns of a block at most.
    child, child_begin, size, home
        Nodes by unknown; of each unknown where those begin, how many they are, and its block.
    aggregate, place
        Of each node: its unknown, NONE without one, and its place among that one's nodes.
    """
    at = np.empty(most, np.int64)
    for here in range(first, end):
        low, u0 = members_begin[here], begin[here]
        high = low + counted[here]
        at[: kept[here]] = 0
        for q in range(low, high):
            if component[members[q]] != NONE:
                at[component[members[q]]] += 1
        total = low
        for u in range(kept[here]):
            child_begin[u0 + u], size[u0 + u], home[u0 + u] = total, at[u], here
            total += at[u]
            at[u] = 0
        for q in range(low, high):
            node = members[q]
            c = component[node]
            if c == NONE:
                aggregate[node] = NONE
            else:
                aggregate[node], place[node] = u0 + c, at[c]
                child[child_begin[u0 + c] + at[c]] = node
                at[c] += 1
