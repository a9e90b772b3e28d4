"""Numba kernels of the grid operator, on 3D arrays (a 2D grid is a volume of one layer).

Arguments named ``f0, f1, f2, dirichlet, active`` are the arrays of a GridOperator.  In a volume of one layer
``f0`` is never read.  Rows are independent, so all loops over the first two axes run in parallel.
"""

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.base.threads import run_lines

_SOLID, _AIR = 1, 2


@njit(**STRICT)
def _unfit(c):
    """True for NaN, Inf and negative numbers."""
    return not (c >= 0 and c < np.inf)


@njit(**STRICT)
def _check_rows(f0, f1, f2, dirichlet, active, fault, first, end):
    """fault[row] = C-order index of a cell that breaks the rules."""
    n0, n1, n2 = active.shape
    for row in range(first, end):
        i, j = row // n1, row % n1
        for k in range(n2):
            a = active[i, j, k]
            bad = _unfit(dirichlet[i, j, k]) or (dirichlet[i, j, k] > 0 and not a)
            if n0 > 1:
                c = f0[i, j, k]
                bad |= _unfit(c) or (c > 0 and (i + 1 == n0 or not a or not active[i + 1, j, k]))
            c = f1[i, j, k]
            bad |= _unfit(c) or (c > 0 and (j + 1 == n1 or not a or not active[i, j + 1, k]))
            c = f2[i, j, k]
            bad |= _unfit(c) or (c > 0 and (k + 1 == n2 or not a or not active[i, j, k + 1]))
            if bad:
                fault[row] = row * n2 + k


def check_operator(f0: NDArray, f1: NDArray, f2: NDArray, dirichlet: NDArray, active: NDArray) -> int:
    """C-order index of a cell that breaks the rules of a GridOperator, or -1."""
    rows = active.shape[0] * active.shape[1]
    fault = np.full(rows, -1, np.int64)
    run_lines(_check_rows, rows, numba.get_num_threads(), f0, f1, f2, dirichlet, active, fault)
    return int(fault.max(initial=-1))


@njit(inline="always")
def _face(other, k_own, k_other, varying, dtype_one):
    """(coefficient, Dirichlet part) of a fluid cell's face to a cell of type ``other``."""
    if other == 0:
        return (2 * k_own * k_other / (k_own + k_other) if varying else dtype_one), 0 * dtype_one
    if other == _AIR:
        return 0 * dtype_one, (k_own if varying else dtype_one)
    return 0 * dtype_one, 0 * dtype_one


@njit(**STRICT)
def faces_of_types(types, mobility, varying, sides, f0, f1, f2, dirichlet, first, end):
    """Fill zeroed face and Dirichlet arrays from a cell-type image, lines first..end - 1; ``sides`` is int
    (3, 2)."""
    n0, n1, n2 = types.shape
    one = dirichlet.dtype.type(1)
    for row in range(first, end):
        i, j = row // n1, row % n1
        for k in range(n2):
            if types[i, j, k] != 0:
                continue
            own = mobility[i, j, k] if varying else one
            total = 0 * one
            for axis in range(3):
                n = n0 if axis == 0 else n1 if axis == 1 else n2
                if n0 == 1 and axis == 0 and sides[0, 0] == _SOLID and sides[0, 1] == _SOLID:
                    continue
                at = i if axis == 0 else j if axis == 1 else k
                for step in (-1, 1):
                    if at + step < 0 or at + step >= n:
                        other = sides[axis, 0 if step < 0 else 1]
                        c, d = _face(other, own, own, varying, one)
                    else:
                        a = i + step if axis == 0 else i
                        b = j + step if axis == 1 else j
                        e = k + step if axis == 2 else k
                        m = mobility[a, b, e] if varying else one
                        c, d = _face(types[a, b, e], own, m, varying, one)
                        if step > 0:
                            if axis == 0:
                                f0[i, j, k] = c
                            elif axis == 1:
                                f1[i, j, k] = c
                            else:
                                f2[i, j, k] = c
                    total += d
            dirichlet[i, j, k] = total


@njit(parallel=True, **STRICT)
def diagonal(f0, f1, f2, dirichlet, active, out):
    """out = diagonal of A."""
    n0, n1, n2 = active.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            out[i, j, k] = dirichlet[i, j, k] + f1[i, j, k] + f2[i, j, k]
            if k > 0:
                out[i, j, k] += f2[i, j, k - 1]
        if j > 0:
            for k in range(n2):
                out[i, j, k] += f1[i, j - 1, k]
        if n0 > 1:
            for k in range(n2):
                out[i, j, k] += f0[i, j, k]
            if i > 0:
                for k in range(n2):
                    out[i, j, k] += f0[i - 1, j, k]


