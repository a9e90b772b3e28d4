"""Widths of cells along each axis, seen from the coefficients, and the blocks that coarsening makes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT

SAMPLES = 30_000
"""Cells that are looked at for the widths, about."""
SURELY = 3.0
"""Widths vary if their logarithms scatter by more than so many standard errors, and by more than
``LEAST_SPREAD``; otherwise they count as equal."""
LEAST_SPREAD = 0.35
NARROW = 2.0
"""On the first level, blocks are at most twice as wide as so many of the narrowest cells."""
STEP = 2.0**0.25
"""By which the width of the blocks is raised while too many cells remain."""
MOST_KEPT = 0.85
"""Share of the cells that a coarser level keeps at most."""

Widths = list[NDArray[np.float64]]
Rings = tuple[bool, ...]


@njit(**STRICT)
def _log_ratios(place, shape, above, below, sums, squares, counts):
    """For each axis and plane: sum over sampled cells of -log(c_axis) / 2 less its mean over the axes."""
    axes = 0
    for n in shape:
        axes += 1 if n > 1 else 0
    own = np.zeros(3)
    for q in range(place.shape[0]):
        usable = True
        mean = 0.0
        for a in range(3):
            if shape[a] == 1:
                continue
            up, low = above[q, a], below[q, a]
            if up <= 0 and low <= 0:
                usable = False
                break
            c = 0.5 * (up + low) if up > 0 and low > 0 else max(up, low)
            own[a] = -0.5 * np.log(c)
            mean += own[a] / axes
        if usable:
            for a in range(3):
                if shape[a] > 1:
                    p = place[q, a]
                    sums[a, p] += own[a] - mean
                    squares[a, p] += (own[a] - mean) ** 2
                    counts[a, p] += 1


@lru_cache(2)
def sampled_cells(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Some cells of each line of a volume, the same each time.

    Returns
    -------
    place
        (cells, 3): where they lie.
    index
        (4, cells): C-order index of each, and of the cell below it along each axis; the last one is below the
        first.
    """
    n0, n1, n2 = shape
    lines = np.arange(n0 * n1)
    stride = max(1, min(n0 * n1 * n2 // SAMPLES, n2 // 2))
    first = (7 * (lines // n1) + 3 * (lines % n1)) % stride
    number = -(-(n2 - first) // stride)
    line = np.repeat(lines, number)
    along = np.arange(line.size) - np.repeat(np.cumsum(number) - number, number)
    place = np.stack([line // n1, line % n1, first[line] + stride * along], 1)
    steps = np.array([n1 * n2, n2, 1])
    own = place @ steps
    below = [own + steps[a] * np.where(place[:, a] > 0, -1, shape[a] - 1) for a in range(3)]
    return place, np.stack([own, *below])


def sampled_faces(faces: Sequence[NDArray]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients of the faces above and below the sampled cells, (cells, 3) each; 0 along a flat axis."""
    place, index = sampled_cells(faces[2].shape)
    above, below = np.zeros((2, *place.shape))
    for axis, face in enumerate(faces):
        if face.shape[axis] > 1:  # the last face is closed where the axis ends
            above[:, axis], below[:, axis] = face.reshape(-1)[index[0]], face.reshape(-1)[index[1 + axis]]
    return above, below


def estimate_widths(faces: Sequence[NDArray]) -> Widths:
    """``widths_of_sample`` of volumes of face coefficients by axis, the first not read where it is flat."""
    return widths_of_sample(faces[2].shape, *sampled_faces(faces))


def widths_of_sample(
    shape: tuple[int, ...], above: NDArray[np.float64], below: NDArray[np.float64]
) -> Widths:
    """Widths of the cells along the three axes of a volume, up to a common factor.

    On a tensor grid with cell widths h_a(i_a) and any coefficient k of each cell, c_a = k V / h_a^2, V the
    volume of the cell.  So with <> the mean over the axes, -log(c_a) / 2 + <log c> / 2 = log h_a - <log h>,
    and k and V are gone.  Means of this over planes give log h_a(i) for each axis; differences within the
    scatter of the sample, or too small to matter, count as none.

    Parameters
    ----------
    shape
        Cells along three axes.
    above, below
        Face coefficients of the sampled cells, (cells, 3).

    Returns
    -------
    One float64 array an axis.  All are 1 where nothing can be seen.
    """
    axes = [a for a in range(3) if shape[a] > 1]
    logs = [np.zeros(n) for n in shape]
    if len(axes) < 2:
        return [np.exp(log) for log in logs]
    sums, squares, counts = (np.zeros((3, max(shape))) for _ in range(3))
    _log_ratios(sampled_cells(shape)[0], shape, above, below, sums, squares, counts)
    d = len(axes)
    means, errors = np.zeros(3), np.zeros(3)
    for a in axes:
        n, s, q = (x[a, : shape[a]] for x in (counts, sums, squares))
        seen = n > 0
        if not seen.any():
            return [np.ones(m) for m in shape]
        line = np.interp(np.arange(shape[a]), np.flatnonzero(seen), s[seen] / n[seen])
        means[a] = line.mean()
        scatter = float(np.sqrt(max((q.sum() / n.sum()) - means[a] ** 2, 0)))
        errors[a] = scatter / np.sqrt(n.sum())
        noise = np.sqrt(np.mean(np.maximum(q[seen] / n[seen] - (s[seen] / n[seen]) ** 2, 0) / n[seen]))
        logs[a] = (line - means[a]) * d / (d - 1)
        if logs[a].std() <= SURELY * noise or np.ptp(logs[a]) <= LEAST_SPREAD:
            logs[a][:] = 0
    level = [means[a] if abs(means[a]) > max(SURELY * errors[a], LEAST_SPREAD / 4) else 0.0 for a in range(3)]
    return [np.exp(logs[a] + level[a]) for a in range(3)]


def blocks(widths: NDArray[np.float64], most: float, ring: bool = False) -> NDArray[np.int32]:
    """First cell of each block along an axis, and the number of cells: neighbours that are together at most
    ``most`` wide are taken together by two.

    A ring does not become two blocks: they would be neighbours on two sides, which one port cannot tell
    apart.  It stays as it is until all of it is at most ``most`` wide.
    """
    starts, i, n = [0], 0, widths.size
    while i < n:
        i += 2 if i + 1 < n and widths[i] + widths[i + 1] <= most else 1
        starts.append(i)
    if ring and n > 2 and len(starts) == 3:
        starts = [0, n] if widths.sum() <= most else list(range(n + 1))
    return np.array(starts, np.int32)


def coarser(
    widths: Widths, most: float, rings: Rings = (False,) * 3
) -> tuple[list[NDArray[np.int32]], Widths, float]:
    """Blocks of the next level along each axis, their widths, and how wide they are at most.

    That is doubled from level to level, and more where more than ``MOST_KEPT`` of the cells would remain.
    """
    cells = np.prod([w.size for w in widths])
    most *= 2
    while True:
        starts = [blocks(w, most, ring) for w, ring in zip(widths, rings)]
        if np.prod([s.size - 1 for s in starts]) <= MOST_KEPT * cells or all(s.size <= 2 for s in starts):
            return starts, [np.add.reduceat(w, s[:-1]) for w, s in zip(widths, starts)], most
        most *= STEP
