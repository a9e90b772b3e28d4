"""Large zeroed arrays."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

_SMALL = 1 << 20


@njit(parallel=True, cache=True, nogil=True)
def _clear(array):
    for i in prange(array.size):
        array[i] = 0


def zeros(shape: int | tuple[int, ...], dtype: type = np.float64) -> NDArray:
    """``np.zeros``, faster for large arrays.

    Untouched pages of ``np.zeros`` come one by one at first use, 4 KiB each.  ``np.empty`` asks the kernel
    for huge pages, and clearing it in parallel lays each part near the thread that will work on it.
    """
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    if size * np.dtype(dtype).itemsize < _SMALL:
        return np.zeros(shape, dtype)
    array: NDArray = np.empty(shape, dtype)
    _clear(array.reshape(-1))
    return array