@njit(parallel=True, **STRICT)
def product(f0, f1, f2, dirichlet, active, x, out):
    """out = A x.  Moves 4 coefficients, x and out: 48 bytes a cell in 3D float64."""
    n0, n1, n2 = active.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            out[i, j, k] = dirichlet[i, j, k] * x[i, j, k]
        for k in range(n2 - 1):
            flux = f2[i, j, k] * (x[i, j, k] - x[i, j, k + 1])
            out[i, j, k] += flux
            out[i, j, k + 1] -= flux
        if j > 0:
            for k in range(n2):
                out[i, j, k] += f1[i, j - 1, k] * (x[i, j, k] - x[i, j - 1, k])
        if j + 1 < n1:
            for k in range(n2):
                out[i, j, k] += f1[i, j, k] * (x[i, j, k] - x[i, j + 1, k])
        if i > 0:
            for k in range(n2):
                out[i, j, k] += f0[i - 1, j, k] * (x[i, j, k] - x[i - 1, j, k])
        if i + 1 < n0:
            for k in range(n2):
                out[i, j, k] += f0[i, j, k] * (x[i, j, k] - x[i + 1, j, k])


@njit(inline="always")
def _neighbours(f0, f1, f2, i, j, k, n0, n1, n2, index, value):
    """C-order indices and coefficients of a cell's open faces, ascending; returns their number."""
    m = 0
    here = (i * n1 + j) * n2 + k
    if i > 0 and f0[i - 1, j, k] > 0:
        index[m], value[m] = here - n1 * n2, f0[i - 1, j, k]
        m += 1
    if j > 0 and f1[i, j - 1, k] > 0:
        index[m], value[m] = here - n2, f1[i, j - 1, k]
        m += 1
    if k > 0 and f2[i, j, k - 1] > 0:
        index[m], value[m] = here - 1, f2[i, j, k - 1]
        m += 1
    if k + 1 < n2 and f2[i, j, k] > 0:
        index[m], value[m] = here + 1, f2[i, j, k]
        m += 1
    if j + 1 < n1 and f1[i, j, k] > 0:
        index[m], value[m] = here + n2, f1[i, j, k]
        m += 1
    if i + 1 < n0 and f0[i, j, k] > 0:
        index[m], value[m] = here + n1 * n2, f0[i, j, k]
        m += 1
    return m


@njit(**STRICT)
def _count_entries(f0, f1, f2, cells, indptr, first, end):
    """indptr[row + 1] = entries of each row."""
    n0, n1, n2 = f2.shape
    index, value = np.empty(6, np.int64), np.empty(6, np.float64)
    for row in range(first, end):
        c = cells[row]
        i, j, k = c // (n1 * n2), c // n2 % n1, c % n2
        indptr[row + 1] = 1 + _neighbours(f0, f1, f2, i, j, k, n0, n1, n2, index, value)


@njit(**STRICT)
def _fill_rows(f0, f1, f2, dirichlet, active, cells, number, indptr, indices, data, first, end):
    """Write the entries of each row."""
    n0, n1, n2 = active.shape
    index, value = np.empty(6, np.int64), np.empty(6, np.float64)
    for row in range(first, end):
        c = cells[row]
        i, j, k = c // (n1 * n2), c // n2 % n1, c % n2
        m = _neighbours(f0, f1, f2, i, j, k, n0, n1, n2, index, value)
        total, at, own = np.float64(dirichlet[i, j, k]), indptr[row], indptr[row]
        for q in range(m):
            total += value[q]
            if index[q] < c:
                own += 1
        for q in range(m):
            if at == own:
                at += 1
            indices[at], data[at] = number[index[q]], -value[q]
            at += 1
        indices[own], data[own] = number[c], total if active[i, j, k] else 1.0


def assemble(*arrays: NDArray) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """CSR arrays of some rows, columns sorted.

    Parameters
    ----------
    arrays
        f0, f1, f2, dirichlet, active; int32 ``cells``, one a row; int32 ``number``, the column of each cell.
    """
    f0, f1, f2, _, _, cells, _ = arrays
    threads = numba.get_num_threads()
    indptr = np.zeros(cells.size + 1, np.int32)
    run_lines(_count_entries, cells.size, threads, f0, f1, f2, cells, indptr)
    np.cumsum(indptr, out=indptr)
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    run_lines(_fill_rows, cells.size, threads, *arrays, indptr, indices, data)
    return indptr, indices, data


