"""Which operators need the graph: a cheap look at a sample of blocks of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.learned.multilevel.format import SHIPPED
from consolve.learned.multilevel.graph.widths import estimate_widths
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.uniform import UniformOperator
from consolve.pde.poisson.weak_links import is_weakly_held

SIDE = {2: 16, 3: 8}
"""Cells along the side of a sampled block, by dimension."""
BLOCKS = 96
"""Blocks of a sample."""
JUMP = 10.0
"""Neighbouring faces of a cell that differ by more than this factor are a jump."""
MOST_STRETCH, MOST_JUMPS, MOST_SPLIT = 1.8, 0.003, 0.05
"""What halving along every axis with one unknown a coarse cell still serves."""
WEAKEST_HOLD = 1e-4
"""Links, relative to those of a part that hangs by them, that levels in single precision still bear."""
MOST_CELLS = 300_000_000
"""Of a grid that the graph takes: its edges are counted in 32 bits."""


@dataclass(frozen=True)
class Difficulty:
    """What makes an operator hard for coarse cells that halve every axis and hold one unknown each.

    Parameters
    ----------
    stretch
        Widest over narrowest cell width, over all axes.
    jumps
        Share of the cells of the sample with a jump between two open faces of one axis.
    split
        Share of the blocks of the sample with several parts of at least an eighth of their fluid, that are
        not all held by Dirichlet parts.
    """

    stretch: float
    jumps: float
    split: float

    @property
    def is_hard(self) -> bool:
        """The graph serves better."""
        return self.stretch > MOST_STRETCH or self.jumps > MOST_JUMPS or self.split > MOST_SPLIT


@njit(**STRICT)
def _look(active, f0, f1, f2, start, place, uniform, side, corners, jump, counts):
    """Add to counts: blocks with fluid, blocks in parts, cells with two faces along an axis, jumps.

    ``start, place``: cells with a Dirichlet part by line, as in DirichletParts.
    """
    n0, n1, n2 = active.shape
    parent, size = np.empty(side**3, np.int32), np.empty(side**3, np.int32)
    held = np.empty(side**3, np.bool_)
    for b in range(corners.shape[0]):
        i0, j0, k0 = corners[b, 0], corners[b, 1], corners[b, 2]
        i1, j1, k1 = min(i0 + side, n0), min(j0 + side, n1), min(k0 + side, n2)
        s1, s0 = k1 - k0, (j1 - j0) * (k1 - k0)
        fluid = 0
        for i in range(i0, i1):
            for j in range(j0, j1):
                for k in range(k0, k1):
                    here = (i - i0) * s0 + (j - j0) * s1 + k - k0
                    parent[here] = here
                    size[here] = 0
                    held[here] = False
                    if not active[i, j, k]:
                        continue
                    fluid += 1
                    for axis in range(3):
                        low = (i - i0, j - j0, k - k0)[axis]
                        if low == 0:
                            continue
                        if axis == 0:
                            near, c = active[i - 1, j, k], f0[0, 0, 0] if uniform else f0[i - 1, j, k]
                            other = here - s0
                        elif axis == 1:
                            near, c = active[i, j - 1, k], f1[0, 0, 0] if uniform else f1[i, j - 1, k]
                            other = here - s1
                        else:
                            near, c = active[i, j, k - 1], f2[0, 0, 0] if uniform else f2[i, j, k - 1]
                            other = here - 1
                        if uniform:
                            is_open = near
                        else:
                            is_open = c > 0
                            up = f0[i, j, k] if axis == 0 else (f1[i, j, k] if axis == 1 else f2[i, j, k])
                            if c > 0 and up > 0:
                                counts[2] += 1
                                if up > jump * c or c > jump * up:
                                    counts[3] += 1
                        if is_open:
                            p, q = here, other
                            while parent[p] != p:
                                parent[p] = parent[parent[p]]
                                p = parent[p]
                            while parent[q] != q:
                                parent[q] = parent[parent[q]]
                                q = parent[q]
                            parent[max(p, q)] = min(p, q)
        if fluid == 0:
            continue
        counts[0] += 1
        for i in range(i0, i1):
            for j in range(j0, j1):
                for k in range(k0, k1):
                    if active[i, j, k]:
                        p = (i - i0) * s0 + (j - j0) * s1 + k - k0
                        while parent[p] != p:
                            p = parent[p]
                        size[p] += 1
                for q in range(start[i * n1 + j], start[i * n1 + j + 1]):
                    if k0 <= place[q] < k1:
                        p = (i - i0) * s0 + (j - j0) * s1 + place[q] - k0
                        while parent[p] != p:
                            p = parent[p]
                        held[p] = True
        free, bound = 0, 0
        for p in range((i1 - i0) * s0):
            if 8 * size[p] >= fluid:
                free, bound = (free, bound + 1) if held[p] else (free + 1, bound)
        if free > 1 or (free == 1 and bound > 0):
            counts[1] += 1


def needs_graph(model: str, operator: GridOperator) -> bool:
    """True where a multilevel model is to work on the graph: a shipped one where that serves better, any, a
    weights file too, where single precision does not bear the coefficients."""
    if operator.active.size > MOST_CELLS:
        return False
    is_shipped = model in ("auto", *SHIPPED)
    return (is_shipped and difficulty(operator).is_hard) or is_weakly_held(operator, WEAKEST_HOLD)


def difficulty(operator: GridOperator) -> Difficulty:
    """Look at an operator: widths of its cells, and a sample of blocks that is the same each time."""
    active = as_volume(operator.active)
    side, counts = SIDE[operator.ndim], np.zeros(4, np.int64)
    corners = _corners(active.shape, side)
    if isinstance(operator, UniformOperator):
        none = np.zeros((1, 1, 1))
        fixed = operator.fixed
        _look(active, none, none, none, fixed.start, fixed.place, True, side, corners, JUMP, counts)
        stretch = 1.0
    else:
        faces = operator._volumes[:3]
        start = np.zeros(active.shape[0] * active.shape[1] + 1, np.int32)
        held = operator.dirichlet.reshape(-1, active.shape[2]) > 0
        np.cumsum(np.count_nonzero(held, 1), out=start[1:])
        place = np.nonzero(held)[1].astype(np.int32)
        _look(active, *faces, start, place, False, side, corners, JUMP, counts)
        widths = estimate_widths(faces)
        stretch = max(float(w.max()) for w in widths) / min(float(w.min()) for w in widths)
    blocks, parts, pairs, jumps = (int(c) for c in counts)
    return Difficulty(stretch, jumps / max(pairs, 1), parts / max(blocks, 1))


def _corners(shape: tuple[int, ...], side: int) -> NDArray[np.int64]:
    """First cells of the sampled blocks, scattered evenly."""
    grid = tuple(-(-n // side) for n in shape)
    total = int(np.prod(grid))
    chosen = np.arange(total)
    if total > BLOCKS:
        chosen = np.unique(np.random.default_rng(0).integers(0, total, BLOCKS))
    return np.ascontiguousarray(np.stack(np.unravel_index(chosen, grid), 1) * side, np.int64)
