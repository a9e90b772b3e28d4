"""Places of a matrix's rows on a grid from its bands: rows that number all cells, x fastest.

On an NX x NY x NZ grid a neighbour along x is 1 row away, one along y NX, one along z NX NY, and diagonal
neighbours are sums and differences of these.  So the distances of the couplings name the few sizes that are
possible, and one look at every coupling tells which of them hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.pde.matrix.lattice import SIGNIFICANT, Placement

_MOST_BANDS = 48
"""Distances beyond which rows are not numbered along a grid; 27 points with wraps have fewer."""


def find_bands(
    indptr: NDArray,
    indices: NDArray,
    values: NDArray,
    first_row: int = 0,
    rows: int | None = None,
    comm: Any = None,
) -> tuple[Placement, float] | None:
    """The grid whose cells the rows number, x fastest; None if there is none.

    Every significant coupling joins neighbours of the grid, across the sides of periodic axes too.  Where
    several shapes fit, the one that leaves the fewest faces without coupling is taken; among equals the one
    of fewer axes, then the one that is not periodic, then the one with the longest x axis.  A chain lies
    along x: shape (1, n).

    Parameters
    ----------
    indptr, indices, values
        Rows ``first_row`` and on of a square CSR matrix; columns are those of the whole matrix.
    first_row, rows
        First row held here, and rows of the whole matrix; default: all.
    comm
        mpi4py communicator of a distributed matrix; the call is then collective, and ``cells`` are those of
        the rows held here.

    Returns
    -------
    The placement, and the fraction of the grid's faces (with diagonal neighbours: of all neighbours) that are
    coupled.
    """
    local = indptr.size - 1
    rows = local if rows is None else rows
    found, count = _distances(indptr, indices, values, first_row, _MOST_BANDS)
    distances = set(found[:count].tolist()) if count <= _MOST_BANDS else None
    if comm is not None and comm.size > 1:
        everyone = comm.allgather(distances)
        distances = None if None in everyone else set().union(*everyone)
    if distances is None or len(distances) > _MOST_BANDS or rows == 0:
        return None
    sizes = _sizes_of(sorted(distances), rows)
    facts = np.zeros((len(sizes), 6), np.int64)
    for shape, row in zip(sizes, facts):
        _check(indptr, indices, values, first_row, np.array(shape), row)
    if comm is not None and comm.size > 1:
        facts = np.sum(comm.allgather(facts), axis=0)
    fitting = [_rated(shape, row) for shape, row in zip(sizes, facts) if row[0] == 0]
    if not fitting:
        return None
    fill, shape, periodic, box = max(fitting, key=_preference)
    flat = 1 if shape[0] == 1 else 0
    cells = np.arange(first_row, first_row + local, dtype=np.int64)
    return Placement(shape[flat:], cells, periodic[flat:], box), fill


@njit(**STRICT)
def _distances(indptr, indices, values, first_row, most):
    """Distinct |column - row| of the significant couplings; more than ``most`` are not looked for."""
    found, count = np.zeros(most + 1, np.int64), 0
    for row in range(indptr.size - 1):
        diagonal = 0.0
        for q in range(indptr[row], indptr[row + 1]):
            if indices[q] == row + first_row:
                diagonal = abs(values[q])
        for q in range(indptr[row], indptr[row + 1]):
            distance = abs(indices[q] - row - first_row)
            if distance == 0 or not abs(values[q]) > SIGNIFICANT * diagonal:
                continue
            known = False
            for at in range(count):
                if found[at] == distance:
                    known = True
                    break
            if not known:
                found[count] = distance
                count += 1
                if count > most:
                    return found, count
    return found, count


def _sizes_of(distances: list[int], rows: int) -> list[tuple[int, int, int]]:
    """Shapes (NZ, NY, NX) that have a coupling of each distance for a neighbour."""
    near = {d + a for d in distances for a in (-1, 0, 1)}
    lines = sorted(n for n in near if 1 < n < rows and rows % n == 0)
    shapes = [(1, 1, rows)] + [(1, rows // nx, nx) for nx in lines]
    for nx in lines:
        layers = {d + a * nx + b for d in distances for a in (-1, 0, 1) for b in (-1, 0, 1)}
        for layer in sorted(layers):
            if nx < layer < rows and layer % nx == 0 and rows % layer == 0:
                shapes.append((rows // layer, layer // nx, nx))
    return [shape for shape in shapes if all(_is_step(d, shape) for d in distances)]


def _is_step(distance: int, shape: tuple[int, int, int]) -> bool:
    """True if some neighbour of some cell is that far away, wraps included."""
    _, ny, nx = shape
    steps = [{-1, 0, 1, n - 1, 1 - n} for n in shape]
    for k in steps[2]:
        rest, odd = divmod(distance - k, nx)
        if odd == 0 and any((rest - j) % ny == 0 and (rest - j) // ny in steps[0] for j in steps[1]):
            return True
    return False


@njit(**STRICT)
def _check(indptr, indices, values, first_row, shape, facts):
    """Facts of a shape: couplings that are none of its steps, along axes, diagonal; wraps of each axis."""
    n0, n1, n2 = shape
    for row in range(indptr.size - 1):
        at = row + first_row
        i, j, k = at // (n1 * n2), at // n2 % n1, at % n2
        diagonal = 0.0
        for q in range(indptr[row], indptr[row + 1]):
            if indices[q] == at:
                diagonal = abs(values[q])
        for q in range(indptr[row], indptr[row + 1]):
            column = indices[q]
            if column == at or not abs(values[q]) > SIGNIFICANT * diagonal:
                continue
            di = abs(column // (n1 * n2) - i)
            dj = abs(column // n2 % n1 - j)
            dk = abs(column % n2 - k)
            if di > 1 and di == n0 - 1:
                facts[3] += 1
                di = 1
            if dj > 1 and dj == n1 - 1:
                facts[4] += 1
                dj = 1
            if dk > 1 and dk == n2 - 1:
                facts[5] += 1
                dk = 1
            if max(di, dj, dk) > 1:
                facts[0] += 1
                return
            facts[1 if di + dj + dk == 1 else 2] += 1


def _rated(
    shape: tuple[int, int, int], facts: NDArray[np.int64]
) -> tuple[float, tuple[int, int, int], tuple[bool, ...], bool]:
    """Coupled fraction of the neighbours, shape, periodic axes, and whether there are diagonal neighbours."""
    box, periodic = bool(facts[2] > 0), tuple(bool(n > 0) for n in facts[3:])
    cells = math.prod(shape)
    if box:
        pairs = math.prod(3 * n - (0 if wraps else 2) for n, wraps in zip(shape, periodic) if n > 1) - cells
    else:
        pairs = sum(2 * (n if wraps else n - 1) * (cells // n) for n, wraps in zip(shape, periodic) if n > 1)
    return float(facts[1] + facts[2]) / max(pairs, 1), shape, periodic, box


def _preference(rated: tuple[float, tuple[int, int, int], tuple[bool, ...], bool]) -> tuple:
    fill, shape, periodic, _ = rated
    return round(fill, 9), -sum(n > 1 for n in shape), -sum(periodic), shape[::-1]
