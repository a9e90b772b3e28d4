"""Numba kernels of the V-cycle: how rows are swept, in one pass over memory down and one up.

Layout
------
A level of n0 x n1 x n2 cells is stored as arrays (2, rows, width) of four bytes a cell: red and black cells
apart, so that every load and store of a half-sweep is contiguous.  Cell (i, j, k) has colour
``c = (i + j + k) % 2`` and stands at ``[c, (i + pad) * (n1 + 2) + j + 1, k // 2 + 1]``, where pad is 1 for a
level of several layers and 0 for one of a single layer (a 2D grid); the frame of one row and one column is
zero, and rows are padded to whole vectors (see row_vectors).  Neighbours along the first two axes have the
same last index in the other colour, those along the last axis the same and the next or previous one.  Cells
that are not active keep x = 0, so on a packed level (every open coefficient is 1) the diagonal alone tells
them.

A level is described by one row of integers, its *record*: see the columns below.

Passes
------
Half-sweep s + 1 may work on a layer as soon as half-sweep s has done the next one.  So all of them, the
residual and the restriction run over the grid together, each one layer behind the one before ("wavefront",
blocking in time): a layer comes from memory once, and stays in cache until all have done with it.  Several
threads take slabs of layers; each does what it can without its neighbours' layers, one layer less a side
with every half-sweep, and then the wedges between two slabs are filled.  Lines are taken in blocks, skewed
likewise, so that the layers on the way fit in the cache.

======================  ========================================================  ======================
pass                    bytes per cell that must come from or go to memory        packed, variable level
======================  ========================================================  ======================
down                    b, x (allocated and written back), t likewise,            28, 56
                        coefficients
up                      x in and out, b, coefficients                             20, 48
======================  ========================================================  ======================
"""

import numpy as np
from numba import njit, prange, types

from consolve.learned import row_vectors as rv
from consolve.learned.row_vectors import FIRST, FRESH, FRESH_AND_RESIDUAL, RELAX, RELAX_AND_RESIDUAL, RESIDUAL

# Sums may be reordered and contracted; NaN and Inf keep their meaning, since a fault in r has to show in z.
OPTIONS = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}
SERIAL_CELLS = 20_000
"""Levels with fewer cells run on one thread: a parallel region costs more than it saves."""
BLOCK_BYTES = 1 << 21
"""Of the layers on the way through a pass, for each thread."""

COLUMNS = (
    "n0", "n1", "n2", "rows", "width", "packed",
    "x", "b", "residual", "smoother", "diagonal", "own", "prolong0", "prolong1", "prolong2",
    "face0", "face1", "face2", "relax", "moves", "s",
)  # fmt: skip
"""Of a record: sizes, whether the level is packed, and the address of cell [0, 0, 1] of each array."""
(
    N0, N1, N2, ROWS, WIDTH, PACKED, X, B, T, SMOOTHER, DIAGONAL, OWN, P0, P1, P2, F0, F1, F2, WORDS, MOVES,
    S,
) = range(len(COLUMNS))  # fmt: skip

_RECORD, _INT, _F32 = types.int64[::1], types.int64, types.float32
NO_UPDATE, UPDATE = 0, 1


