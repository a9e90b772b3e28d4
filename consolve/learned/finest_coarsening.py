"""Numba kernel of setup: the operator that follows a uniform finest level; see finest_kernels for its
codes.

Blocks of a line and what connects them are counted in bytes: of the 2 x 2 x 2 cells of a block, each of the
eight in a row of its own, so that the loops over a line vectorise.
"""

import numpy as np
from numba import njit, prange

from consolve.learned.coarsen_kernels import squash
from consolve.learned.cycle_kernels import OPTIONS
from consolve.learned.perceptron_kernels import REGULAR, perceptron, value_at_zero
from consolve.learned.weights import RANGE

_ONE, _ZERO = np.float32(1), np.float32(0)
_SEVEN, _BIT = np.uint8(7), np.uint8(1)


@njit(**OPTIONS)
def _blocks_of_line(code, ci, cj, k0, k1, cells):
    """cells[(di * 2 + dj) * 2 + dk, ck] = 1 where that cell of block ck is active; 0 outside the grid."""
    n0, n1, n2 = code.shape
    for di in range(2):
        for dj in range(2):
            even, odd = cells[4 * di + 2 * dj], cells[4 * di + 2 * dj + 1]
            i, j = ci * k0 + di, cj * k1 + dj
            if di >= k0 or dj >= k1 or i >= n0 or j >= n1:
                even[:] = 0
                odd[:] = 0
                continue
            row = code[i, j]
            for h in range(n2 // 2):
                even[h] = row[2 * h] >> _SEVEN
                odd[h] = row[2 * h + 1] >> _SEVEN
            if n2 % 2 == 1:
                even[n2 // 2] = row[n2 - 1] >> _SEVEN
                odd[n2 // 2] = 0


@njit(**OPTIONS)
def _count_links(cells, links):
    """links[axis, ck] = open faces inside block ck."""
    for axis in range(3):
        step = 4 >> axis
        count = links[axis]
        count[:] = 0
        for low in range(8):
            if low & step == 0:
                a, b = cells[low], cells[low + step]
                for k in range(count.size):
                    count[k] = np.uint8(count[k] + np.uint8(a[k] & b[k]))


@njit(**OPTIONS)
def _count_crossings(here, there, step, total, one, both):
    """Open faces between blocks, and how many of them go on by one or by two open faces in a straight
    line."""
    total[:] = 0
    one[:] = 0
    both[:] = 0
    n = min(here.shape[1], there.shape[1])
    for low in range(8):
        if low & step == 0:
            before, last, first, after = here[low], here[low + step], there[low], there[low + step]
            for k in range(n):
                crossing = np.uint8(last[k] & first[k])
                left, right = np.uint8(crossing & before[k]), np.uint8(crossing & after[k])
                total[k] = np.uint8(total[k] + crossing)
                both[k] = np.uint8(both[k] + np.uint8(left & right))
                one[k] = np.uint8(one[k] + np.uint8(left ^ right))


@njit(**OPTIONS)
def _sum_parts(start, place, part, theta, n0, n1, ci, cj, k0, k1, k2, drain, fixed):
    """drain and fixed = sums of the Dirichlet parts and of theta times them over each block of a line."""
    drain[:] = 0
    fixed[:] = 0
    for i in range(ci * k0, min(n0, ci * k0 + k0)):
        for j in range(cj * k1, min(n1, cj * k1 + k1)):
            line = i * n1 + j
            for q in range(start[line], start[line + 1]):
                drain[place[q] // k2] += part[q]
                fixed[place[q] // k2] += theta[q]


@njit(**OPTIONS)
def _features(
    axis, lateral_axes, columns, total, one, both, links, beyond, drain, drain_beyond, phi, score
):  # fmt: skip
    """The eight features of the faces of a line, and the largest of them; where no face is open they mean
    nothing."""
    other, third = (axis + 1) % 3, (axis + 2) % 3
    even = squash(np.float32(2))
    l0, l1, l2 = links[other], links[third], links[axis]
    m0, m1, m2 = beyond[other], beyond[third], beyond[axis]
    for k in range(score.size):
        t = np.float32(total[k])
        share = _ONE / max(t, _ONE)
        # A column's resistance is 1, 3/2 or 2.
        series = t - np.float32(one[k]) / 3 - np.float32(both[k]) / 2
        left = np.float32(l0[k] + l1[k]) * share / lateral_axes
        right = np.float32(m0[k] + m1[k]) * share / lateral_axes
        along, past = np.float32(l2[k]) * share, np.float32(m2[k]) * share
        drained, drawn = drain[k] * share, drain_beyond[k] * share
        a, b = 2 * series * share - _ONE, t / columns - _ONE
        c, d = squash(along + past) - even, squash(abs(along - past))
        e, g = squash(left + right) - even, squash(abs(left - right))
        p, q = squash(drained + drawn), squash(abs(drained - drawn))
        phi[0, k], phi[1, k], phi[2, k], phi[3, k] = a, b, c, d
        phi[4, k], phi[5, k], phi[6, k], phi[7, k] = e, g, p, q
        score[k] = max(max(max(abs(a), abs(b)), max(abs(c), d)), max(max(abs(e), g), max(p, q)))


@njit(**OPTIONS)
def _coarse_lines(code, start, place, part, theta, marked, ndim, gamma, net, faces0, faces1, faces2, fixed,
                  first, end):  # fmt: skip
    """coarse_operator for the coarse lines first..end - 1."""
    n0, n1, n2 = code.shape
    c0, c1, c2 = marked.shape
    k0, k1, k2 = (2 if n0 > 1 else 1), (2 if n1 > 1 else 1), (2 if n2 > 1 else 1)
    columns = np.float32(k0 * k1 * k2 / 2)
    lateral_axes = np.float32(max(1, ndim - 1))
    hidden = net[0].shape[0]
    here, there = np.zeros((8, c2), np.uint8), np.zeros((8, c2), np.uint8)
    links, beyond = np.zeros((3, c2), np.uint8), np.zeros((3, c2), np.uint8)
    total, one, both = np.zeros(c2, np.uint8), np.zeros(c2, np.uint8), np.zeros(c2, np.uint8)
    drain, drain_beyond = np.zeros(c2 + 1, np.float32), np.zeros(c2 + 1, np.float32)
    unused = np.zeros(c2, np.float32)
    rows, score = np.zeros((8, c2), np.float32), np.zeros(c2, np.float32)
    phi, index = np.empty((8, c2), np.float32), np.empty(c2 + 1, np.int64)
    units, top = np.empty((max(hidden, 1), c2), np.float32), np.empty(c2, np.float32)
    answer, base = np.empty((1, c2), np.float32), np.zeros(1, np.float32)
    if hidden > 0:
        base = value_at_zero(net[0], net[1], net[2], net[3], net[4])
    for line in range(first, end):
        ci, cj = line // c1, line % c1
        _blocks_of_line(code, ci, cj, k0, k1, here)
        _count_links(here, links)
        _sum_parts(start, place, part, theta, n0, n1, ci, cj, k0, k1, k2, drain[:c2], fixed[ci, cj])
        drain[c2] = _ZERO
        for axis in range(3):
            coarse = (faces0 if axis == 0 else faces1 if axis == 1 else faces2)[ci, cj]
            ni, nj = ci + (axis == 0), cj + (axis == 1)
            if (k0 if axis == 0 else k1 if axis == 1 else k2) == 1 or ni >= c0 or nj >= c1:
                coarse[:] = 0
                continue
            shift, step = (1 if axis == 2 else 0), 4 >> axis
            n = c2 - shift
            if axis < 2:
                _blocks_of_line(code, ni, nj, k0, k1, there)
                _count_crossings(here, there, step, total, one, both)
            else:
                _count_crossings(here, here[:, 1:], step, total, one, both)
            for k in range(n):
                coarse[k] = gamma * np.float32(total[k])
            if shift == 1:
                coarse[n] = _ZERO
            if hidden == 0:
                continue
            mark, mark_beyond = marked[ci, cj], marked[ni, nj][shift:]
            count = 0
            for k in range(n):
                index[count] = k
                count += (mark[k] | mark_beyond[k]) & (total[k] > 0)
            if count == 0:
                continue
            if axis < 2:
                _count_links(there, beyond)
                _sum_parts(start, place, part, theta, n0, n1, ni, nj, k0, k1, k2, drain_beyond[:c2], unused)
                _features(axis, lateral_axes, columns, total, one, both, links, beyond, drain, drain_beyond,
                          rows, score[:n])  # fmt: skip
            else:
                _features(axis, lateral_axes, columns, total, one, both, links, links[:, 1:], drain,
                          drain[1:], rows, score[:n])  # fmt: skip
            chosen = 0
            for m in range(count):
                k = index[m]
                if score[k] > REGULAR:
                    index[chosen] = k
                    for f in range(8):
                        phi[f, chosen] = rows[f, k]
                    chosen += 1
            if chosen > 0:
                perceptron(phi, chosen, net[0], net[1], net[2], net[3], net[4], base, units, top, answer)
                for m in range(chosen):
                    coarse[index[m]] *= np.exp(np.float32(RANGE) * answer[0, m])


@njit(parallel=True, **OPTIONS)
def coarse_operator(code, start, place, part, theta, marked, ndim, gamma, net, faces0, faces1, faces2, fixed,
                    threads):  # fmt: skip
    """Fill the coarse volumes: face coefficients of three axes (the first unused where the grid has one
    layer) and the Dirichlet part.

    Parameters
    ----------
    code, start, place, part, theta, marked
        As finest_kernels.level_kernels takes and leaves them.
    gamma, net
        Scalar and face perceptron of the level class.
    """
    lines = marked.shape[0] * marked.shape[1]
    for thread in prange(threads):
        _coarse_lines(
            code, start, place, part, theta, marked, ndim, gamma, net, faces0, faces1, faces2, fixed,
            lines * thread // threads, lines * (thread + 1) // threads,
        )  # fmt: skip
