"""Numba kernels of setup: from a level's operator to its smoother, its transfer weights and the next level's operator.

Arrays of the operator are float32 volumes (n0, n1, n2) in C order; what the V-cycle reads is written straight into
the colour-split arrays described in cycle_kernels.  The formulas are those of torch_multilevel (docs/multilevel.md).
A perceptron is run only where its features do not all vanish: on the regular interior of a domain its correction is 0.

``net`` arguments are tuples (w1, e, w2, b2, v) of one level class, e of shape (hidden,); hidden = 0 switches it off.
"""

import numpy as np
from numba import njit, prange

from consolve.learned.cycle_kernels import OPTIONS
from consolve.learned.weights import OMEGA_RANGE, RANGE

_REGULAR = np.float32(2e-6)
_ONE, _ZERO = np.float32(1), np.float32(0)


@njit(**OPTIONS)
def _perceptron(phi, count, w1, e, w2, b2, v, hidden, top, out):
    """out[:, q] = tanh(V h(phi_q)) for q < count; inner loops run over the samples."""
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
            out[o, q] = 0
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
def _base(w1, e, w2, b2, v):
    """tanh(V h(0))."""
    phi, hidden = np.zeros((w1.shape[1], 1), np.float32), np.empty((w1.shape[0], 1), np.float32)
    out = np.zeros((v.shape[0], 1), np.float32)
    _perceptron(phi, 1, w1, e, w2, b2, v, hidden, np.empty(1, np.float32), out)
    return out[:, 0].copy()


@njit(parallel=True, **OPTIONS)
def load_finest(f0, f1, f2, dirichlet, scale, g0, g1, g2, fixed):
    """float32 copies of an operator's volumes, multiplied by ``scale``."""
    n0, n1, n2 = dirichlet.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            g1[i, j, k] = scale * f1[i, j, k]
            g2[i, j, k] = scale * f2[i, j, k]
            fixed[i, j, k] = scale * dirichlet[i, j, k]
        if n0 > 1:
            for k in range(n2):
                g0[i, j, k] = scale * f0[i, j, k]


@njit(parallel=True, **OPTIONS)
def largest_face(f0, f1, f2):
    """Largest coefficient of all faces."""
    n0, n1, n2 = f1.shape
    best = np.zeros(n0 * n1, f1.dtype)
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        m = f1.dtype.type(0)
        for k in range(n2):
            m = max(m, f1[i, j, k], f2[i, j, k])
        if n0 > 1:
            for k in range(n2):
                m = max(m, f0[i, j, k])
        best[row] = m
    return best.max()


@njit(parallel=True, **OPTIONS)
def is_uniform(f0, f1, f2, active, value):
    """True if every face between two active cells has the coefficient ``value``."""
    n0, n1, n2 = f1.shape
    bad = np.zeros(n0 * n1, np.uint8)
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        odd = np.uint8(0)
        for k in range(n2 - 1):
            odd |= np.uint8(active[i, j, k] & active[i, j, k + 1] & (f2[i, j, k] != value))
        if j + 1 < n1:
            for k in range(n2):
                odd |= np.uint8(active[i, j, k] & active[i, j + 1, k] & (f1[i, j, k] != value))
        if i + 1 < n0:
            for k in range(n2):
                odd |= np.uint8(active[i, j, k] & active[i + 1, j, k] & (f0[i, j, k] != value))
        bad[row] = odd
    return bad.max() == 0


@njit(parallel=True, **OPTIONS)
def inverse_diagonal(f0, f1, f2, dirichlet, inverse, fixed):
    """inverse = 1 / d and fixed = dirichlet / d, both 0 where d is 0."""
    n0, n1, n2 = dirichlet.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        d = inverse[i, j]
        for k in range(n2):
            d[k] = dirichlet[i, j, k] + f1[i, j, k] + f2[i, j, k]
        for k in range(1, n2):
            d[k] += f2[i, j, k - 1]
        if j > 0:
            for k in range(n2):
                d[k] += f1[i, j - 1, k]
        if n0 > 1:
            for k in range(n2):
                d[k] += f0[i, j, k]
            if i > 0:
                for k in range(n2):
                    d[k] += f0[i - 1, j, k]
        for k in range(n2):
            d[k] = _ONE / d[k] if d[k] > 0 else _ZERO
            fixed[i, j, k] = dirichlet[i, j, k] * d[k]