@njit(**STRICT)
def root_of(parent, a):
    """Smallest run of the component of run a as known so far; paths are halved on the way."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = np.int64(parent[a])
    return a


@njit(**STRICT)
def _join_rows(face, first, second, parent):
    """Unite the runs of two rows wherever the face between them is open."""
    last_a, last_b = np.int64(-1), np.int64(-1)
    for k in range(face.size):
        if face[k] > 0:
            a, b = np.int64(first[k]), np.int64(second[k])
            if a != last_a or b != last_b:
                last_a, last_b = a, b
                a, b = root_of(parent, a), root_of(parent, b)
                if a < b:
                    parent[b] = a
                else:
                    parent[a] = b


@njit(**STRICT)
def _number_runs(f2, dirichlet, active, labels, start, fixed, first, end):
    """Label the runs of connected cells of each row from ``start`` on; mark those with a Dirichlet part."""
    _, n1, n2 = active.shape
    for row in range(first, end):
        i, j = row // n1, row % n1
        run = start[row] - 1
        for k in range(n2):
            if active[i, j, k]:
                if k == 0 or not f2[i, j, k - 1] > 0:
                    run += 1
                labels[i, j, k] = run
                if dirichlet[i, j, k] > 0:
                    fixed[run] = True
            else:
                labels[i, j, k] = -1


@njit(**STRICT)
def _count_runs(f2, active, start, first, end):
    _, n1, n2 = active.shape
    for row in range(first, end):
        i, j = row // n1, row % n1
        count = 0
        for k in range(n2):
            if active[i, j, k] and (k == 0 or not f2[i, j, k - 1] > 0):
                count += 1
        start[row + 1] = count


@njit(**STRICT)
def _relabel(labels, number, first, end):
    _, n1, n2 = labels.shape
    for row in range(first, end):
        line = labels[row // n1, row % n1]
        for k in range(n2):
            if line[k] >= 0:
                line[k] = number[line[k]]


@njit(**STRICT)
def _join_all(f0, f1, labels, fixed, number, has_dirichlet):
    """Number of each run's component, and which of these have a Dirichlet part; returns their number."""
    n0, n1, _ = labels.shape
    parent = number
    for run in range(parent.size):
        parent[run] = run
    for i in range(n0):
        for j in range(n1):
            if j + 1 < n1:
                _join_rows(f1[i, j], labels[i, j], labels[i, j + 1], parent)
            if i + 1 < n0:
                _join_rows(f0[i, j], labels[i, j], labels[i + 1, j], parent)
    for run in range(parent.size):
        parent[run] = root_of(parent, np.int64(run))
    # A root is the first run of its component: when a run is numbered, its root has been.
    count = 0
    for run in range(parent.size):
        root = parent[run]
        if root == run:
            number[run] = count
            count += 1
        else:
            number[run] = number[root]
        if fixed[run]:
            has_dirichlet[number[run]] = True
    return count


def label_components(*arrays: NDArray) -> NDArray[np.bool_]:
    """Number the connected components of the active cells from 0, in the order of their first cells.

    Runs of connected cells within the rows are united across rows (union-find), so the work besides a few
    sweeps over the grid is proportional to the number of runs.

    Parameters
    ----------
    arrays
        f0, f1, f2, dirichlet, active, and the int32 labels, which are written: -1 where a cell is not active.

    Returns
    -------
    For each component, whether it has a Dirichlet part.
    """
    f0, f1, f2, dirichlet, active, labels = arrays
    rows, threads = active.shape[0] * active.shape[1], numba.get_num_threads()
    start = np.zeros(rows + 1, np.int32)
    run_lines(_count_runs, rows, threads, f2, active, start)
    np.cumsum(start, out=start)
    runs = int(start[rows])
    fixed, has_dirichlet = np.zeros(runs, np.bool_), np.zeros(runs, np.bool_)
    number = np.empty(runs, np.int32)
    run_lines(_number_runs, rows, threads, f2, dirichlet, active, labels, start, fixed)
    count = _join_all(f0, f1, labels, fixed, number, has_dirichlet)
    run_lines(_relabel, rows, threads, labels, number)
    return has_dirichlet[:count].copy()
