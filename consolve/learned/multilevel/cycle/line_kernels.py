"""Numba kernels of lines: half-sweeps, transfers, products and updates of the V-cycle.

Layout
------
A level of n0 x n1 x n2 cells is stored as arrays (2, rows, width) of four bytes a cell: red and black cells
apart, so that every load and store of a half-sweep is contiguous.  Cell (i, j, k) has colour
``c = (i + j + k) % 2`` and stands at ``[c, (i + pad) * (n1 + 2) + j + 1, k // 2 + 1]``, where pad is 1 for a
level of several layers and 0 for one of a single layer (a 2D grid); the frame of one row and one column is
zero, and rows are padded to whole vectors (see row_vectors).  Neighbours along the first two axes have the
same last index in the other colour, those along the last axis the same and the next or previous one.  Cells
that are not active keep x = 0, so on a packed level (every open coefficient is 1) the diagonal alone tells
them.

A level is described by one row of integers, its *record*: see the columns below.

Each kernel is compiled once and called by its address, which stands in the record: Numba would else compile
all of it again into each of its callers, and take ten times as long.
"""

from __future__ import annotations

from functools import cache
from threading import Lock

from numba import cfunc, njit, types
from numba.core.ccallback import CFunc

from consolve.base import vector_instructions as vi
from consolve.base.jit import FAST, collector_rests
from consolve.learned.multilevel.cycle import row_vectors as rv

COLUMNS = (
    "n0", "n1", "n2", "rows", "width", "packed",
    "x", "b", "residual", "smoother", "diagonal", "own", "prolong0", "prolong1", "prolong2",
    "face0", "face1", "face2", "relax", "moves", "s",
    "sweep_lines", "restrict_lines", "join_lines", "prolong_lines", "product_lines", "advance_lines",
)  # fmt: skip
"""Of a record: sizes, whether the level is packed, the address of cell [0, 0, 1] of each array, and that of
each kernel."""
(
    N0, N1, N2, ROWS, WIDTH, PACKED, X, B, T, SMOOTHER, DIAGONAL, OWN, P0, P1, P2, F0, F1, F2, WORDS, MOVES,
    S, SWEEP, RESTRICT, JOIN, PROLONG, PRODUCT, ADVANCE,
) = range(len(COLUMNS))  # fmt: skip

_RECORD, _INT, _F32 = types.CPointer(types.int64), types.int64, types.float32


def _sweep_lines(g, i, low, high, c, mode, alpha):
    """A half-sweep of the cells of colour c on lines low <= j < high of layer i.

    Modes as in row_vectors: x_c += alpha w (b - A x)_c, and / or t_c = (b - A x)_c.
    """
    deep = g[N0] > 1
    line, layer, colour = 4 * g[WIDTH], 4 * g[WIDTH] * (g[N1] + 2), 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    o = 1 - c
    for j in range(low, high):
        at = ((i + 1 if deep else i) * (g[N1] + 2) + j + 1) * line
        own, other = at + c * colour, at + o * colour
        beside = other + (4 if (i + j + c) % 2 == 1 else -4)
        x, b, t, same = g[X] + own, g[B] + own, g[T] + own, g[X] + other
        if g[PACKED]:
            k = g[WORDS] + own
            if deep:
                rv.packed_half_sweep_3d(
                    x, b, t, k, same, g[X] + beside, same + line, same - line, same + layer, same - layer,
                    alpha, mode, vectors,
                )  # fmt: skip
            else:
                rv.packed_half_sweep_2d(
                    x, b, t, k, same, g[X] + beside, same + line, same - line, same, same, alpha, mode,
                    vectors,
                )  # fmt: skip
        else:
            w, d = g[SMOOTHER] + own, g[DIAGONAL] + own
            if (i + j + c) % 2 == 1:  # k = 2h + 1: the lower neighbour stands at h, the upper one at h + 1
                lower, upper = other, beside
            else:
                lower, upper = beside, other
            up, down = g[F1] + own, g[F1] + other - line
            if deep:
                rv.variable_half_sweep_3d(
                    x, b, t, w, d, g[X] + lower, g[X] + upper, same + line, same - line, same + layer,
                    same - layer, g[F2] + lower, g[F2] + own, up, down, g[F0] + own, g[F0] + other - layer,
                    alpha, mode, vectors,
                )  # fmt: skip
            else:
                rv.variable_half_sweep_2d(
                    x, b, t, w, d, g[X] + lower, g[X] + upper, same + line, same - line, same, same,
                    g[F2] + lower, g[F2] + own, up, down, up, up, alpha, mode, vectors,
                )  # fmt: skip


