"""Points of the integer lattice: which are neighbours, and a table of those that are occupied.

Three kinds of neighbours, after the stencils that have them:

STAR
    One step along one axis: 5 and 7 points.
SIMPLEX
    Steps (0 or 1) along all axes at once, or their negatives: triangles with one diagonal a square, the six
    tetrahedra of a cube around one diagonal; 7 and 15 points.
BOX
    At most one step along each axis: 9 and 27 points.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT

STAR, SIMPLEX, BOX = range(3)

REACH = 1 << 20
"""Coordinates stay below this in magnitude, so that three of them fit into one key."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@njit(inline="always")
def key_of(i, j, k):
    return ((i + REACH) << 42) | ((j + REACH) << 21) | (k + REACH)


@njit(**STRICT)
def slot_of(keys, key):
    """Where ``key`` stands in the open hash table ``keys``, or where it would go; empty slots are -1.

    A tile of 4 x 4 points stands together, so that a sweep stays in the cache.
    """
    mask = keys.size - 1
    tile = np.uint64((key >> 2) & ~(np.int64(3) << 19))
    at = (np.int64((tile * _MULTIPLIER) >> np.uint64(38)) << 4) + ((key >> 19) & 12) + (key & 3)
    at &= mask
    while keys[at] != -1 and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(inline="always")
def are_neighbours(di, dj, dk, kind):
    """Whether a step that is at most 1 along each axis joins neighbours."""
    if kind == STAR:
        return abs(di) + abs(dj) + abs(dk) == 1
    if kind == SIMPLEX and min(di, dj, dk) < 0 and max(di, dj, dk) > 0:
        return False
    return di != 0 or dj != 0 or dk != 0


@njit(inline="always")
def is_occupied(keys, i, j, k):
    return keys[slot_of(keys, key_of(i, j, k))] != -1


@njit(**STRICT)
def points_around(keys, i, j, k, ndim, kind):
    """Number of occupied lattice neighbours of a point."""
    count = 0
    deep = 1 if ndim == 3 else 0
    for di in range(-deep, deep + 1):
        for dj in range(-1, 2):
            for dk in range(-1, 2):
                if are_neighbours(di, dj, dk, kind):
                    count += is_occupied(keys, i + di, j + dj, k + dk)
    return count
