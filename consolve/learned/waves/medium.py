"""What the gates of a propagator see of a medium."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPEED_RANGE = (0.5, 1.0)
"""Speeds of the training sets; c^2 over this range is scaled to [-1, 1] for the gates."""


def medium_channels(speed: NDArray, fixed: NDArray) -> NDArray[np.float32]:
    """Scaled c^2, fixed vertices, and vertices on the absorbing sides, (..., 3, ny, nx).

    Parameters
    ----------
    speed
        (..., ny, nx): c at the vertices.
    fixed
        (..., ny, nx): 1 where u = 0, otherwise 0.
    """
    low, high = (c**2 for c in SPEED_RANGE)
    channels = np.zeros((*speed.shape[:-2], 3, *speed.shape[-2:]), np.float32)
    channels[..., 0, :, :] = (2 * np.asarray(speed, np.float64) ** 2 - low - high) / (high - low)
    channels[..., 1, :, :] = fixed
    side = channels[..., 2, :, :]
    side[..., 0, :] = side[..., -1, :] = side[..., :, 0] = side[..., :, -1] = 1
    return channels