@njit(types.void(_RECORD, _INT, _INT, _INT, _INT, _INT, _F32), **OPTIONS)
def sweep_lines(g, i, low, high, c, mode, alpha):
    """A half-sweep of the cells of colour c on lines low <= j < high of layer i.

    Modes as in row_vectors: x_c += alpha w (b - A x)_c, and / or t_c = (b - A x)_c.
    """
    rv.never_inlined()
    deep = g[N0] > 1
    line, layer, colour = 4 * g[WIDTH], 4 * g[WIDTH] * (g[N1] + 2), 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    o = 1 - c
    for j in range(low, high):
        at = ((i + 1 if deep else i) * (g[N1] + 2) + j + 1) * line
        own, other = at + c * colour, at + o * colour
        beside = other + (4 if (i + j + c) % 2 == 1 else -4)
        x, b, t, same = g[X] + own, g[B] + own, g[T] + own, g[X] + other
        if g[PACKED]:
            k = g[WORDS] + own
            if deep:
                rv.packed_half_sweep_3d(
                    x, b, t, k, same, g[X] + beside, same + line, same - line, same + layer, same - layer,
                    alpha, mode, vectors,
                )  # fmt: skip
            else:
                rv.packed_half_sweep_2d(
                    x, b, t, k, same, g[X] + beside, same + line, same - line, same, same, alpha, mode,
                    vectors,
                )  # fmt: skip
        else:
            w, d = g[SMOOTHER] + own, g[DIAGONAL] + own
            if (i + j + c) % 2 == 1:  # k = 2h + 1: the lower neighbour stands at h, the upper one at h + 1
                lower, upper = other, beside
            else:
                lower, upper = beside, other
            up, down = g[F1] + own, g[F1] + other - line
            if deep:
                rv.variable_half_sweep_3d(
                    x, b, t, w, d, g[X] + lower, g[X] + upper, same + line, same - line, same + layer,
                    same - layer, g[F2] + lower, g[F2] + own, up, down, g[F0] + own, g[F0] + other - layer,
                    alpha, mode, vectors,
                )  # fmt: skip
            else:
                rv.variable_half_sweep_2d(
                    x, b, t, w, d, g[X] + lower, g[X] + upper, same + line, same - line, same, same,
                    g[F2] + lower, g[F2] + own, up, down, up, up, alpha, mode, vectors,
                )  # fmt: skip


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT, _INT), **OPTIONS)
def restrict_lines(g, coarse, unit, ci, low, high, total):
    """b_coarse = P^T t on coarse lines low <= J < high of coarse layer ci.

    ``total`` is the address of a row of the coarse level in natural order, for intermediate sums.
    """
    rv.never_inlined()
    n0, n1 = g[N0], g[N1]
    deep = n0 > 1
    line, colour = 4 * g[WIDTH], 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    coarse_vectors = rv.vectors_of(coarse[N2])
    first, last = (2 * ci, min(n0, 2 * ci + 2)) if deep else (ci, ci + 1)
    for cj in range(low, high):
        rv.clear(total, 2 * coarse_vectors)
        for i in range(first - 1 if deep else first, last + 1 if deep else last):
            if i < 0 or i >= n0:
                continue
            inside0 = first <= i < last
            for j in range(2 * cj - 1, 2 * cj + 3):
                inside1 = 2 * cj <= j < 2 * cj + 2
                if j < 0 or j >= n1 or not (inside0 or inside1):
                    continue
                at = ((i + 1 if deep else i) * (n1 + 2) + j + 1) * line
                even = at + colour if (i + j) % 2 == 1 else at  # cells k = 2h: their outward block is h - 1
                odd = at if (i + j) % 2 == 1 else at + colour
                t0, t1 = g[T] + even, g[T] + odd
                if g[PACKED]:
                    m0, m1 = g[MOVES] + even, g[MOVES] + odd
                    if inside0 and inside1:
                        rv.packed_inside(total, t0, t1, m0, m1, unit, vectors)
                    elif inside0:
                        rv.packed_outside_1(total, t0, t1, m0, m1, unit, vectors)
                    else:
                        rv.packed_outside_0(total, t0, t1, m0, m1, unit, vectors)
                elif inside0 and inside1:
                    rv.variable_inside(
                        total, t0, t1, g[OWN] + even, g[OWN] + odd, g[P2] + even, g[P2] + odd, vectors
                    )
                else:
                    p = g[P1] if inside0 else g[P0]
                    rv.variable_outside(total, t0, t1, p + even, p + odd, vectors)
        at = ((ci + 1 if coarse[N0] > 1 else ci) * (coarse[N1] + 2) + cj + 1) * 4 * coarse[WIDTH]
        colour_c = 4 * coarse[WIDTH] * coarse[ROWS]
        swap = (ci + cj) % 2
        rv.split(
            total, coarse[B] + at + swap * colour_c, coarse[B] + at + (1 - swap) * colour_c, coarse_vectors
        )


