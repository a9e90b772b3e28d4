"""Numba kernels of Gauss-Seidel sweeps by blocks of rows.

The rows of S = D + L + U + O stand in blocks, which run in parallel: L and U couple rows of one block, O
those of different blocks, and ghosts, which are numbered after the rows.  Entries of a row are stored in the
order L, O, U, with ``lower[i]`` and ``outer[i]`` of the first two; values are float32, vectors float64.
Within a block a sweep takes the values that it has computed, across blocks those of before, so that its
result does not depend on threads.  The divisor is E = D + max(0, sum |O| - D) / 2, with which 2 E - D - O is
positive semi-definite whatever the blocks (Gershgorin): then a sweep and its transpose make a definite M.
"""

from __future__ import annotations

from numba import njit, prange

from consolve.base.jit import STRICT
from consolve.pde.matrix.stencil_kernels import COUPLED


@njit(parallel=True, **STRICT)
def fill_entries(
    bounds, order, place, own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, kind,
    factor, diagonal, start, lower, outer, column, value, inverse, surplus,
):  # fmt: skip
    """Fill columns and values of S = factor A, the numbers of L and O in each row, 1 / E, and E - D.

    ``order`` gives the row of each new place, ``place`` is its inverse.  A row with couplings has room for
    its stored entries but one, others for none; what is left holds zeros.
    """
    ghosts, rows = ghost_start.size > 1, order.size
    for b in prange(bounds.size - 1):
        begin, end = bounds[b], bounds[b + 1]
        for at in range(begin, end):
            i = order[at]
            inverse[at], surplus[at], lower[at], outer[at] = 0.0, 0.0, 0, 0
            if kind[i] != COUPLED:
                continue
            low, out = 0, 0
            for q in range(own_start[i], own_start[i + 1]):
                j = own_column[q]
                if own_value[q] == 0 or kind[j] != COUPLED or j == i:
                    continue
                there = place[j]
                if there < begin or there >= end:
                    out += 1
                elif there < at:
                    low += 1
            if ghosts:
                for q in range(ghost_start[i], ghost_start[i + 1]):
                    if ghost_value[q] != 0 and kind[rows + ghost_column[q]] == COUPLED:
                        out += 1
            lower[at], outer[at] = low, out
            low = start[at]
            out = low + lower[at]
            up = out + outer[at]
            beyond, d = 0.0, factor * diagonal[i]
            for q in range(own_start[i], own_start[i + 1]):
                j = own_column[q]
                if own_value[q] == 0 or kind[j] != COUPLED or j == i:
                    continue
                there = place[j]
                if there < begin or there >= end:
                    beyond += abs(own_value[q])
                    to = out
                    out += 1
                elif there < at:
                    to = low
                    low += 1
                else:
                    to = up
                    up += 1
                column[to], value[to] = there, factor * own_value[q]
            if ghosts:
                for q in range(ghost_start[i], ghost_start[i + 1]):
                    j = rows + ghost_column[q]
                    if ghost_value[q] != 0 and kind[j] == COUPLED:
                        beyond += abs(ghost_value[q])
                        column[out], value[out] = j, factor * ghost_value[q]
                        out += 1
            for to in range(up, start[at + 1]):
                column[to], value[to] = at, 0.0
            surplus[at] = max(0.0, 0.5 * (abs(factor) * beyond - d))
            inverse[at] = 1.0 / (d + surplus[at])


@njit(parallel=True, **STRICT)
def first_sweep(bounds, start, lower, column, value, inverse, r, z):
    """z = (L + E)^-1 r."""
    for b in prange(bounds.size - 1):
        for i in range(bounds[b], bounds[b + 1]):
            s = r[i]
            for q in range(start[i], start[i] + lower[i]):
                s -= value[q] * z[column[q]]
            z[i] = s * inverse[i]


@njit(parallel=True, **STRICT)
def residual_after_first(bounds, start, lower, column, value, surplus, z, t):
    """t = r - S z = (E - D - O - U) z after ``first_sweep``; 0 in rows without couplings."""
    for b in prange(bounds.size - 1):
        for i in range(bounds[b], bounds[b + 1]):
            s = surplus[i] * z[i]
            for q in range(start[i] + lower[i], start[i + 1]):
                s -= value[q] * z[column[q]]
            t[i] = s


@njit(parallel=True, **STRICT)
def residual(bounds, start, column, value, inverse, surplus, r, z, t):
    """t = r - S z; 0 in rows without couplings."""
    for b in prange(bounds.size - 1):
        for i in range(bounds[b], bounds[b + 1]):
            s = 0.0
            if inverse[i] != 0:
                s = r[i] - (1 / inverse[i] - surplus[i]) * z[i]
                for q in range(start[i], start[i + 1]):
                    s -= value[q] * z[column[q]]
            t[i] = s


@njit(parallel=True, **STRICT)
def forward_sweep(bounds, start, lower, column, value, inverse, surplus, r, old, new):
    """new = old + (L + E)^-1 (r - S old)."""
    for b in prange(bounds.size - 1):
        for i in range(bounds[b], bounds[b + 1]):
            s = r[i] + surplus[i] * old[i]
            middle = start[i] + lower[i]
            for q in range(start[i], middle):
                s -= value[q] * new[column[q]]
            for q in range(middle, start[i + 1]):
                s -= value[q] * old[column[q]]
            new[i] = s * inverse[i]


@njit(parallel=True, **STRICT)
def backward_sweep(bounds, start, lower, outer, column, value, inverse, surplus, r, old, new):
    """new = old + (U + E)^-1 (r - S old)."""
    for b in prange(bounds.size - 1):
        for i in range(bounds[b + 1] - 1, bounds[b] - 1, -1):
            s = r[i] + surplus[i] * old[i]
            middle = start[i] + lower[i] + outer[i]
            for q in range(start[i], middle):
                s -= value[q] * old[column[q]]
            for q in range(middle, start[i + 1]):
                s -= value[q] * new[column[q]]
            new[i] = s * inverse[i]


@njit(parallel=True, **STRICT)
def gather(bounds, order, source, target):
    """target[k] = source[order[k]]."""
    for b in prange(bounds.size - 1):
        for k in range(bounds[b], bounds[b + 1]):
            target[k] = source[order[k]]


@njit(parallel=True, **STRICT)
def scatter(bounds, order, factor, source, target):
    """target[order[k]] = factor source[k]."""
    for b in prange(bounds.size - 1):
        for k in range(bounds[b], bounds[b + 1]):
            target[order[k]] = factor * source[k]


@njit(parallel=True, **STRICT)
def add(bounds, factor, source, target):
    """target += factor source."""
    for b in prange(bounds.size - 1):
        for k in range(bounds[b], bounds[b + 1]):
            target[k] += factor * source[k]
