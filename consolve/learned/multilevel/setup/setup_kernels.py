"""Numba kernels of setup: from a level's operator to its smoother, its transfer weights and the next level's
operator.

Arrays of the operator are float32 volumes (n0, n1, n2) in C order; what the V-cycle reads is written straight
into the colour-split arrays described in cycle_kernels.  The formulas are those of torch_multilevel
(docs/multilevel.md). A perceptron is run only where its features do not all vanish: on the regular interior
of a domain its correction is 0.

``net`` arguments are the tuples of perceptron_kernels.  Irregular cells are collected over rows and given to
a perceptron some hundred at a time, so that its loops vectorise.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import FAST
from consolve.base.vector_instructions import never_inlined
from consolve.learned.multilevel.format import OMEGA_RANGE, RANGE
from consolve.learned.multilevel.setup.perceptron_kernels import (
    REGULAR,
    exponentials,
    floats,
    integers,
    perceptron,
)

MOST_DROPPED = np.float32(0.9)
_BATCH = 512
_ONE, _ZERO = np.float32(1), np.float32(0)


@njit(parallel=True, **FAST)
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


@njit(parallel=True, **FAST)
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


@njit(parallel=True, **FAST)
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


@njit(**FAST)
def inverse_diagonal(f0, f1, f2, dirichlet, inverse, fixed, first, end):
    """inverse = 1 / d and fixed = dirichlet / d, both 0 where d is 0; lines first..end - 1."""
    n0, n1, n2 = dirichlet.shape
    for row in range(first, end):
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


@njit(**FAST)
def _row(volume, i, j, out, q):
    """A row framed by zeros, in out[q]; all zero outside the volume.

    Indices instead of slices, whose reference counts cost more than the copy.
    """
    n0, n1, n2 = volume.shape
    if 0 <= i < n0 and 0 <= j < n1:
        for k in range(n2):
            out[q, k + 1] = volume[i, j, k]
    else:
        for k in range(n2):
            out[q, k + 1] = _ZERO


@njit(**FAST)
def _rows_around(volume, i, j, out):
    """The rows of the six neighbours (lower and upper by axis) of the cells of a row, and the row itself."""
    n0, _, n2 = volume.shape
    if n0 > 1:
        _row(volume, i - 1, j, out, np.int64(0))
        _row(volume, i + 1, j, out, np.int64(1))
    _row(volume, i, j - 1, out, np.int64(2))
    _row(volume, i, j + 1, out, np.int64(3))
    for k in range(n2 - 1):
        out[4, k + 2] = volume[i, j, k]
    for k in range(n2 - 1):
        out[5, k + 1] = volume[i, j, k + 1]
    _row(volume, i, j, out, np.int64(6))


@njit(**FAST)
def _neighbourhood(f0, f1, f2, inverse, fixed, i, j, face, stiff, near):
    """Six faces of the cells of a row (lower and upper by axis), and 1/d and Dirichlet share of their
    neighbours.

    Entry k + 1 of each row belongs to cell k; what no cell has stays 0.
    """
    n0, _, n2 = inverse.shape
    if n0 > 1:
        _row(f0, i - 1, j, face, np.int64(0))
        _row(f0, i, j, face, np.int64(1))
    _row(f1, i, j - 1, face, np.int64(2))
    _row(f1, i, j, face, np.int64(3))
    for k in range(n2):
        face[4, k + 2] = f2[i, j, k]
    _row(f2, i, j, face, np.int64(5))
    _rows_around(inverse, i, j, stiff)
    _rows_around(fixed, i, j, near)


@njit(**FAST)
def _irregular(face, stiff, near, n2, ndim, score):
    """score = largest deviation of each cell of a row from a cell whose 2 ndim faces and neighbours are
    alike.

    Where it vanishes all features of the cell do.  Plain loops over the row, so that they vectorise.
    """
    d2 = np.float32(2 * ndim)
    inverse, share = stiff[6][1:], near[6][1:]
    for k in range(n2):
        score[k] = share[k]
    for q in range(6 - 2 * ndim, 6):
        f, s, m = face[q][1:], stiff[q][1:], near[q][1:]
        for k in range(n2):
            a, b = d2 * f[k] * inverse[k] - _ONE, d2 * f[k] * s[k] - _ONE
            score[k] = max(max(score[k], m[k]), max(abs(a), abs(b)))


@njit(**FAST)
def cell_features(face, stiff, near, k, ndim, phi, at):
    """Dirichlet share; unevenness of the faces; stiffness and Dirichlet share of the neighbours, of one
    cell."""
    inverse = stiff[6, k]
    squares, stiffness, drained = _ZERO, _ZERO, _ZERO
    for q in range(6):
        squares += face[q, k] * face[q, k]
        stiffness += face[q, k] * stiff[q, k]
        drained += face[q, k] * near[q, k]
    phi[0, at] = near[6, k]
    phi[1, at] = 2 * ndim * squares * inverse * inverse - _ONE
    phi[2, at] = stiffness - _ONE
    phi[3, at] = drained * inverse


@njit(**FAST)
def prolongation_features(face, stiff, near, k, out, back, ndim, phi, at):
    """Outward and inward coupling along one axis, Dirichlet shares, and both neighbours' stiffness, of one
    cell."""
    d2, inverse = np.float32(2 * ndim), stiff[6, k]
    outward, inward = face[out, k], face[back, k]
    phi[0, at] = d2 * outward * inverse - _ONE
    phi[1, at] = d2 * inward * inverse - _ONE
    phi[2, at] = near[6, k]
    phi[3, at] = d2 * outward * stiff[out, k] - _ONE
    phi[4, at] = d2 * inward * stiff[back, k] - _ONE
    phi[5, at] = near[out, k]
    phi[6, at] = near[back, k] if inward > 0 else _ZERO


@njit(**FAST)
def _correct_cells(phi, place, count, net, units, top, answer, dropped, smoother, own, theta):
    """Apply the cell perceptron to ``count`` collected cells: smoother, own weight, theta."""
    never_inlined()
    perceptron(phi[:, 0:], count, net[0], net[1], net[2], net[3], net[4], net[5], units, top, answer)
    exponentials(answer[0], np.float32(OMEGA_RANGE), count)
    exponentials(answer[1], np.float32(RANGE), count)
    exponentials(answer[2], np.float32(RANGE), count)
    for q in range(count):
        at = place[0, q]
        smoother[at] *= answer[0, q]
        plain = dropped * phi[0, q]
        own[at] += min(plain, MOST_DROPPED) - min(plain * answer[1, q], MOST_DROPPED)
        theta[place[1, q]] *= answer[2, q]


@njit(**FAST)
def _correct_weights(phi, place, count, net, units, top, answer, linear, own, p0, p1, p2):
    """Apply the prolongation perceptron to ``count`` collected couplings: weight of the axis, own weight."""
    never_inlined()
    perceptron(phi[:, 0:], count, net[0], net[1], net[2], net[3], net[4], net[5], units, top, answer)
    exponentials(answer[0], np.float32(RANGE), count)
    for q in range(count):
        at, axis = place[0, q], place[1, q]
        weight = linear * answer[0, q]
        own[at] += linear - weight
        if axis == 0:
            p0[at] = weight
        elif axis == 1:
            p1[at] = weight
        else:
            p2[at] = weight


@njit(**FAST)
def split_row(row, split, low, r, n2):
    """Store a row in natural order as row r of both colours."""
    even, odd = split[low, r][1:], split[1 - low, r][1:]
    for h in range(n2 // 2):
        even[h] = row[2 * h]
        odd[h] = row[2 * h + 1]
    if n2 % 2 == 1:
        even[n2 // 2] = row[n2 - 1]


@njit(**FAST)
def _weights(outward, linear, weight):
    """linear where the outward face (a framed row) is open, else 0."""
    face = outward[1:]
    for k in range(weight.size):
        weight[k] = linear if face[k] > 0 else _ZERO


@njit(**FAST)
def _weights_along(upper, linear, weight):
    """The same along the row: even cells look down, odd ones up."""
    n = weight.size
    weight[0], weight[n - 1] = _ZERO, _ZERO
    face = upper[1:]
    for h in range((n - 1) // 2):
        weight[2 * h + 1] = weight[2 * h + 2] = linear if face[2 * h + 1] > 0 else _ZERO


@njit(**FAST)
def _diagonal_and_own(face, inverse, share, fixed, dropped, weight, d, own):
    """Diagonal, and 1 - drop - sum of the weights (0 at empty cells), of the cells of a row."""
    a, b, c, e, f, g = face[0][1:], face[1][1:], face[2][1:], face[3][1:], face[4][1:], face[5][1:]
    u, v, w = weight[0], weight[1], weight[2]
    inv, part = inverse[1:], share[1:]
    for k in range(d.size):
        d[k] = fixed[k] + a[k] + b[k] + c[k] + e[k] + f[k] + g[k]
    for k in range(d.size):
        keep = _ONE - min(dropped * part[k], MOST_DROPPED)
        own[k] = (keep if inv[k] > 0 else _ZERO) - u[k] - v[k] - w[k]


@njit(**FAST)
def _listed(mark, inverse, out):
    """Positions of the marked cells that take part; returns their number."""
    count = 0
    for k in range(mark.size):
        out[count] = k
        count += (mark[k] != 0) & (inverse[k] > 0)
    return count


@njit(**FAST)
def level_kernels(
    f0, f1, f2, dirichlet, inverse, fixed, ndim, scalars, cell_net, prolongation_net, theta, irregular,
    smoother, diagonal, own, p0, p1, p2, s0, s1, s2, store_faces, first, end,
):  # fmt: skip
    """Fill the colour-split arrays of a level, theta * dirichlet in natural order, and the cells that are
    irregular, for lines first..end - 1.

    ``scalars`` is (gamma, theta, linear, drop) of the level class; s0, s1, s2 take the faces if
    ``store_faces``.
    """
    n0, n1, n2 = dirichlet.shape
    hidden = cell_net[0].shape[0]
    pad = 1 if n0 > 1 else 0
    width = smoother.shape[2]
    rows = smoother.shape[1]
    linear, dropped = scalars[2], scalars[3] * 2 * ndim
    smoother_flat, own_flat, theta_flat = smoother.reshape(-1), own.reshape(-1), theta.reshape(-1)
    p0_flat, p1_flat, p2_flat = p0.reshape(-1), p1.reshape(-1), p2.reshape(-1)
    long0, long1, long2 = n0 > 1, n1 > 1, n2 > 1
    one, two, three, four, size = np.int64(1), np.int64(2), np.int64(3), np.int64(4), np.int64(_BATCH + 3)
    six, seven = np.int64(6), np.int64(7)
    face, stiff, near = floats(six, n2 + 3), floats(seven, n2 + 2), floats(seven, n2 + 2)
    score, weight, index = floats(one, n2)[0], floats(three, n2), integers(one, n2 + 1)[0]
    d_row, own_row = floats(one, n2)[0], floats(one, n2)[0]
    units, top, answer = floats(max(hidden, one), size), floats(one, size)[0], floats(three, size)
    phi_cell, place_cell = floats(four, size), integers(two, size)
    phi_axis, place_axis = floats(seven, size), integers(two, size)
    cells, couplings = np.int64(0), np.int64(0)
    for line in range(first, end):
        i, j = line // n1, line % n1
        _neighbourhood(f0, f1, f2, inverse, fixed, i, j, face, stiff, near)
        fixed_row, theta_row = dirichlet[i, j], theta[i, j]
        for k in range(n2):
            theta_row[k] = scalars[1] * fixed_row[k]
        if long0:
            _weights(face[i % 2], linear, weight[0])
        if long1:
            _weights(face[2 + j % 2], linear, weight[1])
        if long2:
            _weights_along(face[5], linear, weight[2])
        _diagonal_and_own(face, stiff[6], near[6], fixed_row, dropped, weight, d_row, own_row)
        r = (i + pad) * (n1 + 2) + j + 1
        low = (i + j) % 2
        split_row(stiff[6][1:], smoother, low, r, n2)
        split_row(d_row, diagonal, low, r, n2)
        split_row(own_row, own, low, r, n2)
        split_row(weight[1], p1, low, r, n2)
        split_row(weight[2], p2, low, r, n2)
        if long0:
            split_row(weight[0], p0, low, r, n2)
        if store_faces:
            split_row(face[3][1:], s1, low, r, n2)
            split_row(face[5][1:], s2, low, r, n2)
            if long0:
                split_row(face[1][1:], s0, low, r, n2)
        if hidden == 0:
            continue
        _irregular(face, stiff, near, n2, ndim, score)
        mark = irregular[i, j].view(np.uint8)
        for k in range(n2):
            mark[k] = np.uint8(score[k] > REGULAR)
        for listed in range(_listed(mark, stiff[6][1:], index)):
            k = index[listed]
            at = ((i + j + k) % 2 * rows + r) * width + k // 2 + 1
            cell_features(face, stiff, near, k + 1, ndim, phi_cell, cells)
            place_cell[0, cells], place_cell[1, cells] = at, line * n2 + k
            cells += 1
            for axis in range(3):
                odd = (i if axis == 0 else j if axis == 1 else k) % 2
                out, back = 2 * axis + odd, 2 * axis + 1 - odd
                if weight[axis, k] > 0:
                    prolongation_features(face, stiff, near, k + 1, out, back, ndim, phi_axis, couplings)
                    place_axis[0, couplings], place_axis[1, couplings] = at, axis
                    couplings += 1
            if cells == _BATCH:
                _correct_cells(phi_cell, place_cell, cells, cell_net, units, top, answer,
                               dropped, smoother_flat, own_flat, theta_flat)  # fmt: skip
                cells = np.int64(0)
            if couplings >= _BATCH:
                _correct_weights(phi_axis, place_axis, couplings, prolongation_net, units, top,
                                 answer, linear, own_flat, p0_flat, p1_flat, p2_flat)  # fmt: skip
                couplings = np.int64(0)
    _correct_cells(phi_cell, place_cell, cells, cell_net, units, top, answer, dropped,
                   smoother_flat, own_flat, theta_flat)  # fmt: skip
    _correct_weights(phi_axis, place_axis, couplings, prolongation_net, units, top, answer,
                     linear, own_flat, p0_flat, p1_flat, p2_flat)  # fmt: skip
