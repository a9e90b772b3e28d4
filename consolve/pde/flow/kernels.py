"""Numba kernels of the flow on a MAC grid, on 3D arrays (a 2D grid is a volume of one layer).

Velocities ``u0, u1, u2`` live on the faces of their axis and have one entry more along it.  Positions are in
cells: cell (i, j, k) has its centre at (i + 1/2, j + 1/2, k + 1/2).  A node of a field is *known* where the
field has a meaning in the fluid; arrays ``known`` hold bit 1 for a known node, and bit 2 if it and its upper
neighbours (the eight corners of an interpolation) all are.  Interpolation leaves out unknown nodes.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT

KNOWN, CORNERS_KNOWN = 1, 2


@njit(parallel=True, **STRICT)
def mark_corners(known, out):
    """Bits of boolean ``known``; beyond the grid the last node counts again."""
    n0, n1, n2 = known.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        a, b = min(i + 1, n0 - 1), min(j + 1, n1 - 1)
        for k in range(n2):
            c = min(k + 1, n2 - 1)
            near = known[i, j, k] and known[i, j, c] and known[i, b, k] and known[i, b, c]
            far = known[a, j, k] and known[a, j, c] and known[a, b, k] and known[a, b, c]
            out[i, j, k] = (KNOWN if known[i, j, k] else 0) | (CORNERS_KNOWN if near and far else 0)


@njit(**STRICT)
def _base(x, n):
    """Lower node, upper node and weight of the upper one for a position in nodes."""
    x = min(max(x, 0.0), n - 1.0)
    i = min(int(x), max(n - 2, 0))
    return i, min(i + 1, n - 1), x - i


@njit(**STRICT)
def _sample(field, known, x, y, z, default):
    """Linear interpolation at a position in nodes over the known nodes; ``default`` if there are none."""
    i, a, fx = _base(x, field.shape[0])
    j, b, fy = _base(y, field.shape[1])
    k, c, fz = _base(z, field.shape[2])
    if known[i, j, k] & CORNERS_KNOWN:
        q00 = field[i, j, k] + fz * (field[i, j, c] - field[i, j, k])
        q01 = field[i, b, k] + fz * (field[i, b, c] - field[i, b, k])
        q0 = q00 + fy * (q01 - q00)
        if a == i:
            return q0
        q10 = field[a, j, k] + fz * (field[a, j, c] - field[a, j, k])
        q11 = field[a, b, k] + fz * (field[a, b, c] - field[a, b, k])
        q1 = q10 + fy * (q11 - q10)
        return q0 + fx * (q1 - q0)
    total, weight = 0.0, 0.0
    for corner in range(8):
        p, wp = (a, fx) if corner & 4 else (i, 1 - fx)
        q, wq = (b, fy) if corner & 2 else (j, 1 - fy)
        r, wr = (c, fz) if corner & 1 else (k, 1 - fz)
        if known[p, q, r] & KNOWN:
            total += wp * wq * wr * field[p, q, r]
            weight += wp * wq * wr
    return total / weight if weight > 1e-12 else default


@njit(**STRICT)
def _range(field, known, x, y, z, default):
    """Least and greatest known value among the nodes that an interpolation reads."""
    i, a, _ = _base(x, field.shape[0])
    j, b, _ = _base(y, field.shape[1])
    k, c, _ = _base(z, field.shape[2])
    low, high = np.inf, -np.inf
    for corner in range(8):
        p = a if corner & 4 else i
        q = b if corner & 2 else j
        r = c if corner & 1 else k
        if known[p, q, r] & KNOWN:
            low, high = min(low, field[p, q, r]), max(high, field[p, q, r])
    return (low, high) if low <= high else (default, default)


@njit(**STRICT)
def _velocity(u0, u1, u2, known0, known1, known2, x, y, z):
    layers = u1.shape[0]
    v0 = _sample(u0, known0, x, y - 0.5, z - 0.5, 0.0) if layers > 1 else 0.0
    v1 = _sample(u1, known1, x - 0.5, y, z - 0.5, 0.0)
    v2 = _sample(u2, known2, x - 0.5, y - 0.5, z, 0.0)
    return v0, v1, v2


@njit(**STRICT)
def _trace(u0, u1, u2, known0, known1, known2, x, y, z, dt):
    """Where the point was a time ``dt`` ago: two-stage Runge-Kutta, kept inside the grid."""
    n0, n1, n2 = u1.shape[0], u0.shape[1], u0.shape[2]
    v0, v1, v2 = _velocity(u0, u1, u2, known0, known1, known2, x, y, z)
    h = 0.5 * dt
    v0, v1, v2 = _velocity(u0, u1, u2, known0, known1, known2, x - h * v0, y - h * v1, z - h * v2)
    return (
        min(max(x - dt * v0, 0.0), float(n0)),
        min(max(y - dt * v1, 0.0), float(n1)),
        min(max(z - dt * v2, 0.0), float(n2)),
    )


@njit(parallel=True, **STRICT)
def advect(fields, known, where, offset, u0, u1, u2, known0, known1, known2, dt, out, low, high):
    """Semi-Lagrangian step: out(x) = fields(x traced back by dt), at the nodes ``where``.

    ``fields, out, low, high`` have a leading axis of fields that share their nodes; ``offset`` is the
    position of node (0, 0, 0).  ``low`` and ``high`` get the bounds of the values interpolated.  Elsewhere
    all three get the field.
    """
    count, n0, n1, n2 = fields.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            if not where[i, j, k]:
                for m in range(count):
                    out[m, i, j, k] = fields[m, i, j, k]
                    low[m, i, j, k] = fields[m, i, j, k]
                    high[m, i, j, k] = fields[m, i, j, k]
                continue
            x, y, z = _trace(
                u0, u1, u2, known0, known1, known2, i + offset[0], j + offset[1], k + offset[2], dt
            )
            x, y, z = x - offset[0], y - offset[1], z - offset[2]
            for m in range(count):
                own = fields[m, i, j, k]
                out[m, i, j, k] = _sample(fields[m], known, x, y, z, own)
                low[m, i, j, k], high[m, i, j, k] = _range(fields[m], known, x, y, z, own)


@njit(parallel=True, **STRICT)
def correct(
    fields, forward, low, high, known, where, offset, u0, u1, u2, known0, known1, known2, dt, out
):  # fmt: skip
    """MacCormack correction: out = forward + (fields - forward traced forward by dt) / 2, in [low, high]."""
    count, n0, n1, n2 = fields.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            if not where[i, j, k]:
                for m in range(count):
                    out[m, i, j, k] = forward[m, i, j, k]
                continue
            x, y, z = _trace(
                u0, u1, u2, known0, known1, known2, i + offset[0], j + offset[1], k + offset[2], -dt
            )
            x, y, z = x - offset[0], y - offset[1], z - offset[2]
            for m in range(count):
                first = forward[m, i, j, k]
                again = _sample(forward[m], known, x, y, z, first)
                value = first + 0.5 * (fields[m, i, j, k] - again)
                out[m, i, j, k] = min(max(value, low[m, i, j, k]), high[m, i, j, k])


@njit(parallel=True, **STRICT)
def net_outflow(u0, u1, u2, fluid, out):
    """out = sum of the velocities out of each fluid cell (the divergence times the spacing), 0 elsewhere."""
    n0, n1, n2 = fluid.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            total = u1[i, j + 1, k] - u1[i, j, k] + u2[i, j, k + 1] - u2[i, j, k]
            if n0 > 1:
                total += u0[i + 1, j, k] - u0[i, j, k]
            out[i, j, k] = total if fluid[i, j, k] else 0.0


@njit(parallel=True, **STRICT)
def subtract_gradient(u, is_open, q, axis):
    """u -= difference of q across each open face of ``axis``; q is 0 beyond the grid."""
    n0, n1, n2 = u.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            if is_open[i, j, k]:
                at = i if axis == 0 else j if axis == 1 else k
                end = (n0 if axis == 0 else n1 if axis == 1 else n2) - 1
                above = q[i, j, k] if at < end else 0.0
                below = 0.0
                if at > 0:
                    a = i - 1 if axis == 0 else i
                    b = j - 1 if axis == 1 else j
                    c = k - 1 if axis == 2 else k
                    below = q[a, b, c]
                u[i, j, k] -= above - below


@njit(parallel=True, **STRICT)
def vorticity(u0, u1, u2, out):
    """out[3] = curl of the velocity at cell centres, central differences of cell means, in 1 / cells."""
    n0, n1, n2 = out.shape[1:]
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        im, ip = max(i - 1, 0), min(i + 1, n0 - 1)
        jm, jp = max(j - 1, 0), min(j + 1, n1 - 1)
        for k in range(n2):
            km, kp = max(k - 1, 0), min(k + 1, n2 - 1)
            d0, d1, d2 = max(ip - im, 1), max(jp - jm, 1), max(kp - km, 1)
            d1_u2 = (u2[i, jp, k] + u2[i, jp, k + 1] - u2[i, jm, k] - u2[i, jm, k + 1]) / (2 * d1)
            d2_u1 = (u1[i, j, kp] + u1[i, j + 1, kp] - u1[i, j, km] - u1[i, j + 1, km]) / (2 * d2)
            d2_u0 = (u0[i, j, kp] + u0[i + 1, j, kp] - u0[i, j, km] - u0[i + 1, j, km]) / (2 * d2)
            d0_u2 = (u2[ip, j, k] + u2[ip, j, k + 1] - u2[im, j, k] - u2[im, j, k + 1]) / (2 * d0)
            d0_u1 = (u1[ip, j, k] + u1[ip, j + 1, k] - u1[im, j, k] - u1[im, j + 1, k]) / (2 * d0)
            d1_u0 = (u0[i, jp, k] + u0[i + 1, jp, k] - u0[i, jm, k] - u0[i + 1, jm, k]) / (2 * d1)
            out[0, i, j, k] = d1_u2 - d2_u1
            out[1, i, j, k] = d2_u0 - d0_u2
            out[2, i, j, k] = d0_u1 - d1_u0


@njit(**STRICT)
def _length(w, i, j, k):
    return np.sqrt(w[0, i, j, k] ** 2 + w[1, i, j, k] ** 2 + w[2, i, j, k] ** 2)


@njit(parallel=True, **STRICT)
def confinement(w, fluid, out):
    """out[3] = N x w with N the unit gradient of the length of the vorticity w; 0 outside the fluid."""
    n0, n1, n2 = fluid.shape
    for row in prange(n0 * n1):
        i, j = row // n1, row % n1
        for k in range(n2):
            out[0, i, j, k] = out[1, i, j, k] = out[2, i, j, k] = 0.0
            if not fluid[i, j, k]:
                continue
            g0 = _length(w, min(i + 1, n0 - 1), j, k) - _length(w, max(i - 1, 0), j, k)
            g1 = _length(w, i, min(j + 1, n1 - 1), k) - _length(w, i, max(j - 1, 0), k)
            g2 = _length(w, i, j, min(k + 1, n2 - 1)) - _length(w, i, j, max(k - 1, 0))
            size = np.sqrt(g0 * g0 + g1 * g1 + g2 * g2)
            if size < 1e-9:
                continue
            w0, w1, w2 = w[0, i, j, k], w[1, i, j, k], w[2, i, j, k]
            out[0, i, j, k] = (g1 * w2 - g2 * w1) / size
            out[1, i, j, k] = (g2 * w0 - g0 * w2) / size
            out[2, i, j, k] = (g0 * w1 - g1 * w0) / size
