"""Places of a matrix's rows on a grid, from the graph of its couplings alone, whatever the numbering.

The couplings of a 5- or 7-point matrix are the edges of a graph.  Where it holds enough squares, there is one
way only, up to reflections, to lay it on the integer lattice so that each edge joins neighbours; the kernels
find it vertex by vertex in linear time.  A placement that they return is always sound: every coupling joins
neighbours, and no two rows share a cell.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.pde.matrix import lattice_kernels as kernels
from consolve.pde.matrix.lattice_points import BOX, SIMPLEX, STAR

SIGNIFICANT = 1e-10
"""A coupling under this fraction of both its rows' diagonals is none: round-off of finite elements."""

SPARSEST = 8
"""Cells for each coupled row up to which a grid is worth its memory: unrolled mazes take more."""

_SEEDS, _BUDGET = 3, 12
"""Searches of one kind, and looks at each row in one of them, before a kind is given up."""
_LARGE = 100_000
"""Rows from which a part is searched once: again would take as long as a solve."""

_MODES = (
    (2, STAR, 4),
    (3, STAR, 6),
    (2, SIMPLEX, 6),
    (2, BOX, 8),
    (3, SIMPLEX, 14),
    (3, BOX, 26),
)
"""Dimension, kind of neighbours, greatest degree: in the order in which they are tried."""


@dataclass(frozen=True)
class Placement:
    """A cell for each row of a matrix.

    Parameters
    ----------
    shape
        Cells along each axis, in NumPy's order: (NY, NX) or (NZ, NY, NX).
    cells
        int64: C-order cell index of each row, all different.
    periodic
        For each axis: couplings join the last cell and the first.
    box
        Some coupling joins diagonal neighbours.
    """

    shape: tuple[int, ...]
    cells: NDArray[np.int64]
    periodic: tuple[bool, ...]
    box: bool


