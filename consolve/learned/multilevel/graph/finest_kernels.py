"""The finest level of the graph, from the coefficients of a grid: nodes are its active cells, red ones first.

Kernels work on lines i * n1 + j of the grid.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT

INNER = 6
"""Direction of an edge between two nodes of one cell; others are 2 axis, and 2 axis + 1 upwards."""


@njit(**STRICT)
def count(active, nodes, first, end):
    """Nodes of each line by colour, (2, lines)."""
    _, n1, n2 = active.shape
    for line in range(first, end):
        i, j = line // n1, line % n1
        for k in range(n2):
            if active[i, j, k]:
                nodes[(i + j + k) % 2, line] += 1


@njit(**STRICT)
def number(active, nodes, start, first, end):
    """Number of each active cell, -1 elsewhere; ``nodes`` (2, lines) holds the first of each line."""
    _, n1, n2 = active.shape
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
def fill(f0, f1, f2, dirichlet, start, scale, neighbour, coefficient, direction, fixed, first, end):
    """Edges of each node, one for each of 4 or 6 directions: (nodes, directions); a closed one leads back."""
    n0, n1, n2 = start.shape
    width = neighbour.shape[1]
    for line in range(first, end):
        i, j = line // n1, line % n1
        for k in range(n2):
            node = start[i, j, k]
            if node < 0:
                continue
            fixed[node] = dirichlet[i, j, k] * scale
            for e in range(width):
                way = e + 6 - width
                up = way % 2
                other, c = node, scale * 0
                if way < 2:
                    if up and i + 1 < n0:
                        other, c = start[i + 1, j, k], f0[i, j, k] * scale
                    elif not up and i > 0:
                        other, c = start[i - 1, j, k], f0[i - 1, j, k] * scale
                elif way < 4:
                    if up and j + 1 < n1:
                        other, c = start[i, j + 1, k], f1[i, j, k] * scale
                    elif not up and j > 0:
                        other, c = start[i, j - 1, k], f1[i, j - 1, k] * scale
                elif up and k + 1 < n2:
                    other, c = start[i, j, k + 1], f2[i, j, k] * scale
                elif not up and k > 0:
                    other, c = start[i, j, k - 1], f2[i, j, k - 1] * scale
                is_open = c > 0
                neighbour[node, e] = other if is_open else node
                coefficient[node, e] = c if is_open else 0
                direction[node, e] = way
