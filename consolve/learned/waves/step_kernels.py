"""Numba kernels of the propagator: all layers and all steps of a rollout in one compiled call.

Buffers
-------
One flat float32 array, the state, holds images of ny/f x nx/f points in a frame of zeros: the hidden field
twice (a dense layer reads one and writes the other), the terms of a compressed layer twice (of the present
and of the next layer), and a ring of past + ahead unshuffled snapshots.  A step copies no snapshot: the taps
of the first layer point into the ring, the last layer writes into it.

Order
-----
Tiles are blocks of rows.  The task of (layer, tile) applies the convolution with gate and residual, and,
where the next layer is compressed, that layer's first product, which needs the tile's own points only.  So a
compressed layer waits for its neighbours once.
"""

import numpy as np
from numba import njit, prange

from consolve.base.jit import FAST
from consolve.base.vector_instructions import never_inlined
from consolve.learned.separable.kernels import filter_rows
from consolve.learned.separable.matrix_tiles import ADDED, GATED, multiply
from consolve.learned.separable.tile_schedule import claim, counters, finish, tile_of

(
    COMPRESSED, DEPTH, TAPS, FIRST, INPUT_WEIGHTS, RANK, RANK_VECTORS, FILTERS, TAPS_Y, TAPS_X,
    OUTPUT_WEIGHTS, OUTPUT_VECTORS, SNAPSHOT_WEIGHTS, GATE, SOURCE, TARGET, LAYER_COLUMNS,
) = range(17)  # fmt: skip
"""Columns of the table of layers."""
(
    LAYERS, PAST, AHEAD, FACTOR, HEIGHT, WIDTH, FRAME_Y, FRAME_X, HIDDEN_PITCH, TERM_PITCH, SNAPSHOT_PITCH,
    HIDDEN_0, HIDDEN_1, TERMS_0, TERMS_1, RING, SLOT, TILE_ROWS, TILES, REACH, STATE, SCRATCH, SIZE_COLUMNS,
) = range(23)  # fmt: skip
"""Places in the array of sizes."""


@njit(inline="always", **FAST)
def _point(sizes, pitch, y):
    """Element of the first point of row y of a framed image."""
    return ((y + sizes[FRAME_Y]) * (sizes[WIDTH] + 2 * sizes[FRAME_X]) + sizes[FRAME_X]) * pitch


@njit(inline="always", **FAST)
def _newest(sizes, step):
    """Slot of the newest snapshot before a step."""
    return (sizes[PAST] - 1 + step * sizes[AHEAD]) % (sizes[PAST] + sizes[AHEAD])


@njit(inline="always", **FAST)
def _input_product(
    layer, step, y, rows, sizes, table, offsets, weights, w_at, vectors, state, out, out_at, out_pitch,
    out_row, gate, gate_at, base, base_at, base_pitch, base_row, mode,
):  # fmt: skip
    """The product that reads the layer's input: with B, or with the dense kernel."""
    columns = sizes[WIDTH] + 2 * sizes[FRAME_X]
    pitch, source = sizes[HIDDEN_PITCH], sizes[HIDDEN_0 + table[layer, SOURCE]]
    first, taps = table[layer, FIRST], table[layer, TAPS]
    if layer == 0:
        pitch, source = sizes[SNAPSHOT_PITCH], sizes[RING]
        first += taps * _newest(sizes, step)
    multiply(
        state, source + _point(sizes, pitch, y), pitch, pitch * columns, offsets, first, taps,
        table[layer, DEPTH], weights, w_at, out, out_at, out_pitch, out_row, gate, gate_at, base, base_at,
        base_pitch, base_row, mode, rows, sizes[WIDTH], vectors,
    )  # fmt: skip


@njit(inline="always", **FAST)
def _enter(layer, step, y, rows, sizes, table, offsets, weights, state):
    """The terms of a compressed layer in rows y to y + rows."""
    if table[layer, COMPRESSED] == 0:
        return
    pitch = sizes[TERM_PITCH]
    at = sizes[TERMS_0 + layer_parity(sizes, layer, step)] + _point(sizes, pitch, y)
    _input_product(
        layer, step, y, rows, sizes, table, offsets, weights, table[layer, INPUT_WEIGHTS],
        table[layer, RANK_VECTORS], state, state, at, pitch, pitch * (sizes[WIDTH] + 2 * sizes[FRAME_X]),
        state, 0, state, 0, 0, 0, 0,
    )  # fmt: skip


