"""Rows of a level, sixteen cells at a time: the inner loops of the V-cycle as vector instructions.

Each intrinsic works on one row of colour-split arrays (see layout.py), given by addresses of float32 or
uint32 values and a number of vectors.  Rows are padded to whole vectors with cells that hold 0 and whose
coefficients are 0, so that no loop has a remainder, a mask or a branch.

Coefficients of a level with variable faces are float32 arrays.  Those of a packed level, the finest one of an
image, are two words a cell:

=========  =============  =================================================================
word       bits           meaning
=========  =============  =================================================================
relax      31..16         smoother omega / d as bfloat16
relax      15..0          diagonal d as bfloat16, exact
moves      31..21         kept share 1 - drop of the own coarse cell, in units of 1 / 2047
moves      20..14, 13..7  weights of the coarse neighbours along the first and second axis,
                          in units of the level's ``unit``
moves      6..0           weight of the coarse neighbour along the last axis
=========  =============  =================================================================
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils

from consolve.base.vector_instructions import (
    DOUBLES,
    FLOATS,
    HALF,
    INDEX,
    LANES,
    Body,
    VectorBuilder,
    named_intrinsic,
    never_inlined,
    row_kernel,
)

__all__ = ["LANES", "never_inlined"]

FIRST, FRESH, FRESH_AND_RESIDUAL, RELAX, RELAX_AND_RESIDUAL, RESIDUAL = range(6)
"""Modes of a half-sweep: x = alpha w b, where the other colour is still 0; x = alpha w s, where x was 0; the
same and the residual it leaves; x += alpha w (s - d x); the same and the residual; the residual alone."""
KEPT = 2047
"""Largest kept share, standing for 1."""


def _relaxed(v: VectorBuilder, at: Any, mode: int, s: Any, aw: Any, d: Any, x: Any, t: Any) -> None:
    """The end of a half-sweep: from s = b + sum of the neighbours' parts."""
    if mode in (FIRST, FRESH, FRESH_AND_RESIDUAL):
        new = v.b.fmul(aw, s)
        v.store(new, x, at)
        if mode == FRESH_AND_RESIDUAL:
            v.store(v.fma(v.minus(d), new, s), t, at)
        return
    old = v.load(x, at)
    residual = v.fma(v.minus(d), old, s)
    if mode == RELAX:
        v.store(v.fma(aw, residual, old), x, at)
    elif mode == RELAX_AND_RESIDUAL:
        step = v.b.fmul(aw, residual)
        v.store(v.b.fadd(old, step), x, at)
        v.store(v.fma(v.minus(d), step, residual), t, at)
    else:
        v.store(residual, t, at)


