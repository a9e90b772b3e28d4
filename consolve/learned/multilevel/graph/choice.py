"""Which operators need the graph: a cheap look at a sample of blocks of cells."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from consolve.base.collective import together
from consolve.base.jit import STRICT
from consolve.base.memory import GIB, MIB, available
from consolve.learned.dcdm.model import is_dcdm
from consolve.learned.multilevel.format import SHIPPED
from consolve.learned.multilevel.graph.sample import Sample, sample_of_grid, sample_of_rows
from consolve.learned.multilevel.graph.widths import widths_of_sample
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.weak_links import is_weakly_held

JUMP = 10.0
"""Neighbouring faces of a cell that differ by more than this factor are a jump."""
MOST_STRETCH, MOST_JUMPS, MOST_SPLIT = 1.8, 0.003, 0.05
"""What halving along every axis with one unknown a coarse cell still serves."""
WEAKEST_HOLD = 1e-4
"""Links, relative to those of a part that hangs by them, that levels in single precision still bear."""
MOST_CELLS = 300_000_000
"""Of a grid that the graph takes: its edges are counted in 32 bits."""
GATHERED_BYTES = 600
"""Of memory a cell, at most about, that the first of several ranks needs in set-up."""


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
def _look(active, held, f0, f1, f2, uniform, jump, counts):
    """Add to counts: blocks with fluid, blocks in parts, cells with two faces along an axis, jumps."""
    blocks, n0, n1, n2 = active.shape
    s0, s1 = n1 * n2, n2
    parent, size = np.empty(n0 * s0, np.int32), np.empty(n0 * s0, np.int32)
    is_held = np.empty(n0 * s0, np.bool_)
    for b in range(blocks):
        fluid = 0
        for i in range(n0):
            for j in range(n1):
                for k in range(n2):
                    here = i * s0 + j * s1 + k
                    parent[here] = here
                    size[here] = 0
                    is_held[here] = False
                    if not active[b, i, j, k]:
                        continue
                    fluid += 1
                    for axis in range(3):
                        if (i, j, k)[axis] == 0:
                            continue
                        if axis == 0:
                            near, other = (b, i - 1, j, k), here - s0
                        elif axis == 1:
                            near, other = (b, i, j - 1, k), here - s1
                        else:
                            near, other = (b, i, j, k - 1), here - 1
                        if uniform:
                            is_open = active[near]
                        else:
                            c = f0[near] if axis == 0 else (f1[near] if axis == 1 else f2[near])
                            is_open = c > 0
                            up = f0[b, i, j, k]
                            if axis > 0:
                                up = f1[b, i, j, k] if axis == 1 else f2[b, i, j, k]
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
        for i in range(n0):
            for j in range(n1):
                for k in range(n2):
                    if active[b, i, j, k]:
                        p = i * s0 + j * s1 + k
                        while parent[p] != p:
                            p = parent[p]
                        size[p] += 1
                        is_held[p] |= held[b, i, j, k]
        free, bound = 0, 0
        for p in range(n0 * s0):
            if 8 * size[p] >= fluid:
                free, bound = (free, bound + 1) if is_held[p] else (free + 1, bound)
        if free > 1 or (free == 1 and bound > 0):
            counts[1] += 1


class Look(NamedTuple):
    """What is seen of an operator.

    Attributes
    ----------
    is_hard
        Multigrid on a graph serves it better.
    obstacle
        Why that cannot be, in words; empty where it can.
    """

    is_hard: bool
    obstacle: str = ""

    @property
    def on_graph(self) -> bool:
        """A shipped model is to work on the graph."""
        return self.is_hard and not self.obstacle


def look(model: str, operator: GridOperator | RowOperator, comm: Any = None) -> Look:
    """Whether a model, by its name, is to work on the graph.

    A shipped one where that serves better; on one rank any, a weights file too, where single precision does
    not bear the coefficients.

    Parameters
    ----------
    model
        Its name.
    operator
        Of one rank, or its rows of several ranks or of a periodic grid; then the call is collective, and all
        ranks are told the same.
    comm
        mpi4py communicator, or None: one rank.
    """
    is_shipped = model in ("auto", *SHIPPED)
    if isinstance(operator, GridOperator):
        if is_dcdm(model):
            return Look(False)
        is_hard = is_shipped and difficulty(sample_of_grid(operator)).is_hard
        is_hard = is_hard or is_weakly_held(operator, WEAKEST_HOLD)
        return Look(is_hard, _obstacle(operator.shape, 0) if is_hard else "")
    if not is_shipped:
        return Look(False)
    sample = sample_of_rows(operator, comm)
    found = Look(False)
    with together(comm):
        if sample is not None and difficulty(sample).is_hard:
            found = Look(True, _obstacle(operator.shape, GATHERED_BYTES))
    return found if comm is None else Look(*comm.bcast(tuple(found)))


def _obstacle(shape: tuple[int, ...], bytes_: int) -> str:
    cells = prod(shape)
    if cells > MOST_CELLS:
        return f"its {cells:,} cells are more than {MOST_CELLS:,}"
    needed = bytes_ * cells
    if needed > 64 * MIB and needed > (there_is := available()):
        return (
            f"it works on the first rank, where it needs about {needed / GIB:.1f} GiB of memory and "
            f"{there_is / GIB:.1f} GiB are left"
        )
    return ""


def gathering_obstacle(shape: tuple[int, ...], comm: Any) -> str:
    """Why the first rank cannot take a whole grid, in words, the same on all ranks; empty where it can."""
    obstacle = _obstacle(shape, GATHERED_BYTES)
    return obstacle if comm is None else str(comm.bcast(obstacle))


def needs_graph(model: str, operator: GridOperator | RowOperator, comm: Any = None) -> bool:
    """``look(...).on_graph``."""
    return look(model, operator, comm).on_graph


def difficulty(sample: Sample) -> Difficulty:
    """Look at a sample of an operator: widths of its cells, and blocks."""
    counts = np.zeros(4, np.int64)
    none = np.zeros((1, 1, 1, 1))
    faces = (none,) * 3 if sample.faces is None else sample.faces
    _look(sample.active, sample.held, *faces, sample.faces is None, JUMP, counts)
    stretch = 1.0
    if sample.scattered is not None:
        widths = widths_of_sample(sample.shape, *sample.scattered)
        stretch = max(float(w.max()) for w in widths) / min(float(w.min()) for w in widths)
    blocks, parts, pairs, jumps = (int(c) for c in counts)
    return Difficulty(stretch, jumps / max(pairs, 1), parts / max(blocks, 1))