def coupling_graph(
    indptr: NDArray, indices: NDArray, values: NDArray, stored: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The couplings of a CSR matrix as a symmetric graph without loops, CSR with sorted columns.

    Parameters
    ----------
    indptr, indices, values
        A square matrix; ``values`` are real.
    stored
        Take every stored entry, zeros included, not only the significant ones: |a_ij| > 1e-10 |a_ii|.
    """
    rows = indptr.size - 1
    row = np.repeat(np.arange(rows, dtype=np.int32), np.diff(indptr))
    keep = row != indices
    if not stored:
        on_diagonal = np.flatnonzero(~keep)
        diagonal = np.zeros(rows)
        diagonal[row[on_diagonal]] = np.abs(values[on_diagonal])
        keep &= np.abs(values) > SIGNIFICANT * diagonal[row]
    kept = np.cumsum(keep)
    pointers = np.concatenate([[0], kept])[indptr]
    graph = sp.csr_matrix(
        (np.ones(int(kept[-1]) if kept.size else 0, np.int8), indices[keep], pointers), (rows, rows)
    )
    graph.sum_duplicates()
    back = graph.T.tocsr()
    if not (np.array_equal(graph.indptr, back.indptr) and np.array_equal(graph.indices, back.indices)):
        graph = (graph + back).tocsr()
        graph.sort_indices()
    return graph.indptr.astype(np.int32, copy=False), graph.indices.astype(np.int32, copy=False)


def find_lattice(indptr: NDArray, indices: NDArray, values: NDArray) -> Placement | None:
    """Lay the rows of a matrix on a lattice by their couplings; None if no way is found.

    Tried for each connected part: a 2D and a 3D lattice with couplings along the axes, then with diagonal
    neighbours, as P1 elements on a structured mesh and 9- and 27-point stencils have them.  Parts are set
    side by side.  Rows without couplings get cells that are left over, in added layers if there are too few.
    The last axis (x) is the one that consecutive rows follow most often, else the longest; the other axes
    ascend in length.  A grid of more than 8 cells for each coupled row (and 4096) is refused.

    Parameters
    ----------
    indptr, indices, values
        A square CSR matrix on one rank.

    Notes
    -----
    Guesses are needed where cells hang together by single couplings: in passages of one cell, at lone cells
    that stand out.  Few of them cost nothing; a maze of them may make the search give up.
    """
    for graph in _graphs(indptr, indices, values):
        placement = _place_all(*graph)
        if placement is not None:
            return placement
    return None


def _graphs(indptr, indices, values):
    """Significant couplings first if a star stencil may hold them: those of Q1 elements lack neighbours."""
    significant = coupling_graph(indptr, indices, values)
    degree = int(np.diff(significant[0]).max(initial=0))
    if indices.size == significant[1].size + indptr.size - 1:
        return [significant] if degree <= _MODES[-1][2] else []
    stored = coupling_graph(indptr, indices, values, stored=True)
    graphs = [significant]
    if stored[1].size != significant[1].size and np.diff(stored[0]).max() <= _MODES[-1][2]:
        graphs.insert(0 if degree > _MODES[1][2] else 1, stored)
    return graphs if degree <= _MODES[-1][2] else []


def _place_all(indptr: NDArray[np.int32], indices: NDArray[np.int32]) -> Placement | None:
    """Place each connected part, set them side by side, and give the other rows cells that are left over."""
    rows = indptr.size - 1
    degree = np.diff(indptr)
    graph = sp.csr_matrix((np.ones(indices.size, np.int8), indices, indptr), (rows, rows))
    count, part = sp.csgraph.connected_components(graph, directed=False)
    members = np.argsort(part, kind="stable") if count > 1 else np.arange(rows)
    ends = np.cumsum(np.bincount(part, minlength=count))
    search = _Search(indptr, indices)
    parts, kinds = [], []
    for own in sorted(np.split(members, ends[:-1]), key=len, reverse=True):
        if degree[own[0]] == 0:
            continue
        kind = search.place(own, degree[own])
        if kind is None:
            return None
        parts.append(own)
        kinds.append(kind)
    ndim = 3 if any(search.point[own, 0].any() for own in parts) else 2
    turned = [_turned(search.point[own, 3 - ndim :], own) for own in parts]
    shape, corners = _shelves([tuple(points.max(axis=0) + 1) for points in turned], ndim)
    coupled = sum(own.size for own in parts)
    if math.prod(shape) > SPARSEST * coupled + 4096:
        return None
    cells = np.full(rows, -1, np.int64)
    for own, points, corner in zip(parts, turned, corners):
        cells[own] = np.ravel_multi_index(tuple((points + corner).T), shape)
    if coupled < rows:
        shape = _spare_cells(cells, shape)
    return Placement(shape, cells, (False,) * ndim, any(kinds))


class _Search:
    """The kernels' search with its memory, for one part after the other."""

    def __init__(self, indptr: NDArray[np.int32], indices: NDArray[np.int32]) -> None:
        rows = indptr.size - 1
        self.graph = indptr, indices
        self.point, self.placed = np.zeros((rows, 3), np.int32), np.zeros(rows, np.bool_)
        keys = np.full(1 << max(6, (4 * rows - 1).bit_length()), -1, np.int64)
        lists, flags = np.empty((2, rows + 1), np.int64), np.zeros((2, rows), np.bool_)
        self.memory = keys, np.empty(rows, np.int64), lists, flags

    def place(self, own: NDArray[np.int64], degree: NDArray[np.int32]) -> int | None:
        """Fill ``point`` for the rows of a part; the kind of neighbours, or None: no way found.

        A search that is given up is tried again from other rows: guesses then come in another order.
        """
        largest = int(degree.max())
        inside = own[np.argsort(-degree, kind="stable")]
        inside = inside[: max(_SEEDS, np.count_nonzero(degree == largest))]
        count = _SEEDS if own.size < _LARGE else 1
        seeds = dict.fromkeys(int(inside[inside.size * q // count]) for q in range(count))
        budget = _BUDGET * min(own.size, _LARGE) + 3 * own.size + 200_000
        outcome = kernels.IMPOSSIBLE
        for ndim, kind, most in _MODES:
            if largest > most:
                continue
            if outcome == kernels.GIVEN_UP and (kind != STAR or own.size >= _LARGE):
                continue
            for seed in seeds:
                outcome, _ = kernels.place_component(
                    seed, *self.graph, ndim, kind, budget, self.placed, self.point, *self.memory
                )
                if outcome == kernels.PLACED:
                    if kind == SIMPLEX:
                        self.point[own, 3 - ndim :] = _upright(self.point[own, 3 - ndim :])
                    return kind
                if outcome == kernels.IMPOSSIBLE:
                    break
        return None


def _upright(point: NDArray[np.int32]) -> NDArray[np.int32]:
    """The points of a SIMPLEX lattice, in the one of its equivalent frames that has the smallest box.

    With e_0 = -(e_1 + ... + e_d) any d of the d + 1 directions are axes.
    """
    ndim = point.shape[1]
    extended = np.column_stack((point, np.zeros(len(point), np.int32)))
    frames = (extended[:, order] for order in itertools.permutations(range(ndim + 1)))
    views = (frame[:, :ndim] - frame[:, ndim:] for frame in frames)
    return min(views, key=lambda view: math.prod(int(n) + 1 for n in np.ptp(view, axis=0)))


def _turned(point: NDArray[np.int32], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Points of a part from 0 on, with its axes permuted and reflected; see find_lattice for the order."""
    ndim = point.shape[1]
    at: NDArray[np.int64] = (point - point.min(axis=0)).astype(np.int64)
    extent = at.max(axis=0)
    step = np.diff(at, axis=0)[np.diff(own) == 1]
    step = step[np.abs(step).sum(axis=1) == 1]
    along, forward = np.abs(step).sum(axis=0), step.sum(axis=0)
    followed = 4 * along > own.size
    main = int(np.argmax(along if followed.any() else extent))
    order = sorted(range(ndim), key=lambda axis: (axis == main, extent[axis]))
    rank = np.arange(own.size) - 0.5 * (own.size - 1)
    falls = np.where(followed, forward < 0, rank @ at < 0)
    at[:, falls] = (extent - at)[:, falls]
    return at[:, order]


def _spare_cells(cells: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the rows of ``cells`` that are -1 cells that no other has; returns the shape, which may grow."""
    taken, lone = cells[cells >= 0], np.flatnonzero(cells < 0)
    layer, size = math.prod(shape[1:]), math.prod(shape)
    missing = max(0, lone.size - (size - taken.size))
    shape = (shape[0] + -(-missing // layer), *shape[1:])
    free = np.ones(math.prod(shape), np.bool_)
    free[taken] = False
    cells[lone] = np.flatnonzero(free)[: lone.size]
    return shape


def _shelves(sizes: list[tuple[int, ...]], ndim: int) -> tuple[tuple[int, ...], list[NDArray[np.int64]]]:
    """Boxes packed without overlap: the shape of the whole, and the corner of each box.

    Boxes stand in lines along the last axis, lines side by side along the axis before; axis 0 of a volume is
    as long as the longest box.
    """
    if not sizes:
        return (1,) * ndim, []
    width = max(max(size[-1] for size in sizes), math.isqrt(sum(size[-1] * size[-2] for size in sizes)))
    corners = [np.zeros(ndim, np.int64) for _ in sizes]
    across, along, depth = 0, 0, 0
    for number in sorted(range(len(sizes)), key=lambda q: -sizes[q][-2]):
        size = sizes[number]
        if along and along + size[-1] > width:
            across, along, depth = across + depth, 0, 0
        corners[number][-2:] = across, along
        along, depth = along + int(size[-1]), max(depth, int(size[-2]))
    longest = max(int(corner[-1]) + int(size[-1]) for corner, size in zip(corners, sizes))
    shape = int(across + depth), longest
    return (shape if ndim == 2 else (int(max(size[0] for size in sizes)), *shape)), corners