@njit(inline="always", **FAST)
def layer_parity(sizes, layer, step):
    """Which of the two buffers holds the terms of a layer."""
    return (step * sizes[LAYERS] + layer) % 2


@njit(inline="always", **FAST)
def _output_product(
    layer, step, y, rows, snapshot, sizes, table, offsets, weights, state, scratch, out_at, out_pitch, gates,
    base_at, mode,
):  # fmt: skip
    """Gate, residual and the product that writes the layer's output."""
    row = out_pitch * (sizes[WIDTH] + 2 * sizes[FRAME_X])
    gate_at, vectors = table[layer, GATE] + _point(sizes, out_pitch, y), table[layer, OUTPUT_VECTORS]
    shift = snapshot * table[layer, SNAPSHOT_WEIGHTS]
    if table[layer, COMPRESSED] == 0:
        _input_product(
            layer, step, y, rows, sizes, table, offsets, weights, table[layer, INPUT_WEIGHTS] + shift,
            vectors, state, state, out_at, out_pitch, row, gates, gate_at, state, base_at, out_pitch, row,
            mode,
        )  # fmt: skip
        return
    pitch, width = sizes[TERM_PITCH], sizes[WIDTH]
    multiply(
        scratch, 0, pitch, pitch * width, offsets, 0, 1, table[layer, RANK], weights,
        table[layer, OUTPUT_WEIGHTS] + shift, state, out_at, out_pitch, row, gates, gate_at, state, base_at,
        out_pitch, row, mode, rows, width, vectors,
    )  # fmt: skip


@njit(inline="always", **FAST)
def _layer(layer, step, y, rows, sizes, table, offsets, weights, gates, state, scratch):
    """One layer in rows y to y + rows."""
    if table[layer, COMPRESSED] == 1:
        pitch = sizes[TERM_PITCH]
        columns = sizes[WIDTH] + 2 * sizes[FRAME_X]
        terms = sizes[TERMS_0 + layer_parity(sizes, layer, step)] + _point(sizes, pitch, y)
        column = rows * sizes[WIDTH] * pitch
        filter_rows(
            state, terms, pitch, pitch * columns, weights, table[layer, FILTERS], table[layer, TAPS_Y],
            table[layer, TAPS_X], scratch, pitch, scratch[column:], rows, sizes[WIDTH], table[layer,
            RANK_VECTORS],
        )  # fmt: skip
    if layer < sizes[LAYERS] - 1:
        pitch = sizes[HIDDEN_PITCH]
        point = _point(sizes, pitch, y)
        _output_product(
            layer, step, y, rows, 0, sizes, table, offsets, weights, state, scratch,
            sizes[HIDDEN_0 + table[layer, TARGET]] + point, pitch, gates,
            sizes[HIDDEN_0 + table[layer, SOURCE]] + point, GATED if layer == 0 else GATED | ADDED,
        )  # fmt: skip
        return
    pitch, slots = sizes[SNAPSHOT_PITCH], sizes[PAST] + sizes[AHEAD]
    point, newest = sizes[RING] + _point(sizes, pitch, y), _newest(sizes, step)
    for snapshot in range(sizes[AHEAD]):
        slot = (newest + 1 + snapshot) % slots
        _output_product(
            layer, step, y, rows, snapshot, sizes, table, offsets, weights, state, scratch,
            point + slot * sizes[SLOT], pitch, gates, point + newest * sizes[SLOT], GATED | ADDED,
        )  # fmt: skip


@njit(**FAST)
def _unshuffle(u, sizes, state):
    """The first snapshots (past, ny, nx) into the ring."""
    f, pitch = sizes[FACTOR], sizes[SNAPSHOT_PITCH]
    for slot in range(sizes[PAST]):
        for y in range(sizes[HEIGHT]):
            at = sizes[RING] + slot * sizes[SLOT] + _point(sizes, pitch, y)
            for dy in range(f):
                line = u[slot, y * f + dy]
                for x in range(sizes[WIDTH]):
                    for dx in range(f):
                        state[at + x * pitch + dy * f + dx] = line[x * f + dx]