def _restrict_lines(g, coarse, unit, ci, low, high, total):
    """b_coarse = P^T t on coarse lines low <= J < high of coarse layer ci.

    ``total`` is the address of a row of the coarse level in natural order, for intermediate sums.
    """
    n0, n1 = g[N0], g[N1]
    deep = n0 > 1
    line, colour = 4 * g[WIDTH], 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    coarse_vectors = rv.vectors_of(coarse[N2])
    first, last = (2 * ci, min(n0, 2 * ci + 2)) if deep else (ci, ci + 1)
    for cj in range(low, high):
        rv.clear(total, 2 * coarse_vectors)
        for i in range(first - 1 if deep else first, last + 1 if deep else last):
            if i < 0 or i >= n0:
                continue
            inside0 = first <= i < last
            for j in range(2 * cj - 1, 2 * cj + 3):
                inside1 = 2 * cj <= j < 2 * cj + 2
                if j < 0 or j >= n1 or not (inside0 or inside1):
                    continue
                at = ((i + 1 if deep else i) * (n1 + 2) + j + 1) * line
                even = at + colour if (i + j) % 2 == 1 else at  # cells k = 2h: their outward block is h - 1
                odd = at if (i + j) % 2 == 1 else at + colour
                t0, t1 = g[T] + even, g[T] + odd
                if g[PACKED]:
                    m0, m1 = g[MOVES] + even, g[MOVES] + odd
                    if inside0 and inside1:
                        rv.packed_inside(total, t0, t1, m0, m1, unit, vectors)
                    elif inside0:
                        rv.packed_outside_1(total, t0, t1, m0, m1, unit, vectors)
                    else:
                        rv.packed_outside_0(total, t0, t1, m0, m1, unit, vectors)
                elif inside0 and inside1:
                    rv.variable_inside(
                        total, t0, t1, g[OWN] + even, g[OWN] + odd, g[P2] + even, g[P2] + odd, vectors
                    )
                else:
                    p = g[P1] if inside0 else g[P0]
                    rv.variable_outside(total, t0, t1, p + even, p + odd, vectors)
        at = ((ci + 1 if coarse[N0] > 1 else ci) * (coarse[N1] + 2) + cj + 1) * 4 * coarse[WIDTH]
        colour_c = 4 * coarse[WIDTH] * coarse[ROWS]
        swap = (ci + cj) % 2
        rv.split(
            total, coarse[B] + at + swap * colour_c, coarse[B] + at + (1 - swap) * colour_c, coarse_vectors
        )


def _join_lines(g, natural, start, stop):
    """x of lines start <= i * n1 + j < stop in natural order, at ``natural``: the address of cell [0, 1] of
    rows of natural_width(width) values."""
    vectors = rv.vectors_of(g[N2])
    for line in range(start, stop):
        i, j = line // g[N1], line % g[N1]
        r = (i + 1 if g[N0] > 1 else i) * (g[N1] + 2) + j + 1
        at, swap = g[X] + 4 * g[WIDTH] * r, (i + j) % 2
        colour = 4 * g[WIDTH] * g[ROWS]
        target = natural + 4 * rv.natural_width(g[WIDTH]) * r
        rv.join(target, at + swap * colour, at + (1 - swap) * colour, vectors)


