"""The published network of the deep conjugate direction method, in torch.

A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran: A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems, ICML 2023.  The network takes the residual over its norm to a direction
close to A^-1 r; `DCDMSettings` has the formula.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from consolve.learned.dcdm.format import DCDMSettings
from consolve.learned.dcdm.layers import (
    DirectionNetwork,
    convolution,
    convolutions,
    cut,
    pad_to_multiple,
    pooled,
    residual_pairs,
)


class DCDMNetwork(DirectionNetwork):
    """The published network of the settings.

    Parameters
    ----------
    settings
        Its size.
    """

    def __init__(self, settings: DCDMSettings):
        super().__init__(settings)
        ndim, width = settings.ndim, settings.width
        fine, coarse, after = settings.groups().values()
        self.first = convolution(ndim, settings.inputs, width)
        self.fine = convolutions(ndim, width, fine)
        self.coarse = convolutions(ndim, width, coarse)
        self.after = convolutions(ndim, width, after)
        self.last = convolution(ndim, width, 1, taps=1)

    def forward(self, x: Tensor) -> Tensor:
        """Direction, (batch, 1, *grid), of inputs (batch, inputs, *grid); odd sizes are padded by zeros."""
        grid = x.shape[2:]
        if self.settings.image:
            x = torch.cat([x[:, :1] * math.prod(grid) ** 0.5, x[:, 1:]], 1)
        h = self.first(pad_to_multiple(x, 2))
        h = functional.relu(self.fine[0](h))
        h = residual_pairs(self.fine[1:-1], h)
        h = functional.relu(self.fine[-1](h))
        c = residual_pairs(self.coarse, pooled(h))
        h = h + functional.interpolate(c, scale_factor=2, mode="nearest")
        h = residual_pairs(self.after, h)
        return cut(self.last(h), grid)
