"""Numba kernels of the generator between its convolutions: GELU, trilinear upsampling, depth to space.

Images are float32 (time, y, x, channel), channels last.
"""

import numpy as np
from numba import njit
from numpy.polynomial import chebyshev
from scipy.special import erf

from consolve.base.jit import FAST

_REACH = 3.6
"""erf differs from 1 by less than 4e-7 beyond."""
_DEGREE = 13


def _erf_polynomial() -> tuple[np.float32, ...]:
    """Coefficients of p, highest first: erf(z) = z p(2 (z / reach)^2 - 1) within 5e-7 for |z| < reach."""

    def quotient(s):
        z = _REACH * np.sqrt((s + 1) / 2)
        return erf(z) / z

    coefficients = chebyshev.cheb2poly(chebyshev.chebinterpolate(quotient, _DEGREE))
    return tuple(np.float32(c) for c in coefficients[::-1])


_C = _erf_polynomial()
_LIMIT, _SCALE = np.float32(_REACH), np.float32(2 / _REACH**2)
_ONE, _HALF, _ROOT = np.float32(1), np.float32(0.5), np.float32(np.sqrt(0.5))
_NEAR, _FAR = np.float32(0.75), np.float32(0.25)


@njit(**FAST)
def _gelu(x, out):
    for i in range(x.size):
        z = min(max(x[i] * _ROOT, -_LIMIT), _LIMIT)
        s = z * z * _SCALE - _ONE
        p = (((((_C[0] * s + _C[1]) * s + _C[2]) * s + _C[3]) * s + _C[4]) * s + _C[5]) * s + _C[6]
        p = ((((((p * s + _C[7]) * s + _C[8]) * s + _C[9]) * s + _C[10]) * s + _C[11]) * s + _C[12]) * s
        e = min(max((p + _C[13]) * z, -_ONE), _ONE)
        out[i] = _HALF * x[i] * (_ONE + e)


@njit(**FAST)
def gelu(x):
    """x (1 + erf(x / sqrt 2)) / 2, of any shape; erf by a polynomial, within 5e-7."""
    out = np.empty(x.shape, np.float32)
    _gelu(x.reshape(-1), out.reshape(-1))
    return out


@njit(**FAST)
def _add(values, total):
    for i in range(values.size):
        total[i] += values[i]


@njit(**FAST)
def add(values, total):
    """total += values."""
    _add(values.reshape(-1), total.reshape(-1))


@njit(**FAST)
def _mix(near, far, out):
    for i in range(near.size):
        out[i] = _NEAR * near[i] + _FAR * far[i]


@njit(**FAST)
def _doubled(x, outer, n, inner):
    """(outer, n, inner) to (outer, 2 n, inner): a point becomes two, a quarter of a spacing to its sides."""
    out = np.empty(2 * x.size, np.float32)
    for o in range(outer):
        for i in range(n):
            at = (o * n + i) * inner
            before = at - inner if i > 0 else at
            after = at + inner if i < n - 1 else at
            here, to = x[at : at + inner], 2 * (o * n + i) * inner
            _mix(here, x[before : before + inner], out[to : to + inner])
            _mix(here, x[after : after + inner], out[to + inner : to + 2 * inner])
    return out


@njit(**FAST)
def upsample(x):
    """Trilinear upsampling, twice along each axis: (t, y, x, channels) to (2 t, 2 y, 2 x, channels).

    Output i stands at (i + 1/2) / 2 - 1/2 of the input; beyond the first and last point its value holds, as
    ``torch.nn.functional.interpolate(..., align_corners=False)``.
    """
    t, y, w, c = x.shape
    flat = _doubled(np.ascontiguousarray(x).reshape(-1), t * y, w, c)
    flat = _doubled(flat, t, y, 2 * w * c)
    return _doubled(flat, 1, t, 4 * y * w * c).reshape(2 * t, 2 * y, 2 * w, c)


@njit(**FAST)
def _scatter(h, factor, scale, out):
    """One row of points (x, f^3) to f^2 rows of the field, out (f, f, f x)."""
    for x in range(h.shape[0]):
        channel = 0
        for dt in range(factor):
            for dy in range(factor):
                for dx in range(factor):
                    out[dt, dy, x * factor + dx] = scale * h[x, channel]
                    channel += 1


@njit(**FAST)
def shuffle(h, factor, scale, out):
    """Depth to space: out (f t, f y, f x) = scale times h (t, y, x, f^3).

    Channel ``f^2 dt + f dy + dx`` at (t, y, x) becomes point (f t + dt, f y + dy, f x + dx).
    """
    for t in range(h.shape[0]):
        for y in range(h.shape[1]):
            block = out[factor * t : factor * (t + 1), factor * y : factor * (y + 1)]
            _scatter(h[t, y], factor, scale, block)
