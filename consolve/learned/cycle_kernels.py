"""Numba kernels of the V-cycle on colour-split levels.

Layout
------
A level of n0 x n1 x n2 cells is stored as float32 arrays (2, rows, width): red and black cells apart, so that
every load and store of a half-sweep is contiguous.  Cell (i, j, k) has colour ``c = (i + j + k) % 2`` and
stands at ``[c, (i + pad) * (n1 + 2) + j + 1, k // 2 + 1]``, where pad is 1 for a level of several layers and
0 for one of a single layer (a 2D grid); the frame of one row and one column is zero.  Neighbours along the
first two axes have the same last index in the other colour, those along the last axis the same and the next
or previous one. Cells that are not active keep x = 0, so on a uniform level (every open coefficient is 1) the
diagonal alone tells them.

Every kernel works on the layers ``start <= i < stop`` (or rows of a single layer) and is run by several
threads through the drivers at the end.  Bytes per cell are those that must come from memory, once per call.
"""

import numpy as np
from numba import njit, prange

# Sums may be reordered and contracted; NaN and Inf keep their meaning, since a fault in r has to show in z.
OPTIONS = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}
FRESH, RELAX, RELAX_AND_RESIDUAL, RESIDUAL = 0, 1, 2, 3
"""Modes of a half-sweep: from x = 0; update x; update x and store the residual; store the residual only."""
SERIAL_CELLS = 20_000
"""Levels with fewer cells run on one thread: a parallel region costs more than it saves."""


@njit(**OPTIONS)
def _sum_uniform(b, x, c, r, stride, odd, s):
    """s = b + sum of the neighbours' x, for the cells of colour c in row r; ``stride`` is 0 for a single
    layer."""
    o = 1 - c
    n = s.size
    bc, same = b[c, r][1:], x[o, r][1:]
    beside = x[o, r][2:] if odd else x[o, r]
    up, down = x[o, r + 1][1:], x[o, r - 1][1:]
    if stride > 0:
        above, below = x[o, r + stride][1:], x[o, r - stride][1:]
        for h in range(n):
            s[h] = bc[h] + same[h] + beside[h] + up[h] + down[h] + above[h] + below[h]
    else:
        for h in range(n):
            s[h] = bc[h] + same[h] + beside[h] + up[h] + down[h]


@njit(**OPTIONS)
def _sum_variable(b, x, f0, f1, f2, c, r, stride, odd, s):
    """s = b + sum over the faces of coefficient times the neighbour's x."""
    o = 1 - c
    n = s.size
    bc = b[c, r][1:]
    if odd:  # k = 2h + 1: the lower neighbour stands at h, the upper one at h + 1
        lower, upper, f_lower = x[o, r][1:], x[o, r][2:], f2[o, r][1:]
    else:
        lower, upper, f_lower = x[o, r], x[o, r][1:], f2[o, r]
    f_upper = f2[c, r][1:]
    for h in range(n):
        s[h] = bc[h] + f_lower[h] * lower[h] + f_upper[h] * upper[h]
    up, down, f_up, f_down = x[o, r + 1][1:], x[o, r - 1][1:], f1[c, r][1:], f1[o, r - 1][1:]
    for h in range(n):
        s[h] += f_up[h] * up[h] + f_down[h] * down[h]
    if stride > 0:
        above, below = x[o, r + stride][1:], x[o, r - stride][1:]
        f_above, f_below = f0[c, r][1:], f0[o, r - stride][1:]
        for h in range(n):
            s[h] += f_above[h] * above[h] + f_below[h] * below[h]


