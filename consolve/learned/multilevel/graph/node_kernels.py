"""Numba kernels on the nodes and unknowns of a level: relaxation, residual, transfers.

Each works on nodes low <= i < high, and has a twin for several threads.
"""

from numba import njit, prange, types

from consolve.base.jit import FAST

FIRST, FRESH, RELAX, FRESH_AND_LEAVE, RELAX_AND_LEAVE = range(5)
"""Modes of a half-sweep: all of x counts as 0; that of its nodes does; neither.  The last two put the
residual that remains at its nodes into t."""
LEAVE = FRESH_AND_LEAVE


@njit(inline="always", **FAST)
def _flow(width, pointer, neighbour, coefficient, x, own, i):
    """sum of c_ij (x_j - own) over the edges of node i, of which there are ``width``, or as the pointer says
    where that is 0."""
    if width == 6:
        e = 6 * i
        return (
            (coefficient[e] * (x[neighbour[e]] - own) + coefficient[e + 1] * (x[neighbour[e + 1]] - own))
            + (
                coefficient[e + 2] * (x[neighbour[e + 2]] - own)
                + coefficient[e + 3] * (x[neighbour[e + 3]] - own)
            )
            + (
                coefficient[e + 4] * (x[neighbour[e + 4]] - own)
                + coefficient[e + 5] * (x[neighbour[e + 5]] - own)
            )
        )
    if width == 4:
        e = 4 * i
        return (
            coefficient[e] * (x[neighbour[e]] - own) + coefficient[e + 1] * (x[neighbour[e + 1]] - own)
        ) + (
            coefficient[e + 2] * (x[neighbour[e + 2]] - own)
            + coefficient[e + 3] * (x[neighbour[e + 3]] - own)
        )
    s = 0.0
    for e in range(pointer[i], pointer[i + 1]):
        s += coefficient[e] * (x[neighbour[e]] - own)
    return s


@njit(**FAST)
def relax(width, pointer, neighbour, coefficient, fixed, inverse, b, x, t, omega, mode, step, low, high):
    """One half-sweep over nodes low <= i < high, backwards where ``step`` is -1; see FIRST to LEAVE."""
    begin = low if step > 0 else high - 1
    for m in range(high - low):
        i = begin + step * m
        old = 0.0 if mode == FRESH or mode == FRESH_AND_LEAVE else x[i]
        r = b[i] - fixed[i] * old + _flow(width, pointer, neighbour, coefficient, x, old, i)
        x[i] = old + omega * inverse[i] * r
        if mode >= LEAVE:
            t[i] = (1 - omega) * r


@njit(parallel=True, **FAST)
def relax_parts(
    width, pointer, neighbour, coefficient, fixed, inverse, b, x, t, omega, mode, step, bounds, parts
):
    for q in prange(parts):
        relax(
            width, pointer, neighbour, coefficient, fixed, inverse, b, x, t, omega, mode, step, bounds[q],
            bounds[q + 1],
        )  # fmt: skip


@njit(**FAST)
def begin(inverse, b, x, omega, low, high):
    """``relax`` where all of x counts as 0."""
    for i in range(low, high):
        x[i] = omega * inverse[i] * b[i]


_REAL = types.float64[::1]


# With its types given it is loaded on import, and Numba's threads before `cycle_kernels.cycle` needs them.
@njit(types.void(_REAL, _REAL, _REAL, types.float64, types.int32[::1], types.int64), parallel=True, **FAST)
def begin_parts(inverse, b, x, omega, bounds, parts):
    for q in prange(parts):
        begin(inverse, b, x, omega, bounds[q], bounds[q + 1])


@njit(**FAST)
def residual(width, pointer, neighbour, coefficient, fixed, b, x, t, low, high):
    for i in range(low, high):
        t[i] = b[i] - fixed[i] * x[i] + _flow(width, pointer, neighbour, coefficient, x, x[i], i)


@njit(parallel=True, **FAST)
def residual_parts(width, pointer, neighbour, coefficient, fixed, b, x, t, high, parts):
    for q in prange(parts):
        begin, end = high * q // parts, high * (q + 1) // parts
        residual(width, pointer, neighbour, coefficient, fixed, b, x, t, begin, end)


@njit(**FAST)
def collect(child, child_begin, size, weight_begin, weight, drained, pointer, t, flow, sums, low, high):
    """Own part of P^T t, and what each port takes away of it for its neighbour."""
    for u in range(low, high):
        begin, end, at = pointer[u], pointer[u + 1], weight_begin[u]
        for p in range(begin, end):
            flow[p] = 0
        total = 0.0
        for q in range(child_begin[u], child_begin[u] + size[u]):
            value = t[child[q]]
            total += value
            for p in range(begin, end):
                flow[p] += weight[at] * value
                at += 1
            if drained[u]:
                total -= weight[at] * value
                at += 1
        for p in range(begin, end):
            total -= flow[p]
        sums[u] = total


@njit(parallel=True, **FAST)
def collect_parts(
    child, child_begin, size, weight_begin, weight, drained, pointer, t, flow, sums, nodes, parts
):
    for q in prange(parts):
        low, high = nodes * q // parts, nodes * (q + 1) // parts
        collect(child, child_begin, size, weight_begin, weight, drained, pointer, t, flow, sums, low, high)


@njit(**FAST)
def receive(pointer, opposite, flow, sums, low, high):
    """Add what the ports of the neighbours give."""
    for u in range(low, high):
        total = sums[u]
        for p in range(pointer[u], pointer[u + 1]):
            total += flow[opposite[p]]
        sums[u] = total


@njit(parallel=True, **FAST)
def receive_parts(pointer, opposite, flow, sums, nodes, parts):
    for q in prange(parts):
        receive(pointer, opposite, flow, sums, nodes * q // parts, nodes * (q + 1) // parts)


@njit(**FAST)
def prolong(
    child, child_begin, size, weight_begin, weight, drained, pointer, neighbour, flow, coarse, x, low, high
):
    for u in range(low, high):
        begin, end, at = pointer[u], pointer[u + 1], weight_begin[u]
        own = coarse[u]
        for p in range(begin, end):
            flow[p] = coarse[neighbour[p]] - own
        for q in range(child_begin[u], child_begin[u] + size[u]):
            value = own
            for p in range(begin, end):
                value += weight[at] * flow[p]
                at += 1
            if drained[u]:
                value -= weight[at] * own
                at += 1
            x[child[q]] += value


@njit(parallel=True, **FAST)
def prolong_parts(
    child, child_begin, size, weight_begin, weight, drained, pointer, neighbour, flow, coarse, x, nodes, parts
):
    for q in prange(parts):
        low, high = nodes * q // parts, nodes * (q + 1) // parts
        prolong(
            child,
            child_begin,
            size,
            weight_begin,
            weight,
            drained,
            pointer,
            neighbour,
            flow,
            coarse,
            x,
            low,
            high,
        )
