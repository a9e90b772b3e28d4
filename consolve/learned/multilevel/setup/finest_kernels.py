"""Numba kernels of setup on a uniform finest level: from a byte a cell to smoother, transfer weights and the
next level's operator.

Every face between two active cells has the coefficient 1, so a cell's *code* tells its row: 128 if it is
active, its open faces in the lower bits, and 64 if it has a Dirichlet part, which stands in a list by line
(see consolve.pde.poisson.uniform.DirichletParts).  What is written is what setup_kernels and
coarsen_kernels would write, and the formulas are theirs.

Cells whose neighbours' codes are the same have the same kernels.  Those without Dirichlet parts around keep
the answers of the perceptrons in a table per thread, so that most cells beside a wall are looked up.
"""

import numpy as np
from numba import njit

from consolve.base.jit import FAST
from consolve.base.vector_instructions import never_inlined
from consolve.learned.multilevel.cycle.packing import pack_moves, pack_moves_2d, pack_relax
from consolve.learned.multilevel.format import OMEGA_RANGE, RANGE
from consolve.learned.multilevel.setup.cell_codes import ACTIVE, FACES, FIXED, NONE, key_of, neighbour_codes
from consolve.learned.multilevel.setup.perceptron_kernels import (
    REGULAR,
    bytes_,
    exponentials,
    floats,
    integers,
    perceptron,
)
from consolve.learned.multilevel.setup.setup_kernels import (
    MOST_DROPPED,
    cell_features,
    prolongation_features,
    split_row,
)

_BATCH = 512
_SLOTS, _WAYS = 4096, 4
"""Of a table of answers, and of those the slots in which one key may stand."""
_GROUP_CELLS = 8192
_ONE, _ZERO = np.float32(1), np.float32(0)


@njit(**FAST)
def _line(volume, i, j, outside):
    """A line of a volume; ``outside`` if it has none such."""
    n0, n1, _ = volume.shape
    return volume[i, j] if 0 <= i < n0 and 0 <= j < n1 else outside


@njit(**FAST)
def _irregular(own, a, b, c, d, regular, flags):
    """flags = 0 where a cell, its neighbours along the line and those in other lines have the code
    ``regular``; cells at the ends never have."""
    n = own.size
    flags[0], flags[n - 1] = 1, 1
    for k in range(1, n - 1):
        x = (own[k] ^ regular) | (own[k - 1] ^ regular) | (own[k + 1] ^ regular)
        y = (a[k] ^ regular) | (b[k] ^ regular) | (c[k] ^ regular) | (d[k] ^ regular)
        flags[k] = np.uint8(x | y)


@njit(**FAST)
def _listed(flags, words, n, out):
    """Positions below n where flags is not 0; returns their number.  ``words`` are the same bytes, eight at a
    time."""
    count = 0
    for w in range(words.size):
        if words[w] != 0:
            for k in range(8 * w, min(n, 8 * w + 8)):
                out[count] = k
                count += flags[k] != NONE
    return count


@njit(**FAST)
def _place_parts(start, place, part, n0, n1, i, j, row, share):
    """Write ``share`` (1 or 0) of the Dirichlet parts of a line into a row that is zero elsewhere."""
    if 0 <= i < n0 and 0 <= j < n1:
        line = i * n1 + j
        for q in range(start[line], start[line + 1]):
            row[place[q]] = share * part[q]


@njit(**FAST)
def _diagonal(code, fixed, d, inverse, relaxed, keep):
    """Diagonal, its inverse (twice) and 1 where it is positive, of a line."""
    for k in range(code.size):
        d[k] = np.float32(code[k] & FACES) + fixed[k]
    for k in range(code.size):
        inverse[k] = _ONE / d[k] if d[k] > 0 else _ZERO
        relaxed[k] = inverse[k]
        keep[k] = _ONE if d[k] > 0 else _ZERO


@njit(**FAST)
def _weights_across(code, other, linear, weight):
    """linear where the face to the cells of another line is open, else 0."""
    for k in range(code.size):
        weight[k] = linear * np.float32(np.uint8(np.uint8(code[k] & other[k]) >> np.uint8(7)))


