"""The finest level of the graph, from the coefficients of a grid: nodes are its active cells, red ones first.

Kernels work on lines i * n1 + j of the grid.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT

INNER = 6
"""Direction of an edge between two nodes of one cell; others are 2 axis, and 2 axis + 1 upwards."""


@njit(**STRICT)
def count(f0, f1, f2, active, nodes, edges, first, end):
    """Nodes and edges of each line by colour: nodes, edges (2, lines)."""
    n0, n1, n2 = active.shape
    for line in range(first, end):
        i, j = line // n1, line % n1
        for k in range(n2):
            if not active[i, j, k]:
                continue
            c = (i + j + k) % 2
            nodes[c, line] += 1
            e = 0
            if n0 > 1:
                e += f0[i, j, k] > 0
                e += i > 0 and f0[i - 1, j, k] > 0
            e += f1[i, j, k] > 0
            e += j > 0 and f1[i, j - 1, k] > 0
            e += f2[i, j, k] > 0
            e += k > 0 and f2[i, j, k - 1] > 0
            edges[c, line] += e


@njit(**STRICT)
def number(active, nodes, start, first, end):
    """Number of each active cell, -1 elsewhere; ``nodes`` (2, lines) holds the first of each line."""
    n0, n1, n2 = active.shape
    at = np.zeros(2, np.int64)
    for line in range(first, end):
        i, j = line // n1, line % n1
        at[0], at[1] = nodes[0, line], nodes[1, line]
        for k in range(n2):
            start[i, j, k] = -1
            if active[i, j, k]:
                c = (i + j + k) % 2
                start[i, j, k] = at[c]
                at[c] += 1


@njit(**STRICT)
def fill(
    f0, f1, f2, dirichlet, start, scale, edges, pointer, neighbour, coefficient, direction, fixed, first, end,
):  # fmt: skip
    """Edges of each node; ``edges`` (2, lines) holds the first edge of each line."""
    n0, n1, n2 = start.shape
    at = np.zeros(2, np.int64)
    for line in range(first, end):
        i, j = line // n1, line % n1
        at[0], at[1] = edges[0, line], edges[1, line]
        for k in range(n2):
            node = start[i, j, k]
            if node < 0:
                continue
            c = (i + j + k) % 2
            e = at[c]
            pointer[node] = e
            fixed[node] = dirichlet[i, j, k] * scale
            if n0 > 1:
                if i > 0 and f0[i - 1, j, k] > 0:
                    neighbour[e], coefficient[e], direction[e] = start[i - 1, j, k], f0[i - 1, j, k] * scale, 0
                    e += 1
                if f0[i, j, k] > 0:
                    neighbour[e], coefficient[e], direction[e] = start[i + 1, j, k], f0[i, j, k] * scale, 1
                    e += 1
            if j > 0 and f1[i, j - 1, k] > 0:
                neighbour[e], coefficient[e], direction[e] = start[i, j - 1, k], f1[i, j - 1, k] * scale, 2
                e += 1
            if f1[i, j, k] > 0:
                neighbour[e], coefficient[e], direction[e] = start[i, j + 1, k], f1[i, j, k] * scale, 3
                e += 1
            if k > 0 and f2[i, j, k - 1] > 0:
                neighbour[e], coefficient[e], direction[e] = start[i, j, k - 1], f2[i, j, k - 1] * scale, 4
                e += 1
            if f2[i, j, k] > 0:
                neighbour[e], coefficient[e], direction[e] = start[i, j, k + 1], f2[i, j, k] * scale, 5
                e += 1
            at[c] = e
