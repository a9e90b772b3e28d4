"""One-way filters without torch: fused Numba kernels of compressed convolutions.

A convolution whose kernel is ``sum_r A[o, r] B[r, i] V[r, y] H[r, x]`` is a product with B (channels to R
terms), a filter along y and one along x for each term, and a product with A.  `filter_rows` does both filters
in one pass, in registers for three taps each; the products are those of `matrix_tiles`.  All arrays are flat
float32 with the channels of a point contiguous; images lie in a frame of zeros as wide as the filters reach,
so that no kernel asks where the border is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from consolve.learned.cycle_kernels import OPTIONS
from consolve.learned.matrix_tiles import (
    ADDED,
    INDEX,
    LANES,
    VECTOR,
    ZERO,
    aligned,
    constant,
    data_of,
    load_vector,
    multiply,
    multiply_add,
    pack,
    padded,
    store_vector,
)


@intrinsic
def _filter_three(typing_context, t, filters, s, t_at, t_pitch, t_row, filters_at, s_at, s_pitch, width):
    """Three taps along y, then along x, for LANES terms in one row of `width` points::

        p[x] = sum_j V[j] t[y + j - 1, x],    s[x] = sum_j H[j] p[x + j - 1],    p = 0 outside the row

    The six filter vectors and the last two p stay in registers: three loads and a store for each point.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        b = builder
        t, filters, s = (data_of(context, b, signature.args[n], arguments[n]) for n in range(3))
        t_at, t_pitch, t_row, filters_at, s_at, s_pitch, width = arguments[3:]
        *vertical, left, centre, right = (
            load_vector(b, filters, b.add(filters_at, constant(j * LANES))) for j in range(6)
        )
        rows = [b.add(t_at, b.mul(t_row, constant(j))) for j in (-1, 0, 1)]
        before, here = cgutils.alloca_once_value(b, ZERO), cgutils.alloca_once(b, VECTOR)

        def down(x: Any) -> Any:
            value, shift = ZERO, b.mul(t_pitch, x)
            for weight, row in zip(vertical, rows):
                value = multiply_add(b, weight, load_vector(b, t, b.add(row, shift)), value)
            return value

        b.store(down(constant(0)), here)
        last = b.sub(width, constant(1))
        with cgutils.for_range(b, last, intp=INDEX) as point:
            after, now = down(b.add(point.index, constant(1))), b.load(here)
            value = multiply_add(b, left, b.load(before), b.fmul(centre, now))
            store_vector(b, multiply_add(b, right, after, value), s, b.add(s_at, b.mul(s_pitch, point.index)))
            b.store(now, before)
            b.store(after, here)
        value = multiply_add(b, left, b.load(before), b.fmul(centre, b.load(here)))
        store_vector(b, value, s, b.add(s_at, b.mul(s_pitch, last)))
        return context.get_dummy_value()

    return types.void(t, filters, s, *[types.int64] * 7), generate


@njit(**OPTIONS)
def _add_scaled(weights, values, total):
    for c in range(total.size):
        total[c] += weights[c] * values[c]


@njit(**OPTIONS)
def _filter_any(t, t_at, t_pitch, t_row, filters, filters_at, taps_y, taps_x, s, s_at, s_pitch, p, width):
    """`_filter_three` for any number of taps; `p` holds (width + taps_x - 1) LANES numbers."""
    columns = width + taps_x - 1
    p[: columns * LANES] = 0
    for x in range(columns):
        total = p[x * LANES : (x + 1) * LANES]
        for j in range(taps_y):
            weight_at = filters_at + j * LANES
            at = t_at + (j - taps_y // 2) * t_row + (x - taps_x // 2) * t_pitch
            _add_scaled(filters[weight_at : weight_at + LANES], t[at : at + LANES], total)
    for x in range(width):
        total = s[s_at + x * s_pitch : s_at + x * s_pitch + LANES]
        total[:] = 0
        for j in range(taps_x):
            weight_at = filters_at + (taps_y + j) * LANES
            _add_scaled(
                filters[weight_at : weight_at + LANES], p[(x + j) * LANES : (x + j + 1) * LANES], total
            )


@njit(**OPTIONS)
def filter_rows(
    t, t_at, t_pitch, t_row, filters, filters_at, taps_y, taps_x, s, s_pitch, p, rows, width, vectors
):
    """One-way filters along y and x of every term, for `rows` rows of `width` points; s is filled from 0."""
    for v in range(vectors):
        at = filters_at + v * (taps_y + taps_x) * LANES
        for row in range(rows):
            source, target = t_at + row * t_row + v * LANES, row * width * s_pitch + v * LANES
            if taps_y == 3 and taps_x == 3:
                _filter_three(t, filters, s, source, t_pitch, t_row, at, target, s_pitch, width)
            else:
                _filter_any(
                    t, source, t_pitch, t_row, filters, at, taps_y, taps_x, s, target, s_pitch, p, width
                )


def pack_filters(*filters: NDArray) -> NDArray[np.float32]:
    """Filters (R, taps) of y and x, vector by vector of terms: the taps of y, then those of x."""
    rank = len(filters[0])
    whole = np.zeros((padded(rank), sum(f.shape[1] for f in filters)), np.float32)
    whole[:rank] = np.concatenate(filters, axis=1)
    return whole.reshape(-1, LANES, whole.shape[1]).transpose(0, 2, 1).ravel()
