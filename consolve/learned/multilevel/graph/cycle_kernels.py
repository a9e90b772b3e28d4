"""Numba kernels of the cycle on the levels of the graph.

A level is a row of addresses and sizes (``COLUMNS``); its nodes stand in the order of relaxation, by colour.
Nodes of one cell may be joined, and are relaxed one after the other; so the sweep after the correction is the
one before it backwards, node by node, and M is symmetric.

==============  ============================================================  ==========================
kernel          what it does                                                  bytes a node, e edges
==============  ============================================================  ==========================
relax           x += omega (s / d - x),  s = b + sum c x_j                    16 + 8 e
residual        t = b + sum c x_j - d x                                       20 + 8 e
restrict        B = P^T t                                                     8 + 4 ports
prolong         x += P X                                                      12 + 4 ports
==============  ============================================================  ==========================
"""

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, njit, types
from numba.extending import intrinsic

from consolve.base.jit import FAST
from consolve.learned.multilevel.graph import finest_kernels
from consolve.learned.multilevel.graph import node_kernels as rows
from consolve.learned.multilevel.graph.node_kernels import (
    FIRST,
    FRESH,
    FRESH_AND_LEAVE,
    RELAX,
    RELAX_AND_LEAVE,
)

COLUMNS = (
    "nodes", "colours", "joined", "edges", "pointer", "neighbour", "coefficient", "fixed",
    "inverse", "width", "bounds", "parts", "finer", "largest", "weights", "b", "x", "t",
    "child", "child_begin", "size", "weight_begin", "weight", "drained", "flow",
    "opposite", "e", "v",
)  # fmt: skip
"""Of a level's record.  From ``child`` on: transfers from the level above; then vectors of the K-cycle."""
(
    NODES, ENDS, JOINED, EDGES, POINTER, NEIGHBOUR, COEFFICIENT, FIXED, INVERSE, WIDTH, BOUNDS, PARTS, FINER,
    LARGEST, WEIGHTS, B, X, T, CHILD, CHILD_BEGIN, SIZE, WEIGHT_BEGIN, WEIGHT, DRAINED, FLOW, OPPOSITE, E, V,
) = range(len(COLUMNS))  # fmt: skip

SERIAL_NODES = 12_000
"""Levels with fewer nodes run on one thread."""
COLOURS = finest_kernels.COLOURS
ENOUGH = 0.25
"""A K-cycle takes no second step where the first reduces the residual norm to less than this."""


def _pointer(kind):
    @intrinsic
    def pointer(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], ir.PointerType(context.get_data_type(kind)))

        return types.CPointer(kind)(types.int64), generate

    return pointer


_to_double, _to_float = _pointer(types.float64), _pointer(types.float32)
_to_int, _to_index, _to_byte = (_pointer(t) for t in (types.int32, types.uint32, types.uint8))


@njit(inline="always", **FAST)
def floats(address, size):
    """float32 array at an address."""
    return carray(_to_float(address), size)


@njit(inline="always", **FAST)
def doubles(address, size):
    """float64 array at an address."""
    return carray(_to_double(address), size)


@njit(inline="always", **FAST)
def ints(address, size):
    """int32 array at an address."""
    return carray(_to_int(address), size)


@njit(inline="always", **FAST)
def indices(address, size):
    """uint32 array at an address: as an index, an entry needs no check of its sign."""
    return carray(_to_index(address), size)


@njit(inline="always", **FAST)
def bytes_(address, size):
    """uint8 array at an address."""
    return carray(_to_byte(address), size)


@njit(**FAST)
def half_sweep(g, colour, omega, mode, step, threads):
    """x += omega r / d on the nodes of a colour."""
    n, m, parts, width = g[NODES], g[EDGES], g[PARTS], g[WIDTH]
    pointer, neighbour = ints(g[POINTER], n + 1), indices(g[NEIGHBOUR], m)
    coefficient, fixed, inverse = floats(g[COEFFICIENT], m), floats(g[FIXED], n), doubles(g[INVERSE], n)
    b, x, t = doubles(g[B], n), doubles(g[X], n), doubles(g[T], n)
    ends = ints(g[ENDS], COLOURS + 1)
    low, high = ends[colour], ends[colour + 1]
    serial = threads == 1 or n < SERIAL_NODES
    bounds = ints(g[BOUNDS], COLOURS * (parts + 1))[colour * (parts + 1) : (colour + 1) * (parts + 1)]
    if mode == FIRST and serial:
        rows.begin(inverse, b, x, omega, low, high)
    elif mode == FIRST:
        rows.begin_parts(inverse, b, x, omega, bounds, parts)
    elif serial:
        rows.relax(
            width, pointer, neighbour, coefficient, fixed, inverse, b, x, t, omega, mode, step, low, high
        )
    else:
        rows.relax_parts(
            width, pointer, neighbour, coefficient, fixed, inverse, b, x, t, omega, mode, step, bounds, parts
        )


