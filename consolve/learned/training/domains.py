"""Random domains and right-hand sides to train on: mixtures that share no generator with the gallery.

A sample is a box of random size whose sides are walls or open, with a random union of ellipsoids, slabs and
thresholded smooth noise as solid, and sometimes air above a random surface.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from consolve.pde.poisson.grid import AIR, FLUID, SOLID, GridOperator


def random_shape(rng: Generator, ndim: int, cells: int) -> tuple[int, ...]:
    """A shape of about ``cells`` cells, axes differing by up to a factor of two, odd lengths included."""
    stretch = rng.uniform(-0.35, 0.35, ndim)
    length = cells ** (1 / ndim) * np.exp(stretch - stretch.mean())
    return tuple(max(8, round(float(n))) for n in length)


def random_operator(rng: Generator, shape: tuple[int, ...]) -> GridOperator:
    """The operator of a random cell-type image."""
    while True:
        types = np.full(shape, FLUID, np.uint8)
        kind = rng.choice(["empty", "bodies", "bodies", "noise", "mixed"])
        if kind in ("bodies", "mixed"):
            for _ in range(rng.integers(1, 7)):
                types[_body(rng, shape)] = SOLID
        if kind in ("noise", "mixed"):
            types[_noise(rng, shape) > np.quantile(_noise(rng, shape), rng.uniform(0.6, 0.97))] = SOLID
        if rng.random() < 0.35:
            types[(types == FLUID) & _above_surface(rng, shape)] = AIR
        if rng.random() < 0.1:
            types[(types == FLUID) & _body(rng, shape)] = AIR
        if rng.random() < 0.15:
            outside = [(SOLID, SOLID)] * len(shape)
        else:
            outside = [tuple(rng.choice([SOLID, AIR], 2, p=[0.75, 0.25]).tolist()) for _ in shape]
        if np.count_nonzero(types == FLUID) > 0.2 * types.size:
            return GridOperator.from_cell_types(types, outside, dtype=np.float32)


def random_right_hand_side(rng: Generator, operator: GridOperator) -> NDArray[np.float32]:
    """White or smooth noise in the range of the operator, unit norm."""
    b = rng.standard_normal(operator.shape)
    if rng.random() < 0.4:
        b = gaussian_filter(b, rng.uniform(0.5, 4.0))
    b = operator.remove_null_space(b * operator.active)
    return (b / max(float(np.linalg.norm(b)), 1e-30)).astype(np.float32)


def _axes(shape: tuple[int, ...]) -> list[NDArray]:
    return list(np.ogrid[tuple(slice(0, n) for n in shape)])


def _body(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A random rotated ellipsoid or slab."""
    ndim = len(shape)
    rotation = np.linalg.qr(rng.standard_normal((ndim, ndim)))[0]
    centre = rng.uniform(0, 1, ndim) * shape
    radius = rng.uniform(0.05, 0.3, ndim) * min(shape)
    offset = [x - c for x, c in zip(_axes(shape), centre)]
    local = [sum(rotation[a, b] * offset[b] for b in range(ndim)) for a in range(ndim)]
    scaled = [np.abs(x) / r for x, r in zip(local, np.maximum(radius, 1.0))]
    if rng.random() < 0.5:
        return sum(s**2 for s in scaled) < 1
    return np.maximum.reduce(np.broadcast_arrays(*scaled)) < 0.9


def _noise(rng: Generator, shape: tuple[int, ...]) -> NDArray:
    return gaussian_filter(rng.standard_normal(shape), rng.uniform(1.0, 5.0), mode="nearest")


def _above_surface(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Cells above a wavy surface, along a random axis and side."""
    axis = int(rng.integers(len(shape)))
    floor = tuple(n for a, n in enumerate(shape) if a != axis)
    wave = gaussian_filter(rng.standard_normal(floor), rng.uniform(2.0, 8.0))
    wave *= rng.uniform(0.0, 0.15) / max(float(np.abs(wave).max()), 1e-9)
    height = shape[axis] * (rng.uniform(0.3, 0.9) + wave)
    above = _axes(shape)[axis] >= np.expand_dims(height, axis)
    return np.flip(above, axis) if rng.random() < 0.5 else above
