"""Coefficients of the finest level of an image, packed into two words a cell; row_vectors tells the bits."""

import numpy as np
from numba import njit, prange

from consolve.base.jit import FAST
from consolve.learned.multilevel.cycle.row_vectors import KEPT

STEPS_TO_LINEAR = 46
"""Packed weights of 1 / 46 of the level's plain weight: with 7 bits, up to e times that weight."""
FINEST_PART, MOST_FIXED = 8, 16
"""Dirichlet parts that can be packed are multiples of 1 / 8 up to 16: so diagonals are exact in bfloat16."""


def unit_of(linear: np.float32) -> np.float32:
    """The unit of packed weights where the plain one is ``linear``."""
    return np.float32(linear / STEPS_TO_LINEAR)


@njit(**FAST)
def _packable(fixed):
    odd = np.uint8(0)
    for q in range(fixed.size):
        parts = np.float32(FINEST_PART) * fixed[q]
        odd |= np.uint8((parts != np.floor(parts)) | (parts > np.float32(FINEST_PART * MOST_FIXED)))
    return odd == 0


@njit(parallel=True, **FAST)
def is_packable(fixed):
    """True if diagonals of faces 1 and Dirichlet parts ``fixed`` (float32, any shape) can be packed."""
    flat = fixed.reshape(-1)
    parts = max(1, min(64, flat.size // 65536))
    fine = np.empty(parts, np.bool_)
    for q in prange(parts):
        fine[q] = _packable(flat[flat.size * q // parts : flat.size * (q + 1) // parts])
    return fine.all()


@njit(**FAST)
def pack_relax(smoother, diagonal, relax):
    for q in range(relax.size):
        relax[q] = (smoother[q] & np.uint32(0xFFFF0000)) | (diagonal[q] >> np.uint32(16))


@njit(**FAST)
def _steps(weight, per_unit):
    return np.uint32(np.int32(weight * per_unit + np.float32(0.5)))


@njit(**FAST)
def pack_moves(own, p0, p1, p2, per_unit, moves):
    for q in range(moves.size):
        kept = own[q] + p1[q] + p2[q] + p0[q]
        word = np.uint32(np.int32(kept * np.float32(KEPT) + np.float32(0.5))) << np.uint32(21)
        word |= _steps(p0[q], per_unit) << np.uint32(14)
        word |= _steps(p1[q], per_unit) << np.uint32(7)
        moves[q] = word | _steps(p2[q], per_unit)


@njit(**FAST)
def pack_moves_2d(own, p1, p2, per_unit, moves):
    for q in range(moves.size):
        kept = own[q] + p1[q] + p2[q]
        word = np.uint32(np.int32(kept * np.float32(KEPT) + np.float32(0.5))) << np.uint32(21)
        word |= _steps(p1[q], per_unit) << np.uint32(7)
        moves[q] = word | _steps(p2[q], per_unit)


@njit(parallel=True, **FAST)
def pack(smoother, diagonal, own, p0, p1, p2, unit, relax, moves):
    """Fill ``relax`` and ``moves`` (uint32) from float32 arrays of the same shape (2, rows, width).

    omega / d is rounded down to bfloat16 (so that alpha omega stays under 2), transfer weights to multiples
    of ``unit``, kept shares to 1 / KEPT; diagonals have to be exact in bfloat16.  The rounded weights serve P
    and P^T alike, and a correction that is constant stays so.  ``p0`` is read if it has the size of the
    others.
    """
    a, b, c = smoother.reshape(-1).view(np.uint32), diagonal.reshape(-1).view(np.uint32), own.reshape(-1)
    d, e, f, g, h = (
        p0.reshape(-1), p1.reshape(-1), p2.reshape(-1), relax.reshape(-1), moves.reshape(-1)
    )  # fmt: skip
    per_unit = np.float32(1) / unit
    n = g.size
    parts = max(1, min(64, n // 65536))
    for q in prange(parts):
        low, high = n * q // parts, n * (q + 1) // parts
        pack_relax(a[low:high], b[low:high], g[low:high])
        if d.size == n:
            pack_moves(c[low:high], d[low:high], e[low:high], f[low:high], per_unit, h[low:high])
        else:
            pack_moves_2d(c[low:high], e[low:high], f[low:high], per_unit, h[low:high])
