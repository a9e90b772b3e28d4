"""Numba kernels of runs: neighbouring cells of one row of the grid that carry unknowns.

A run is a row of an int32 array (runs, 4): number of its first cell among the entries of a vector, length,
line i * n1 + j (-1 where the entries carry no unknown), and k of the first cell.  Runs are in the order of
their cells and as long as can be; those of line l are ``start[l]`` to ``start[l + 1]``.  Arrays of the grid
are volumes (n0, n1, n2).
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT
from consolve.pde.poisson.kernels import root_of

_BLOCK = 64
_OFF, _ON = np.uint8(0), np.uint8(1)


@njit(**STRICT)
def alike(row, k, value):
    """First position from ``k`` on where ``row`` differs from ``value``; its length if there is none."""
    n = row.size
    while k + _BLOCK <= n:  # whole blocks, without a branch inside, so that they vectorise
        block, other = row[k : k + _BLOCK], np.uint8(0)
        for q in range(_BLOCK):
            other = np.uint8(other | (block[q] ^ value))  # the cast keeps the lanes narrow
        if other:
            break
        k += _BLOCK
    while k < n and row[k] == value:
        k += 1
    return k


@njit(**STRICT)
def _runs_of_line(row, line, entry, out, at):
    """Write the runs of a line to ``out`` from ``at`` on, if it has any rows; returns runs and cells."""
    runs, cells = 0, 0
    k = alike(row, 0, _OFF)
    while k < row.size:
        end = alike(row, k, _ON)
        if out.shape[0] > 0:
            out[at + runs, 0] = entry + cells
            out[at + runs, 1] = end - k
            out[at + runs, 2] = line
            out[at + runs, 3] = k
        runs += 1
        cells += end - k
        k = alike(row, end, _OFF)
    return runs, cells


@njit(parallel=True, **STRICT)
def runs_of_cells(active, threads):
    """Runs of the active cells (uint8, 1 or 0), numbered in C order; and where those of each line start."""
    n0, n1, _ = active.shape
    lines = n0 * n1
    start, entry = np.zeros(lines + 1, np.int32), np.zeros(lines + 1, np.int32)
    none = np.empty((0, 4), np.int32)
    for thread in prange(threads):
        for line in range(lines * thread // threads, lines * (thread + 1) // threads):
            runs, cells = _runs_of_line(active[line // n1, line % n1], line, 0, none, 0)
            start[line + 1], entry[line + 1] = runs, cells
    for line in range(lines):
        start[line + 1] += start[line]
        entry[line + 1] += entry[line]
    out = np.empty((start[lines], 4), np.int32)
    for thread in prange(threads):
        for line in range(lines * thread // threads, lines * (thread + 1) // threads):
            _runs_of_line(active[line // n1, line % n1], line, entry[line], out, start[line])
    return out, start


@njit(**STRICT)
def _join(runs, parent, a, a_end, b, b_end):
    """Unite the runs of two lines that lie beside each other."""
    while a < a_end and b < b_end:
        low_a, low_b = runs[a, 3], runs[b, 3]
        high_a, high_b = low_a + runs[a, 1], low_b + runs[b, 1]
        if low_a < high_b and low_b < high_a and runs[a, 2] >= 0 and runs[b, 2] >= 0:
            first, second = root_of(parent, a), root_of(parent, b)
            if first < second:
                parent[second] = first
            else:
                parent[first] = second
        if high_a < high_b:
            a += 1
        else:
            b += 1


@njit(**STRICT)
def components_of_runs(runs, start, shape, fixed_start, fixed_place):
    """Connected components where every face between two active cells is open, in the order of their first
    cells.

    Parameters
    ----------
    runs, start, shape
        The active cells of a volume.
    fixed_start, fixed_place
        k of the cells with a Dirichlet part, by line.

    Returns
    -------
    The component of each run (-1 for entries without unknowns), and for each component whether it has a
    Dirichlet part.
    """
    n0, n1 = shape[0], shape[1]
    count = runs.shape[0]
    parent = np.empty(count, np.int32)
    for r in range(count):
        parent[r] = r
    for i in range(n0):
        for j in range(n1):
            line = i * n1 + j
            a, a_end = np.int64(start[line]), np.int64(start[line + 1])
            if j + 1 < n1:
                _join(runs, parent, a, a_end, a_end, np.int64(start[line + 2]))
            if i + 1 < n0:
                b, b_end = np.int64(start[line + n1]), np.int64(start[line + n1 + 1])
                _join(runs, parent, a, a_end, b, b_end)
    number = np.empty(count, np.int32)
    components = 0
    for r in range(count):
        if runs[r, 2] < 0:
            number[r] = -1
            continue
        root = root_of(parent, r)
        if root == r:
            number[r] = components
            components += 1
        else:
            number[r] = number[root]
    has_dirichlet = np.zeros(components, np.bool_)
    for line in range(n0 * n1):
        r = start[line]
        for q in range(fixed_start[line], fixed_start[line + 1]):
            while runs[r, 3] + runs[r, 1] <= fixed_place[q]:
                r += 1
            has_dirichlet[number[r]] = True
    return number, has_dirichlet


@njit(parallel=True, **STRICT)
def label_cells(runs, start, number, labels):
    """Number of each cell's run, -1 where there is none."""
    n0, n1, _ = labels.shape
    for line in prange(n0 * n1):
        row = labels[line // n1, line % n1]
        row[:] = -1
        for r in range(start[line], start[line + 1]):
            row[runs[r, 3] : runs[r, 3] + runs[r, 1]] = number[r]
