"""Where each array of each level stands: one float32 arena and one table of integers for the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.learned.cycle_kernels import OPTIONS
from consolve.learned.weights import COARSEST

ARRAYS = (
    "x", "b", "residual", "smoother", "diagonal", "own",
    "prolong0", "prolong1", "prolong2", "face0", "face1", "face2",
)  # fmt: skip
"""Arrays of a level, in the order of the table's columns from 6 on; see cycle_kernels for the layout of
one."""


@dataclass(frozen=True)
class Layout:
    """Levels of one grid.

    Parameters
    ----------
    shapes
        Cells (n0, n1, n2) of each level, finest first; n0 = 1 for a 2D grid.
    table
        int64, one row a level: n0, n1, n2, rows, width, uniform, then the offset of each array in the arena.
    size
        float32 values in the arena.
    """

    shapes: tuple[tuple[int, int, int], ...]
    table: NDArray[np.int64]
    size: int

    def array(self, arena: NDArray[np.float32], level: int, name: str) -> NDArray[np.float32]:
        """View (2, rows, width) of one array."""
        rows, width, at = (int(self.table[level, q]) for q in (3, 4, 6 + ARRAYS.index(name)))
        return arena[at : at + 2 * rows * width].reshape(2, rows, width)


def level_shapes(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Cells of each level: halved, rounding up, until no axis is longer than COARSEST."""
    volume = (1, *shape) if len(shape) == 2 else shape
    levels = [volume]
    while max(levels[-1]) > COARSEST:
        levels.append(tuple((n + 1) // 2 for n in levels[-1]))
    return tuple(levels)  # type: ignore[arg-type]


def make_layout(shape: tuple[int, ...], uniform: bool) -> Layout:
    """Layout of a grid; ``uniform`` leaves out the face arrays of the finest level."""
    shapes = level_shapes(shape)
    table = np.zeros((len(shapes), 6 + len(ARRAYS)), np.int64)
    at = 0
    for level, (n0, n1, n2) in enumerate(shapes):
        rows = (n0 + 2 if n0 > 1 else 1) * (n1 + 2)
        width = (n2 + 1) // 2 + 2
        table[level, :6] = n0, n1, n2, rows, width, uniform and level == 0
        last = level == len(shapes) - 1
        for column, name in enumerate(ARRAYS, 6):
            needed = name in ("x", "b") if last else True
            if name.startswith("face") and uniform and level == 0:
                needed = False
            if name in ("face0", "prolong0") and n0 == 1:
                needed = False
            if needed:
                table[level, column] = at
                at += 2 * rows * width
            else:
                table[level, column] = table[level, 6]  # never read; a view must still exist
    if at >= 2**31:
        raise ValueError(
            f"a grid of {shape} cells is too large for one process: its levels take {at * 4} bytes"
        )
    return Layout(shapes, table, at)


@njit(**OPTIONS)
def _runs(cells, active, n1, n2, first, last, out, at):
    """Write the runs of cells[first:last] to ``out`` from ``at`` on (if it has any rows); returns how many
    there are."""
    count = 0
    q = first
    while q < last:
        cell = cells[q]
        line, k = cell // n2, cell % n2
        on = active[cell]
        length = 1
        while (
            q + length < last
            and k + length < n2
            and cells[q + length] == cell + length
            and active[cell + length] == on
        ):
            length += 1
        if out.shape[0] > 0:
            out[at + count, 0] = q
            out[at + count, 1] = length
            out[at + count, 2] = line if on else -1
            out[at + count, 3] = k
        count += 1
        q += length
    return count


@njit(parallel=True, **OPTIONS)
def runs_of(cells, active, n1, n2):
    """The entries of a vector as runs of neighbouring cells of one row.

    Parameters
    ----------
    cells
        int32: C-order cell index of each entry.
    active
        Boolean, flattened.
    n1, n2
        Length of the last two axes.

    Returns
    -------
    int32 (runs, 4)
        First entry, length, line i * n1 + j (-1: cells that are not active), and k of the first cell.
    """
    chunks = max(1, min(256, cells.size // 4096))
    counts = np.zeros(chunks + 1, np.int64)
    none = np.empty((0, 4), np.int32)
    for c in prange(chunks):
        first, last = cells.size * c // chunks, cells.size * (c + 1) // chunks
        counts[c + 1] = _runs(cells, active, n1, n2, first, last, none, 0)
    for c in range(chunks):
        counts[c + 1] += counts[c]
    out = np.empty((counts[chunks], 4), np.int32)
    for c in prange(chunks):
        first, last = cells.size * c // chunks, cells.size * (c + 1) // chunks
        _runs(cells, active, n1, n2, first, last, out, counts[c])
    return out