@njit(**OPTIONS)
def half_sweep(x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, alpha, mode, start, stop):
    """x_c += alpha w (b - A x)_c, and / or t_c = (b - A x)_c, for the cells of colour c.

    Bytes per cell of the level, uniform: 2 (b) + 2 (w) + 2 (x_o) + 2 (d) + 4 (x_c) = 12; variable: 12 more.
    """
    stride = n1 + 2 if n0 > 1 else 0
    pad = 1 if n0 > 1 else 0
    s = np.empty(x.shape[2] - 2, np.float32)
    n = s.size
    for line in range(start, stop):
        i, j = (line // n1, line % n1)
        r = (i + pad) * (n1 + 2) + j + 1
        odd = (i + j + c) % 2 == 1
        xc, wc, dc, tc = x[c, r][1:], w[c, r][1:], d[c, r][1:], t[c, r][1:]
        if mode == FRESH and c == 0:
            bc = b[c, r][1:]
            for h in range(n):
                xc[h] = alpha * wc[h] * bc[h]
            continue
        if uniform:
            _sum_uniform(b, x, c, r, stride, odd, s)
        else:
            _sum_variable(b, x, f0, f1, f2, c, r, stride, odd, s)
        if mode == FRESH:
            for h in range(n):
                xc[h] = alpha * wc[h] * s[h]
        elif mode == RELAX:
            for h in range(n):
                xc[h] += alpha * wc[h] * (s[h] - dc[h] * xc[h])
        elif mode == RELAX_AND_RESIDUAL:
            for h in range(n):
                residual = s[h] - dc[h] * xc[h]
                step = alpha * wc[h] * residual
                xc[h] += step
                tc[h] = residual - dc[h] * step
        else:
            for h in range(n):
                tc[h] = s[h] - dc[h] * xc[h]


@njit(**OPTIONS)
def restrict(t, own, p0, p1, p2, bc, n0, n1, c0, c1, c2, start, stop):
    """b_coarse = P^T t for coarse lines start <= I * c1 + J < stop.

    Bytes per fine cell: 4 (t) + 16 (own, p); t, p0 and p1 of neighbouring rows come from cache.
    """
    pad, coarse_pad = (1 if n0 > 1 else 0), (1 if c0 > 1 else 0)
    k0, k1 = (2 if n0 > 1 else 1), (2 if n1 > 1 else 1)
    n = t.shape[2] - 2
    total = np.empty(n, np.float32)
    for line in range(start, stop):
        ci, cj = line // c1, line % c1
        total[:] = 0
        for i in range(ci * k0, min(n0, ci * k0 + k0)):
            for j in range(cj * k1, min(n1, cj * k1 + k1)):
                r = (i + pad) * (n1 + 2) + j + 1
                low = (i + j) % 2  # colour of the even cells k = 2h of this row: their outward block is h - 1
                t0, t1, a0, a1 = t[low, r][1:], t[1 - low, r][1:], own[low, r][1:], own[1 - low, r][1:]
                next0, z0, previous1, z1 = t[low, r][2:], p2[low, r][2:], t[1 - low, r], p2[1 - low, r]
                for h in range(n):
                    total[h] += a0[h] * t0[h] + a1[h] * t1[h] + z0[h] * next0[h] + z1[h] * previous1[h]
        if k1 == 2:
            for i in range(ci * k0, min(n0, ci * k0 + k0)):
                for j in (2 * cj - 1, 2 * cj + 2):
                    if 0 <= j < n1:
                        r = (i + pad) * (n1 + 2) + j + 1
                        t0, t1, a0, a1 = t[0, r][1:], t[1, r][1:], p1[0, r][1:], p1[1, r][1:]
                        for h in range(n):
                            total[h] += a0[h] * t0[h] + a1[h] * t1[h]
        if k0 == 2:
            for i in (2 * ci - 1, 2 * ci + 2):
                if 0 <= i < n0:
                    for j in range(cj * k1, min(n1, cj * k1 + k1)):
                        r = (i + pad) * (n1 + 2) + j + 1
                        t0, t1, a0, a1 = t[0, r][1:], t[1, r][1:], p0[0, r][1:], p0[1, r][1:]
                        for h in range(n):
                            total[h] += a0[h] * t0[h] + a1[h] * t1[h]
        r = (ci + coarse_pad) * (c1 + 2) + cj + 1
        even = (ci + cj) % 2
        low_row, high_row = bc[even, r][1:], bc[1 - even, r][1:]
        for h in range(c2 // 2):
            low_row[h] = total[2 * h]
            high_row[h] = total[2 * h + 1]
        if c2 % 2 == 1:
            low_row[c2 // 2] = total[c2 - 1]


@njit(**OPTIONS)
def join_colours(x, natural, n0, n1, n2, start, stop):
    """natural[row, k + 1] = x of cell k: both colours of each row in one, framed by zeros."""
    pad = 1 if n0 > 1 else 0
    for line in range(start, stop):
        i, j = line // n1, line % n1
        r = (i + pad) * (n1 + 2) + j + 1
        even = (i + j) % 2
        low_row, high_row, out = x[even, r][1:], x[1 - even, r][1:], natural[r][1:]
        for h in range(n2 // 2):
            out[2 * h] = low_row[h]
            out[2 * h + 1] = high_row[h]
        if n2 % 2 == 1:
            out[n2 - 1] = low_row[n2 // 2]
        natural[r, 0] = 0
        natural[r, n2 + 1] = 0


@njit(**OPTIONS)
def prolong(x, own, p0, p1, p2, coarse, n0, n1, c0, c1, start, stop):
    """x += P x_coarse for the fine lines start <= i * n1 + j < stop; ``coarse`` comes from join_colours.

    Bytes per fine cell: 8 (x) + 16 (own, p).
    """
    pad, coarse_pad = (1 if n0 > 1 else 0), (1 if c0 > 1 else 0)
    for line in range(start, stop):
        i, j = line // n1, line % n1
        ci, cj = (i // 2 if n0 > 1 else i), (j // 2 if n1 > 1 else j)
        r = (i + pad) * (n1 + 2) + j + 1
        rc = (ci + coarse_pad) * (c1 + 2) + cj + 1
        low = (i + j) % 2
        near1 = coarse[rc + (1 if j % 2 == 1 else -1)][1:]
        # Single layers have no neighbour along the first axis; any row serves, since p0 is not read.
        near0 = coarse[rc + (c1 + 2 if i % 2 == 1 else -c1 - 2)][1:] if n0 > 1 else near1
        centre = coarse[rc][1:]
        for c in range(2):
            beyond = coarse[rc] if c == low else coarse[rc][2:]
            xr, a, q1, q2 = x[c, r][1:], own[c, r][1:], p1[c, r][1:], p2[c, r][1:]
            n = x.shape[2] - 2
            if n0 > 1:
                q0 = p0[c, r][1:]
                for h in range(n):
                    xr[h] += a[h] * centre[h] + q0[h] * near0[h] + q1[h] * near1[h] + q2[h] * beyond[h]
            else:
                for h in range(n):
                    xr[h] += a[h] * centre[h] + q1[h] * near1[h] + q2[h] * beyond[h]


@njit(parallel=True, **OPTIONS)
def half_sweep_threads(x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, alpha, mode, first, last, threads):
    """half_sweep of the lines first <= i * n1 + j < last by several threads."""
    lines = last - first
    for q in prange(threads):
        start, stop = first + lines * q // threads, first + lines * (q + 1) // threads
        half_sweep(x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, alpha, mode, start, stop)


@njit(parallel=True, **OPTIONS)
def restrict_threads(t, own, p0, p1, p2, bc, n0, n1, c0, c1, c2, first, last, threads):
    """restrict of the coarse lines first <= I * c1 + J < last by several threads."""
    lines = last - first
    for q in prange(threads):
        start, stop = first + lines * q // threads, first + lines * (q + 1) // threads
        restrict(t, own, p0, p1, p2, bc, n0, n1, c0, c1, c2, start, stop)


@njit(parallel=True, **OPTIONS)
def _join_threads(xc, coarse, c0, c1, c2, threads):
    for q in prange(threads):
        join_colours(xc, coarse, c0, c1, c2, c0 * c1 * q // threads, c0 * c1 * (q + 1) // threads)


@njit(parallel=True, **OPTIONS)
def prolong_threads(x, own, p0, p1, p2, coarse, n0, n1, c0, c1, first, last, threads):
    """prolong to the lines first <= i * n1 + j < last by several threads."""
    lines = last - first
    for q in prange(threads):
        start, stop = first + lines * q // threads, first + lines * (q + 1) // threads
        prolong(x, own, p0, p1, p2, coarse, n0, n1, c0, c1, start, stop)


@njit(**OPTIONS)
def _array(arena, table, level, name):
    """One array of a level as a view of the arena; see LevelTable in layout.py for the columns."""
    rows, width, at = table[level, 3], table[level, 4], table[level, 6 + name]
    return arena[at : at + 2 * rows * width].reshape(2, rows, width)


@njit(**OPTIONS)
def _sweeps(arena, table, level, alpha, down, threads):
    """All half-sweeps before (down) or after the coarse correction of one level."""
    n0, n1, n2, uniform = table[level, 0], table[level, 1], table[level, 2], table[level, 5] == 1
    x, b, t = _array(arena, table, level, 0), _array(arena, table, level, 1), _array(arena, table, level, 2)
    w, d = _array(arena, table, level, 3), _array(arena, table, level, 4)
    f0, f1, f2 = (
        _array(arena, table, level, 9),
        _array(arena, table, level, 10),
        _array(arena, table, level, 11),
    )
    parts = threads if n0 * n1 * n2 >= SERIAL_CELLS else 1
    last = 2 * alpha.shape[0] - 1
    for q in range(last + 1):
        step = q if down else last - q
        c, a = step % 2, alpha[step // 2, step % 2]
        mode = RELAX
        if down and q < 2:
            mode = FRESH
        if down and q == last and last > 1:
            mode = RELAX_AND_RESIDUAL
        if parts > 1:
            half_sweep_threads(x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, a, mode, 0, n0 * n1, parts)
        else:
            half_sweep(x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, a, mode, 0, n0 * n1)
    if down:
        for c in range(2 if last == 1 else 1):
            if parts > 1:
                half_sweep_threads(
                    x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, a, RESIDUAL, 0, n0 * n1, parts
                )
            else:
                half_sweep(x, b, t, w, d, f0, f1, f2, uniform, n0, n1, c, a, RESIDUAL, 0, n0 * n1)


@njit(**OPTIONS)
def _coarsest(x, b, inverse, n0, n1, n2):
    """x = inverse b on the last level."""
    pad = 1 if n0 > 1 else 0
    n = n0 * n1 * n2
    flat = np.empty(n, np.float32)
    for q in range(n):
        i, j, k = q // (n1 * n2), q // n2 % n1, q % n2
        flat[q] = b[(i + j + k) % 2, (i + pad) * (n1 + 2) + j + 1, k // 2 + 1]
    for q in range(n):
        i, j, k = q // (n1 * n2), q // n2 % n1, q % n2
        value = np.float32(0)
        for m in range(n):
            value += inverse[q, m] * flat[m]
        x[(i + j + k) % 2, (i + pad) * (n1 + 2) + j + 1, k // 2 + 1] = value


@njit(**OPTIONS)
def v_cycle(arena, table, alpha, inverse, threads):
    """x of level 0 = M b of level 0."""
    levels = table.shape[0]
    last = levels - 1
    for level in range(last):
        _sweeps(arena, table, level, alpha[min(level, alpha.shape[0] - 1)], True, threads)
        n0, n1, n2 = table[level, 0], table[level, 1], table[level, 2]
        c0, c1, c2 = table[level + 1, 0], table[level + 1, 1], table[level + 1, 2]
        t, own = _array(arena, table, level, 2), _array(arena, table, level, 5)
        p0, p1, p2 = (
            _array(arena, table, level, 6),
            _array(arena, table, level, 7),
            _array(arena, table, level, 8),
        )
        bc = _array(arena, table, level + 1, 1)
        if threads > 1 and n0 * n1 * n2 >= SERIAL_CELLS:
            restrict_threads(t, own, p0, p1, p2, bc, n0, n1, c0, c1, c2, 0, c0 * c1, threads)
        else:
            restrict(t, own, p0, p1, p2, bc, n0, n1, c0, c1, c2, 0, c0 * c1)
    x, b = _array(arena, table, last, 0), _array(arena, table, last, 1)
    _coarsest(x, b, inverse, table[last, 0], table[last, 1], table[last, 2])
    for level in range(last - 1, -1, -1):
        n0, n1, n2 = table[level, 0], table[level, 1], table[level, 2]
        c0, c1, c2 = table[level + 1, 0], table[level + 1, 1], table[level + 1, 2]
        x, own = _array(arena, table, level, 0), _array(arena, table, level, 5)
        p0, p1, p2 = (
            _array(arena, table, level, 6),
            _array(arena, table, level, 7),
            _array(arena, table, level, 8),
        )
        xc, bc = _array(arena, table, level + 1, 0), _array(arena, table, level + 1, 1)
        rows = xc.shape[1]
        coarse = bc.reshape(-1)[: rows * (c2 + 2)].reshape(rows, c2 + 2)  # b has done its work on that level
        if threads > 1 and n0 * n1 * n2 >= SERIAL_CELLS:
            _join_threads(xc, coarse, c0, c1, c2, threads)
            prolong_threads(x, own, p0, p1, p2, coarse, n0, n1, c0, c1, 0, n0 * n1, threads)
        else:
            join_colours(xc, coarse, c0, c1, c2, 0, c0 * c1)
            prolong(x, own, p0, p1, p2, coarse, n0, n1, c0, c1, 0, n0 * n1)
        _sweeps(arena, table, level, alpha[min(level, alpha.shape[0] - 1)], False, threads)
