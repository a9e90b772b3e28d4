"""Numba kernel of setup: the operator of the next level.

A coarse face takes gamma times the sum of the fine coefficients on it, corrected by a perceptron that sees
how the two blocks are connected inside; the coarse Dirichlet part is the block's sum of theta times the fine
one.
"""

import numpy as np
from numba import njit

from consolve.base.jit import FAST
from consolve.learned.multilevel.format import RANGE
from consolve.learned.multilevel.setup.perceptron_kernels import (
    REGULAR,
    exponentials,
    floats,
    integers,
    perceptron,
)

_ONE, _ZERO = np.float32(1), np.float32(0)


@njit(**FAST)
def squash(t):
    return t / (_ONE + t)


@njit(**FAST)
def block_sums(
    f0, f1, f2, dirichlet, theta, irregular, links, drain, coarse_dirichlet, coarse_irregular, first, end
):
    """Sums over each block of 2 cells an axis: of the faces inside it by axis (links), of dirichlet and of
    theta.

    ``coarse_irregular`` marks the blocks that hold an irregular cell.
    """
    n0, n1, n2 = dirichlet.shape
    _, c1, c2 = drain.shape
    k0, k1, k2 = (2 if n0 > 1 else 1), (2 if n1 > 1 else 1), (2 if n2 > 1 else 1)
    for line in range(first, end):
        ci, cj = line // c1, line % c1
        link, drained, fixed = links[:, ci, cj], drain[ci, cj], coarse_dirichlet[ci, cj]
        mark = coarse_irregular[ci, cj]
        for ck in range(c2):
            link[0, ck] = link[1, ck] = link[2, ck] = drained[ck] = fixed[ck] = 0
            mark[ck] = False
        for i in range(ci * k0, min(n0, ci * k0 + k0)):
            for j in range(cj * k1, min(n1, cj * k1 + k1)):
                for ck in range(c2):
                    for k in range(ck * k2, min(n2, ck * k2 + k2)):
                        mark[ck] |= irregular[i, j, k]
                        drained[ck] += dirichlet[i, j, k]
                        fixed[ck] += theta[i, j, k]
                        if i % 2 == 0 and n0 > 1:
                            link[0, ck] += f0[i, j, k]
                        if j % 2 == 0:
                            link[1, ck] += f1[i, j, k]
                        if k % 2 == 0:
                            link[2, ck] += f2[i, j, k]


@njit(**FAST)
def _at(f, i, j, k):
    """f[i, j, k], 0 outside the volume."""
    n0, n1, n2 = f.shape
    return f[i, j, k] if 0 <= i < n0 and 0 <= j < n1 and 0 <= k < n2 else _ZERO


@njit(**FAST)
def coarse_faces(f, links, drain, irregular, axis, ndim, blocks, gamma, net, coarse, first, end):
    """Coefficients of the coarse faces along one axis.

    ``f`` are the fine faces of that axis; ``irregular`` marks the blocks that hold an irregular cell;
    ``blocks`` is int (3,): cells of a block along each axis (1 or 2).
    """
    n0, n1, n2 = f.shape
    c0, c1, c2 = coarse.shape
    e0, e1, e2 = axis == 0, axis == 1, axis == 2
    k0, k1, k2 = blocks[0], blocks[1], blocks[2]
    columns = np.float32(k0 * k1 * k2 / 2)
    lateral_axes = max(1, ndim - 1)
    hidden = net[0].shape[0]
    one, eight = np.int64(1), np.int64(8)
    phi, index = floats(eight, c2), integers(one, c2)[0]
    units, top, answer = floats(max(hidden, one), c2), floats(one, c2)[0], floats(one, c2)
    for line in range(first, end):
        ci, cj = line // c1, line % c1
        ni, nj = ci + e0, cj + e1
        count = np.int64(0)
        for ck in range(c2):
            nk = ck + e2
            coarse[ci, cj, ck] = 0
            if ni >= c0 or nj >= c1 or nk >= c2:
                continue
            if hidden > 0 and not irregular[ci, cj, ck] and not irregular[ni, nj, nk]:
                coarse[ci, cj, ck] = gamma * columns * f[ci * k0 + e0, cj * k1 + e1, ck * k2 + e2]
                continue
            total, largest, series = _ZERO, _ZERO, _ZERO
            for i in range(ci * k0 + e0, min(n0, ci * k0 + k0)):
                for j in range(cj * k1 + e1, min(n1, cj * k1 + k1)):
                    for k in range(ck * k2 + e2, min(n2, ck * k2 + k2)):
                        crossing = f[i, j, k]
                        if crossing == 0:
                            continue
                        left, right = _at(f, i - e0, j - e1, k - e2), _at(f, i + e0, j + e1, k + e2)
                        resistance = _ONE / crossing
                        if left > 0:
                            resistance += np.float32(0.5) / left
                        if right > 0:
                            resistance += np.float32(0.5) / right
                        total += crossing
                        largest = max(largest, crossing)
                        series += _ONE / resistance
            coarse[ci, cj, ck] = gamma * total
            if hidden == 0 or total == 0:
                continue
            left, right = _ZERO, _ZERO
            for other in range(3):
                if other != axis:
                    left += links[other, ci, cj, ck]
                    right += links[other, ni, nj, nk]
            left /= lateral_axes * total
            right /= lateral_axes * total
            along, beyond = links[axis, ci, cj, ck] / total, links[axis, ni, nj, nk] / total
            drained, drawn = drain[ci, cj, ck] / total, drain[ni, nj, nk] / total
            even = squash(np.float32(2))
            a = 2 * series / total - _ONE
            b = total / (columns * largest) - _ONE
            c, d = squash(along + beyond) - even, squash(abs(along - beyond))
            e, g = squash(left + right) - even, squash(abs(left - right))
            p, q = squash(drained + drawn), squash(abs(drained - drawn))
            if max(max(abs(a), abs(b)), max(abs(c), d), max(abs(e), g), max(p, q)) > REGULAR:
                phi[0, count], phi[1, count], phi[2, count], phi[3, count] = a, b, c, d
                phi[4, count], phi[5, count], phi[6, count], phi[7, count] = e, g, p, q
                index[count] = ck
                count += 1
        if count > 0:
            perceptron(phi[:, 0:], count, net[0], net[1], net[2], net[3], net[4], net[5], units, top, answer)
            exponentials(answer[0], np.float32(RANGE), count)
            for m in range(count):
                coarse[ci, cj, index[m]] *= answer[0, m]
