"""What defeats coarse grids of halved axes: flat and stretched cells, walls of no thickness, coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from consolve.pde.poisson.grid import GridOperator

Widths = tuple[NDArray[np.float64], ...]
STRETCHING = 2.5
"""Of ``tanh_widths``: the widest cell is about 36 times as wide as the narrowest."""


def tanh_widths(n: int) -> NDArray[np.float64]:
    """Widths of n cells along an axis, of mean 1, that are narrow towards both ends."""
    ends = np.tanh(STRETCHING * np.linspace(-1, 1, n + 1))
    return np.diff(ends) * n / (ends[-1] - ends[0])


def baffles(shape: Sequence[int], rng: np.random.Generator) -> tuple[NDArray[np.bool_], ...]:
    """Faces, by axis, that seven walls of no thickness close: across the first axis, with a hole each."""
    closed = tuple(np.zeros(shape, np.bool_) for _ in shape)
    places = (np.arange(1, 8) + rng.uniform(-0.2, 0.2, 7)) / 8
    corners = rng.uniform(0, 1, (7, len(shape) - 1))
    for place, corner in zip(places, corners):
        layer = closed[0][min(int(place * shape[0]), shape[0] - 2)]
        layer[:] = True
        width = [max(1, n // 12) for n in shape[1:]]
        begin = [int(c * (n - w)) for c, n, w in zip(corner, shape[1:], width)]
        layer[tuple(slice(b, b + w) for b, w in zip(begin, width))] = False
    return closed


def widths_of(name: str, shape: Sequence[int], number: float | None) -> Widths | None:
    """Widths of the cells of ``flat`` and ``stretched``; see the gallery."""
    if name == "flat":
        return np.full(shape[0], 1 / (number or 10.0)), *(np.ones(n) for n in shape[1:])
    if name == "stretched":
        return tuple(tanh_widths(n) if a < (number or 3) else np.ones(n) for a, n in enumerate(shape))
    return None


def lognormal(shape: Sequence[int], rng: np.random.Generator, sigma: float | None) -> NDArray[np.float64]:
    """exp(sigma g) of a normal field g, correlated over about four cells; sigma is 3 by default."""
    sigma = sigma or 3.0
    field = gaussian_filter(rng.standard_normal(shape), 2)
    scatter = float(field.std())
    return np.exp(sigma * field / (scatter if scatter > 0 else 1.0))


def on_widths(operator: GridOperator, widths: Widths) -> GridOperator:
    """The operator of cells of these widths along each axis, given that of cubes.

    A face gets its area over the distance of the centres; what is beyond the first axis is as far away as if
    the grid went on.
    """
    shape, ndim = operator.shape, operator.ndim
    along = [w.reshape([-1 if a == axis else 1 for a in range(ndim)]) for axis, w in enumerate(widths)]
    volume = np.ones(shape)
    for w in along:
        volume = volume * w
    faces = []
    for axis, w in enumerate(along):
        upper = np.concatenate([np.take(w, range(1, shape[axis]), axis), np.take(w, [-1], axis)], axis)
        faces.append(operator.face_coefficient[axis] * (volume / w) / (0.5 * (w + upper)))
    dirichlet = operator.dirichlet * volume / along[0] ** 2
    return GridOperator(tuple(faces), dirichlet, operator.active)


def with_closed(operator: GridOperator, closed: Sequence[NDArray[np.bool_]]) -> GridOperator:
    """The operator with these faces closed."""
    faces = tuple(np.where(c, 0.0, f) for c, f in zip(closed, operator.face_coefficient))
    return GridOperator(faces, operator.dirichlet, operator.active)
