"""The finest level of the graph, from the coefficients of a grid: nodes are its active cells, red ones first.

Kernels work on lines i * n1 + j of the grid.  The last layer of face coefficients leads to the first cells of
the axis: 0 where the axis ends.  ``odd`` marks the axes that close to a ring of an odd number of cells.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT

INNER = 6
"""Direction of an edge between two nodes of one cell; others are 2 axis, and 2 axis + 1 upwards."""


COLOURS = 4
"""At most; two without an odd ring."""


@njit(**STRICT)
def colour(i, j, k, shape, odd):
    """Of a cell: no neighbour has the same one.

    Red and black by the parity of i + j + k; along an odd ring the last cell, a seam, would have its first
    one's colour.  Cells on an odd number of seams get two colours of their own, by the parity of the other
    indices.
    """
    seams = 0
    if odd[0] and i == shape[0] - 1:
        i, seams = 0, seams + 1
    if odd[1] and j == shape[1] - 1:
        j, seams = 0, seams + 1
    if odd[2] and k == shape[2] - 1:
        k, seams = 0, seams + 1
    return (i + j + k) % 2 + 2 * (seams % 2)


@njit(**STRICT)
def colours(odd, out, first, end):
    """Colour of each cell, a volume."""
    _, n1, n2 = out.shape
    for line in range(first, end):
        for k in range(n2):
            out[line // n1, line % n1, k] = colour(line // n1, line % n1, k, out.shape, odd)


@njit(**STRICT)
def count(active, odd, nodes, first, end):
    """Nodes of each line by colour, (4, lines)."""
    _, n1, n2 = active.shape
    for line in range(first, end):
        i, j = line // n1, line % n1
        for k in range(n2):
            if active[i, j, k]:
                nodes[colour(i, j, k, active.shape, odd), line] += 1


@njit(**STRICT)
def number(active, odd, nodes, start, first, end):
    """Number of each active cell, -1 elsewhere; ``nodes`` (4, lines) holds the first of each line."""
    _, n1, n2 = active.shape
    at = np.zeros(COLOURS, np.int64)
    for line in range(first, end):
        i, j = line // n1, line % n1
        for c in range(COLOURS):
            at[c] = nodes[c, line]
        for k in range(n2):
            start[i, j, k] = -1
            if active[i, j, k]:
                c = colour(i, j, k, active.shape, odd)
                start[i, j, k] = at[c]
                at[c] += 1


@njit(**STRICT)
def fill(f0, f1, f2, dirichlet, start, scale, neighbour, coefficient, direction, fixed, fault, first, end):
    """Edges of each node, one for each of 4 or 6 directions: (nodes, directions); a closed one leads back.

    ``fault[0]`` is set where single precision does not hold a coefficient.
    """
    n0, n1, n2 = start.shape
    width = neighbour.shape[1]
    for line in range(first, end):
        i, j = line // n1, line % n1
        for k in range(n2):
            node = start[i, j, k]
            if node < 0:
                continue
            part = dirichlet[i, j, k] * scale
            fixed[node] = part
            if (part > 0 and fixed[node] == 0) or fixed[node] == np.inf:
                fault[0] = True
            for e in range(width):
                way = e + 6 - width
                up = way % 2
                other, c = node, scale * 0
                if way < 2:
                    low = i if up else (i if i > 0 else n0) - 1
                    c = f0[low, j, k] * scale
                    other = start[(i + 1 if i + 1 < n0 else 0) if up else low, j, k]
                elif way < 4:
                    low = j if up else (j if j > 0 else n1) - 1
                    c = f1[i, low, k] * scale
                    other = start[i, (j + 1 if j + 1 < n1 else 0) if up else low, k]
                else:
                    low = k if up else (k if k > 0 else n2) - 1
                    c = f2[i, j, low] * scale
                    other = start[i, j, (k + 1 if k + 1 < n2 else 0) if up else low]
                is_open = c > 0
                neighbour[node, e] = other if is_open else node
                coefficient[node, e] = c if is_open else 0
                if is_open and coefficient[node, e] == 0:
                    fault[0] = True
                direction[node, e] = way