@njit(types.void(_RECORD, _INT, _INT, _INT), **OPTIONS)
def join_lines(g, natural, start, stop):
    """x of lines start <= i * n1 + j < stop in natural order, at ``natural``: the address of cell [0, 1] of
    rows of natural_width(width) values."""
    rv.never_inlined()
    vectors = rv.vectors_of(g[N2])
    for line in range(start, stop):
        i, j = line // g[N1], line % g[N1]
        r = (i + 1 if g[N0] > 1 else i) * (g[N1] + 2) + j + 1
        at, swap = g[X] + 4 * g[WIDTH] * r, (i + j) % 2
        colour = 4 * g[WIDTH] * g[ROWS]
        target = natural + 4 * rv.natural_width(g[WIDTH]) * r
        rv.join(target, at + swap * colour, at + (1 - swap) * colour, vectors)


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT, _INT), **OPTIONS)
def prolong_lines(g, coarse, unit, natural, i, low, high):
    """x += P x_coarse on lines low <= j < high of layer i; ``natural`` as join_lines has left it."""
    rv.never_inlined()
    deep = g[N0] > 1
    line, colour = 4 * g[WIDTH], 4 * g[WIDTH] * g[ROWS]
    coarse_line = 4 * rv.natural_width(coarse[WIDTH])
    coarse_layer = coarse_line * (coarse[N1] + 2)
    vectors = rv.vectors_of(g[N2])
    ci = i // 2 if deep else i
    for j in range(low, high):
        at = ((i + 1 if deep else i) * (g[N1] + 2) + j + 1) * line
        even = at + colour if (i + j) % 2 == 1 else at
        odd = at if (i + j) % 2 == 1 else at + colour
        centre = natural + ((ci + 1 if coarse[N0] > 1 else ci) * (coarse[N1] + 2) + j // 2 + 1) * coarse_line
        near0 = centre + (coarse_layer if i % 2 == 1 else -coarse_layer) if coarse[N0] > 1 else centre
        near1 = centre + (coarse_line if j % 2 == 1 else -coarse_line)
        x0, x1 = g[X] + even, g[X] + odd
        if g[PACKED]:
            m0, m1 = g[MOVES] + even, g[MOVES] + odd
            if deep:
                rv.packed_prolongation_3d(x0, x1, m0, m1, centre, near0, near1, unit, vectors)
            else:
                rv.packed_prolongation_2d(x0, x1, m0, m1, centre, near0, near1, unit, vectors)
        else:
            a0, a1, a2, a3 = g[OWN] + even, g[P0] + even, g[P1] + even, g[P2] + even
            b0, b1, b2, b3 = g[OWN] + odd, g[P0] + odd, g[P1] + odd, g[P2] + odd
            if deep:
                rv.variable_prolongation_3d(
                    x0, x1, a0, a1, a2, a3, b0, b1, b2, b3, centre, near0, near1, vectors
                )
            else:
                rv.variable_prolongation_2d(
                    x0, x1, a0, a2, a2, a3, b0, b2, b2, b3, centre, near1, near1, vectors
                )


@njit(types.void(_RECORD, _INT, _INT, _INT, _INT), **OPTIONS)
def product_lines(g, i, low, high, sums):
    """w = A x (stored over the residual) on lines of layer i of a packed level, and its scalar products."""
    rv.never_inlined()
    deep = g[N0] > 1
    line, layer, colour = 4 * g[WIDTH], 4 * g[WIDTH] * (g[N1] + 2), 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    for j in range(low, high):
        at = ((i + 1 if deep else i) * (g[N1] + 2) + j + 1) * line
        for c in range(2):
            own, same = at + c * colour, g[X] + at + (1 - c) * colour
            beside = same + (4 if (i + j + c) % 2 == 1 else -4)
            z, w, r, s, k = g[X] + own, g[T] + own, g[B] + own, g[S] + own, g[WORDS] + own
            if deep:
                rv.product_3d(
                    z, w, r, s, k, same, beside, same + line, same - line, same + layer, same - layer, sums,
                    vectors,
                )  # fmt: skip
            else:
                rv.product_2d(
                    z, w, r, s, k, same, beside, same + line, same - line, same, same, sums, vectors
                )


@njit(types.void(_RECORD, _INT, _INT, _INT, _F32, _F32), **OPTIONS)
def advance_lines(g, i, low, high, alpha, beta):
    """s = w + beta s, r -= alpha s on lines of layer i."""
    rv.never_inlined()
    line, colour = 4 * g[WIDTH], 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    for j in range(low, high):
        at = ((i + 1 if g[N0] > 1 else i) * (g[N1] + 2) + j + 1) * line
        for c in range(2):
            own = at + c * colour
            rv.advance(g[B] + own, g[S] + own, g[T] + own, alpha, beta, vectors)


@njit(**OPTIONS)
def _cut(g, u, low, high):
    """Layer and lines of a unit: a layer of a 3D level, a line of a 2D one."""
    if g[N0] > 1:
        return u, low, high
    return 0, u, u + 1


@njit(**OPTIONS)
def _down_stage(g, alpha, steps, stage, u, low, high):
    """Half-sweep ``stage`` of ``steps`` before the coarse correction; the one after the last makes the
    residual whole."""
    i, first, last = _cut(g, u, low, high)
    if stage == steps:
        sweep_lines(g, i, first, last, 0, RESIDUAL, np.float32(0))
        return
    mode = RELAX
    if stage == 0:
        mode = FIRST
    elif stage == 1:
        mode = FRESH_AND_RESIDUAL if steps == 2 else FRESH
    elif stage == steps - 1:
        mode = RELAX_AND_RESIDUAL
    sweep_lines(g, i, first, last, stage % 2, mode, alpha[stage // 2, stage % 2])


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], _INT, _F32, _F32, *[_INT] * 5), **OPTIONS)
def _down_slab(g, coarse, unit, alpha, update, a, beta, begin, end, is_first, is_last, block):
    """The pass down over units begin <= u < end, as far as possible without the slabs beside it."""
    rv.never_inlined()
    steps = 2 * alpha.shape[0]
    deep = g[N0] > 1
    lines = g[N1] if deep else 1
    coarse_lines = coarse[N1] if deep else 1
    scratch = np.empty(2 * rv.LANES * rv.vectors_of(coarse[N2]), np.float32)
    total = rv.address_of(scratch)
    coarse_begin = 0 if is_first else (begin + steps + 2) // 2
    coarse_end = (coarse[N0] if deep else coarse[N1]) if is_last else (end - steps - 1) // 2
    low_line, low_coarse = 0, 0
    while low_line < lines:
        high_line = min(lines, low_line + block)
        high_coarse = coarse_lines
        if high_line < lines:
            high_coarse = max(low_coarse, (high_line - steps - 1) // 2)
        next_coarse = coarse_begin
        for v in range(begin, end + steps + 1):
            for stage in range(steps + 1):
                u = v - stage
                if u < (begin if is_first else begin + stage) or u >= (end if is_last else end - stage):
                    continue
                low = 0 if low_line == 0 else max(0, low_line - stage)
                high = lines if high_line == lines else max(0, high_line - stage)
                if stage == 0 and update:
                    i, first, last = _cut(g, u, low, high)
                    advance_lines(g, i, first, last, a, beta)
                _down_stage(g, alpha, steps, stage, u, low, high)
            done = v - steps  # the residual is whole up to this unit
            while next_coarse < coarse_end and (2 * next_coarse + 2 <= done or done >= end - 1):
                if deep:
                    restrict_lines(g, coarse, unit, next_coarse, low_coarse, high_coarse, total)
                else:
                    restrict_lines(g, coarse, unit, 0, next_coarse, next_coarse + 1, total)
                next_coarse += 1
        low_line, low_coarse = high_line, high_coarse


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], _INT), **OPTIONS)
def _down_wedge(g, coarse, unit, alpha, border):
    """What the slabs on both sides of a border leave."""
    rv.never_inlined()
    steps = 2 * alpha.shape[0]
    deep = g[N0] > 1
    scratch = np.empty(2 * rv.LANES * rv.vectors_of(coarse[N2]), np.float32)
    total = rv.address_of(scratch)
    for stage in range(1, steps + 1):
        for u in range(border - stage, border + stage):
            _down_stage(g, alpha, steps, stage, u, 0, g[N1])
    for u in range((border - steps - 1) // 2, (border + steps + 2) // 2):
        if deep:
            restrict_lines(g, coarse, unit, u, 0, coarse[N1], total)
        else:
            restrict_lines(g, coarse, unit, 0, u, u + 1, total)


@njit(**OPTIONS)
def _up_stage(g, coarse, unit, natural, alpha, steps, stage, u, low, high, sums):
    """Stage 0: prolongation; then the half-sweeps of the way down in reverse; then the product, if asked
    for."""
    i, first, last = _cut(g, u, low, high)
    if stage == 0:
        prolong_lines(g, coarse, unit, natural, i, first, last)
    elif stage <= steps:
        q = steps - stage
        sweep_lines(g, i, first, last, q % 2, RELAX, alpha[q // 2, q % 2])
    else:
        product_lines(g, i, first, last, sums)


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _F32[:, ::1], _INT, _INT, _INT, _INT, _INT, _INT), **OPTIONS)
def _up_slab(g, coarse, unit, natural, alpha, sums, begin, end, is_first, is_last, block):
    """The pass up over units begin <= u < end, as far as possible without the slabs beside it."""
    rv.never_inlined()
    steps = 2 * alpha.shape[0]
    stages = steps + (2 if sums != 0 else 1)
    lines = g[N1] if g[N0] > 1 else 1
    low_line = 0
    while low_line < lines:
        high_line = min(lines, low_line + block)
        for v in range(begin, end + stages - 1):
            for stage in range(stages):
                u = v - stage
                if u < (begin if is_first else begin + stage) or u >= (end if is_last else end - stage):
                    continue
                low = 0 if low_line == 0 else max(0, low_line - stage)
                high = lines if high_line == lines else max(0, high_line - stage)
                _up_stage(g, coarse, unit, natural, alpha, steps, stage, u, low, high, sums)
        low_line = high_line


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _F32[:, ::1], _INT, _INT), **OPTIONS)
def _up_wedge(g, coarse, unit, natural, alpha, sums, border):
    rv.never_inlined()
    steps = 2 * alpha.shape[0]
    for stage in range(1, steps + (2 if sums != 0 else 1)):
        for u in range(border - stage, border + stage):
            _up_stage(g, coarse, unit, natural, alpha, steps, stage, u, 0, g[N1], sums)


