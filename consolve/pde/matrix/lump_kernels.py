"""Numba kernels that make a 9- or 27-point stencil a spectrally equivalent 5-point (2D) or 7-point (3D) one.

A coupling c between two cells that differ along m axes, m = 2 or 3, is carried by the faces of the shortest
paths between them: m! of them, of m faces each.  Paths through cells that are not active are closed; each of
the p others gets c / p on all its faces.  Then

- the faces along each axis get c in sum, so a constant stencil keeps its limit at low frequency,
  ``sum of c (d . grad u)^2`` without the mixed terms, which mirrored couplings cancel;
- ``c (x_i - x_j)^2 <= m sum over the faces of a path of c (x_u - x_v)^2``: with c >= 0 A is bounded by m
  times the lumped one, and never loses a connection;
- where no path is open, c goes into the Dirichlet part of both cells: ``(x_i - x_j)^2 <= 2 x_i^2 + 2 x_j^2``.

On square Q1 elements the eigenvalues of (A, lumped A) lie in [1/3, 1] in 2D and in [1/9, 1] in 3D.

Nodes are the cells that a rank knows: its rows in ascending order of cells, and a halo of other ranks' cells.
"""

from collections import Counter
from itertools import permutations, product

import numpy as np
from numba import njit

from consolve.base.jit import STRICT
from consolve.pde.matrix.row_kernels import ABSENT, offset_of
from consolve.pde.matrix.stencil_kernels import COUPLED, DOMINANCE_TOLERANCE, ROUND_OFF

FLOOR = 1e-10
"""A face whose couplings add up to nothing positive keeps this fraction of the diagonal: it stays open."""

_ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
"""Orders in which a path of three steps takes the axes; two axes a < b take rows 0 and 2 of (a, b)."""


