"""Large zeroed arrays."""

from __future__ import annotations

import math
import mmap

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.base.jit import STRICT

_SMALL, _LARGE = 1 << 20, 1 << 25


@njit(parallel=True, **STRICT)
def _clear(array):
    for i in prange(array.size):
        array[i] = 0


def zeros(shape: int | tuple[int, ...], dtype: type = np.float64) -> NDArray:
    """``np.zeros``, faster for large arrays.

    Untouched pages of ``np.zeros`` come one by one at first use, 4 KiB each.  Here they are huge pages, where
    the system has them, and each thread's first use lays a page near it.
    """
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    length = size * np.dtype(dtype).itemsize
    if length < _SMALL:
        return np.zeros(shape, dtype)
    if length >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        # Fresh pages are zero: what is not written needs no memory, and what is need not be cleared before.
        pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            pages.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # a kernel without huge pages
        return np.frombuffer(pages, dtype, size).reshape(shape)
    array: NDArray = np.empty(shape, dtype)
    _clear(array.reshape(-1))
    return array
