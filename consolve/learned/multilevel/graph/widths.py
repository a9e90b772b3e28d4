"""Widths of cells along each axis, seen from the coefficients, and the blocks that coarsening makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from consolve.base.jit import STRICT

SAMPLES = 100_000
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


@njit(**STRICT)
def _log_ratios(f0, f1, f2, stride, sums, squares, counts):
    """For each axis and plane: sum over sampled cells of -log(c_axis) / 2 less its mean over the axes."""
    n0, n1, n2 = f2.shape
    axes = 0
    for n in (n0, n1, n2):
        axes += 1 if n > 1 else 0
    own = np.zeros(3)
    for i in range(n0):
        for j in range(n1):
            for k in range((7 * i + 3 * j) % stride, n2, stride):
                usable = True
                mean = 0.0
                for a in range(3):
                    n = (n0, n1, n2)[a]
                    if n == 1:
                        continue
                    if a == 0:
                        up, low = f0[i, j, k], f0[i - 1, j, k] if i > 0 else f0[i, j, k] * 0
                    elif a == 1:
                        up, low = f1[i, j, k], f1[i, j - 1, k] if j > 0 else f1[i, j, k] * 0
                    else:
                        up, low = f2[i, j, k], f2[i, j, k - 1] if k > 0 else f2[i, j, k] * 0
                    if up <= 0 and low <= 0:
                        usable = False
                        break
                    c = 0.5 * (up + low) if up > 0 and low > 0 else max(up, low)
                    own[a] = -0.5 * np.log(c)
                    mean += own[a] / axes
                if usable:
                    for a in range(3):
                        if (n0, n1, n2)[a] > 1:
                            p = (i, j, k)[a]
                            sums[a, p] += own[a] - mean
                            squares[a, p] += (own[a] - mean) ** 2
                            counts[a, p] += 1


def estimate_widths(faces: Sequence[NDArray]) -> Widths:
    """Widths of the cells along the three axes of a volume, up to a common factor.

    On a tensor grid with cell widths h_a(i_a) and any coefficient k of each cell, c_a = k V / h_a^2, V the
    volume of the cell.  So with <> the mean over the axes, -log(c_a) / 2 + <log c> / 2 = log h_a - <log h>,
    and k and V are gone.  Means of this over planes give log h_a(i) for each axis; differences within the
    scatter of the sample, or too small to matter, count as none.

    Parameters
    ----------
    faces
        Face coefficients by axis, volumes (n0, n1, n2); the first is not read where n0 = 1.

    Returns
    -------
    One float64 array an axis.  All are 1 where nothing can be seen.
    """
    shape = faces[2].shape
    axes = [a for a in range(3) if shape[a] > 1]
    logs = [np.zeros(n) for n in shape]
    if len(axes) < 2:
        return [np.exp(log) for log in logs]
    sums, squares, counts = (np.zeros((3, max(shape))) for _ in range(3))
    stride = max(1, min(int(np.prod(shape)) // SAMPLES, shape[2] // 2))
    _log_ratios(*faces, stride, sums, squares, counts)
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


def blocks(widths: NDArray[np.float64], most: float) -> NDArray[np.int32]:
    """First cell of each block along an axis, and the number of cells: neighbours that are together at most
    ``most`` wide are taken together by two."""
    starts, i, n = [0], 0, widths.size
    while i < n:
        i += 2 if i + 1 < n and widths[i] + widths[i + 1] <= most else 1
        starts.append(i)
    return np.array(starts, np.int32)


def coarser(widths: Widths, most: float) -> tuple[list[NDArray[np.int32]], Widths, float]:
    """Blocks of the next level along each axis, their widths, and how wide they are at most.

    That is doubled from level to level, and more where more than ``MOST_KEPT`` of the cells would remain.
    """
    cells = np.prod([w.size for w in widths])
    most *= 2
    while True:
        starts = [blocks(w, most) for w in widths]
        if np.prod([s.size - 1 for s in starts]) <= MOST_KEPT * cells or all(s.size <= 2 for s in starts):
            return starts, [np.add.reduceat(w, s[:-1]) for w, s in zip(widths, starts)], most
        most *= STEP
