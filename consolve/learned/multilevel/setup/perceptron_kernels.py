"""Numba kernels of the perceptrons.

    g(phi) = tanh(V (h(phi) - h(0))),    h(phi) = relu(W2 relu(W1 phi + e) + b2)

The weights of one level class come as a tuple (w1, e, w2, b2, v, V h(0)), e of shape (hidden,); hidden = 0
switches a perceptron off.

Numba compiles a function again for each type of its arguments, and an integer that is written in a call is a
type of its own: so kernels give each other sizes as int64, and collected features as slices.
"""

import numpy as np
from numba import njit

from consolve.base.jit import FAST
from consolve.base.vector_instructions import never_inlined

REGULAR = np.float32(2e-6)
"""Features below this in magnitude count as 0, and so does g."""
_ZERO = np.float32(0)


@njit(**FAST)
def floats(rows, n):
    """Zeros (rows, n), float32; by a call, since each allocation in place takes long to compile."""
    never_inlined()
    return np.zeros((rows, n), np.float32)


@njit(**FAST)
def integers(rows, n):
    """Zeros (rows, n), int64."""
    never_inlined()
    return np.zeros((rows, n), np.int64)


@njit(**FAST)
def bytes_(n):
    """Zeros (n,), uint8."""
    never_inlined()
    return np.zeros(n, np.uint8)


@njit(**FAST)
def small_exp(x):
    """exp(x) for |x| <= 1 to the precision of float32, without a call, so that loops over it vectorise."""
    t = np.float32(0.25) * x
    p = np.float32(1 / 720)
    p = p * t + np.float32(1 / 120)
    p = p * t + np.float32(1 / 24)
    p = p * t + np.float32(1 / 6)
    p = p * t + np.float32(0.5)
    p = p * t + np.float32(1)
    p = p * t + np.float32(1)
    p = p * p
    return p * p


@njit(**FAST)
def exponentials(row, factor, count):
    """exp(factor * x) in place of the first ``count`` entries x of a row."""
    never_inlined()
    for q in range(count):
        row[q] = small_exp(factor * row[q])


@njit(**FAST)
def _tanh(x):
    """tanh(x) to 3e-7 relative: a rational approximation (that of Eigen), which vectorises."""
    x = min(max(x, np.float32(-7.9)), np.float32(7.9))
    s = x * x
    p = np.float32(-2.76076847742355e-16)
    p = p * s + np.float32(2.00018790482477e-13)
    p = p * s + np.float32(-8.60467152213735e-11)
    p = p * s + np.float32(5.12229709037114e-08)
    p = p * s + np.float32(1.48572235717979e-05)
    p = p * s + np.float32(6.37261928875436e-04)
    p = p * s + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * s + np.float32(1.18534705686654e-04)
    q = q * s + np.float32(2.26843463243900e-03)
    q = q * s + np.float32(4.89352518554385e-03)
    return x * p / q


@njit(**FAST)
def _add_rows(target, weight, rows, count):
    """target += sum of weight[f] rows[f] over f; eight rows at a time, for each needs to be loaded only."""
    f = 0
    while f + 8 <= weight.size:
        a, b, c, d = weight[f], weight[f + 1], weight[f + 2], weight[f + 3]
        e, g, h, i = weight[f + 4], weight[f + 5], weight[f + 6], weight[f + 7]
        ra, rb, rc, rd = rows[f], rows[f + 1], rows[f + 2], rows[f + 3]
        re, rg, rh, ri = rows[f + 4], rows[f + 5], rows[f + 6], rows[f + 7]
        for q in range(count):
            target[q] += (
                a * ra[q] + b * rb[q] + c * rc[q] + d * rd[q] + e * re[q] + g * rg[q] + h * rh[q] + i * ri[q]
            )
        f += 8
    while f < weight.size:
        w, row = weight[f], rows[f]
        for q in range(count):
            target[q] += w * row[q]
        f += 1


@njit(**FAST)
def perceptron(phi, count, w1, e, w2, b2, v, base, hidden, top, out):
    """out[:, q] = tanh(V h(phi_q) - base) for q < count; inner loops run over the samples."""
    never_inlined()
    for a in range(w1.shape[0]):
        ha = hidden[a]
        for q in range(count):
            ha[q] = e[a]
        _add_rows(ha, w1[a], phi, count)
        for q in range(count):
            ha[q] = max(ha[q], _ZERO)
    for o in range(v.shape[0]):
        for q in range(count):
            out[o, q] = -base[o]
    for a in range(w2.shape[0]):
        for q in range(count):
            top[q] = b2[a]
        _add_rows(top, w2[a], hidden[:, 0:], count)
        for q in range(count):
            top[q] = max(top[q], _ZERO)
        for o in range(v.shape[0]):
            weight, oo = v[o, a], out[o]
            for q in range(count):
                oo[q] += weight * top[q]
    for o in range(v.shape[0]):
        oo = out[o]
        for q in range(count):
            oo[q] = _tanh(oo[q])


def value_at_zero(w1, e, w2, b2, v):
    """V h(0)."""
    return v @ np.maximum(w2 @ np.maximum(e, _ZERO) + b2, _ZERO)
