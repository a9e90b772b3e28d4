"""Numba kernels that read a CSR matrix whose couplings all have one value, as those of a cell image do.

Rows are in the order of their cells, and every two neighbours that have couplings at all are coupled: so the
cells of the rows alone say what each row must hold, and the entries need only be compared with it.  Whatever
differs is left to stencil_kernels.  See consolve.pde.poisson.run_kernels for runs.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT
from consolve.base.threads import run_lines

_TILE = 16
"""Rows whose entries are compared at once."""
_FACES = 6
_BLOCK = 64


@njit(**STRICT)
def _same_run(indptr, cells, first, end):
    """True if rows first..end - 1 are neighbouring cells and couple like the row before them."""
    odd, least = np.int32(0), indptr[first] - indptr[first - 1] > 1
    # Slices, since an index that might be negative keeps loops from vectorising; casts keep lanes narrow.
    cell, before = cells[first:end], cells[first - 1 : end]
    begin, after = indptr[first:end], indptr[first + 1 : end + 1]
    for q in range(end - first):
        odd = np.int32(odd | np.int32(cell[q] - before[q] - 1))
    if least:
        for q in range(end - first):
            odd = np.int32(odd | np.int32(np.int32(after[q] - begin[q]) < np.int32(2)))
    else:
        for q in range(end - first):
            odd = np.int32(odd | np.int32(np.int32(after[q] - begin[q]) > np.int32(1)))
    return odd == 0


@njit(**STRICT)
def _runs(indptr, cells, n2, first, last, out, start):
    """Write the runs of rows first..last - 1 to ``out`` from ``first`` on, and the number of each line's to
    ``start``.

    Returns where they end, or -1 if the cells do not ascend.
    """
    at, q = first, first
    while q < last:
        cell = cells[q]
        line = cell // n2
        k = cell - line * n2
        most = min(last, q + n2 - k)
        coupled = indptr[q + 1] - indptr[q] > 1
        end = q + 1
        if end < most and _same_run(indptr, cells, end, most):
            end = most
        while end + _BLOCK <= most and _same_run(indptr, cells, end, end + _BLOCK):
            end += _BLOCK
        while (
            end < most and cells[end] == cells[end - 1] + 1 and (indptr[end + 1] - indptr[end] > 1) == coupled
        ):
            end += 1
        if end < cells.size and cells[end] <= cells[end - 1]:
            return -1
        out[at, 0], out[at, 1], out[at, 2], out[at, 3] = q, end - q, (line if coupled else -1), k
        start[line + 1] += 1
        at += 1
        q = end
    return at


def _whole_lines(cells, n2, row):
    """The first row from ``row`` on that starts a line of the grid."""
    while 0 < row < cells.size:
        line = cells[row - 1 : row + n2] // n2
        starts = np.flatnonzero(line[1:] != line[:-1])
        if starts.size:
            return row + int(starts[0])
        row += line.size - 1
    return row


@njit(**STRICT)
def _runs_of_parts(indptr, cells, n2, row, out, start, end, c_first, c_end):
    """end[c] = where the runs of rows row[c]..row[c + 1] - 1 end."""
    for c in range(c_first, c_end):
        end[c] = _runs(indptr, cells, n2, row[c], row[c + 1], out, start)


def runs_of_rows(
    indptr: NDArray[np.int32], cells: NDArray[np.integer], shape: NDArray[np.int64], chunks: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Runs of rows with couplings and without.

    Returns
    -------
    runs, start
        See consolve.pde.poisson.run_kernels; no runs where rows are not in the order of their cells.
    first
        For each of ``chunks`` parts, which are whole lines, the first run.
    """
    n2, lines, rows = int(shape[2]), int(shape[0] * shape[1]), cells.size
    row = np.array([_whole_lines(cells, n2, rows * c // chunks) for c in range(chunks)] + [rows], np.int64)
    start, first = np.zeros(lines + 1, np.int32), np.zeros(chunks + 1, np.int64)
    end = np.zeros(chunks, np.int64)
    sparse = np.empty((rows, 4), np.int32)  # hardly written: no memory
    run_lines(_runs_of_parts, chunks, chunks, indptr, cells, n2, row, sparse, start, end)
    if end.min() < 0:
        return sparse[:0], start, first
    np.cumsum(end - row[:-1], out=first[1:])
    runs = np.concatenate([sparse[row[c] : end[c]] for c in range(chunks)])
    np.cumsum(start, out=start)
    return runs, start, first


@njit(**STRICT)
def _mark_lines(runs, start, active, first, end):
    n1 = active.shape[1]
    for line in range(first, end):
        row = active[line // n1, line % n1]
        for k in range(row.size):
            row[k] = 0
        for r in range(start[line], start[line + 1]):
            if runs[r, 2] >= 0:
                part = row[runs[r, 3] : runs[r, 3] + runs[r, 1]]
                for k in range(part.size):
                    part[k] = 1


def mark_cells(
    runs: NDArray[np.int32], start: NDArray[np.int32], active: NDArray[np.uint8], threads: int
) -> None:
    """active = 1 in the cells of coupled rows, 0 elsewhere."""
    run_lines(_mark_lines, start.size - 1, threads, runs, start, active)


@njit(**STRICT)
def _read_row(indptr, indices, values, row, offset, coupling, sign, round_off):
    """(diagonal, Dirichlet part) of a row that couples to row + offset[f] where that is not 0; the diagonal
    is 0 if it holds anything else.

    ``offset`` ascends: entries below the diagonal are its first three.
    """
    q, end = indptr[row], indptr[row + 1]
    a_ii, total = 0.0, 0.0
    for f in range(_FACES + 1):
        if f == 3:
            if q >= end or indices[q] != row:
                return 0.0, 0.0
            a_ii = sign * values[q]
            total += a_ii
            q += 1
        else:
            step = offset[f if f < 3 else f - 1]
            if step != 0:
                if q >= end or indices[q] != row + step or values[q] != coupling:
                    return 0.0, 0.0
                total += sign * values[q]
                q += 1
    if q != end or not 0 < a_ii < np.inf or not total >= -round_off * a_ii:
        return 0.0, 0.0
    return a_ii, (total if total > round_off * a_ii else 0.0)


@njit(**STRICT)
def _lay_pattern(offset, coupling, diagonal, columns, entries):
    """Columns (less the first row) and values of _TILE rows; returns the entries of one."""
    width = 0
    for f in range(_FACES + 1):
        step = np.int32(0) if f == 3 else offset[f if f < 3 else f - 1]
        if f == 3 or step != 0:
            columns[width] = step
            entries[width] = diagonal if f == 3 else coupling
            width += 1
    for t in range(1, _TILE):
        for e in range(width):
            columns[t * width + e] = columns[e] + np.int32(t)
            entries[t * width + e] = entries[e]
    return width


@njit(**STRICT)
def _tile_fits(indptr, indices, values, row, columns, entries, width):
    """True if rows row..row + _TILE - 1 hold what the pattern says."""
    at = indptr[row]
    odd = np.int32(0)
    begin, after = indptr[row : row + _TILE], indptr[row + 1 : row + 1 + _TILE]
    for t in range(_TILE):
        odd = np.int32(odd | np.int32(after[t] - begin[t] - width))
    if odd != 0:
        return False
    here, there = indices[at : at + width * _TILE], values[at : at + width * _TILE]
    base = np.int32(row)
    for e in range(width * _TILE):
        odd = np.int32(odd | (np.int32(here[e] - base) ^ columns[e]))
    differ = np.int64(0)
    for e in range(width * _TILE):
        differ += np.int64(there[e] != entries[e])
    return odd == 0 and differ == 0


@njit(**STRICT)
def _neighbour(runs, r, end, k):
    """Advance r to the run that holds cell k of a line, or comes after it."""
    while r < end and runs[r, 3] + runs[r, 1] <= k:
        r += 1
    return r


@njit(**STRICT)
def _read_lines(
    indptr, indices, values, runs, start, n0, n1, coupling, sign, round_off, r_first, r_last, fixed_count,
    place, part, at,
):  # fmt: skip
    """Compare the rows of runs r_first..r_last - 1, whole lines; k and Dirichlet parts go to ``place`` and
    ``part`` from ``at`` on, their number to ``fixed_count`` by line.

    Returns where the Dirichlet parts end; -1 if a row differs from what is expected.
    """
    offset, old = np.empty(_FACES, np.int32), np.empty(_FACES, np.int32)
    columns, entries = np.empty(7 * _TILE, np.int32), np.empty(7 * _TILE, np.float64)
    beside, beside_end = np.empty(4, np.int64), np.empty(4, np.int64)
    for f in range(_FACES):
        offset[f], old[f] = 0, -(2**31)
    width, laid = np.int64(0), -1.0
    line = np.int64(-1)
    for r in range(r_first, r_last):
        first, length = np.int64(runs[r, 0]), np.int64(runs[r, 1])
        if runs[r, 2] < 0:
            for alone in range(first, first + length):
                q = indptr[alone]
                if indptr[alone + 1] > q and not (indices[q] == alone and np.isfinite(values[q])):
                    return -1
            continue
        if runs[r, 2] != line:
            line = np.int64(runs[r, 2])
            i, j = line // n1, line % n1
            for f in range(4):
                other = line + (-n1 if f == 0 else -1 if f == 1 else 1 if f == 2 else n1)
                inside = i > 0 if f == 0 else j > 0 if f == 1 else j + 1 < n1 if f == 2 else i + 1 < n0
                beside[f] = start[other] if inside else 0
                beside_end[f] = start[other + 1] if inside else 0
        low = np.int64(runs[r, 3])
        k, high = low, low + length
        while k < high:
            stop = high
            for f in range(4):
                b = _neighbour(runs, beside[f], beside_end[f], k)
                beside[f] = b
                step = np.int64(0)
                if b < beside_end[f]:
                    begin = np.int64(runs[b, 3])
                    if begin > k:
                        stop = min(stop, begin)
                    else:
                        stop = min(stop, begin + runs[b, 1])
                        if runs[b, 2] >= 0:
                            step = runs[b, 0] + k - begin - (first + k - low)
                offset[f if f < 2 else f + 2] = step
            offset[2] = -1 if k > low else 0
            if k == low and stop > low + 1:
                stop = low + 1
            if stop == high and k < high - 1:
                stop = high - 1
            offset[3] = 1 if stop < high else 0
            row, last = first + k - low, first + stop - low
            while row < last:
                a_ii, fixed = _read_row(indptr, indices, values, row, offset, coupling, sign, round_off)
                if a_ii == 0:
                    return -1
                if fixed > 0:
                    place[at], part[at] = low + row - first, fixed
                    fixed_count[line + 1] += 1
                    at += 1
                row += 1
                if row + _TILE > last:
                    continue
                same = laid == a_ii
                for f in range(_FACES):
                    same &= old[f] == offset[f]
                if not same:
                    width = _lay_pattern(offset, coupling, sign * a_ii, columns, entries)
                    laid = a_ii
                    for f in range(_FACES):
                        old[f] = offset[f]
                while row + _TILE <= last and _tile_fits(
                    indptr, indices, values, row, columns, entries, width
                ):
                    if fixed > 0:
                        for t in range(_TILE):
                            place[at + t], part[at + t] = low + row + t - first, fixed
                        fixed_count[line + 1] += _TILE
                        at += _TILE
                    row += _TILE
            k = stop
    return at


@njit(**STRICT)
def _read_parts(
    indptr, indices, values, runs, start, first, n0, n1, coupling, sign, round_off, fixed_start, place, part,
    end, c_first, c_end,
):  # fmt: skip
    """end[c] = where the Dirichlet parts of the runs first[c]..first[c + 1] - 1 end."""
    for c in range(c_first, c_end):
        if first[c + 1] > first[c]:
            end[c] = _read_lines(
                indptr, indices, values, runs, start, n0, n1, coupling, sign, round_off, first[c],
                first[c + 1], fixed_start, place, part, np.int64(runs[first[c], 0]),
            )  # fmt: skip


def read_uniform_rows(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    runs: NDArray[np.int32],
    start: NDArray[np.int32],
    first: NDArray[np.int64],
    shape: NDArray[np.int64],
    coupling: float,
    sign: int,
    round_off: float,
    fixed_start: NDArray[np.int32],
) -> tuple[bool, NDArray[np.int32], NDArray[np.float64]]:
    """Compare all rows with what their cells say, about 92 bytes a row; False if any differs.

    Parameters
    ----------
    runs, start, first
        From runs_of_rows.
    coupling
        The value of all off-diagonal entries.
    sign, round_off
        As in stencil_kernels.
    fixed_start
        int32, zeros, one entry a line and one more; gets where the Dirichlet parts of each line start.

    Returns
    -------
    Whether all rows are as expected; k and value of the Dirichlet parts, line by line.
    """
    chunks, rows = first.size - 1, indptr.size - 1
    place, part = np.empty(rows, np.int32), np.empty(rows)  # hardly written: no memory
    begin = np.array([runs[f, 0] if f < runs.shape[0] else 0 for f in first[:-1]], np.int64)
    end = begin.copy()
    run_lines(
        _read_parts, chunks, chunks, indptr, indices, values, runs, start, first, int(shape[0]),
        int(shape[1]), coupling, sign, round_off, fixed_start, place, part, end,
    )  # fmt: skip
    if end.min() < 0:
        return False, place[:0], part[:0]
    np.cumsum(fixed_start, out=fixed_start)
    places = np.concatenate([place[b:e] for b, e in zip(begin, end, strict=True)])
    parts = np.concatenate([part[b:e] for b, e in zip(begin, end, strict=True)])
    return True, places, parts


@njit(**STRICT)
def entries_without_unknowns(runs):
    """Numbers of the entries (int32) in runs of line -1."""
    count = 0
    for r in range(runs.shape[0]):
        if runs[r, 2] < 0:
            count += runs[r, 1]
    out = np.empty(count, np.int32)
    at = 0
    for r in range(runs.shape[0]):
        if runs[r, 2] < 0:
            for q in range(runs[r, 1]):
                out[at] = runs[r, 0] + q
                at += 1
    return out


@njit(**STRICT)
def only_entries(indptr, values, rows):
    """Value of the one entry of each row, 0 where it has none."""
    out = np.zeros(rows.size)
    for q in range(rows.size):
        if indptr[rows[q] + 1] > indptr[rows[q]]:
            out[q] = values[indptr[rows[q]]]
    return out
