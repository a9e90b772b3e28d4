"""Threads that share the tiles of a recurrence without a barrier: atomic claims and progress counters.

Task (phase, tile) may run when its neighbours have finished the phase before.  Each thread goes through the
phases in order, in each through its own tiles and then through those that nobody has claimed; it waits only
for tasks that a running thread has claimed, so that any number of threads, one too, comes to the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from consolve.base.jit import FAST
from consolve.learned.separable.matrix_tiles import INDEX, data_of

STRIDE = 16
"""Counters of a tile lie this many int64 apart: no two on one cache line, nor on a pair fetched together."""
_SPINS = 4096
"""Looks at a counter before the processor is offered to others."""


@intrinsic
def _claim(typing_context, counters, at, value):
    """True if counters[at] was `value`; it is value + 1 then."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = data_of(context, builder, signature.args[0], arguments[0])
        one = ir.Constant(INDEX, 1)
        place, new = builder.gep(data, [arguments[1]]), builder.add(arguments[2], one)
        pair = builder.cmpxchg(place, arguments[2], new, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(counters, types.int64, types.int64), generate


@intrinsic
def _load(typing_context, counters, at):
    """counters[at], and all that was written before it was stored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = data_of(context, builder, signature.args[0], arguments[0])
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(counters, types.int64), generate


@intrinsic
def _store(typing_context, counters, at, value):
    """counters[at] = value, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = data_of(context, builder, signature.args[0], arguments[0])
        builder.store_atomic(arguments[2], builder.gep(data, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(counters, types.int64, types.int64), generate


@intrinsic
def _offer_processor(typing_context):
    """POSIX sched_yield."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(**FAST)
def counters(tiles):
    """Counters at 0 of every tile."""
    return np.zeros(tiles * STRIDE, np.int64)


@njit(**FAST)
def tile_of(thread, threads, tiles, i):
    """The i-th tile that a thread looks at: its own first, those at the border to the thread before or after
    last."""
    if thread % 2 == 0:
        return (tiles * thread // threads + i) % tiles
    return (tiles * (thread + 1) // threads - 1 - i) % tiles


@njit(**FAST)
def claim(claimed, finished, phase, tile, tiles, reach):
    """Take the task if nobody has; True when it is this thread's and the neighbours within `reach` are done
    with the phase before."""
    if _load(claimed, tile * STRIDE) != phase or not _claim(claimed, tile * STRIDE, phase):
        return False
    for neighbour in range(max(0, tile - reach), min(tiles, tile + reach + 1)):
        looks = 0
        while _load(finished, neighbour * STRIDE) < phase:
            looks += 1
            if looks > _SPINS:
                _offer_processor()
                looks = 0
    return True


@njit(**FAST)
def finish(finished, phase, tile):
    _store(finished, tile * STRIDE, phase + 1)
