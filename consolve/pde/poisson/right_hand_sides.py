"""Right-hand sides of the test problems: white noise, the divergence of a flow, point sources."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from consolve.pde.poisson.grid import GridOperator


def right_hand_side(kind: str, operator: GridOperator, seed: int = 0) -> NDArray[np.float64]:
    """A reproducible right-hand side b for which A x = b has a solution.

    - ``noise``: standard normal white noise on the active cells; excites all modes alike.
    - ``divergence``: b = -div u of a random face velocity u, smooth plus rough, that is zero on closed faces
      and may flow through Dirichlet faces: what a pressure projection meets.
    - ``point``: up to four unit sources and sinks in random cells.

    Parameters
    ----------
    kind
        One of ``RIGHT_HAND_SIDES``.
    operator
        A.  On each component without Dirichlet part the mean of b is removed.
    seed
        Same kind, operator and seed: same b, always (``np.random.default_rng``).

    Returns
    -------
    ndarray
        float64, the shape of the grid, 0 at cells that are not active.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in _MAKERS:
        raise ValueError(f"unknown right-hand side {kind!r}; known: {', '.join(RIGHT_HAND_SIDES)}")
    return operator.remove_null_space(_MAKERS[kind](operator, np.random.default_rng(seed)))


def _noise(operator: GridOperator, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.standard_normal(operator.shape)


def _divergence(operator: GridOperator, rng: np.random.Generator) -> NDArray[np.float64]:
    b = np.zeros(operator.shape)
    for axis, coefficient in enumerate(operator.face_coefficient):
        velocity = _smooth_field(operator.shape, rng)
        velocity += 0.3 * rng.standard_normal(operator.shape, dtype=np.float32)
        velocity[coefficient == 0] = 0
        b -= velocity
        upper, lower = [slice(None)] * operator.ndim, [slice(None)] * operator.ndim
        upper[axis], lower[axis] = slice(1, None), slice(None, -1)
        b[tuple(upper)] += velocity[tuple(lower)]
    outflow = rng.standard_normal(operator.shape, dtype=np.float32)
    b -= np.where(operator.dirichlet > 0, outflow, 0)
    return b


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator, modes: int = 6) -> NDArray[np.float32]:
    """Sum of products of cosines of a few waves a side, with a root mean square near 1."""
    waves = []
    for n in shape:
        frequency, phase = rng.uniform(0, 3, (modes, 1)), rng.uniform(0, 2 * np.pi, (modes, 1))
        position = (np.arange(n) + 0.5) / n
        waves.append(np.sqrt(2) * np.cos(2 * np.pi * frequency * position + phase))
    waves[0] *= rng.standard_normal((modes, 1)) / np.sqrt(modes)
    rest = waves[1] if len(shape) == 2 else np.einsum("mj,mk->mjk", waves[1], waves[2]).reshape(modes, -1)
    return (waves[0].T.astype(np.float32) @ rest.astype(np.float32)).reshape(shape)


def _point(operator: GridOperator, rng: np.random.Generator) -> NDArray[np.float64]:
    b = np.zeros(operator.shape)
    count = min(4, operator.unknowns)
    if count:
        chosen = rng.choice(operator.unknowns, count, replace=False)
        b.flat[operator.cells[chosen]] = [1.0, -1.0, 1.0, -1.0][:count]
    return b


_MAKERS: dict[str, Callable[[GridOperator, np.random.Generator], NDArray[np.float64]]] = {
    "noise": _noise,
    "divergence": _divergence,
    "point": _point,
}

RIGHT_HAND_SIDES: tuple[str, ...] = tuple(_MAKERS)
"""Kinds that :func:`right_hand_side` knows."""