@njit(**OPTIONS)
def _parts(g, steps, threads):
    """Number of slabs: no more than leave room for the wedges."""
    if g[N0] * g[N1] * g[N2] < SERIAL_CELLS:
        return 1
    units = g[N0] if g[N0] > 1 else g[N1]
    return max(1, min(threads, units // (2 * steps + 8)))


@njit(**OPTIONS)
def _block(g, steps):
    """Lines of a block: so many that the layers on the way fill BLOCK_BYTES."""
    arrays = 6 if g[PACKED] else 12
    line = 2 * 4 * g[WIDTH] * arrays
    return max(8 * steps, BLOCK_BYTES // (line * (steps + 3)))


@njit(parallel=True, **OPTIONS)
def _down_threads(g, coarse, unit, alpha, update, a, beta, parts, block):
    units = g[N0] if g[N0] > 1 else g[N1]
    for q in prange(parts):
        begin, end = units * q // parts, units * (q + 1) // parts
        _down_slab(g, coarse, unit, alpha, update, a, beta, begin, end, q == 0, q == parts - 1, block)
    for q in prange(parts - 1):
        _down_wedge(g, coarse, unit, alpha, units * (q + 1) // parts)


@njit(parallel=True, **OPTIONS)
def _up_threads(g, coarse, unit, natural, alpha, sums, distance, parts, block):
    units, lines = (g[N0] if g[N0] > 1 else g[N1]), coarse[N0] * coarse[N1]
    for q in prange(parts):
        join_lines(coarse, natural, lines * q // parts, lines * (q + 1) // parts)
    for q in prange(parts):
        begin, end = units * q // parts, units * (q + 1) // parts
        own = sums + distance * q
        _up_slab(g, coarse, unit, natural, alpha, own, begin, end, q == 0, q == parts - 1, block)
    for q in prange(parts - 1):
        _up_wedge(g, coarse, unit, natural, alpha, sums + distance * q, units * (q + 1) // parts)


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], _INT, _F32, _F32, _INT), **OPTIONS)
def pass_down(g, coarse, unit, alpha, update, a, beta, threads):
    """x = pre-smoothing of b from 0, and b_coarse = P^T (b - A x), in one pass over the level.

    Parameters
    ----------
    g, coarse
        Records of the level and the next.
    unit
        Of the packed transfer weights.
    alpha
        (sweeps, 2): relaxation of each half-sweep.
    update, a, beta
        Before all this, s = w + beta s and b -= a s, if ``update`` is 1.
    threads
        At most so many.
    """
    steps = 2 * alpha.shape[0]
    parts, block = _parts(g, steps, threads), _block(g, steps)
    if parts > 1:
        _down_threads(g, coarse, unit, alpha, update, a, beta, parts, block)
    else:
        units = g[N0] if g[N0] > 1 else g[N1]
        _down_slab(g, coarse, unit, alpha, update, a, beta, 0, units, 1, 1, block)


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], types.float64[:, ::1], _INT), **OPTIONS)
def pass_up(g, coarse, unit, alpha, sums, threads):
    """x += P x_coarse and post-smoothing, in one pass over the level; with ``sums`` also w = A x.

    Parameters
    ----------
    g, coarse, unit, alpha, threads
        As for pass_down.
    sums
        (threads, PRODUCTS * LANES / 2) float64: partial scalar products are added; (0, 0): no product.
    """
    steps = 2 * alpha.shape[0]
    natural = coarse[B]  # b has done its work on that level
    parts, block = _parts(g, steps, threads), _block(g, steps)
    at = rv.address_of(sums) if sums.size > 0 else 0
    distance = 8 * sums.shape[1]
    if parts > 1:
        _up_threads(g, coarse, unit, natural, alpha, at, distance, parts, block)
    else:
        join_lines(coarse, natural, 0, coarse[N0] * coarse[N1])
        units = g[N0] if g[N0] > 1 else g[N1]
        _up_slab(g, coarse, unit, natural, alpha, at, 0, units, 1, 1, block)


