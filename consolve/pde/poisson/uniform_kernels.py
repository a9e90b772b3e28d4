"""Numba kernels of operators whose open faces all have one coefficient; arguments as in pde.kernels."""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT


@njit(**STRICT)
def first_face(f0, f1, f2):
    """A positive coefficient of some face, 0 if there is none."""
    n0, n1, n2 = f1.shape
    for line in range(n0 * n1):
        i, j = line // n1, line % n1
        for k in range(n2):
            c = max(f1[i, j, k], f2[i, j, k])
            if n0 > 1:
                c = max(c, f0[i, j, k])
            if c > 0:
                return c
    return 0 * f1[0, 0, 0]


@njit(**STRICT)
def _odd_faces(face, here, there, value):
    """Whether a face between two active cells differs from ``value``."""
    odd = np.uint8(0)
    for k in range(there.size):
        odd |= np.uint8(here[k] & there[k] & (face[k] != value))
    return odd != 0


@njit(**STRICT)
def _count_positive(row):
    count = np.int64(0)
    for k in range(row.size):
        count += np.int64(row[k] > 0)
    return count


@njit(parallel=True, **STRICT)
def uniform_faces(f0, f1, f2, dirichlet, active, value, count, threads):
    """True if every face between two active cells has the coefficient ``value``.

    ``count`` (lines + 1) gets the cells with a Dirichlet part of each line in its entry one further on.
    """
    n0, n1, _ = active.shape
    lines = n0 * n1
    bad = np.zeros(threads, np.bool_)
    for thread in prange(threads):
        odd = False
        for line in range(lines * thread // threads, lines * (thread + 1) // threads):
            i, j = line // n1, line % n1
            own = active[i, j]
            odd |= _odd_faces(f2[i, j], own, own[1:], value)
            if j + 1 < n1:
                odd |= _odd_faces(f1[i, j], own, active[i, j + 1], value)
            if i + 1 < n0:
                odd |= _odd_faces(f0[i, j], own, active[i + 1, j], value)
            if odd:
                break
            count[line + 1] = _count_positive(dirichlet[i, j])
        bad[thread] = odd
    return not bad.any()


@njit(parallel=True, **STRICT)
def list_positive(dirichlet, start, place, part):
    """k and value of the cells with a Dirichlet part, line by line."""
    n0, n1, n2 = dirichlet.shape
    for line in prange(n0 * n1):
        at = start[line]
        if start[line + 1] > at:
            row = dirichlet[line // n1, line % n1]
            for k in range(n2):
                if row[k] > 0:
                    place[at], part[at] = k, row[k]
                    at += 1


@njit(parallel=True, **STRICT)
def write_faces(active, value, start, place, part, f0, f1, f2, dirichlet):
    """Fill zeroed volumes: ``value`` on each face between two active cells, and the Dirichlet parts."""
    n0, n1, n2 = active.shape
    for line in prange(n0 * n1):
        i, j = line // n1, line % n1
        for k in range(n2 - 1):
            f2[i, j, k] = value if active[i, j, k] and active[i, j, k + 1] else 0
        if j + 1 < n1:
            for k in range(n2):
                f1[i, j, k] = value if active[i, j, k] and active[i, j + 1, k] else 0
        if i + 1 < n0:
            for k in range(n2):
                f0[i, j, k] = value if active[i, j, k] and active[i + 1, j, k] else 0
        for q in range(start[line], start[line + 1]):
            dirichlet[i, j, place[q]] = part[q]
