"""Numba kernels that read the rows of one rank where the matrix has no peculiarities; arguments as in
row_kernels."""

from collections.abc import Callable

import numpy as np
from numba import njit, prange

from consolve.base.jit import STRICT
from consolve.pde.matrix.stencil_kernels import COUPLED, DIAGONAL_ONLY


@njit(inline="always")
def _axis_of_wrap(step, i, j, k, n0, n1, n2, wrap0, wrap1, wrap2):
    """Axis and direction of a step across a periodic side; axis -1 if it is none."""
    layer = n1 * n2
    if wrap2 and k + 1 == n2 and step == 1 - n2:
        return 2, 1
    if wrap2 and k == 0 and step == n2 - 1:
        return 2, -1
    if wrap1 and j + 1 == n1 and step == n2 - layer:
        return 1, 1
    if wrap1 and j == 0 and step == layer - n2:
        return 1, -1
    if wrap0 and i + 1 == n0 and step == layer - n0 * layer:
        return 0, 1
    if wrap0 and i == 0 and step == n0 * layer - layer:
        return 0, -1
    return -1, 0


@njit(inline="always")
def _axis_of_step(step, i, j, k, n0, n1, n2, wrap0, wrap1, wrap2):
    """Axis and direction of a step between C-order indices from cell (i, j, k); axis -1 if it is none."""
    if step == 1 and k + 1 < n2:
        return 2, 1
    if step == -1 and k > 0:
        return 2, -1
    if step == n2 and j + 1 < n1:
        return 1, 1
    if step == -n2 and j > 0:
        return 1, -1
    if step == n1 * n2:
        return 0, 1
    if step == -n1 * n2:
        return 0, -1
    return _axis_of_wrap(step, i, j, k, n0, n1, n2, wrap0, wrap1, wrap2)


