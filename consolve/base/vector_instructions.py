"""Vector instructions over a row: what the kernels in row_vectors are made of.

LLVM's vectoriser would put run-time checks of aliasing and scalar remainders around loops of a hundred cells,
which cost more than the loops; generated instructions also compile in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Cells of a vector."""

FLOAT, DOUBLE, WORD, INDEX = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
FLOATS, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(WORD, LANES)
HALF = LANES // 2
DOUBLES, HALF_FLOATS = ir.VectorType(DOUBLE, HALF), ir.VectorType(FLOAT, HALF)
BYTE = ir.IntType(8)


class VectorBuilder:
    """Vector instructions at byte offsets of addresses."""

    def __init__(self, builder: Any) -> None:
        self.b = builder

    def _pointer(self, address: Any, at: Any, kind: Any) -> Any:
        start = self.b.inttoptr(address, BYTE.as_pointer())
        return self.b.bitcast(self.b.gep(start, [at]), kind.as_pointer())

    def load(self, address: Any, at: Any, shift: int = 0, kind: Any = FLOATS) -> Any:
        """The vector ``shift`` cells after ``at`` bytes."""
        if shift:
            at = self.b.add(at, ir.Constant(INDEX, 4 * shift))
        return self.b.load(self._pointer(address, at, kind), align=4)

    def words(self, address: Any, at: Any, shift: int = 0) -> Any:
        return self.load(address, at, shift, WORDS)

    def store(self, value: Any, address: Any, at: Any, kind: Any = FLOATS, align: int = 4) -> None:
        self.b.store(value, self._pointer(address, at, kind), align=align)

    def spread(self, scalar: Any, lanes: int = LANES) -> Any:
        kind = ir.VectorType(scalar.type, lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        first = ir.Constant(ir.VectorType(WORD, lanes), None)
        vector = self.b.insert_element(undefined, scalar, ir.Constant(WORD, 0))
        return self.b.shuffle_vector(vector, undefined, first)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c, rounded once."""
        kind = a.type
        name = f"llvm.fma.v{kind.count}f{32 if kind.element == FLOAT else 64}"
        function = cgutils.get_or_insert_function(self.b.module, ir.FunctionType(kind, [kind] * 3), name)
        return self.b.call(function, [a, b, c])

    def minus(self, a: Any) -> Any:
        return self.b.fneg(a)

    def total(self, values: list[Any]) -> Any:
        """Sum by halves."""
        while len(values) > 1:
            pairs = [self.b.fadd(*values[q : q + 2]) for q in range(0, len(values) - 1, 2)]
            values = pairs + values[len(values) - len(values) % 2 :]
        return values[0]

    def constant(self, value: int) -> Any:
        return ir.Constant(WORDS, [value] * LANES)

    def high(self, words: Any) -> Any:
        """The bfloat16 in the upper halves, as float32."""
        return self.b.bitcast(self.b.and_(words, self.constant(0xFFFF0000)), FLOATS)

    def low(self, words: Any) -> Any:
        """The bfloat16 in the lower halves."""
        return self.b.bitcast(self.b.shl(words, self.constant(16)), FLOATS)

    def field(self, words: Any, axis: int) -> Any:
        """The weight of an axis, as an integer."""
        shift = (14, 7, 0)[axis]
        if shift:
            words = self.b.lshr(words, self.constant(shift))
        return self.b.and_(words, self.constant(127))

    def kept(self, words: Any) -> Any:
        return self.b.lshr(words, self.constant(21))

    def float_of(self, integers: Any) -> Any:
        return self.b.sitofp(integers, FLOATS)

    def halves(self, vector: Any) -> list[Any]:
        """A float32 vector as two float64 ones."""
        parts = []
        for first in (0, HALF):
            mask = ir.Constant(ir.VectorType(WORD, HALF), list(range(first, first + HALF)))
            part = self.b.shuffle_vector(vector, ir.Constant(FLOATS, ir.Undefined), mask)
            parts.append(self.b.fpext(part, DOUBLES))
        return parts

    def joined(self, parts: list[Any]) -> Any:
        """Two float64 vectors, rounded, as one float32 vector."""
        low, high = (self.b.fptrunc(part, HALF_FLOATS) for part in parts)
        mask = ir.Constant(ir.VectorType(WORD, LANES), list(range(LANES)))
        return self.b.shuffle_vector(low, high, mask)

    def shuffled(self, a: Any, b: Any, lanes: list[int]) -> Any:
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, LANES), lanes))


Body = Callable[[VectorBuilder, Any, list[Any], list[Any]], None]
"""What is done with the vector at some bytes of the rows at addresses, by scalars spread over vectors."""


def row_kernel(name: str, addresses: int, scalars: int, *bodies: Body) -> Any:
    """Intrinsic name(addresses..., float32 scalars..., vectors) that runs a body for each vector of a row.

    With several bodies there is one more argument before ``vectors``: the number of the body.
    """
    modal = len(bodies) > 1
    kinds = [types.int64] * addresses + [types.float32] * scalars + [types.int64] * (1 + modal)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = VectorBuilder(builder)
        pointers, spread = list(arguments[:addresses]), []
        for scalar in arguments[addresses : addresses + scalars]:
            spread.append(v.spread(scalar))
        end = builder.append_basic_block("end")
        if modal:
            switch = builder.switch(arguments[-2], end)
        for number, body in enumerate(bodies):
            if modal:
                block = builder.append_basic_block(f"mode{number}")
                switch.add_case(ir.Constant(INDEX, number), block)
                builder.position_at_end(block)
            with cgutils.for_range(builder, arguments[-1], intp=INDEX) as loop:
                body(v, builder.mul(loop.index, ir.Constant(INDEX, 4 * LANES)), pointers, spread)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return named_intrinsic(name, types.void(*kinds), generate)


def named_intrinsic(name: str, signature: Any, generate: Any) -> Any:
    """An intrinsic of fixed argument types; Numba asks for a function that names each argument."""
    words = ", ".join(f"a{q}" for q in range(len(signature.args)))
    scope: dict[str, Any] = {"signature": signature, "generate": generate}
    exec(f"def {name}(typing_context, {words}):\n    return signature, generate\n", scope)
    return intrinsic(scope[name])


@intrinsic
def address_of(typing_context, array):
    """Address of an array's first element.

    Numba frees an array after the last statement that names it: one made in the kernel needs a `keep` after
    the last use of its address.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, INDEX)

    return types.int64(array), generate


@intrinsic
def keep(typing_context, array):
    """Let an array live up to here."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), generate


@intrinsic
def value_at(typing_context, address):
    """float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], FLOAT.as_pointer()))

    return types.float32(address), generate


@intrinsic
def put_value(typing_context, address, value):
    """Store a float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], FLOAT.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@intrinsic
def never_inlined(typing_context):
    """Keeps the function that calls it one piece of code, however many call it: compilation stays short."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


def indirect_call(arguments: str) -> Any:
    """Intrinsic call(address, arguments...) of a compiled function without result.

    ``arguments`` has an i for each int64 (or address) and an f for each float32.
    """
    kinds = [{"i": types.int64, "f": types.float32}[a] for a in arguments]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [{"i": INDEX, "f": FLOAT}[a] for a in arguments])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return named_intrinsic(f"call_{arguments}", types.void(types.int64, *kinds), generate)