def _open_paths() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces of all paths to each offset code: lower node (a code), axis and share of half the coupling."""
    node, axis, share = np.zeros((27, 12), np.int64), np.zeros((27, 12), np.int64), np.zeros((27, 12))
    for code, offset in enumerate(product((-1, 0, 1), repeat=3)):
        shares: Counter[tuple[int, int]] = Counter()
        orders = list(permutations([a for a in range(3) if offset[a]]))
        for order in orders:
            here = 13
            for a in order:
                there = here + offset[a] * 3 ** (2 - a)
                shares[min(here, there), a] += 1
                here = there
        if len(orders) > 1:
            for edge, ((lower, a), paths) in enumerate(shares.items()):
                node[code, edge], axis[code, edge], share[code, edge] = lower, a, 0.5 * paths / len(orders)
    return node, axis, share


_EDGE_NODE, _EDGE_AXIS, _EDGE_SHARE = _open_paths()


@njit(inline="always")
def _find(known, cell, hint):
    """Position of ``cell`` in the ascending ``known``, or where it would be; a good hint makes it quick."""
    low, high = min(max(hint, 0), known.size), known.size
    width = 1
    if low < high and known[low] < cell:
        while low + width < high and known[low + width] < cell:
            low += width
            width *= 2
        high = min(high, low + width)
    else:
        high = low
        while high - width >= 0 and known[high - width] >= cell:
            high -= width
            width *= 2
        low = max(0, high - width)
    while low < high:
        middle = (low + high) // 2
        if known[middle] < cell:
            low = middle + 1
        else:
            high = middle
    return low


@njit(inline="always")
def _neighbour(i, j, k, code, shape, periodic):
    """Cell at the offset ``code`` = 9 (d0 + 1) + 3 (d1 + 1) + d2 + 1 from cell (i, j, k); -1: outside."""
    a, b, c = i + code // 9 - 1, j + code // 3 % 3 - 1, k + code % 3 - 1
    n0, n1, n2 = shape[0], shape[1], shape[2]
    if periodic[0]:
        a = a + n0 if a < 0 else a - n0 if a >= n0 else a
    if periodic[1]:
        b = b + n1 if b < 0 else b - n1 if b >= n1 else b
    if periodic[2]:
        c = c + n2 if c < 0 else c - n2 if c >= n2 else c
    if a < 0 or a >= n0 or b < 0 or b >= n1 or c < 0 or c >= n2:
        return np.int64(-1)
    return (a * n1 + b) * n2 + c


@njit(**STRICT)
def cells_beside(known, shape, periodic):
    """What a rank whose rows lie in the ascending ``known`` cells shares with others.

    Returns
    -------
    (wanted, edge): cells beside its own that are not among them (some twice), and for each own cell whether
    it has such a one.
    """
    n1, n2 = shape[1], shape[2]
    edge = np.zeros(known.size, np.bool_)
    wanted = np.empty(1024, np.int64)
    count = 0
    hints = np.zeros(27, np.int64)
    for p in range(known.size):
        line = known[p] // n2
        i, j, k = line // n1, line % n1, known[p] - line * n2
        for code in range(27):
            there = _neighbour(i, j, k, code, shape, periodic)
            if there < 0 or code == 13:
                continue
            at = _find(known, there, hints[code])
            hints[code] = at
            if at == known.size or known[at] != there:
                edge[p] = True
                if count == wanted.size:
                    grown = np.empty(2 * count, np.int64)
                    grown[:count] = wanted
                    wanted = grown
                wanted[count] = there
                count += 1
    return wanted[:count], edge


@njit(**STRICT)
def lump_rows(
    own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, cells, kind, order,
    known, node, node_kind, shape, periodic, sign, diagonal, flow, grounded,
):  # fmt: skip
    """Add half of each diagonal coupling (the other half comes from its other row) to the faces of its paths.

    Parameters
    ----------
    order
        int64 (rows,): the local rows in ascending order of their cells.
    known, node
        Ascending cells of the nodes, and the number of each: that of a row, or of a halo cell.
    node_kind
        uint8: COUPLED where the node is an active cell.
    flow
        float64 (nodes, 3), added to: coefficient of the face between a node and the next one of each axis.
    grounded
        float64 (rows,), added to: couplings without an open path.
    """
    n1, n2 = shape[1], shape[2]
    rows, ghosts = own_start.size - 1, ghost_start.size > 1
    hints, near = np.zeros(27, np.int64), np.empty(27, np.int64)
    stride = np.array([9, 3, 1])
    d, axes, lower = np.empty(3, np.int64), np.empty(3, np.int64), np.empty((6, 3), np.int64)
    last = np.int64(-2)
    for p in range(rows):
        row = order[p]
        if kind[row] != COUPLED:
            continue
        cell = np.int64(cells[row])
        line = cell // n2
        i, j, k = line // n1, line % n1, cell - line * n2
        ready, full = False, False
        stop = own_start[row + 1] - own_start[row]
        entries = stop + (ghost_start[row + 1] - ghost_start[row] if ghosts else 0)
        for e in range(entries):
            if e < stop:
                q = own_start[row] + e
                column, value = np.int64(own_column[q]), own_value[q]
            else:
                q = ghost_start[row] + e - stop
                column, value = rows + np.int64(ghost_column[q]), ghost_value[q]
            if value == 0 or column == row or kind[column] != COUPLED:
                continue
            d[0], d[1], d[2] = offset_of(np.int64(cells[column]), cell, i, j, k, shape, periodic)
            steps = 0
            for axis in range(3):
                if d[axis] == ABSENT:
                    steps = -10
                elif d[axis] != 0:
                    axes[max(steps, 0)] = axis
                    steps += 1
            if steps < 2 or abs(value) <= ROUND_OFF * abs(diagonal[row]):
                continue
            if not ready:
                ready, full = True, True
                beside = cell == last + 1 and 1 < k < n2 - 1
                last = cell
                for code in range(27):
                    if beside and code % 3 < 2:
                        near[code] = near[code + 1]  # the box moved one cell along its line
                    else:
                        near[code] = -1
                        there = _neighbour(i, j, k, code, shape, periodic)
                        if there >= 0:
                            at = _find(known, there, hints[code])
                            hints[code] = at
                            if at < known.size and known[at] == there and node_kind[node[at]] == COUPLED:
                                near[code] = node[at]
                    full &= near[code] >= 0
            c = -sign * value
            # On a periodic axis of two cells the coupling goes both ways: a half each.
            ways = 1
            for a in range(steps):
                if periodic[axes[a]] and shape[axes[a]] == 2:
                    ways *= 2
            if full and ways == 1:
                code = 13 + 9 * d[0] + 3 * d[1] + d[2]
                for edge in range(4 if steps == 2 else 12):
                    flow[near[_EDGE_NODE[code, edge]], _EDGE_AXIS[code, edge]] += c * _EDGE_SHARE[code, edge]
                continue
            for way in range(ways):
                bits = way
                for a in range(steps):
                    if periodic[axes[a]] and shape[axes[a]] == 2:
                        d[axes[a]] = 1 if bits % 2 else -1
                        bits //= 2
                open_paths = 0
                for path in range(6 if steps == 3 else 2):
                    code, here, is_open = 13, near[13], True
                    for step in range(steps):
                        axis = axes[_ORDERS[path if steps == 3 else 2 * path, step]]
                        code += d[axis] * stride[axis]
                        there = near[code]
                        if there < 0:
                            is_open = False
                            break
                        lower[open_paths, step] = 3 * (here if d[axis] > 0 else there) + axis
                        here = there
                    open_paths += is_open
                if open_paths == 0:
                    grounded[row] += max(c, 0.0) / ways
                    continue
                share = 0.5 * c / (open_paths * ways)
                for path in range(open_paths):
                    for step in range(steps):
                        flow[lower[path, step] // 3, lower[path, step] % 3] += share


@njit(**STRICT)
def close_lumping(flow, grounded, cells, kind, diagonal, by_cell, f0, f1, f2, dirichlet):
    """Add what was lumped to the faces and Dirichlet parts; no face may end negative.

    A face whose couplings add up to less than nothing (flat elements beside a Dirichlet side, mass terms)
    gets FLOOR of the diagonal.  That is sound where Dirichlet parts outweigh what is cut off; else the
    operator is negative at low frequency.

    Returns
    -------
    (row, axis, cut, dirichlet): the lowest row (-1: none) with a face whose cut outweighs the Dirichlet part
    of its cell; the sums of all cuts and Dirichlet parts.
    """
    first, first_axis, cut, total = -1, 0, 0.0, 0.0
    for row in range(grounded.size):
        if kind[row] != COUPLED:
            continue
        place = np.int64(cells[row]) if by_cell else row
        size = abs(diagonal[row])
        dirichlet[place] += grounded[row]
        total += dirichlet[place]
        for axis in range(3):
            f = f0 if axis == 0 else f1 if axis == 1 else f2
            if place >= f.size:
                continue  # the first axis of a 2D grid
            c = f[place] + flow[row, axis]
            if c < 0:
                cut -= c
                if first < 0 and -c > dirichlet[place] + DOMINANCE_TOLERANCE * size:
                    first, first_axis = row, axis
                c = FLOOR * size
            f[place] = c
    return first, first_axis, cut, total
