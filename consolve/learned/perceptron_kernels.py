"""Numba kernels of the perceptrons.

    g(phi) = tanh(V (h(phi) - h(0))),    h(phi) = relu(W2 relu(W1 phi + e) + b2)

The weights of one level class come as a tuple (w1, e, w2, b2, v), e of shape (hidden,); hidden = 0 switches
a perceptron off.
"""

import numpy as np
from numba import njit

from consolve.learned.cycle_kernels import OPTIONS

REGULAR = np.float32(2e-6)
"""Features below this in magnitude count as 0, and so does g."""
_ZERO = np.float32(0)


@njit(**OPTIONS)
def perceptron(phi, count, w1, e, w2, b2, v, base, hidden, top, out):
    """out[:, q] = tanh(V h(phi_q) - base) for q < count; inner loops run over the samples."""
    for a in range(w1.shape[0]):
        ha = hidden[a]
        for q in range(count):
            ha[q] = e[a]
        for f in range(w1.shape[1]):
            weight, pf = w1[a, f], phi[f]
            for q in range(count):
                ha[q] += weight * pf[q]
        for q in range(count):
            ha[q] = max(ha[q], _ZERO)
    for o in range(v.shape[0]):
        for q in range(count):
            out[o, q] = -base[o]
    for a in range(w2.shape[0]):
        for q in range(count):
            top[q] = b2[a]
        for c in range(w2.shape[1]):
            weight, hc = w2[a, c], hidden[c]
            for q in range(count):
                top[q] += weight * hc[q]
        for q in range(count):
            top[q] = max(top[q], _ZERO)
        for o in range(v.shape[0]):
            weight, oo = v[o, a], out[o]
            for q in range(count):
                oo[q] += weight * top[q]
    for o in range(v.shape[0]):
        for q in range(count):
            out[o, q] = np.tanh(out[o, q])


@njit(**OPTIONS)
def value_at_zero(w1, e, w2, b2, v):
    """V h(0)."""
    out = np.zeros(v.shape[0], np.float32)
    for a in range(w2.shape[0]):
        top = b2[a]
        for c in range(w2.shape[1]):
            top += w2[a, c] * max(e[c], _ZERO)
        for o in range(v.shape[0]):
            out[o] += v[o, a] * max(top, _ZERO)
    return out
