"""Numba kernel of setup: the operator that follows a uniform finest level; see finest_kernels for its
codes.

Blocks of a line and what connects them are counted in bytes: of the 2 x 2 x 2 cells of a block, each of the
eight in a row of its own, so that the loops over a line vectorise.
"""

import numpy as np
from numba import njit

from consolve.base.jit import FAST
from consolve.base.vector_instructions import never_inlined
from consolve.learned.multilevel.format import RANGE
from consolve.learned.multilevel.setup.coarsen_kernels import squash
from consolve.learned.multilevel.setup.perceptron_kernels import (
    REGULAR,
    bytes_,
    exponentials,
    floats,
    integers,
    perceptron,
)

_ONE, _ZERO = np.float32(1), np.float32(0)
_SEVEN = np.uint8(7)
_BATCH = 512


@njit(**FAST)
def _clear(row):
    for k in range(row.size):
        row[k] = 0


@njit(**FAST)
def _blocks_of_line(code, ci, cj, k0, k1, cells):
    """cells[(di * 2 + dj) * 2 + dk, ck] = 1 where that cell of block ck is active; 0 outside the grid."""
    n0, n1, n2 = code.shape
    for di in range(2):
        for dj in range(2):
            even, odd = cells[4 * di + 2 * dj], cells[4 * di + 2 * dj + 1]
            i, j = ci * k0 + di, cj * k1 + dj
            if di >= k0 or dj >= k1 or i >= n0 or j >= n1:
                _clear(even)
                _clear(odd)
                continue
            row = code[i, j]
            for h in range(n2 // 2):
                even[h] = row[2 * h] >> _SEVEN
                odd[h] = row[2 * h + 1] >> _SEVEN
            if n2 % 2 == 1:
                even[n2 // 2] = row[n2 - 1] >> _SEVEN
                odd[n2 // 2] = 0


@njit(**FAST)
def _count_links(cells, links):
    """links[axis, ck] = open faces inside block ck."""
    for axis in range(3):
        step = 4 >> axis
        count = links[axis]
        _clear(count)
        for low in range(8):
            if low & step == 0:
                a, b = cells[low], cells[low + step]
                for k in range(count.size):
                    count[k] = np.uint8(count[k] + np.uint8(a[k] & b[k]))


@njit(**FAST)
def _count_crossings(here, there, step, total, one, both):
    """Open faces between blocks, and how many of them go on by one or by two open faces in a straight
    line."""
    _clear(total)
    _clear(one)
    _clear(both)
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


@njit(**FAST)
def _sum_parts(start, place, part, theta, n0, n1, ci, cj, k0, k1, k2, drain, fixed):
    """drain and fixed = sums of the Dirichlet parts and of theta times them over each block of a line."""
    _clear(drain)
    _clear(fixed)
    for i in range(ci * k0, min(n0, ci * k0 + k0)):
        for j in range(cj * k1, min(n1, cj * k1 + k1)):
            line = i * n1 + j
            for q in range(start[line], start[line + 1]):
                drain[place[q] // k2] += part[q]
                fixed[place[q] // k2] += theta[q]


@njit(**FAST)
def _features(total, one, both, lateral, beside, along, past, drain, drawn, columns, axes, phi, at):
    """The eight features of a coarse face, from the counts of its blocks and its columns; returns the largest
    of them."""
    even, share = squash(np.float32(2)), _ONE / total
    series = total - one / 3 - both / 2  # a column's resistance is 1, 3/2 or 2
    left, right = lateral * share / axes, beside * share / axes
    along, past, drain, drawn = along * share, past * share, drain * share, drawn * share
    a, b = 2 * series * share - _ONE, total / columns - _ONE
    c, d = squash(along + past) - even, squash(abs(along - past))
    e, g = squash(left + right) - even, squash(abs(left - right))
    p, q = squash(drain + drawn), squash(abs(drain - drawn))
    phi[0, at], phi[1, at], phi[2, at], phi[3, at] = a, b, c, d
    phi[4, at], phi[5, at], phi[6, at], phi[7, at] = e, g, p, q
    return max(max(max(abs(a), abs(b)), max(abs(c), d)), max(max(abs(e), g), max(p, q)))


@njit(**FAST)
def _collect(axis, axes, columns, mark, mark_beyond, total, one, both, links, beyond, drain, drain_beyond,
             phi, place, count, offset):  # fmt: skip
    """Collect the irregular faces of a line; returns their number so far."""
    other, third = (axis + 1) % 3, (axis + 2) % 3
    for k in range(total.size):
        if (mark[k] or mark_beyond[k]) and total[k] > 0:
            lateral = np.float32(links[other, k] + links[third, k])
            beside = np.float32(beyond[other, k] + beyond[third, k])
            largest = _features(
                np.float32(total[k]), np.float32(one[k]), np.float32(both[k]), lateral, beside,
                np.float32(links[axis, k]), np.float32(beyond[axis, k]), drain[k], drain_beyond[k], columns,
                axes, phi, count,
            )  # fmt: skip
            if largest > REGULAR:
                place[0, count], place[1, count] = axis, offset + k
                count += 1
    return count


@njit(**FAST)
def _correct_faces(phi, place, count, net, units, top, answer, f0, f1, f2):
    """Multiply the collected faces by what the perceptron says of them."""
    never_inlined()
    for first in range(0, count, _BATCH):
        m = min(_BATCH, count - first)
        perceptron(phi[:, first:], m, net[0], net[1], net[2], net[3], net[4], net[5], units, top, answer)
        factor = answer[0]
        exponentials(factor, np.float32(RANGE), m)
        for q in range(m):
            axis, at = place[0, first + q], place[1, first + q]
            if axis == 0:
                f0[at] *= factor[q]
            elif axis == 1:
                f1[at] *= factor[q]
            else:
                f2[at] *= factor[q]


@njit(**FAST)
def coarse_operator(code, start, place, part, theta, marked, ndim, gamma, net, faces0, faces1, faces2, fixed,
                  first, end):  # fmt: skip
    """Fill lines first..end - 1 of the coarse volumes: face coefficients of three axes (0 along the first
    where the grid has one layer) and the Dirichlet part.

    Parameters
    ----------
    code, start, place, part, theta, marked
        As finest_kernels.finest_level_kernels takes and leaves them.
    gamma, net
        Scalar and face perceptron of the level class.
    """
    n0, n1, n2 = code.shape
    c0, c1, c2 = marked.shape
    k0, k1, k2 = (2 if n0 > 1 else 1), (2 if n1 > 1 else 1), (2 if n2 > 1 else 1)
    columns = np.float32(k0 * k1 * k2 / 2)
    lateral_axes = np.float32(max(1, ndim - 1))
    hidden = net[0].shape[0]
    one_row, two, eight, size = np.int64(1), np.int64(2), np.int64(8), np.int64(_BATCH)
    here, there = bytes_(8 * c2).reshape(8, c2), bytes_(8 * c2).reshape(8, c2)
    links, beyond = bytes_(3 * c2).reshape(3, c2), bytes_(3 * c2).reshape(3, c2)
    total, one, both = bytes_(c2), bytes_(c2), bytes_(c2)
    drain, drain_beyond = floats(one_row, c2 + 1)[0], floats(one_row, c2 + 1)[0]
    unused, most = floats(one_row, c2)[0], _BATCH + 3 * c2
    phi, where, count = floats(eight, most), integers(two, most), np.int64(0)
    units, top, answer = floats(max(hidden, one_row), size), floats(one_row, size)[0], floats(one_row, size)
    flat0, flat1, flat2 = faces0.reshape(-1), faces1.reshape(-1), faces2.reshape(-1)
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
                _clear(coarse)
                continue
            shift, step = (1 if axis == 2 else 0), 4 >> axis
            n = c2 - shift
            if axis < 2:
                _blocks_of_line(code, ni, nj, k0, k1, there)
                _count_crossings(here, there[:, 0:], step, total, one, both)
            else:
                _count_crossings(here, here[:, 1:], step, total, one, both)
            for k in range(n):
                coarse[k] = gamma * np.float32(total[k])
            if shift == 1:
                coarse[n] = _ZERO
            if hidden == 0:
                continue
            if axis < 2:
                _count_links(there, beyond)
                _sum_parts(start, place, part, theta, n0, n1, ni, nj, k0, k1, k2, drain_beyond[:c2], unused)
                links_beyond, fixed_beyond = beyond[:, 0:], drain_beyond[:n]
            else:
                links_beyond, fixed_beyond = links[:, 1:], drain[1:]
            count = _collect(axis, lateral_axes, columns, marked[ci, cj], marked[ni, nj][shift:], total[:n],
                             one, both, links, links_beyond, drain, fixed_beyond, phi, where, count,
                             line * c2)  # fmt: skip
        if count >= _BATCH or line == end - 1:
            _correct_faces(phi, where, count, net, units, top, answer, flat0, flat1, flat2)
            count = np.int64(0)