def _prolong_lines(g, coarse, unit, natural, i, low, high):
    """x += P x_coarse on lines low <= j < high of layer i; ``natural`` as join_lines has left it."""
    deep = g[N0] > 1
    line, colour = 4 * g[WIDTH], 4 * g[WIDTH] * g[ROWS]
    coarse_line = 4 * rv.natural_width(coarse[WIDTH])
    coarse_layer = coarse_line * (coarse[N1] + 2)
    vectors = rv.vectors_of(g[N2])
    ci = i // 2 if deep else i
    for j in range(low, high):
        at = ((i + 1 if deep else i) * (g[N1] + 2) + j + 1) * line
        even = at + colour if (i + j) % 2 == 1 else at
        odd = at if (i + j) % 2 == 1 else at + colour
        centre = natural + ((ci + 1 if coarse[N0] > 1 else ci) * (coarse[N1] + 2) + j // 2 + 1) * coarse_line
        near0 = centre + (coarse_layer if i % 2 == 1 else -coarse_layer) if coarse[N0] > 1 else centre
        near1 = centre + (coarse_line if j % 2 == 1 else -coarse_line)
        x0, x1 = g[X] + even, g[X] + odd
        if g[PACKED]:
            m0, m1 = g[MOVES] + even, g[MOVES] + odd
            if deep:
                rv.packed_prolongation_3d(x0, x1, m0, m1, centre, near0, near1, unit, vectors)
            else:
                rv.packed_prolongation_2d(x0, x1, m0, m1, centre, near0, near1, unit, vectors)
        else:
            a0, a1, a2, a3 = g[OWN] + even, g[P0] + even, g[P1] + even, g[P2] + even
            b0, b1, b2, b3 = g[OWN] + odd, g[P0] + odd, g[P1] + odd, g[P2] + odd
            if deep:
                rv.variable_prolongation_3d(
                    x0, x1, a0, a1, a2, a3, b0, b1, b2, b3, centre, near0, near1, vectors
                )
            else:
                rv.variable_prolongation_2d(
                    x0, x1, a0, a2, a2, a3, b0, b2, b2, b3, centre, near1, near1, vectors
                )


def _product_lines(g, i, low, high, sums):
    """w = A x (stored over the residual) on lines of layer i of a packed level, and its scalar products."""
    deep = g[N0] > 1
    line, layer, colour = 4 * g[WIDTH], 4 * g[WIDTH] * (g[N1] + 2), 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    for j in range(low, high):
        at = ((i + 1 if deep else i) * (g[N1] + 2) + j + 1) * line
        for c in range(2):
            own, same = at + c * colour, g[X] + at + (1 - c) * colour
            beside = same + (4 if (i + j + c) % 2 == 1 else -4)
            z, w, r, s, k = g[X] + own, g[T] + own, g[B] + own, g[S] + own, g[WORDS] + own
            if deep:
                rv.product_3d(
                    z, w, r, s, k, same, beside, same + line, same - line, same + layer, same - layer, sums,
                    vectors,
                )  # fmt: skip
            else:
                rv.product_2d(
                    z, w, r, s, k, same, beside, same + line, same - line, same, same, sums, vectors
                )


def _advance_lines(g, i, low, high, alpha, beta):
    """s = w + beta s, r -= alpha s on lines of layer i."""
    line, colour = 4 * g[WIDTH], 4 * g[WIDTH] * g[ROWS]
    vectors = rv.vectors_of(g[N2])
    for j in range(low, high):
        at = ((i + 1 if g[N0] > 1 else i) * (g[N1] + 2) + j + 1) * line
        for c in range(2):
            own = at + c * colour
            rv.advance(g[B] + own, g[S] + own, g[T] + own, alpha, beta, vectors)


_compiling = Lock()
_SIGNATURES = {
    "sweep_lines": types.void(_RECORD, _INT, _INT, _INT, _INT, _INT, _F32),
    "restrict_lines": types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT, _INT),
    "join_lines": types.void(_RECORD, _INT, _INT, _INT),
    "prolong_lines": types.void(_RECORD, _RECORD, _F32, _INT, _INT, _INT, _INT),
    "product_lines": types.void(_RECORD, _INT, _INT, _INT, _INT),
    "advance_lines": types.void(_RECORD, _INT, _INT, _INT, _F32, _F32),
}


def compiled() -> dict[str, CFunc]:
    """The kernels by their names in a record, compiled: once, since records hold their addresses only."""
    with _compiling:
        return _compiled()


@cache
def _compiled() -> dict[str, CFunc]:
    functions = {f.__name__[1:]: f for f in (
        _sweep_lines, _restrict_lines, _join_lines, _prolong_lines, _product_lines, _advance_lines
    )}  # fmt: skip
    options = {"cache": True, "fastmath": FAST["fastmath"], "error_model": FAST["error_model"]}
    with collector_rests():
        return {name: cfunc(_SIGNATURES[name], **options)(f) for name, f in functions.items()}


@njit(inline="always")
def sweep_lines(g, i, low, high, c, mode, alpha):
    _call_sweep(g[SWEEP], vi.address_of(g), i, low, high, c, mode, alpha)


@njit(inline="always")
def restrict_lines(g, coarse, unit, ci, low, high, total):
    _call_transfer(g[RESTRICT], vi.address_of(g), vi.address_of(coarse), unit, ci, low, high, total)


@njit(inline="always")
def join_lines(g, natural, start, stop):
    _call_join(g[JOIN], vi.address_of(g), natural, start, stop)


@njit(inline="always")
def prolong_lines(g, coarse, unit, natural, i, low, high):
    _call_transfer(g[PROLONG], vi.address_of(g), vi.address_of(coarse), unit, natural, i, low, high)


@njit(inline="always")
def product_lines(g, i, low, high, sums):
    _call_product(g[PRODUCT], vi.address_of(g), i, low, high, sums)


@njit(inline="always")
def advance_lines(g, i, low, high, alpha, beta):
    _call_advance(g[ADVANCE], vi.address_of(g), i, low, high, alpha, beta)


_call_sweep = vi.indirect_call("iiiiiif")
_call_transfer = vi.indirect_call("iifiiii")
_call_join = vi.indirect_call("iiii")
_call_product = vi.indirect_call("iiiii")
_call_advance = vi.indirect_call("iiiiff")
