"""The gallery of random media behind :class:`consolve.pde.waves.problem.Medium`.

A builder draws all its random numbers at once and returns functions of place, so a medium is the same on
every mesh.  ``level`` is the speed on a scale from 0 (slowest) to 1 (fastest).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

SEEN = ("constant", "layered", "inclusions", "smooth", "obstacles", "holes")
UNSEEN = ("wedges",)
COARSE_CELLS = 63
"""Obstacles and holes are unions of the cells of a grid of 63 x 63."""

Level = Callable[[NDArray, NDArray], NDArray]


@dataclass(frozen=True)
class Fields:
    """``level(x, y)``, and the blocked cells [y, x] of the 63 x 63 grid (None: no cell)."""

    level: Level
    blocked: NDArray[np.bool_] | None = None


def _constant(rng: np.random.Generator) -> Fields:
    value = rng.uniform()
    return Fields(lambda x, y: np.full(np.broadcast_shapes(x.shape, y.shape), value))


def _layered(rng: np.random.Generator) -> Fields:
    angle = rng.uniform(0, math.pi)
    layers = int(rng.integers(3, 9))
    across, up = math.cos(angle), math.sin(angle)
    low, high = min(0.0, across), up + max(0.0, across)  # of x across + y up over the square
    # Jittered even spacing: no layer is thinner than a fifth of the mean.
    faces = low + (high - low) * (np.arange(1, layers) + rng.uniform(-0.4, 0.4, layers - 1)) / layers
    values = rng.uniform(0, 1, layers)
    return Fields(lambda x, y: values[np.searchsorted(faces, x * across + y * up)])


def _inclusions(rng: np.random.Generator) -> Fields:
    background = rng.uniform()
    count = int(rng.integers(3, 9))
    centre = rng.uniform(0.05, 0.95, (count, 2))
    axes = rng.uniform(0.05, 0.2, (count, 2))
    angle = rng.uniform(0, math.pi, count)
    values = rng.uniform(0, 1, count)

    def level(x: NDArray, y: NDArray) -> NDArray:
        image = np.full(np.broadcast_shapes(x.shape, y.shape), background)
        for (cx, cy), (a, b), turn, value in zip(centre, axes, angle, values):
            along = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
            beside = (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)
            image[(along / a) ** 2 + (beside / b) ** 2 < 1] = value
        return image

    return Fields(level)


def _smooth(rng: np.random.Generator) -> Fields:
    """Random Fourier modes of a Gaussian spectrum: a field of Gaussian correlation, made uniform by its
    distribution function."""
    modes = 64
    length = rng.uniform(0.1, 0.25)
    wave = rng.normal(0, 1 / length, (2, modes))
    phase = rng.uniform(0, 2 * math.pi, modes)
    scale = math.sqrt(2 / modes)

    def level(x: NDArray, y: NDArray) -> NDArray:
        if x.ndim == y.ndim == 2 and x.shape[0] == y.shape[1] == 1:  # a tensor grid: cos(a + b) by products
            a, b = x[0][:, None] * wave[0], y[:, :1] * wave[1] + phase
            return ndtr(scale * (np.cos(b) @ np.cos(a).T - np.sin(b) @ np.sin(a).T))
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
        for kx, ky, shift in zip(wave[0], wave[1], phase):
            total += np.cos(kx * x + ky * y + shift)
        return ndtr(scale * total)

    return Fields(level)


def _blocked(rng: np.random.Generator) -> Fields:
    background = _smooth(rng).level
    blocked = np.zeros((COARSE_CELLS, COARSE_CELLS), np.bool_)
    centres = np.arange(COARSE_CELLS) + 0.5
    for _ in range(int(rng.integers(2, 6))):
        disc = rng.uniform() < 0.5
        x, y = rng.uniform(6, COARSE_CELLS - 6, 2)
        half = rng.uniform(2.5, 7, 2)
        across, up = (centres - x) / half[0], ((centres - y) / (half[0] if disc else half[1]))[:, None]
        blocked |= across**2 + up**2 < 1 if disc else (abs(across) < 1) & (abs(up) < 1)
    return Fields(background, blocked)


def _wedges(rng: np.random.Generator) -> Fields:
    count = int(rng.integers(2, 5))
    turn = rng.uniform(0, 2 * math.pi)
    ends = rng.uniform(0, 1, 2)
    tips = rng.uniform(0.1, 0.9, (count, 2))
    angle = rng.uniform(0, 2 * math.pi, count)
    opening = np.tan(rng.uniform(math.radians(6), math.radians(20), count))
    length = rng.uniform(0.4, 0.8, count)
    values = rng.uniform(0, 1, count)

    def level(x: NDArray, y: NDArray) -> NDArray:
        across = (x - 0.5) * math.cos(turn) + (y - 0.5) * math.sin(turn)
        image = ends[0] + (ends[1] - ends[0]) * (0.5 + across / math.sqrt(2))
        for (tx, ty), a, slope, size, value in zip(tips, angle, opening, length, values):
            along = (x - tx) * math.cos(a) + (y - ty) * math.sin(a)
            beside = (y - ty) * math.cos(a) - (x - tx) * math.sin(a)
            image = np.where((along > 0) & (along < size) & (abs(beside) < slope * along), value, image)
        return image

    return Fields(level)


BUILDERS: dict[str, Callable[[np.random.Generator], Fields]] = {
    "constant": _constant,
    "layered": _layered,
    "inclusions": _inclusions,
    "smooth": _smooth,
    "obstacles": _blocked,
    "holes": _blocked,
    "wedges": _wedges,
}