@njit(**OPTIONS)
def _row(volume, i, j, out):
    """A row framed by zeros; all zero outside the volume."""
    n0, n1, n2 = volume.shape
    if 0 <= i < n0 and 0 <= j < n1:
        source = volume[i, j]
        for k in range(n2):
            out[k + 1] = source[k]
    else:
        out[:] = 0


@njit(**OPTIONS)
def _neighbourhood(f0, f1, f2, inverse, fixed, i, j, face, stiff, near):
    """Six faces of the cells of a row (lower and upper by axis), and 1/d and Dirichlet share of their neighbours.

    Entry k + 1 of each row belongs to cell k.  Along the last axis the own rows serve, shifted by the caller.
    """
    n0, n1, n2 = inverse.shape
    if n0 > 1:
        _row(f0, i - 1, j, face[0])
        _row(f0, i, j, face[1])
    else:
        face[0, :] = 0
        face[1, :] = 0
    _row(f1, i, j - 1, face[2])
    _row(f1, i, j, face[3])
    _row(f2, i, j, face[5])
    face[4, 0] = 0
    for k in range(1, n2 + 2):
        face[4, k] = face[5, k - 1]
    for source, target in ((inverse, stiff), (fixed, near)):
        _row(source, i - 1, j, target[0])
        _row(source, i + 1, j, target[1])
        _row(source, i, j - 1, target[2])
        _row(source, i, j + 1, target[3])
        _row(source, i, j, target[6])
        target[4, 0] = 0
        target[5, n2 + 1] = 0
        for k in range(1, n2 + 2):
            target[4, k] = target[6, k - 1]
        for k in range(n2 + 1):
            target[5, k] = target[6, k + 1]


@njit(**OPTIONS)
def _cell_features(face, stiff, near, n2, ndim, phi, index):
    """Features of the cells of a row at which they do not all vanish; returns how many, their k in ``index``."""
    count = 0
    for k in range(1, n2 + 1):
        inverse = stiff[6, k]
        if inverse == 0:
            continue
        squares, stiffness, drained = _ZERO, _ZERO, _ZERO
        for q in range(6):
            squares += face[q, k] * face[q, k]
            stiffness += face[q, k] * stiff[q, k]
            drained += face[q, k] * near[q, k]
        squares = 2 * ndim * squares * inverse * inverse - _ONE
        stiffness -= _ONE
        drained *= inverse
        share = near[6, k]
        if max(abs(share), abs(squares), abs(stiffness), abs(drained)) > _REGULAR:
            phi[0, count], phi[1, count], phi[2, count], phi[3, count] = share, squares, stiffness, drained
            index[count] = k - 1
            count += 1
    return count


@njit(**OPTIONS)
def _prolongation_features(face, stiff, near, axis, at, n2, ndim, phi, index):
    """Features of the outward coupling along an axis; ``at`` is the row's index along it (for the last axis, -1)."""
    count = 0
    for k in range(1, n2 + 1):
        inverse = stiff[6, k]
        position = k - 1 if at < 0 else at
        out = 2 * axis + position % 2
        back = 2 * axis + 1 - position % 2
        outward, inward = face[out, k], face[back, k]
        if outward == 0 or inverse == 0:
            continue
        d2 = np.float32(2 * ndim)
        a = d2 * outward * inverse - _ONE
        b = d2 * inward * inverse - _ONE
        c = near[6, k]
        d = d2 * outward * stiff[out, k] - _ONE
        e = d2 * inward * stiff[back, k] - _ONE
        f = near[out, k]
        g = near[back, k] if inward > 0 else _ZERO
        if max(max(abs(a), abs(b)), max(abs(c), abs(d)), max(abs(e), abs(f)), abs(g)) > _REGULAR:
            phi[0, count], phi[1, count], phi[2, count], phi[3, count] = a, b, c, d
            phi[4, count], phi[5, count], phi[6, count] = e, f, g
            index[count] = k - 1
            count += 1
    return count