@njit(**FAST)
def residual(g, threads, high):
    """t = b - A x on nodes up to ``high``."""
    n, m, width = g[NODES], g[EDGES], g[WIDTH]
    pointer, neighbour = ints(g[POINTER], n + 1), indices(g[NEIGHBOUR], m)
    coefficient, fixed = floats(g[COEFFICIENT], m), floats(g[FIXED], n)
    b, x, t = doubles(g[B], n), doubles(g[X], n), doubles(g[T], n)
    if threads == 1 or n < SERIAL_NODES:
        rows.residual(width, pointer, neighbour, coefficient, fixed, b, x, t, 0, high)
    else:
        rows.residual_parts(width, pointer, neighbour, coefficient, fixed, b, x, t, high, g[PARTS])


@njit(**FAST)
def transfer(g, c, up, threads):
    """Coarse b = P^T t, or where ``up`` is true, x += P of the coarse x."""
    n, u, m, k = g[NODES], c[NODES], c[EDGES], c[FINER]
    child, child_begin, size = indices(c[CHILD], k), ints(c[CHILD_BEGIN], u), ints(c[SIZE], u)
    weight_begin, weight = ints(c[WEIGHT_BEGIN], u + 1), floats(c[WEIGHT], c[WEIGHTS])
    drained, flow, pointer = bytes_(c[DRAINED], u), doubles(c[FLOW], m), ints(c[POINTER], u + 1)
    serial = threads == 1 or u < SERIAL_NODES // 4
    largest, parts = c[LARGEST], g[PARTS]
    if up:
        neighbour, coarse, x = indices(c[NEIGHBOUR], m), doubles(c[X], u), doubles(g[X], n)
        if serial:
            rows.prolong(
                child, child_begin, size, weight_begin, weight, drained, pointer, neighbour, coarse, x,
                largest, 0, u,
            )  # fmt: skip
        else:
            rows.prolong_parts(
                child, child_begin, size, weight_begin, weight, drained, pointer, neighbour, coarse, x,
                largest, u, parts,
            )  # fmt: skip
        return
    t, b, opposite = doubles(g[T], n), doubles(c[B], u), indices(c[OPPOSITE], m)
    if serial:
        rows.collect(
            child, child_begin, size, weight_begin, weight, drained, pointer, t, flow, b, largest, 0, u
        )
        rows.receive(pointer, opposite, flow, b, 0, u)
    else:
        rows.collect_parts(
            child, child_begin, size, weight_begin, weight, drained, pointer, t, flow, b, largest, u, parts
        )
        rows.receive_parts(pointer, opposite, flow, b, u, parts)


@njit(**FAST)
def _dot(x, y):
    s = 0.0
    for i in range(x.size):
        s += x[i] * y[i]
    return s


@njit(**FAST)
def _product(g, threads):
    """t = A x."""
    n = g[NODES]
    t, b = doubles(g[T], n), doubles(g[B], n)
    residual(g, threads, n)
    for i in range(n):
        t[i] = b[i] - t[i]
    return t


@njit(**FAST)
def _solve(factors, b, x):
    """L D L^T x = b, rows permuted; see `coarsest.factorise`."""
    place, begin, row, value, pivot = factors
    n = b.size
    y = np.empty(n)
    for i in range(n):
        y[place[i]] = b[i]
    for j in range(n):
        for e in range(begin[j], begin[j + 1]):
            y[row[e]] -= value[e] * y[j]
    for j in range(n - 1, -1, -1):
        s = y[j] / pivot[j]
        for e in range(begin[j], begin[j + 1]):
            s -= value[e] * y[row[e]]
        y[j] = s
    for i in range(n):
        x[i] = y[place[i]]


