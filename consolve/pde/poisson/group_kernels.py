"""Numba kernels of groups of entries, such as the closed components of an operator.

``group`` is int32, one number an entry, -1 for entries of none.  Sums are taken in a fixed order, so that
results do not depend on the threads.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT

_CHUNKS = 64


@njit(**STRICT)
def _over_chunks(part):
    """Sums over the first axis; Numba's own ``sum`` compiles the words of an error beside it."""
    total = np.zeros(part.shape[1])
    for chunk in range(part.shape[0]):
        for g in range(total.size):
            total[g] += part[chunk, g]
    return total


@njit(parallel=True, **STRICT)
def remove_means(group, count, source, target):
    """target = source less its mean over each group, of ``count`` entries; entries of none are copied."""
    groups, n = count.size, source.size
    chunks = _CHUNKS if groups * _CHUNKS < n else 1
    part = np.zeros((chunks, groups))
    for chunk in prange(chunks):
        for i in range(n * chunk // chunks, n * (chunk + 1) // chunks):
            if group[i] >= 0:
                part[chunk, group[i]] += source[i]
    mean = _over_chunks(part) / count
    for i in prange(n):
        target[i] = source[i] - mean[group[i]] if group[i] >= 0 else source[i]


@njit(parallel=True, **STRICT)
def subtract_means(group, mean, source, target):
    """target = source less the mean of its group; entries of none are copied."""
    for i in prange(source.size):
        target[i] = source[i] - mean[group[i]] if group[i] >= 0 else source[i]


@njit(parallel=True, **STRICT)
def group_sums(group, groups, values):
    """Sum, sum of magnitudes and number of the entries of each group; entries of none count nowhere."""
    n = values.size
    chunks = _CHUNKS if groups * _CHUNKS < n else 1
    total, size, count = np.zeros((chunks, groups)), np.zeros((chunks, groups)), np.zeros((chunks, groups))
    for chunk in prange(chunks):
        for i in range(n * chunk // chunks, n * (chunk + 1) // chunks):
            g = group[i]
            if g >= 0:
                total[chunk, g] += values[i]
                size[chunk, g] += abs(values[i])
                count[chunk, g] += 1
    return _over_chunks(total), _over_chunks(size), _over_chunks(count)
