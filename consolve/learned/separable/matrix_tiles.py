"""Matrix products of convolutions, one tile of points x channels at a time in vector registers.

Arrays hold the channels of a point contiguously, padded with zeros to a multiple of LANES.  A tile is ROWS
neighbouring points of a row times up to PANEL vectors of output channels; its sums stay in registers while
the product runs over all taps and input channels, and the gate, the residual and the bias are applied on the
way out.  LLVM's vectoriser does not keep such tiles in registers, so their code is generated as vector
instructions; the rest is plain Numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from consolve.base.jit import FAST
from consolve.base.vector_instructions import never_inlined

_FEATURES = llvm.get_host_cpu_features()
LANES = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx") else 4
"""Channels of a vector register."""
ROWS = 4 if _FEATURES.get("sse2") and LANES < 16 else 8
"""Points of a full tile: with PANEL vectors each, and the operands, they fill 32 registers (16 with 4)."""
PANEL = 3
"""Vectors of output channels of a full tile."""
GATED, ADDED = 1, 2
"""Bits of the mode: out = base + gate * sum, without gate or base where a bit is missing."""

FLOAT, INDEX = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
ZERO = ir.Constant(VECTOR, [0.0] * LANES)


def constant(value: int) -> ir.Constant:
    return ir.Constant(INDEX, value)


def data_of(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to the first element of an array."""
    return context.make_array(array_type)(context, builder, array).data


def load_vector(builder: Any, data: Any, at: Any) -> Any:
    return builder.load(builder.bitcast(builder.gep(data, [at]), VECTOR.as_pointer()), align=4)


def store_vector(builder: Any, vector: Any, data: Any, at: Any) -> None:
    builder.store(vector, builder.bitcast(builder.gep(data, [at]), VECTOR.as_pointer()), align=4)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), [a, b, c]
    )


def _spread(builder: Any, scalar: Any) -> Any:
    """The scalar in every lane."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    vector = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(vector, undefined, first)


def _tile(rows: int, vectors: int) -> Callable[..., None]:
    """The product of one tile: for points p < rows and output channels c < LANES vectors::

    sum[p, c] = sum_{tap, i} x[x_at + offsets[first + tap] + p x_pitch + i] w[w_at + (tap depth + i) C + c]
    out[out_at + p out_pitch + c] = base[base_at + p base_pitch + c] + gate[..] sum[p, c]
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        b = builder
        x, offsets, w, out, gate, base = (
            data_of(context, b, signature.args[n], arguments[n]) for n in range(6)
        )
        (
            x_at, x_pitch, first, taps, depth, w_at, out_at, out_pitch, gate_at, gate_pitch, base_at,
            base_pitch, mode,
        ) = arguments[6:]  # fmt: skip
        sums = [[cgutils.alloca_once(b, VECTOR) for _ in range(vectors)] for _ in range(rows)]
        for total in (s for row in sums for s in row):
            b.store(ZERO, total)
        weight_at = cgutils.alloca_once_value(b, w_at)
        with cgutils.for_range(b, taps, intp=INDEX) as tap:
            start = b.add(x_at, b.load(b.gep(offsets, [b.add(first, tap.index)])))
            points = [b.gep(x, [b.add(start, b.mul(x_pitch, constant(p)))]) for p in range(rows)]
            with cgutils.for_range(b, depth, intp=INDEX) as channel:
                at = b.load(weight_at)
                weights = [load_vector(b, w, b.add(at, constant(LANES * v))) for v in range(vectors)]
                b.store(b.add(at, constant(LANES * vectors)), weight_at)
                for point, row in zip(points, sums):
                    value = _spread(b, b.load(b.gep(point, [channel.index])))
                    for weight, total in zip(weights, row):
                        b.store(multiply_add(b, value, weight, b.load(total)), total)

        end = b.append_basic_block("end")
        switch = b.switch(mode, end)
        for code in range(4):
            block = b.append_basic_block(f"mode{code}")
            switch.add_case(constant(code), block)
            b.position_at_end(block)
            for p, row in enumerate(sums):
                for v, total in enumerate(row):

                    def at_point(start: Any, pitch: Any, p: int = p, v: int = v) -> Any:
                        return b.add(start, b.add(b.mul(pitch, constant(p)), constant(LANES * v)))

                    value = b.load(total)
                    added = load_vector(b, base, at_point(base_at, base_pitch)) if code & ADDED else ZERO
                    if code & GATED:
                        factor = load_vector(b, gate, at_point(gate_at, gate_pitch))
                        value = multiply_add(b, value, factor, added)
                    elif code & ADDED:
                        value = b.fadd(value, added)
                    store_vector(b, value, out, at_point(out_at, out_pitch))
            b.branch(end)
        b.position_at_end(end)
        return context.get_dummy_value()

    @intrinsic
    def tile(
        typing_context, x, offsets, w, out, gate, base, x_at, x_pitch, first, taps, depth, w_at, out_at,
        out_pitch, gate_at, gate_pitch, base_at, base_pitch, mode,
    ):  # fmt: skip
        return types.void(x, offsets, w, out, gate, base, *[types.int64] * 13), generate

    return tile


