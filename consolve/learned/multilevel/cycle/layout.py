"""Where each array of each level stands: one arena and a record of addresses a level for the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.base.jit import FAST
from consolve.learned.multilevel.cycle import line_kernels
from consolve.learned.multilevel.cycle.line_kernels import COLUMNS
from consolve.learned.multilevel.cycle.row_vectors import LANES, row_width
from consolve.learned.multilevel.format import COARSEST

SERIAL_CELLS = 20_000
"""Levels with fewer cells run on one thread: a parallel region costs more than it saves."""
VECTORS = ("x", "b", "residual")
COEFFICIENTS = ("smoother", "diagonal", "own", "prolong0", "prolong1", "prolong2", "face0", "face1", "face2")
PACKED_COEFFICIENTS = ("relax", "moves")
_FIRST_ARRAY = COLUMNS.index("x")


@dataclass(frozen=True)
class Layout:
    """Levels of one grid.

    Parameters
    ----------
    shapes
        Cells (n0, n1, n2) of each level, finest first; n0 = 1 for a 2D grid.
    packed
        The finest level is one of packed coefficients.
    offsets
        For each level, the arrays that it has and where they begin in the arena.
    size
        Values of four bytes in the arena.
    """

    shapes: tuple[tuple[int, int, int], ...]
    packed: bool
    offsets: tuple[dict[str, int], ...]
    size: int

    def is_packed(self, level: int) -> bool:
        """The level has packed coefficients."""
        return self.packed and level == 0

    def array(self, arena: NDArray[np.float32], level: int, name: str) -> NDArray:
        """View (2, rows, width) of one array: float32, uint32 for packed coefficients."""
        at, shape = self.offsets[level][name], array_shape(self.shapes[level])
        view = arena[at : at + int(np.prod(shape))].reshape(shape)
        return view.view(np.uint32) if name in PACKED_COEFFICIENTS else view

    def records(self, arena: NDArray[np.float32]) -> NDArray[np.int64]:
        """What the kernels need to know of each level, see cycle_kernels."""
        records = []
        for level, shape in enumerate(self.shapes):
            arrays = {name: self.array(arena, level, name) for name in self.offsets[level]}
            records.append(record_of(shape, self.is_packed(level), arrays))
        return np.array(records)

    def bytes(self, level: int) -> int:
        """Memory of a level."""
        return 4 * len(self.offsets[level]) * int(np.prod(array_shape(self.shapes[level])))


def array_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape (2, rows, width) of the arrays of a level of n0 x n1 x n2 cells."""
    n0, n1, n2 = shape
    return 2, (n0 + 2 if n0 > 1 else 1) * (n1 + 2), row_width(n2)


def record_of(shape: tuple[int, int, int], packed: bool, arrays: dict[str, NDArray]) -> NDArray[np.int64]:
    """The record of a level, by the columns of cycle_kernels; 0 for arrays that it does not have."""
    record = np.zeros(len(COLUMNS), np.int64)
    record[:_FIRST_ARRAY] = *shape, *array_shape(shape)[1:], packed
    for name, kernel in line_kernels.compiled().items():
        record[COLUMNS.index(name)] = kernel.address
    for name, array in arrays.items():
        record[COLUMNS.index(name)] = array.ctypes.data + array.itemsize
    return record


def level_shapes(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Cells of each level: halved, rounding up, until no axis is longer than COARSEST."""
    volume = (1, *shape) if len(shape) == 2 else shape
    levels = [volume]
    while max(levels[-1]) > COARSEST:
        levels.append(tuple((n + 1) // 2 for n in levels[-1]))
    return tuple(levels)  # type: ignore[arg-type]


def coefficient_names(shape: tuple[int, int, int], packed: bool) -> tuple[str, ...]:
    """The arrays of coefficients that a level has."""
    if packed:
        return PACKED_COEFFICIENTS
    return tuple(n for n in COEFFICIENTS if shape[0] > 1 or n not in ("face0", "prolong0"))


def make_layout(shape: tuple[int, ...], packed: bool) -> Layout:
    """Layout of a grid; ``packed`` is for an image whose open faces are all alike."""
    shapes = level_shapes(shape)
    packed = packed and len(shapes) > 1
    offsets: list[dict[str, int]] = []
    at = 0
    for level, cells in enumerate(shapes):
        last = level == len(shapes) - 1
        coefficients = coefficient_names(cells, packed and level == 0)
        names = ("x", "b") if last else VECTORS + coefficients
        size = int(np.prod(array_shape(cells)))
        offsets.append({name: at + q * size for q, name in enumerate(names)})
        at += len(names) * size
    # A row of coarse values is read as far as whole vectors of the fine one go.
    return Layout(shapes, packed, tuple(offsets), at + 2 * LANES)


@njit(**FAST)
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


@njit(parallel=True, **FAST)
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
