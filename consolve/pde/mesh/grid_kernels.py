"""Numba kernels between the points of a mesh and the cells of a grid laid over it.

Points come as ``first``, the C-order index of the cell whose centre is the lowest corner of the box of
centres around the point, and ``part`` (points, 3), where in that box it lies, 0 to 1 along each axis.  A 2D
grid is a volume of one layer.  Points are sorted by cell in *chunks*; every other chunk may add to the grid
at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT
from consolve.pde.matrix.stencil_kernels import COUPLED


@njit(parallel=True, **STRICT)
def place_points(point, low, per_spacing, shape, first, part):
    """Fill ``first`` and ``part`` of points (points, 3) whose cell (0, 0, 0) has its centre at ``low``."""
    for i in prange(point.shape[0]):
        cell = 0
        for axis in range(3):
            where = (point[i, axis] - low[axis]) * per_spacing[axis]
            down = min(max(int(np.floor(where)), 0), max(shape[axis] - 2, 0))
            part[i, axis] = min(max(where - down, 0.0), 1.0) if shape[axis] > 1 else 0.0
            cell = cell * shape[axis] + down
        first[i] = cell


@njit(**STRICT)
def sort_by_cell(first, cells, order):
    """Fill ``order`` with the numbers of points, ascending by ``first`` in 0..cells and then by number."""
    start = np.zeros(cells + 1, np.int64)
    for i in range(first.size):
        start[first[i] + 1] += 1
    for cell in range(cells):
        start[cell + 1] += start[cell]
    for i in range(first.size):
        order[start[first[i]]] = i
        start[first[i]] += 1


@njit(inline="always")
def _spread(volume, value, i, j, k, u, v, w):
    """Add ``value`` to the corners of a box by multilinear weights; in a volume of one layer it has four."""
    low = value
    if volume.shape[0] > 1:
        high = value * u
        low -= high
        near, far = high * (1 - v), high * v
        volume[i + 1, j, k] += near * (1 - w)
        volume[i + 1, j, k + 1] += near * w
        volume[i + 1, j + 1, k] += far * (1 - w)
        volume[i + 1, j + 1, k + 1] += far * w
    near, far = low * (1 - v), low * v
    volume[i, j, k] += near * (1 - w)
    volume[i, j, k + 1] += near * w
    volume[i, j + 1, k] += far * (1 - w)
    volume[i, j + 1, k + 1] += far * w


@njit(inline="always")
def _box(where, size):
    """(down, part) of a place along an axis of ``size`` entries, clamped to it."""
    down = min(max(int(np.floor(where)), 0), max(size - 2, 0))
    return down, (min(max(where - down, 0.0), 1.0) if size > 1 else 0.0)


@njit(parallel=True, **STRICT)
def reach_of_chunks(
    bounds, order, own_start, own_column, ghost_start, ghost_column, point, low, per_spacing, axis,
    first_layer, last_layer,
):  # fmt: skip
    """First and last layer along ``axis`` that each chunk adds to in ``add_couplings``."""
    ghosts, own = ghost_start.size > 1, order.size
    for c in prange(bounds.size - 1):
        least, most = np.inf, -np.inf
        for i in order[bounds[c] : bounds[c + 1]]:
            here = point[i, axis]
            least, most = min(least, here), max(most, here)
            for q in range(own_start[i], own_start[i + 1]):
                middle = 0.5 * (here + point[own_column[q], axis])
                least, most = min(least, middle), max(most, middle)
            if ghosts:
                for q in range(ghost_start[i], ghost_start[i + 1]):
                    middle = 0.5 * (here + point[own + ghost_column[q], axis])
                    least, most = min(least, middle), max(most, middle)
        first_layer[c] = np.floor((least - low[axis]) * per_spacing[axis] - 0.5)
        last_layer[c] = np.floor((most - low[axis]) * per_spacing[axis]) + 1


@njit(inline="always")
def _add_coupling(energy, point, i, j, low, per_spacing, f0, f1, f2):
    """The flows of one coupling to the faces around its middle; a 2D grid has no faces ``f0``."""
    n0, n1, n2 = f1.shape
    half = 0.5 * per_spacing[1]
    x1 = half * (point[i, 1] + point[j, 1] - 2 * low[1])
    d1 = per_spacing[1] * (point[i, 1] - point[j, 1])
    half = 0.5 * per_spacing[2]
    x2 = half * (point[i, 2] + point[j, 2] - 2 * low[2])
    d2 = per_spacing[2] * (point[i, 2] - point[j, 2])
    c1, u1 = _box(x1, n1)
    c2, u2 = _box(x2, n2)
    g1, v1 = _box(x1 - 0.5, n1 - 1)
    g2, v2 = _box(x2 - 0.5, n2 - 1)
    c0, u0 = 0, 0.0
    if n0 > 1:
        half = 0.5 * per_spacing[0]
        x0 = half * (point[i, 0] + point[j, 0] - 2 * low[0])
        d0 = per_spacing[0] * (point[i, 0] - point[j, 0])
        c0, u0 = _box(x0, n0)
        g0, v0 = _box(x0 - 0.5, n0 - 1)
        _spread(f0, energy * d0 * d0, g0, c1, c2, v0, u1, u2)
    _spread(f1, energy * d1 * d1, c0, g1, c2, u0, v1, u2)
    _spread(f2, energy * d2 * d2, c0, c1, g2, u0, u1, v2)


@njit(parallel=True, **STRICT)
def add_couplings(
    bounds, stride, order, own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, kind,
    sign, row_sum, point, low, per_spacing, f0, f1, f2, dirichlet,
):  # fmt: skip
    """Face coefficients and Dirichlet parts of the grid, from the couplings of a matrix.

    The energy of a coupling a_ij < 0 is -a_ij (u_i - u_j)^2; for u that varies linearly over a cell it is
    that of flows -a_ij d_k^2 through the faces along each axis k, d the distance in cells, which go to the
    faces around the middle of the coupling.  (Mixed terms d_k d_l cancel over the couplings of an isotropic
    operator, and would not fit a 7-point stencil.)  Row sums go to the cells around the point.

    Parameters
    ----------
    bounds, stride
        Chunks of ``order``; those ``stride`` apart add to no face in common.
    order
        Local rows.
    own_start, ..., ghost_value, kind, sign, row_sum
        As in MeshRows; of a coupling to a ghost each rank adds half.
    point, low, per_spacing
        As in place_points.
    f0, f1, f2, dirichlet
        Volumes to add to; a face has the index of its lower cell; f0 is empty in 2D.
    """
    chunks, ghosts, own = bounds.size - 1, ghost_start.size > 1, order.size
    for phase in range(stride):
        for step in prange((chunks - phase + stride - 1) // stride):
            c = phase + step * stride
            for i in order[bounds[c] : bounds[c + 1]]:
                if kind[i] != COUPLED:
                    continue
                for q in range(own_start[i], own_start[i + 1]):
                    j = own_column[q]
                    if j < i and own_value[q] != 0 and kind[j] == COUPLED:
                        _add_coupling(-sign * own_value[q], point, i, j, low, per_spacing, f0, f1, f2)
                if ghosts:
                    for q in range(ghost_start[i], ghost_start[i + 1]):
                        j = own + ghost_column[q]
                        if ghost_value[q] != 0 and kind[j] == COUPLED:
                            energy = -0.5 * sign * ghost_value[q]
                            _add_coupling(energy, point, i, j, low, per_spacing, f0, f1, f2)
                if row_sum[i] != 0:
                    c0, u0 = _box((point[i, 0] - low[0]) * per_spacing[0], dirichlet.shape[0])
                    c1, u1 = _box((point[i, 1] - low[1]) * per_spacing[1], dirichlet.shape[1])
                    c2, u2 = _box((point[i, 2] - low[2]) * per_spacing[2], dirichlet.shape[2])
                    _spread(dirichlet, row_sum[i], c0, c1, c2, u0, u1, u2)


@njit(parallel=True, **STRICT)
def restrict(bounds, first, part, layer, line, r, cells):
    """cells += P' r by multilinear weights; ``cells`` is flat, its strides ``layer`` (0: 2D) and ``line``."""
    chunks = bounds.size - 1
    for phase in range(2):
        for step in prange((chunks - phase + 1) // 2):
            c = phase + step * 2
            for i in range(bounds[c], bounds[c + 1]):
                at, v, w = first[i], part[i, 1], part[i, 2]
                low, high = r[i], 0.0
                if layer:
                    high = low * part[i, 0]
                    low -= high
                    up = at + layer
                    near, far = high * (1 - v), high * v
                    cells[up] += near * (1 - w)
                    cells[up + 1] += near * w
                    cells[up + line] += far * (1 - w)
                    cells[up + line + 1] += far * w
                near, far = low * (1 - v), low * v
                cells[at] += near * (1 - w)
                cells[at + 1] += near * w
                cells[at + line] += far * (1 - w)
                cells[at + line + 1] += far * w


@njit(parallel=True, **STRICT)
def prolong(bounds, first, part, layer, line, cells, z):
    """z = P cells, with the weights of ``restrict``."""
    for c in prange(bounds.size - 1):
        for i in range(bounds[c], bounds[c + 1]):
            at, v, w = first[i], part[i, 1], part[i, 2]
            near = cells[at] * (1 - w) + cells[at + 1] * w
            far = cells[at + line] * (1 - w) + cells[at + line + 1] * w
            total = near * (1 - v) + far * v
            if layer:
                at += layer
                near = cells[at] * (1 - w) + cells[at + 1] * w
                far = cells[at + line] * (1 - w) + cells[at + line + 1] * w
                total += (near * (1 - v) + far * v - total) * part[i, 0]
            z[i] = total