_HALF = ROWS // 2
_full1, _full2, _full3 = (_tile(ROWS, v) for v in (1, 2, 3))
_half1, _half2, _half3 = (_tile(_HALF, v) for v in (1, 2, 3))
_one1, _one2, _one3 = (_tile(1, v) for v in (1, 2, 3))


_IMAGE, _INTEGER = types.float32[::1], types.int64
_SIGNATURE = types.void(
    *[_IMAGE, *[_INTEGER] * 3, types.int64[::1], *[_INTEGER] * 3, _IMAGE, _INTEGER, _IMAGE, *[_INTEGER] * 3],
    *[_IMAGE, _INTEGER, _IMAGE, *[_INTEGER] * 7],
)  # one piece of code, also for calls with constants


@njit(_SIGNATURE, **FAST)
def multiply(
    x, x_at, x_pitch, x_row, offsets, first, taps, depth, w, w_at, out, out_at, out_pitch, out_row, gate,
    gate_at, base, base_at, base_pitch, base_row, mode, rows, width, vectors,
):  # fmt: skip
    """out = base + gate * (product over taps and channels), for `rows` rows of `width` points.

    All arrays are flat float32; ``_at`` is the first point, ``_pitch`` the distance between points and
    ``_row`` between rows, in elements; the gate has the output's distances.
    ``offsets[first : first + taps]`` are the distances of the taps from a point in x, `depth` the input
    channels of each.  The weights come from `pack`; `vectors` is the number of vectors of output channels.
    A panel of weights stays in the first cache while all points pass.
    """
    never_inlined()
    v = 0
    while v < vectors:
        left = vectors - v
        take = 2 if left == 2 or left == 4 else min(left, PANEL)
        for row in range(rows):
            xr, outr = x_at + row * x_row, out_at + row * out_row + v * LANES
            gater, baser = gate_at + row * out_row + v * LANES, base_at + row * base_row + v * LANES
            p = 0
            while p < width:
                a, o, g, d = (
                    xr + p * x_pitch,
                    outr + p * out_pitch,
                    gater + p * out_pitch,
                    baser + p * base_pitch,
                )
                if width - p >= ROWS:
                    if take == 3:
                        _full3(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                               out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    elif take == 2:
                        _full2(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                               out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    else:
                        _full1(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                               out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    p += ROWS
                elif width - p >= _HALF:
                    if take == 3:
                        _half3(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                               out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    elif take == 2:
                        _half2(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                               out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    else:
                        _half1(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                               out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    p += _HALF
                else:
                    if take == 3:
                        _one3(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                              out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    elif take == 2:
                        _one2(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                              out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    else:
                        _one1(x, offsets, w, out, gate, base, a, x_pitch, first, taps, depth, w_at, o,
                              out_pitch, g, out_pitch, d, base_pitch, mode)  # fmt: skip
                    p += 1
        w_at += taps * depth * take * LANES
        v += take


def padded(channels: int) -> int:
    """Channels rounded up to whole vectors."""
    return math.ceil(channels / LANES) * LANES


def panels(channels: int) -> Iterator[slice]:
    """The output channels of each panel of weights, as `multiply` goes through them."""
    vectors, v = padded(channels) // LANES, 0
    while v < vectors:
        left = vectors - v
        take = 2 if left in (2, 4) else min(left, PANEL)
        yield slice(v * LANES, (v + take) * LANES)
        v += take


def pack(weights: NDArray) -> NDArray[np.float32]:
    """Weights (taps, input channels, output channels) in the order in which `multiply` reads them."""
    taps, depth, channels = weights.shape
    whole = np.zeros((taps, depth, padded(channels)), np.float32)
    whole[..., :channels] = weights
    return np.concatenate([whole[..., panel].ravel() for panel in panels(channels)])


def aligned(size: int) -> NDArray[np.float32]:
    """Zeros that start on a cache line."""
    whole = np.zeros(size + 16, np.float32)
    start = -whole.ctypes.data % 64 // 4
    return whole[start : start + size]