@njit(parallel=True, **OPTIONS)
def _half_sweep_threads(g, begin, end, c, mode, alpha, parts):
    for q in prange(parts):
        for u in range(begin + (end - begin) * q // parts, begin + (end - begin) * (q + 1) // parts):
            i, low, high = _cut(g, u, 0, g[N1])
            sweep_lines(g, i, low, high, c, mode, alpha)


@njit(types.void(_RECORD, _INT, _INT, _INT, _INT, _F32, _INT), **OPTIONS)
def half_sweep(g, begin, end, c, mode, alpha, threads):
    """A half-sweep of colour c over units begin <= u < end: layers of a 3D level, lines of a 2D one."""
    _half_sweep_threads(g, begin, end, c, mode, alpha, max(1, min(threads, end - begin)))


@njit(parallel=True, **OPTIONS)
def _restrict_threads(g, coarse, unit, begin, end, parts):
    for q in prange(parts):
        scratch = np.empty(2 * rv.LANES * rv.vectors_of(coarse[N2]), np.float32)
        total = rv.address_of(scratch)
        for u in range(begin + (end - begin) * q // parts, begin + (end - begin) * (q + 1) // parts):
            if g[N0] > 1:
                restrict_lines(g, coarse, unit, u, 0, coarse[N1], total)
            else:
                restrict_lines(g, coarse, unit, 0, u, u + 1, total)


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT), **OPTIONS)
def restrict(g, coarse, unit, begin, end, threads):
    """b_coarse = P^T t on coarse units begin <= u < end."""
    _restrict_threads(g, coarse, unit, begin, end, max(1, min(threads, end - begin)))