@njit(**FAST)
def _weights_along(code, linear, weight):
    """The same along the line: even cells look down, odd ones up."""
    n = code.size
    weight[0], weight[n - 1] = _ZERO, _ZERO
    for h in range((n - 1) // 2):
        open_ = np.uint8(np.uint8(code[2 * h + 1] & code[2 * h + 2]) >> np.uint8(7))
        weight[2 * h + 1] = weight[2 * h + 2] = linear * np.float32(open_)


@njit(**FAST)
def _find(keys, key):
    """The slot that holds ``key``; else one that may take it: an empty one if there is any."""
    first = (
        np.int64(np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) % (_SLOTS // _WAYS) * _WAYS
    )
    free = first + key % _WAYS
    for slot in range(first, first + _WAYS):
        if keys[slot] == key:
            return slot
        if keys[slot] < 0:
            free = slot
    return free


@njit(**FAST)
def _gather(codes, parts, k, ndim, face, stiff, near):
    """Faces, 1/d and Dirichlet shares around a cell, each (7, 1); returns how irregular it is."""
    n = parts.shape[1]
    for q in range(7):
        fixed = _ZERO
        if codes[q] & FIXED:
            fixed = parts[q if q < 4 else 4, k if q < 4 or q == 6 else k - 1 if q == 4 else min(k + 1, n - 1)]
        d = np.float32(codes[q] & FACES) + fixed
        inverse = _ONE / d if d > 0 else _ZERO
        stiff[q, 0], near[q, 0] = inverse, fixed * inverse
    d2, inverse, score = np.float32(2 * ndim), stiff[6, 0], near[6, 0]
    for q in range(6):
        face[q, 0] = _ONE if codes[q] >= ACTIVE else _ZERO
        if q >= 6 - 2 * ndim:
            a, b = abs(d2 * face[q, 0] * inverse - _ONE), abs(d2 * face[q, 0] * stiff[q, 0] - _ONE)
            score = max(max(score, near[q, 0]), max(a, b))
    return score


@njit(**FAST)
def _correct_cells(phi, place, count, net, units, top, answer, dropped, relaxed, keep, theta, factor):
    """Apply the cell perceptron to the collected cells: omega / d, kept share, theta.

    ``place`` holds line and k of each cell, its entry in the list of Dirichlet parts (or -1) and in the table
    of answers (or -1).
    """
    never_inlined()
    for first in range(0, count, _BATCH):
        m = min(_BATCH, count - first)
        perceptron(phi[:, first:], m, net[0], net[1], net[2], net[3], net[4], net[5], units, top, answer)
        exponentials(answer[0], np.float32(OMEGA_RANGE), m)
        exponentials(answer[1], np.float32(RANGE), m)
        exponentials(answer[2], np.float32(RANGE), m)
        for q in range(m):
            line, k = place[0, first + q], place[1, first + q]
            entry, slot = place[2, first + q], place[3, first + q]
            omega = answer[0, q]
            relaxed[line, k] *= omega
            if entry >= 0:
                plain = dropped * phi[0, first + q]
                loss = plain * answer[1, q]
                keep[line, k] += min(plain, MOST_DROPPED) - min(loss, MOST_DROPPED)
                theta[entry] *= answer[2, q]
            if slot >= 0:
                factor[slot] = omega


@njit(**FAST)
def _correct_weights(phi, place, count, net, units, top, answer, linear, weight, known):
    """Apply the prolongation perceptron to the collected couplings; ``place`` holds line, k, axis, and entry
    in the table (or -1)."""
    never_inlined()
    for first in range(0, count, _BATCH):
        m = min(_BATCH, count - first)
        perceptron(phi[:, first:], m, net[0], net[1], net[2], net[3], net[4], net[5], units, top, answer)
        exponentials(answer[0], np.float32(RANGE), m)
        for q in range(m):
            axis, slot = place[2, first + q], place[3, first + q]
            value = linear * answer[0, q]
            weight[place[0, first + q], axis, place[1, first + q]] = value
            if slot >= 0:
                known[slot, axis] = value


@njit(**FAST)
def _own(keep, w0, w1, w2):
    """Own weight in place of the kept share."""
    for k in range(keep.size):
        keep[k] = keep[k] - w0[k] - w1[k] - w2[k]


@njit(**FAST)
def finest_level_kernels(
    code, start, place, part, ndim, linear, dropped, unit, cell_net, prolongation_net, theta, marked, relax,
    moves, c_first, c_end,
):  # fmt: skip
    """Fill the packed arrays of a uniform finest level, for the lines of coarse lines c_first..c_end - 1.

    Parameters
    ----------
    code
        See cell_codes.
    start, place, part
        The Dirichlet parts, float32, in units of the coefficient.
    ndim, linear, dropped
        Axes; scalars of the level class, ``dropped`` times 2 ndim.
    unit
        Of packed weights.
    cell_net, prolongation_net
        Perceptrons.
    theta
        float32, one entry for each Dirichlet part: what it adds to that of its block.  Holds the part times
        the scalar of the level class, and is corrected.
    marked
        Boolean, coarse volume: blocks that hold an irregular cell.
    relax, moves
        The arrays, uint32 (2, rows, width); see packing.
    """
    n0, n1, n2 = code.shape
    c1 = marked.shape[1]
    k0, k1 = (2 if n0 > 1 else 1), (2 if n1 > 1 else 1)
    pad = 1 if n0 > 1 else 0
    hidden = cell_net[0].shape[0]
    regular = np.uint8(ACTIVE + np.uint8(2 * ndim))
    group = max(1, _GROUP_CELLS // (k0 * k1 * n2))
    most, padded = group * k0 * k1, (n2 + 7) // 8 * 8
    one, three, four, five, seven = np.int64(1), np.int64(3), np.int64(4), np.int64(5), np.int64(7)
    size, slots, first_cell = np.int64(_BATCH), np.int64(_SLOTS), np.int64(0)
    none = np.int64(-1)
    flags, codes, outside, pending = bytes_(padded), bytes_(seven), bytes_(n2), bytes_(slots)
    words = integers(one, padded)[0].view(np.uint32)[:n2]
    row_of, low_of, entry_of = integers(one, most)[0], integers(one, most)[0], integers(one, n2)[0]
    index, parts, inverse = integers(one, n2 + 1)[0], floats(five, n2), floats(one, n2)[0]
    diagonal, relaxed, keep = floats(most, n2), floats(most, n2), floats(most, n2)
    weight = floats(3 * most, n2).reshape(most, 3, n2)
    face, stiff, near = floats(seven, one), floats(seven, one), floats(seven, one)
    phi_cell, place_cell = floats(four, most * n2), integers(four, most * n2)
    phi_axis, place_axis = floats(seven, 3 * most * n2), integers(four, 3 * most * n2)
    units, top, answer = floats(max(hidden, one), size), floats(one, size)[0], floats(three, size)
    keys, factor, known = integers(one, slots)[0], floats(one, slots)[0], floats(slots, three)
    for entry in range(slots):
        keys[entry] = -1
    for c_group in range(c_first, c_end, group):
        m, cells, couplings = np.int64(0), np.int64(0), np.int64(0)
        for coarse_line in range(c_group, min(c_end, c_group + group)):
            ci, cj = coarse_line // c1, coarse_line % c1
            mark = marked[ci, cj]
            for ck in range(mark.size):
                mark[ck] = hidden == 0
            for i in range(ci * k0, min(n0, ci * k0 + k0)):
                for j in range(cj * k1, min(n1, cj * k1 + k1)):
                    line = i * n1 + j
                    own_code = code[i, j]
                    # In a plane there is no other layer: the line itself stands for its neighbours there.
                    a = _line(code, i - 1, j, outside) if ndim == 3 else own_code
                    b = _line(code, i + 1, j, outside) if ndim == 3 else own_code
                    c, d = _line(code, i, j - 1, outside), _line(code, i, j + 1, outside)
                    _place_parts(start, place, part, n0, n1, i, j, parts[4], _ONE)
                    _diagonal(own_code, parts[4], diagonal[m], inverse, relaxed[m], keep[m])
                    for q in range(start[line], start[line + 1]):
                        k = place[q]
                        entry_of[k] = q
                        keep[m, k] -= min(dropped * part[q] * inverse[k], MOST_DROPPED)
                    if n0 > 1:
                        _weights_across(own_code, b if i % 2 == 1 else a, linear, weight[m, 0])
                    if n1 > 1:
                        _weights_across(own_code, d if j % 2 == 1 else c, linear, weight[m, 1])
                    if n2 > 1:
                        _weights_along(own_code, linear, weight[m, 2])
                    row_of[m], low_of[m] = (i + pad) * (n1 + 2) + j + 1, (i + j) % 2
                    count = 0
                    if hidden > 0:
                        for q in range(4):
                            _place_parts(
                                start, place, part, n0, n1, i + (q == 1) - (q == 0),
                                j + (q == 3) - (q == 2), parts[q], _ONE,
                            )  # fmt: skip
                        _irregular(own_code, a, b, c, d, regular, flags[:n2])
                        count = _listed(flags, flags.view(np.uint64), n2, index)
                    for listed in range(count):
                        k = index[listed]
                        mark[k // 2 if n2 > 1 else 0] = True
                        if not diagonal[m, k] > 0:
                            continue
                        fixed = neighbour_codes(own_code, a, b, c, d, k, codes)
                        if ndim == 2:
                            codes[0] = codes[1] = NONE
                        slot = none
                        if not fixed:
                            key = key_of(codes, i, j, k)
                            slot = _find(keys, key)
                            if keys[slot] == key and pending[slot] == 0:
                                relaxed[m, k] = inverse[k] * factor[slot]
                                for axis in range(3):
                                    weight[m, axis, k] = known[slot, axis]
                                continue
                            if pending[slot] != 0:
                                slot = none
                        if _gather(codes, parts, k, ndim, face, stiff, near) <= REGULAR:
                            continue
                        if slot >= 0:
                            keys[slot], pending[slot] = key, np.uint8(1)
                            known[slot, 0], known[slot, 1], known[slot, 2] = _ZERO, _ZERO, _ZERO
                        cell_features(face, stiff, near, first_cell, ndim, phi_cell, cells)
                        place_cell[0, cells], place_cell[1, cells], place_cell[3, cells] = m, k, slot
                        place_cell[2, cells] = entry_of[k] if own_code[k] & FIXED else -1
                        cells += 1
                        for axis in range(3):
                            odd = (i if axis == 0 else j if axis == 1 else k) % 2
                            if weight[m, axis, k] > 0:
                                out, back = 2 * axis + odd, 2 * axis + 1 - odd
                                prolongation_features(
                                    face, stiff, near, first_cell, out, back, ndim, phi_axis, couplings
                                )
                                place_axis[0, couplings], place_axis[1, couplings] = m, k
                                place_axis[2, couplings], place_axis[3, couplings] = axis, slot
                                couplings += 1
                    for q in range(5):
                        _place_parts(
                            start, place, part, n0, n1, i + (q == 1) - (q == 0), j + (q == 3) - (q == 2),
                            parts[q], _ZERO,
                        )  # fmt: skip
                    m += 1
        if cells > 0:
            _correct_cells(phi_cell, place_cell, cells, cell_net, units, top, answer, dropped,
                           relaxed, keep, theta, factor)  # fmt: skip
            _correct_weights(phi_axis, place_axis, couplings, prolongation_net, units, top, answer,
                             linear, weight, known)  # fmt: skip
            for q in range(cells):
                if place_cell[3, q] >= 0:
                    pending[place_cell[3, q]] = np.uint8(0)
        for line in range(m):
            pack_relax(relaxed[line].view(np.uint32), diagonal[line].view(np.uint32), words)
            split_row(words, relax, low_of[line], row_of[line], n2)
            w, own = weight[line], keep[line]
            _own(own, w[0], w[1], w[2])
            if n0 > 1:
                pack_moves(own, w[0], w[1], w[2], _ONE / unit, words)
            else:
                pack_moves_2d(own, w[1], w[2], _ONE / unit, words)
            split_row(words, moves, low_of[line], row_of[line], n2)