def _reader(plain: bool) -> Callable[..., bool]:
    """The kernel; ``plain``: all rows, no periodic axes, and coefficients are written by cell, not by row."""

    @njit(parallel=True, **STRICT)
    def read(
        own_start, own_column, own_value, ghost_start, ghost_column, ghost_value, back, cells, shape,
        periodic, sign, round_off, f0, f1, f2, dirichlet, active, kind, diagonal, chunks,
    ):  # fmt: skip
        """Read rows without peculiarities; False, with the arrays in disorder, if there are any on this rank.

        Peculiar are all faults, stored zeros, couplings that differ by round-off or point to a diagonal-only
        row, and periodic axes of two cells: RowReader knows what to do with them.  Each of ``chunks`` parts
        of the rows is swept once: faces are taken from the entries towards the next cell of an axis, and an
        entry towards the cell before is compared with the face that an earlier row of the part has taken.
        What leads out of the part is compared afterwards.  About 110 bytes a row in 3D.
        """
        rows = own_start.size - 1
        ghosts = not plain and ghost_start.size > 1
        n0, n1, n2 = shape[0], shape[1], shape[2]
        layer = n1 * n2
        wrap0, wrap1, wrap2 = periodic[0] and n0 > 2, periodic[1] and n1 > 2, periodic[2] and n2 > 2
        peculiar = np.zeros(chunks, np.bool_)
        peculiar[0] = (periodic[0] and n0 == 2) or (periodic[1] and n1 == 2) or (periodic[2] and n2 == 2)
        balance, left = (
            np.zeros(chunks, np.int64),
            np.zeros(chunks, np.int64),
        )  # left: one past the last such row
        for chunk in prange(chunks):
            odd, forward, backward, later = peculiar[chunk], 0, 0, np.int64(0)
            last, i, j, k = np.int64(-2), np.int64(0), np.int64(0), np.int64(0)
            first = rows * chunk // chunks
            for row in range(first, rows * (chunk + 1) // chunks):
                cell = np.int64(cells[row])
                if cell == last + 1 and k + 1 < n2:
                    k += 1
                else:
                    line = cell // n2
                    k = cell - line * n2
                    i = line // n1
                    j = line - i * n1
                last = cell
                at = cell if plain else np.int64(row)
                a_ii, total, coupled = 0.0, 0.0, False
                for q in range(own_start[row], own_start[row + 1]):
                    column, value = own_column[q], sign * own_value[q]
                    total += value
                    if column == row:
                        a_ii = value
                        continue
                    coupled = True
                    odd |= not value < 0
                    beside = np.int64(cells[column])
                    step = beside - cell
                    known, there = value, beside if plain else np.int64(column)
                    if step > 0:
                        if step == 1 and k + 1 < n2:
                            f2[at] = -value
                            forward += 1
                            continue
                        if step == n2 and j + 1 < n1:
                            f1[at] = -value
                            forward += 1
                            continue
                        if step == layer:
                            f0[at] = -value
                            forward += 1
                            continue
                        inside = False
                    else:
                        inside = True
                        if step == -1 and (plain or k > 0):
                            known = f2[there]
                        elif step == -n2 and (plain or j > 0):
                            known = f1[there]
                        elif step == -layer:
                            known = f0[there]
                        else:
                            inside = False
                    if not plain and not inside:
                        axis, direction = _axis_of_wrap(step, i, j, k, n0, n1, n2, wrap0, wrap1, wrap2)
                        if axis < 0:
                            odd = True
                            continue
                        f = f0 if axis == 0 else f1 if axis == 1 else f2
                        if direction > 0:
                            f[at] = -value
                            forward += 1
                            continue
                        known = f[there]
                    backward += 1
                    if first <= column and (plain or column < row):
                        odd |= known != -value
                    else:
                        later = np.int64(row + 1)
                if ghosts:
                    for q in range(ghost_start[row], ghost_start[row + 1]):
                        value = sign * ghost_value[q]
                        total += value
                        coupled = True
                        odd |= not value < 0 or value != sign * back[q]
                        step = np.int64(cells[rows + ghost_column[q]]) - cell
                        axis, direction = _axis_of_step(step, i, j, k, n0, n1, n2, wrap0, wrap1, wrap2)
                        odd |= axis < 0
                        if direction > 0:
                            if axis == 0:
                                f0[at] = -value
                            elif axis == 1:
                                f1[at] = -value
                            else:
                                f2[at] = -value
                diagonal[row] = sign * a_ii
                kind[row] = COUPLED if coupled else DIAGONAL_ONLY
                if coupled:
                    active[at] = True
                    odd |= not a_ii > 0 or not total >= -round_off * a_ii or not np.isfinite(a_ii)
                    dirichlet[at] = total if total > round_off * a_ii else 0.0
                else:
                    odd |= not np.isfinite(a_ii)
            peculiar[chunk] = odd
            balance[chunk] = forward - backward
            left[chunk] = later
        if peculiar.any() or balance.sum() != 0:
            return False
        if left.max() == 0:
            return True
        for chunk in prange(chunks):
            odd = False
            first = rows * chunk // chunks
            for row in range(first, left[chunk]):
                cell = np.int64(cells[row])
                for q in range(own_start[row], own_start[row + 1]):
                    column = own_column[q]
                    if first <= column <= row:
                        continue
                    line = cell // n2
                    beside = np.int64(cells[column])
                    step = beside - cell
                    axis, direction = _axis_of_step(
                        step, line // n1, line % n1, cell - line * n2, n0, n1, n2, wrap0, wrap1, wrap2
                    )
                    odd |= axis < 0
                    if direction < 0:
                        there = beside if plain else np.int64(column)
                        known = f0[there] if axis == 0 else f1[there] if axis == 1 else f2[there]
                        odd |= known != -sign * own_value[q]
            peculiar[chunk] = odd
        return not peculiar.any()

    return read


read_regular, read_plain = _reader(False), _reader(True)