@njit(parallel=True, **OPTIONS)
def level_kernels(
    f0, f1, f2, dirichlet, inverse, fixed, ndim, scalars, cell_net, prolongation_net, theta,
    smoother, diagonal, own, p0, p1, p2, s0, s1, s2, store_faces, threads,
):  # fmt: skip
    """Fill the colour-split arrays of a level, and theta * dirichlet in natural order.

    ``scalars`` is (gamma, theta, linear, drop) of the level class; s0, s1, s2 take the faces if ``store_faces``.
    """
    n0, n1, n2 = dirichlet.shape
    hidden = cell_net[0].shape[0]
    pad = 1 if n0 > 1 else 0
    linear, dropped = scalars[2], scalars[3] * 2 * ndim
    for thread in prange(threads):
        face = np.zeros((6, n2 + 2), np.float32)
        stiff, near = np.zeros((7, n2 + 2), np.float32), np.zeros((7, n2 + 2), np.float32)
        phi, index = np.empty((7, n2), np.float32), np.empty(n2, np.int64)
        units, top = np.empty((max(hidden, 1), n2), np.float32), np.empty(n2, np.float32)
        answer = np.empty((3, n2), np.float32)
        omega, loss, weight = np.empty(n2, np.float32), np.empty(n2, np.float32), np.empty((3, n2), np.float32)
        cell_base, prolongation_base = np.zeros(3, np.float32), np.zeros(1, np.float32)
        if hidden > 0:
            cell_base = _base(cell_net[0], cell_net[1], cell_net[2], cell_net[3], cell_net[4])
            prolongation_base = _base(
                prolongation_net[0], prolongation_net[1], prolongation_net[2], prolongation_net[3], prolongation_net[4]
            )
        for line in range(n0 * n1 * thread // threads, n0 * n1 * (thread + 1) // threads):
            i, j = line // n1, line % n1
            _neighbourhood(f0, f1, f2, inverse, fixed, i, j, face, stiff, near)
            for k in range(n2):
                omega[k], loss[k] = _ONE, _ONE
                theta[i, j, k] = scalars[1] * dirichlet[i, j, k]
            if hidden > 0:
                count = _cell_features(face, stiff, near, n2, ndim, phi, index)
                if count > 0:
                    _perceptron(phi, count, cell_net[0], cell_net[1], cell_net[2], cell_net[3], cell_net[4], units,
                                top, answer)  # fmt: skip
                for q in range(count):
                    k = index[q]
                    omega[k] = np.exp(np.float32(OMEGA_RANGE) * (answer[0, q] - cell_base[0]))
                    loss[k] = np.exp(np.float32(RANGE) * (answer[1, q] - cell_base[1]))
                    theta[i, j, k] *= np.exp(np.float32(RANGE) * (answer[2, q] - cell_base[2]))
            for axis in range(3):
                n = n0 if axis == 0 else n1 if axis == 1 else n2
                at = i if axis == 0 else j if axis == 1 else -1
                row = weight[axis]
                if n == 1:
                    row[:] = 0
                    continue
                for k in range(n2):
                    outward = face[2 * axis + (k if at < 0 else at) % 2, k + 1]
                    row[k] = linear if outward > 0 else _ZERO
                if hidden > 0:
                    count = _prolongation_features(face, stiff, near, axis, at, n2, ndim, phi, index)
                    if count > 0:
                        _perceptron(phi, count, prolongation_net[0], prolongation_net[1], prolongation_net[2],
                                    prolongation_net[3], prolongation_net[4], units, top, answer)  # fmt: skip
                    for q in range(count):
                        row[index[q]] *= np.exp(np.float32(RANGE) * (answer[0, q] - prolongation_base[0]))
            r = (i + pad) * (n1 + 2) + j + 1
            for k in range(n2):
                c, h = (i + j + k) % 2, k // 2 + 1
                inv = stiff[6, k + 1]
                smoother[c, r, h] = omega[k] * inv
                d = dirichlet[i, j, k]
                for q in range(6):
                    d += face[q, k + 1]
                diagonal[c, r, h] = d
                keep = _ONE - min(dropped * near[6, k + 1] * loss[k], np.float32(0.9)) if inv > 0 else _ZERO
                own[c, r, h] = keep - weight[0, k] - weight[1, k] - weight[2, k]
                p1[c, r, h] = weight[1, k]
                p2[c, r, h] = weight[2, k]
            if n0 > 1:
                for k in range(n2):
                    p0[(i + j + k) % 2, r, k // 2 + 1] = weight[0, k]
            if store_faces:
                for k in range(n2):
                    c, h = (i + j + k) % 2, k // 2 + 1
                    s1[c, r, h] = face[3, k + 1]
                    s2[c, r, h] = face[5, k + 1]
                if n0 > 1:
                    for k in range(n2):
                        s0[(i + j + k) % 2, r, k // 2 + 1] = face[1, k + 1]
