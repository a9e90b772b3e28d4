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
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from consolve.base.jit import FAST
from consolve.learned.separable.convolution_kernels import (
    BLOCK_POINTS,
    checked_factor,
    checked_image,
    odd_lengths,
)
from consolve.learned.separable.matrix_tiles import (
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


@njit(**FAST)
def _add_scaled(weights, values, total):
    for c in range(total.size):
        total[c] += weights[c] * values[c]


@njit(**FAST)
def _scale(weights, values, total):
    for c in range(total.size):
        total[c] = weights[c] * values[c]


@njit(**FAST)
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


@njit(**FAST)
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


@njit(**FAST)
def _filter_planes(t, t_at, plane, filters, taps, pitch, q):
    """q = filter along z of every term, for a whole plane of terms in its frame; filters (taps, pitch)."""
    for p in range(plane // pitch):
        _scale(filters[0], t[t_at + p * pitch : t_at + (p + 1) * pitch], q[p * pitch : (p + 1) * pitch])
        for j in range(1, taps):
            at = t_at + j * plane + p * pitch
            _add_scaled(filters[j], t[at : at + pitch], q[p * pitch : (p + 1) * pitch])


@njit(**FAST)
def _terms(x, depth, offsets, w, t, frame, reach, shape, pitch, block_rows, first, last):
    """Products with B: blocks first to last of the image into the framed terms."""
    blocks = (shape[1] + block_rows - 1) // block_rows
    for block in range(first, last):
        plane, row = block // blocks, block % blocks * block_rows
        x_at = (plane * shape[1] + row) * shape[2] * depth
        t_at = (((plane + reach[0]) * frame[1] + row + reach[1]) * frame[2] + reach[2]) * pitch
        multiply(
            x, x_at, depth, shape[2] * depth, offsets, 0, 1, depth, w, 0, t, t_at, pitch, frame[2] * pitch,
            x, 0, x, 0, 0, 0, 0, min(block_rows, shape[1] - row), shape[2], pitch // LANES,
        )  # fmt: skip


@njit(**FAST)
def _outputs(
    t, frame, taps, rank, filters_z, filters, offsets, w, bias, out, shape, pitch, out_pitch, block_rows,
    first, last,
):  # fmt: skip
    """Filters and products with A: blocks first to last of the image."""
    width, row_size = shape[2], frame[2] * pitch
    blocks = (shape[1] + block_rows - 1) // block_rows
    s = np.empty(block_rows * width * pitch, np.float32)
    p = np.empty(frame[2] * LANES, np.float32)
    q = np.empty(frame[1] * row_size if taps[0] > 1 else 0, np.float32)
    for block in range(first, last):
        plane, row = block // blocks, block % blocks * block_rows
        rows = min(block_rows, shape[1] - row)
        source, base = t, plane * frame[1] * row_size
        if taps[0] > 1:
            _filter_planes(t, base, frame[1] * row_size, filters_z, taps[0], pitch, q)
            source, base = q, 0
        at = base + (row + taps[1] // 2) * row_size + taps[2] // 2 * pitch
        filter_rows(
            source, at, pitch, row_size, filters, 0, taps[1], taps[2], s, pitch, p, rows, width,
            pitch // LANES,
        )  # fmt: skip
        out_at = (plane * shape[1] + row) * width * out_pitch
        multiply(
            s, 0, pitch, width * pitch, offsets, 0, 1, rank, w, 0, out, out_at, out_pitch, width * out_pitch,
            bias, 0, bias, 0, 0, 0, ADDED, rows, width, out_pitch // LANES,
        )  # fmt: skip


@njit(**FAST)
def _no_offset():
    """Distance of the tap of a 1 x 1 product: made in a parallel function, it would be a parallel region."""
    return np.zeros(1, np.int64)


@njit(**FAST)
def _half(taps):
    return taps // 2


@njit(parallel=True, **FAST)
def compressed_image(
    x, depth, b, t, frame, taps, rank, filters_z, filters, a, bias, out, shape, pitch, out_pitch, block_rows,
    threads,
):  # fmt: skip
    """A compressed convolution: out (shape, out_pitch) of x by way of the terms t (frame, pitch), flat."""
    offsets, reach = _no_offset(), _half(taps)
    blocks = shape[0] * ((shape[1] + block_rows - 1) // block_rows)
    if threads == 1:  # a parallel region would wait for all threads
        first = 0 * blocks
        _terms(x, depth, offsets, b, t, frame, reach, shape, pitch, block_rows, first, blocks)
        _outputs(
            t, frame, taps, rank, filters_z, filters, offsets, a, bias, out, shape, pitch, out_pitch,
            block_rows, first, blocks,
        )  # fmt: skip
        return
    for q in prange(threads):
        thread = np.int64(q)
        first, last = blocks * thread // threads, blocks * (thread + 1) // threads
        _terms(x, depth, offsets, b, t, frame, reach, shape, pitch, block_rows, first, last)
    for q in prange(threads):
        thread = np.int64(q)
        first, last = blocks * thread // threads, blocks * (thread + 1) // threads
        _outputs(
            t, frame, taps, rank, filters_z, filters, offsets, a, bias, out, shape, pitch, out_pitch,
            block_rows, first, last,
        )  # fmt: skip


def pack_filters(*filters: NDArray) -> NDArray[np.float32]:
    """Filters (R, taps) of y and x, vector by vector of terms: the taps of y, then those of x."""
    rank = len(filters[0])
    whole = np.zeros((padded(rank), sum(f.shape[1] for f in filters)), np.float32)
    whole[:rank] = np.concatenate(filters, axis=1)
    return whole.reshape(-1, LANES, whole.shape[1]).transpose(0, 2, 1).ravel()


class CompressedConvolution:
    """A 2D or 3D convolution of one-way filters, of stride 1, that keeps the size by zero padding.

    The kernel is ``sum_r A[o, r] B[r, i] (T[r, z]) V[r, y] H[r, x]``, as in `layers`.

    Parameters
    ----------
    output_factor
        A (out, R).
    input_factor
        B (R, in).
    filters
        (T,) V, H: (R, taps) each, odd numbers of taps.
    bias
        (out,) or None.

    Raises
    ------
    ValueError
        Ill-shaped factors, an even number of taps, NaN or Inf.
    """

    def __init__(
        self,
        output_factor: NDArray,
        input_factor: NDArray,
        filters: Sequence[NDArray],
        bias: NDArray | None = None,
    ):
        b = checked_factor(input_factor, "input_factor", (None, None))
        self.rank, self.in_channels = b.shape
        a = checked_factor(output_factor, "output_factor", (None, self.rank))
        self.out_channels, self.ndim = len(a), len(filters)
        if self.ndim not in (2, 3):
            raise ValueError(f"filters: expected those of y and x, or of z, y and x, got {self.ndim}")
        axes = ("z", "y", "x")[3 - self.ndim :]
        checked = [checked_factor(f, f"filter_{axis}", (self.rank, None)) for f, axis in zip(filters, axes)]
        self.lengths = odd_lengths(tuple(f.shape[1] for f in checked), "filters")
        self._pitch = padded(self.rank)
        self._input, self._output = pack(b.T[None]), pack(a.T[None])
        along_z = checked[0] if self.ndim == 3 else np.ones((self.rank, 1), np.float32)
        if along_z.shape[1] == 1:  # a factor of each term: part of the filter along y
            checked[-2] = checked[-2] * along_z
        self._filters = pack_filters(*checked[-2:])
        self._filters_z = np.zeros((along_z.shape[1], self._pitch), np.float32)
        self._filters_z[:, : self.rank] = along_z.T
        self._bias = aligned(padded(self.out_channels))
        if bias is not None:
            self._bias[: self.out_channels] = checked_factor(bias, "bias", (self.out_channels,))

    def arguments(self, x: NDArray, threads: int = 1) -> tuple:
        """Those of `compressed_image` for an image."""
        image = checked_image(x, self.in_channels, self.ndim, "CompressedConvolution")
        shape = np.array(image.shape[:3], np.int64)
        taps = np.array((1,) * (3 - self.ndim) + self.lengths, np.int64)
        frame, out_pitch = shape + taps - 1, padded(self.out_channels)
        block_rows = int(shape[1]) if taps[0] > 1 else max(1, BLOCK_POINTS // int(shape[2]))
        terms, out = aligned(int(frame.prod()) * self._pitch), aligned(int(shape.prod()) * out_pitch)
        return (
            image.ravel(), self.in_channels, self._input, terms, frame, taps, self.rank, self._filters_z,
            self._filters, self._output, self._bias, out, shape, self._pitch, out_pitch, block_rows, threads,
        )  # fmt: skip

    def __call__(self, x: NDArray, threads: int = 1) -> NDArray[np.float32]:
        """The convolution of an image ((z,) y, x, in) as float32 ((z,) y, x, out)."""
        arguments = self.arguments(x, threads)
        compressed_image(*arguments)
        whole = arguments[11].reshape(*np.shape(x)[:-1], -1)
        return np.ascontiguousarray(whole[..., : self.out_channels])
