"""Numba kernels between a caller's vectors and those of the finest level."""

from numba import njit, prange

from consolve.base.jit import FAST


@njit(parallel=True, **FAST)
def scatter(r, node, b, parts):
    """b[node] = r; entries without a node (-1) are ignored."""
    n = r.size
    for q in prange(parts):
        for i in range(n * q // parts, n * (q + 1) // parts):
            if node[i] >= 0:
                b[node[i]] = r[i]


@njit(parallel=True, **FAST)
def gather(x, node, scale, z, parts):
    """z = scale x[node], 0 without a node."""
    n = z.size
    for q in prange(parts):
        for i in range(n * q // parts, n * (q + 1) // parts):
            z[i] = x[node[i]] * scale if node[i] >= 0 else 0.0