@njit(parallel=True, **OPTIONS)
def _prolong_threads(g, coarse, unit, natural, begin, end, parts):
    for q in prange(parts):
        for u in range(begin + (end - begin) * q // parts, begin + (end - begin) * (q + 1) // parts):
            i, low, high = _cut(g, u, 0, g[N1])
            prolong_lines(g, coarse, unit, natural, i, low, high)


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT, _INT), **OPTIONS)
def prolong(g, coarse, unit, natural, begin, end, threads):
    """x += P x_coarse on units begin <= u < end; ``natural`` as for prolong_lines."""
    _prolong_threads(g, coarse, unit, natural, begin, end, max(1, min(threads, end - begin)))


@njit(types.void(_RECORD, types.float32[:, ::1]), **OPTIONS)
def coarsest(g, inverse):
    """x = inverse b."""
    n0, n1, n2 = g[N0], g[N1], g[N2]
    n = n0 * n1 * n2
    flat = np.empty(n, np.float32)
    for q in range(n):
        i, j, k = q // (n1 * n2), q // n2 % n1, q % n2
        r = (i + 1 if n0 > 1 else i) * (n1 + 2) + j + 1
        flat[q] = rv.value_at(g[B] + 4 * (((i + j + k) % 2 * g[ROWS] + r) * g[WIDTH] + k // 2))
    for q in range(n):
        i, j, k = q // (n1 * n2), q // n2 % n1, q % n2
        r = (i + 1 if n0 > 1 else i) * (n1 + 2) + j + 1
        value = np.float32(0)
        for m in range(n):
            value += inverse[q, m] * flat[m]
        rv.put_value(g[X] + 4 * (((i + j + k) % 2 * g[ROWS] + r) * g[WIDTH] + k // 2), value)


@njit(
    types.void(types.int64[:, ::1], _F32[::1], _F32[:, :, ::1], types.float32[:, ::1], _INT, _INT), **OPTIONS
)
def v_cycle(records, units, alpha, inverse, first, threads):
    """x of level ``first`` = M b of that level.

    Parameters
    ----------
    records
        One a level, finest first.
    units
        Of the packed transfer weights of each level.
    alpha
        (classes, sweeps, 2); levels beyond take the last class.
    inverse
        Of the last level's operator.
    """
    last = records.shape[0] - 1
    none = np.empty((0, 0), np.float64)
    zero = np.float32(0)
    for q in range(first, last):
        a = alpha[min(q, alpha.shape[0] - 1)]
        pass_down(records[q], records[q + 1], units[q], a, NO_UPDATE, zero, zero, threads)
    coarsest(records[last], inverse)
    for q in range(last - 1, first - 1, -1):
        a = alpha[min(q, alpha.shape[0] - 1)]
        pass_up(records[q], records[q + 1], units[q], a, none, threads)