@njit(**FAST)
def _scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@njit(**FAST)
def _first_step(g, z, r, e, v, threads):
    """e = z, v = A z, r -= (e, r) / (e, v) v; returns (e, v), (e, r), and the squared norm of r before and
    after; 0 after where v is no direction."""
    t = _product(g, threads)
    ev, er, before, after = 0.0, 0.0, 0.0, 0.0
    for i in range(z.size):
        e[i], v[i] = z[i], t[i]
        ev += e[i] * v[i]
        er += e[i] * r[i]
        before += r[i] * r[i]
    if ev > 0:
        factor = er / ev
        for i in range(z.size):
            r[i] -= factor * v[i]
            after += r[i] * r[i]
    return ev, er, before, after


@njit(**FAST)
def _combine(g, z, r, e, v, ev, er, threads):
    """z = best combination of e, the first correction, and z, the second."""
    t = _product(g, threads)
    gamma, zq, zr = _dot(z, v), _dot(z, t), _dot(z, r)
    beta = zq - gamma * gamma / ev
    second = zr / beta if beta > 0 else 0.0
    first = (er - gamma * second) / ev
    for i in range(z.size):
        z[i] = first * e[i] + second * z[i]


@njit(
    types.void(
        types.int64[:, ::1], types.float64[:, :, ::1],
        types.Tuple((*[types.int32[::1]] * 3, *[types.float64[::1]] * 2)),
        types.int64, types.int64, types.int64, types.int64,
    ),
    **FAST,
)  # fmt: skip
def cycle(records, omega, factors, level, first, last, threads):
    """x = M b on a level.

    Parameters
    ----------
    records
        One a level, finest first; see COLUMNS.
    omega
        Relaxation factors (classes, sweeps, 2); levels beyond take the last class.
    factors
        Of the coarsest level's operator, see `coarsest.factorise`.
    level
        Where to begin.
    first, last
        Levels first <= l < last are solved by two steps of flexible conjugate gradients each time (K-cycle),
        which makes M nonlinear; others by one cycle.
    """
    g, bottom = records[level], records.shape[0] - 1
    n = g[NODES]
    b, x = doubles(g[B], n), doubles(g[X], n)
    if level == bottom:
        _solve(factors, b, x)
        return
    c = records[level + 1]
    w = omega[min(level, omega.shape[0] - 1)]
    sweeps, joined, ends = w.shape[0], g[JOINED], ints(g[ENDS], COLOURS + 1)
    colours = COLOURS if ends[2] < n else 2
    if joined:
        x[:] = 0
    for s in range(sweeps):
        is_last = s == sweeps - 1
        if joined or s > 0:
            red, black = RELAX, RELAX_AND_LEAVE if is_last and not joined else RELAX
        else:
            red, black = FIRST, FRESH_AND_LEAVE if is_last else FRESH
        half_sweep(g, 0, w[s, 0], red, 1, threads)
        half_sweep(g, 1, w[s, 1], black, 1, threads)
        for colour in range(2, colours):
            half_sweep(g, colour, w[s, 1], RELAX, 1, threads)
    residual(g, threads, n if joined else ends[1])
    transfer(g, c, False, threads)
    cycle(records, omega, factors, level + 1, first, last, threads)
    if first <= level + 1 < min(last, bottom):
        u = c[NODES]
        z, r, e, v = doubles(c[X], u), doubles(c[B], u), doubles(c[E], u), doubles(c[V], u)
        ev, er, before, after = _first_step(c, z, r, e, v, threads)
        if after > ENOUGH**2 * before:
            cycle(records, omega, factors, level + 1, first, last, threads)
            _combine(c, z, r, e, v, ev, er, threads)
        elif ev > 0:
            _scale(z, er / ev)
    transfer(g, c, True, threads)
    for s in range(sweeps - 1, -1, -1):
        for colour in range(colours - 1, 1, -1):
            half_sweep(g, colour, w[s, 1], RELAX, -1, threads)
        half_sweep(g, 1, w[s, 1], RELAX, -1, threads)
        half_sweep(g, 0, w[s, 0], RELAX, -1, threads)
