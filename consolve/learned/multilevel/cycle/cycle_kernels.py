"""Numba kernels of the V-cycle: one pass over memory down and one up.

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

from consolve.base import vector_instructions as vi
from consolve.base.jit import FAST
from consolve.learned.multilevel.cycle import row_vectors as rv
from consolve.learned.multilevel.cycle.layout import SERIAL_CELLS
from consolve.learned.multilevel.cycle.line_kernels import (
    COLUMNS,
    N0,
    N1,
    N2,
    PACKED,
    ROWS,
    WIDTH,
    B,
    X,
    advance_lines,
    join_lines,
    product_lines,
    prolong_lines,
    restrict_lines,
    sweep_lines,
)
from consolve.learned.multilevel.cycle.row_vectors import (
    FIRST,
    FRESH,
    FRESH_AND_RESIDUAL,
    RELAX,
    RELAX_AND_RESIDUAL,
    RESIDUAL,
)

__all__ = ["COLUMNS"]

BLOCK_BYTES = 1 << 21
"""Of the layers on the way through a pass, for each thread."""

_RECORD, _INT, _F32 = types.int64[::1], types.int64, types.float32
NO_UPDATE, UPDATE = 0, 1


@njit(**FAST)
def _cut(g, u, low, high):
    """Layer and lines of a unit: a layer of a 3D level, a line of a 2D one."""
    if g[N0] > 1:
        return u, low, high
    return 0, u, u + 1


@njit(**FAST)
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


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], _INT, _F32, _F32, *[_INT] * 5), **FAST)
def _down_slab(g, coarse, unit, alpha, update, a, beta, begin, end, is_first, is_last, block):
    """The pass down over units begin <= u < end, as far as possible without the slabs beside it."""
    vi.never_inlined()
    steps = 2 * alpha.shape[0]
    deep = g[N0] > 1
    lines = g[N1] if deep else 1
    coarse_lines = coarse[N1] if deep else 1
    scratch = np.empty(2 * vi.LANES * rv.vectors_of(coarse[N2]), np.float32)
    total = vi.address_of(scratch)
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
    vi.keep(scratch)


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], _INT), **FAST)
def _down_wedge(g, coarse, unit, alpha, border):
    """What the slabs on both sides of a border leave."""
    vi.never_inlined()
    steps = 2 * alpha.shape[0]
    deep = g[N0] > 1
    scratch = np.empty(2 * vi.LANES * rv.vectors_of(coarse[N2]), np.float32)
    total = vi.address_of(scratch)
    for stage in range(1, steps + 1):
        for u in range(border - stage, border + stage):
            _down_stage(g, alpha, steps, stage, u, 0, g[N1])
    for u in range((border - steps - 1) // 2, (border + steps + 2) // 2):
        if deep:
            restrict_lines(g, coarse, unit, u, 0, coarse[N1], total)
        else:
            restrict_lines(g, coarse, unit, 0, u, u + 1, total)
    vi.keep(scratch)


@njit(**FAST)
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


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _F32[:, ::1], _INT, _INT, _INT, _INT, _INT, _INT), **FAST)
def _up_slab(g, coarse, unit, natural, alpha, sums, begin, end, is_first, is_last, block):
    """The pass up over units begin <= u < end, as far as possible without the slabs beside it."""
    vi.never_inlined()
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


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _F32[:, ::1], _INT, _INT), **FAST)
def _up_wedge(g, coarse, unit, natural, alpha, sums, border):
    vi.never_inlined()
    steps = 2 * alpha.shape[0]
    for stage in range(1, steps + (2 if sums != 0 else 1)):
        for u in range(border - stage, border + stage):
            _up_stage(g, coarse, unit, natural, alpha, steps, stage, u, 0, g[N1], sums)


@njit(**FAST)
def _parts(g, steps, threads):
    """Number of slabs: no more than leave room for the wedges."""
    if g[N0] * g[N1] * g[N2] < SERIAL_CELLS:
        return 1
    units = g[N0] if g[N0] > 1 else g[N1]
    return max(1, min(threads, units // (2 * steps + 8)))


@njit(**FAST)
def _block(g, steps):
    """Lines of a block: so many that the layers on the way fill BLOCK_BYTES."""
    arrays = 6 if g[PACKED] else 12
    line = 2 * 4 * g[WIDTH] * arrays
    return max(8 * steps, BLOCK_BYTES // (line * (steps + 3)))


@njit(parallel=True, **FAST)
def _down_threads(g, coarse, unit, alpha, update, a, beta, parts, block):
    units = g[N0] if g[N0] > 1 else g[N1]
    for q in prange(parts):
        begin, end = units * q // parts, units * (q + 1) // parts
        _down_slab(g, coarse, unit, alpha, update, a, beta, begin, end, q == 0, q == parts - 1, block)
    for q in prange(parts - 1):
        _down_wedge(g, coarse, unit, alpha, units * (q + 1) // parts)


@njit(parallel=True, **FAST)
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


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], _INT, _F32, _F32, _INT), **FAST)
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


@njit(types.void(_RECORD, _RECORD, _F32, _F32[:, ::1], types.float64[:, ::1], _INT), **FAST)
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
    at = vi.address_of(sums) if sums.size > 0 else 0
    distance = 8 * sums.shape[1]
    if parts > 1:
        _up_threads(g, coarse, unit, natural, alpha, at, distance, parts, block)
    else:
        join_lines(coarse, natural, 0, coarse[N0] * coarse[N1])
        units = g[N0] if g[N0] > 1 else g[N1]
        _up_slab(g, coarse, unit, natural, alpha, at, 0, units, 1, 1, block)


@njit(parallel=True, **FAST)
def _half_sweep_threads(g, begin, end, c, mode, alpha, parts):
    for q in prange(parts):
        for u in range(begin + (end - begin) * q // parts, begin + (end - begin) * (q + 1) // parts):
            i, low, high = _cut(g, u, 0, g[N1])
            sweep_lines(g, i, low, high, c, mode, alpha)


@njit(types.void(_RECORD, _INT, _INT, _INT, _INT, _F32, _INT), **FAST)
def half_sweep(g, begin, end, c, mode, alpha, threads):
    """A half-sweep of colour c over units begin <= u < end: layers of a 3D level, lines of a 2D one."""
    _half_sweep_threads(g, begin, end, c, mode, alpha, max(1, min(threads, end - begin)))


@njit(parallel=True, **FAST)
def _restrict_threads(g, coarse, unit, begin, end, parts):
    for q in prange(parts):
        scratch = np.empty(2 * vi.LANES * rv.vectors_of(coarse[N2]), np.float32)
        total = vi.address_of(scratch)
        for u in range(begin + (end - begin) * q // parts, begin + (end - begin) * (q + 1) // parts):
            if g[N0] > 1:
                restrict_lines(g, coarse, unit, u, 0, coarse[N1], total)
            else:
                restrict_lines(g, coarse, unit, 0, u, u + 1, total)
        vi.keep(scratch)


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT), **FAST)
def restrict(g, coarse, unit, begin, end, threads):
    """b_coarse = P^T t on coarse units begin <= u < end."""
    _restrict_threads(g, coarse, unit, begin, end, max(1, min(threads, end - begin)))


@njit(parallel=True, **FAST)
def _prolong_threads(g, coarse, unit, natural, begin, end, parts):
    for q in prange(parts):
        for u in range(begin + (end - begin) * q // parts, begin + (end - begin) * (q + 1) // parts):
            i, low, high = _cut(g, u, 0, g[N1])
            prolong_lines(g, coarse, unit, natural, i, low, high)


@njit(types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT, _INT), **FAST)
def prolong(g, coarse, unit, natural, begin, end, threads):
    """x += P x_coarse on units begin <= u < end; ``natural`` as for prolong_lines."""
    _prolong_threads(g, coarse, unit, natural, begin, end, max(1, min(threads, end - begin)))


@njit(types.void(_RECORD, types.float32[:, ::1]), **FAST)
def coarsest(g, inverse):
    """x = inverse b."""
    n0, n1, n2 = g[N0], g[N1], g[N2]
    n = n0 * n1 * n2
    flat = np.empty(n, np.float32)
    for q in range(n):
        i, j, k = q // (n1 * n2), q // n2 % n1, q % n2
        r = (i + 1 if n0 > 1 else i) * (n1 + 2) + j + 1
        flat[q] = vi.value_at(g[B] + 4 * (((i + j + k) % 2 * g[ROWS] + r) * g[WIDTH] + k // 2))
    for q in range(n):
        i, j, k = q // (n1 * n2), q // n2 % n1, q % n2
        r = (i + 1 if n0 > 1 else i) * (n1 + 2) + j + 1
        value = np.float32(0)
        for m in range(n):
            value += inverse[q, m] * flat[m]
        vi.put_value(g[X] + 4 * (((i + j + k) % 2 * g[ROWS] + r) * g[WIDTH] + k // 2), value)


@njit(types.void(types.int64[:, ::1], _F32[::1], _F32[:, :, ::1], types.float32[:, ::1], _INT, _INT), **FAST)
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