@njit(**FAST)
def _shuffle_rows(u, sizes, state, slot, first, rows):
    """Rows of a slot of the ring into a snapshot (ny, nx)."""
    f, pitch = sizes[FACTOR], sizes[SNAPSHOT_PITCH]
    for y in range(first, first + rows):
        at = sizes[RING] + slot * sizes[SLOT] + _point(sizes, pitch, y)
        for dy in range(f):
            line = u[y * f + dy]
            for x in range(sizes[WIDTH]):
                for dx in range(f):
                    line[x * f + dx] = state[at + x * pitch + dy * f + dx]


@njit(**FAST)
def _task(phase, tile, sizes, table, offsets, weights, gates, state, scratch, out):
    """Phase 0: the terms of the first layer; then layer (phase - 1) mod L, and the terms of the next."""
    never_inlined()
    y = tile * sizes[TILE_ROWS]
    rows = min(sizes[TILE_ROWS], sizes[HEIGHT] - y)
    if phase == 0:
        _enter(0, 0, y, rows, sizes, table, offsets, weights, state)
        return
    step, layer = (phase - 1) // sizes[LAYERS], (phase - 1) % sizes[LAYERS]
    _layer(layer, step, y, rows, sizes, table, offsets, weights, gates, state, scratch)
    if layer < sizes[LAYERS] - 1:
        _enter(layer + 1, step, y, rows, sizes, table, offsets, weights, state)
        return
    slots, ahead = sizes[PAST] + sizes[AHEAD], sizes[AHEAD]
    for k in range(min(ahead, out.shape[0] - step * ahead)):
        slot = (_newest(sizes, step) + 1 + k) % slots
        _shuffle_rows(out[step * ahead + k], sizes, state, slot, y, rows)
    if (step + 1) * ahead < out.shape[0]:
        _enter(0, step + 1, y, rows, sizes, table, offsets, weights, state)


@njit(**FAST)
def _phases(sizes, snapshots):
    return 1 + sizes[LAYERS] * ((snapshots + sizes[AHEAD] - 1) // sizes[AHEAD])


@njit(**FAST)
def rollout_share(
    thread, threads, together, u, sizes, table, offsets, weights, gates, states, scratch, out, claimed,
    finished,
):  # fmt: skip
    """What one thread does: every threads-th rollout of a batch, or its share of the tiles of one."""
    never_inlined()
    tiles, phases = sizes[TILES], _phases(sizes, out.shape[1])
    if together:
        for phase in range(phases):
            for i in range(tiles):
                tile = tile_of(thread, threads, tiles, i)
                if claim(claimed, finished, phase, tile, tiles, sizes[REACH]):
                    _task(
                        phase, tile, sizes, table, offsets, weights, gates, states[0], scratch[thread], out[0]
                    )
                    finish(finished, phase, tile)
        return
    for sample in range(thread, u.shape[0], threads):
        _unshuffle(u[sample], sizes, states[thread])
        for phase in range(phases):
            for tile in range(tiles):
                _task(
                    phase, tile, sizes, table, offsets, weights, gates, states[thread], scratch[thread],
                    out[sample],
                )  # fmt: skip


@njit(parallel=True, **FAST)
def rollout(u, sizes, table, offsets, weights, gates, states, scratch, out, threads):
    """out (batch, steps, ny, nx) from the snapshots u (batch, past, ny, nx).

    Several threads share the tiles of a single rollout, or the rollouts of a batch; each has its row of
    ``states`` and ``scratch``.  One thread calls `rollout_share` itself: a parallel region takes longer to
    compile, and waits for all threads.
    """
    together = u.shape[0] == 1
    claimed, finished = counters(sizes[TILES]), counters(sizes[TILES])
    if together:
        _unshuffle(u[0], sizes, states[0])
    for thread in prange(threads):
        rollout_share(
            np.int64(thread), threads, together, u, sizes, table, offsets, weights, gates, states, scratch,
            out, claimed, finished,
        )  # fmt: skip
