"""The bytes per second that memory gives: the triad a = b + s c of STREAM (J. McCalpin), by Numba."""

from __future__ import annotations

import time

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.jit import STRICT

ARRAY_BYTES = 1 << 27
"""Of each of the three arrays by default: together far more than any cache."""
ARRAYS_MOVED = 4
"""b and c are read; a is written, and read before that, since a cache line is fetched when part of it is
written.  STREAM's own figures count 3."""


@njit(**STRICT)
def _triad(a, b, c, s):
    for i in range(a.size):
        a[i] = b[i] + s * c[i]


@njit(parallel=True, **STRICT)
def _triad_threads(a, b, c, s, threads):
    for q in prange(threads):  # the loop has a function of its own: inside prange it would not vectorise
        first, last = a.size * q // threads, a.size * (q + 1) // threads
        _triad(a[first:last], b[first:last], c[first:last], s)


def triad(dtype: type, threads: int, repetitions: int = 40, array_bytes: int = ARRAY_BYTES) -> float:
    """Bytes per second of the triad, ``ARRAYS_MOVED`` arrays counted; the fastest of some repetitions.

    Parameters
    ----------
    dtype
        float32 or float64.
    threads
        Numba threads, each on a part of its own.
    array_bytes
        Size of each array.
    """
    n = array_bytes // np.dtype(dtype).itemsize
    a, b, c = (_touched(n, dtype, value) for value in (0.0, 1.0, 2.0))
    s = dtype(0.5)
    _triad_threads(a, b, c, s, threads)
    best = np.inf
    for _ in range(repetitions):
        begin = time.perf_counter()
        _triad_threads(a, b, c, s, threads)
        best = min(best, time.perf_counter() - begin)
    if not (a[0] == 2 and a[-1] == 2):
        raise RuntimeError(f"the triad gave {a[0]} and {a[-1]}, expected 2: memory or compiler is at fault")
    return ARRAYS_MOVED * a.nbytes / best


def _touched(n: int, dtype: type, value: float) -> NDArray:
    array = zeros(n, dtype)
    if value:
        array += dtype(value)
    return array