def _packed_half_sweep(mode: int, axes: int) -> Body:
    def body(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
        x, b, t, relax, *neighbours = p
        used = [] if mode == FIRST else neighbours[: 2 * axes]
        s = v.total([v.load(b, at), *(v.load(q, at) for q in used)])
        words = v.words(relax, at)
        aw = v.b.fmul(scalars[0], v.high(words))
        _relaxed(v, at, mode, s, aw, v.low(words), x, t)

    return body


def _variable_half_sweep(mode: int, axes: int) -> Body:
    def body(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
        x, b, t, smoother, diagonal, *rest = p
        s = v.load(b, at)
        if mode != FIRST:
            for q in range(2 * axes):
                s = v.fma(v.load(rest[6 + q], at), v.load(rest[q], at), s)
        aw = v.b.fmul(scalars[0], v.load(smoother, at))
        _relaxed(v, at, mode, s, aw, v.load(diagonal, at), x, t)

    return body


packed_half_sweep_2d, packed_half_sweep_3d = (
    row_kernel(f"packed_half_sweep_{a}d", 10, 1, *(_packed_half_sweep(m, a) for m in range(6)))
    for a in (2, 3)
)
"""(x, b, t, relax, same, beside, up, down, above, below, alpha, mode, vectors)."""
variable_half_sweep_2d, variable_half_sweep_3d = (
    row_kernel(f"variable_half_sweep_{a}d", 17, 1, *(_variable_half_sweep(m, a) for m in range(6)))
    for a in (2, 3)
)
"""(x, b, t, smoother, diagonal, lower, upper, up, down, above, below, faces of these six, alpha, mode,
vectors)."""


def _packed_prolongation(axes: int) -> Any:
    """(x_even, x_odd, moves_even, moves_odd, centre, near0, near1, unit, vectors): x += P x_coarse.

    Even and odd are cells 2h and 2h + 1 of the row; coarse rows are in natural order.
    """

    def body(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
        centre = v.load(p[4], at)
        near = [v.b.fsub(v.load(q, at), centre) for q in p[5:7]]
        kept = v.b.fmul(centre, ir.Constant(FLOATS, [1 / KEPT] * LANES))
        for x, moves, shift in ((p[0], p[2], -1), (p[1], p[3], 1)):
            words = v.words(moves, at)
            along = v.b.fsub(v.load(p[4], at, shift), centre)
            sum_ = v.b.fmul(v.float_of(v.field(words, 2)), along)
            sum_ = v.fma(v.float_of(v.field(words, 1)), near[1], sum_)
            if axes == 3:
                sum_ = v.fma(v.float_of(v.field(words, 0)), near[0], sum_)
            new = v.fma(v.float_of(v.kept(words)), kept, v.load(x, at))
            v.store(v.fma(scalars[0], sum_, new), x, at)

    return row_kernel(f"packed_prolongation_{axes}", 7, 1, body)


def _variable_prolongation(axes: int) -> Any:
    """(x_even, x_odd, own, p0, p1, p2 of even, those of odd cells, centre, near0, near1, vectors)."""

    def body(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
        x, weights, (centre, near0, near1) = p[:2], (p[2:6], p[6:10]), p[10:]
        for q, shift in ((0, -1), (1, 1)):
            own, p0, p1, p2 = weights[q]
            new = v.fma(v.load(own, at), v.load(centre, at), v.load(x[q], at))
            new = v.fma(v.load(p2, at), v.load(centre, at, shift), new)
            new = v.fma(v.load(p1, at), v.load(near1, at), new)
            if axes == 3:
                new = v.fma(v.load(p0, at), v.load(near0, at), new)
            v.store(new, x[q], at)

    return row_kernel(f"variable_prolongation_{axes}", 13, 0, body)


packed_prolongation_2d, packed_prolongation_3d = _packed_prolongation(2), _packed_prolongation(3)
variable_prolongation_2d, variable_prolongation_3d = _variable_prolongation(2), _variable_prolongation(3)


def _packed_inside(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(total, t_even, t_odd, moves_even, moves_odd, unit, vectors): what a fine row inside the block adds."""
    total, t, moves = p[0], p[1:3], p[3:5]
    kept: list[Any] = []
    weighted: list[Any] = []
    for q, shift in ((0, 1), (1, -1)):
        value, words = v.load(t[q], at), v.words(moves[q], at)
        leaving = v.b.add(v.b.add(v.field(words, 0), v.field(words, 1)), v.field(words, 2))
        kept.append(v.b.fmul(v.float_of(v.kept(words)), value))
        weighted.append(v.minus(v.b.fmul(v.float_of(leaving), value)))
        arriving = v.float_of(v.field(v.words(moves[q], at, shift), 2))
        weighted.append(v.b.fmul(arriving, v.load(t[q], at, shift)))
    sum_ = v.fma(ir.Constant(FLOATS, [1 / KEPT] * LANES), v.total(kept), v.load(total, at))
    v.store(v.fma(scalars[0], v.total(weighted), sum_), total, at)


def _packed_outside(axis: int) -> Any:
    """(total, t0, t1, moves0, moves1, unit, vectors): what a row of the next block along an axis adds."""

    def body(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
        sum_ = [
            v.b.fmul(v.float_of(v.field(v.words(moves, at), axis)), v.load(t, at))
            for t, moves in ((p[1], p[3]), (p[2], p[4]))
        ]
        v.store(v.fma(scalars[0], v.total(sum_), v.load(p[0], at)), p[0], at)

    return row_kernel(f"packed_outside_{axis}", 5, 1, body)


def _variable_inside(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(total, t_even, t_odd, own_even, own_odd, p2_even, p2_odd, vectors)."""
    total, t_even, t_odd, own_even, own_odd, p2_even, p2_odd = p
    sum_ = v.fma(v.load(own_even, at), v.load(t_even, at), v.load(total, at))
    sum_ = v.fma(v.load(own_odd, at), v.load(t_odd, at), sum_)
    sum_ = v.fma(v.load(p2_even, at, 1), v.load(t_even, at, 1), sum_)
    v.store(v.fma(v.load(p2_odd, at, -1), v.load(t_odd, at, -1), sum_), total, at)


def _variable_outside(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(total, t0, t1, p0, p1, vectors)."""
    sum_ = v.fma(v.load(p[3], at), v.load(p[1], at), v.load(p[0], at))
    v.store(v.fma(v.load(p[4], at), v.load(p[2], at), sum_), p[0], at)


packed_inside = row_kernel("packed_inside", 5, 1, _packed_inside)
packed_outside_0, packed_outside_1 = _packed_outside(0), _packed_outside(1)
variable_inside = row_kernel("variable_inside", 7, 0, _variable_inside)
variable_outside = row_kernel("variable_outside", 5, 0, _variable_outside)


def _join(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(natural, even, odd, vectors of a colour): both colours of a row in natural order."""
    low, high = v.load(p[1], at), v.load(p[2], at)
    pairs = [lane for q in range(LANES) for lane in (q, LANES + q)]
    twice = v.b.mul(at, ir.Constant(INDEX, 2))
    v.store(v.shuffled(low, high, pairs[:LANES]), p[0], twice)
    v.store(v.shuffled(low, high, pairs[LANES:]), p[0], v.b.add(twice, ir.Constant(INDEX, 4 * LANES)))


def _split(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(natural, even, odd, vectors of a colour): a row in natural order to both colours."""
    twice = v.b.mul(at, ir.Constant(INDEX, 2))
    first, second = v.load(p[0], twice), v.load(p[0], v.b.add(twice, ir.Constant(INDEX, 4 * LANES)))
    for target, odd in ((p[1], 0), (p[2], 1)):
        v.store(v.shuffled(first, second, list(range(odd, 2 * LANES, 2))), target, at)


join = row_kernel("join", 3, 0, _join)
split = row_kernel("split", 3, 0, _split)


def _clear(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(target, vectors)"""
    v.store(ir.Constant(FLOATS, [0.0] * LANES), p[0], at)


clear = row_kernel("clear", 1, 0, _clear)


def _advance(v: VectorBuilder, at: Any, p: list[Any], scalars: list[Any]) -> None:
    """(r, s, w, alpha, beta, vectors): s = w + beta s, r -= alpha s."""
    s = v.fma(scalars[1], v.load(p[1], at), v.load(p[2], at))
    v.store(s, p[1], at)
    v.store(v.fma(v.minus(scalars[0]), s, v.load(p[0], at)), p[0], at)


advance = row_kernel("advance", 3, 2, _advance)

PRODUCTS = 7
"""Scalar products that `product` adds up: r z, w z, s z, r w, w w, w s, r r."""


def _product(axes: int) -> Any:
    """(z, w, r, s, relax, same, beside, up, down, above, below, sums, vectors): w = A z in float64, rounded
    once, and the scalar products with it, added to PRODUCTS vectors of float64 at ``sums``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = VectorBuilder(builder)
        z, w, r, s, relax, *neighbours = arguments[:11]
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        places = [ir.Constant(INDEX, 8 * HALF * q) for q in range(PRODUCTS)]
        sums = [cgutils.alloca_once_value(builder, v.load(arguments[11], q, kind=DOUBLES)) for q in places]
        with cgutils.for_range(builder, arguments[-1], intp=INDEX) as loop:
            at = builder.mul(loop.index, ir.Constant(INDEX, 4 * LANES))
            d = v.low(v.words(relax, at))
            parts = {q: v.halves(v.load(a, at)) for q, a in (("z", z), ("r", r), ("s", s))}
            around = [v.halves(v.load(q, at)) for q in neighbours[: 2 * axes]]
            product = []
            for half, diagonal in enumerate(v.halves(d)):
                neighbour_sum = v.total([q[half] for q in around])
                product.append(v.fma(diagonal, parts["z"][half], v.minus(neighbour_sum)))
            is_active = builder.fcmp_ordered("!=", d, zero)
            rounded = builder.select(is_active, v.joined(product), zero)
            v.store(rounded, w, at)
            parts["w"] = v.halves(rounded)
            for sum_, pair in zip(sums, ("rz", "wz", "sz", "rw", "ww", "ws", "rr")):
                left, right = pair[0], pair[1]
                for half in range(2):
                    total = v.fma(parts[left][half], parts[right][half], builder.load(sum_))
                    builder.store(total, sum_)
        for place, sum_ in zip(places, sums):
            v.store(builder.load(sum_), arguments[11], place, DOUBLES)
        return context.get_dummy_value()

    return named_intrinsic(f"product_{axes}d", types.void(*[types.int64] * 13), generate)


product_2d, product_3d = _product(2), _product(3)


@njit(inline="always")
def vectors_of(n2):
    """Vectors that hold one colour of a row of n2 cells."""
    return ((n2 + 1) // 2 + LANES - 1) // LANES


@njit(inline="always")
def natural_width(width):
    """Length of a row in natural order, where a row of one colour has ``width``; both with their frames."""
    return 2 * width - 2


def row_width(n2: int) -> int:
    """Length of a row of one colour of n2 cells: whole vectors, and the frame."""
    return LANES * int(vectors_of.py_func(n2)) + 2
