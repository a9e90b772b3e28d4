"""The deep network of the deep conjugate direction method, in torch: as far-reaching as the grid is large.

The published network sees a few dozen cells far, so its iterations grow with the grid.  This one goes on to
ever coarser grids with the same weights; `DCDMSettings` has the formula.  Its direction is the gradient of
the quadratic ``(|S^(1/2) E r|^2 + exp(floor) |r|^2) / 2``, linear in r with a symmetric positive definite
matrix, whatever the weights are: the method with it is the preconditioned conjugate gradient method.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from consolve.learned.dcdm.format import DCDMSettings
from consolve.learned.dcdm.layers import (
    DirectionNetwork,
    convolution,
    convolutions,
    cut,
    pad_to_multiple,
    pooled,
)

COARSEST = 4
"""The coarsest grid has no axis longer."""


class Block(nn.Module):
    """The weights of a level.

    Parameters
    ----------
    settings
        Size of the network.
    """

    def __init__(self, settings: DCDMSettings):
        super().__init__()
        ndim, width, hidden = settings.ndim, settings.width, settings.gate_width
        self.pairs = convolutions(ndim, width, 2 * settings.pairs, bias=False)
        self.gates = nn.Sequential(
            convolution(ndim, 2, hidden),
            nn.ReLU(),
            convolution(ndim, hidden, hidden),
            nn.ReLU(),
            convolution(ndim, hidden, (settings.pairs + 1) * width, taps=1),
        )
        for second in self.pairs[1::2]:
            second.weight.data *= 0.3  # pairs begin as small corrections


class ImageLevel(NamedTuple):
    """What a level owes to the cell image: tensors (1 or batch, width, *grid)."""

    block: Block
    gates: tuple[Tensor, ...]
    scale: Tensor


class DeepNetwork(DirectionNetwork):
    """The deep network of the settings.

    Parameters
    ----------
    settings
        Its size.
    """

    is_symmetric = True

    def __init__(self, settings: DCDMSettings):
        super().__init__(settings)
        self.first = convolution(settings.ndim, 1, settings.width, bias=False)
        self.fine, self.coarse = Block(settings), Block(settings)
        # A^-1 of the next level is 4 times larger, and the average and its transpose lose 2^-ndim
        self.gain = nn.Parameter(torch.tensor(2.0 * 2 ** (settings.ndim / 2)))
        self.floor = nn.Parameter(torch.tensor(-3.0))

    def forward(self, x: Tensor, levels: list[ImageLevel] | None = None) -> Tensor:
        """Direction, (batch, 1, *grid), of inputs (batch, 3, *grid), of any size.

        Parameters
        ----------
        x
            Residual and cell image.
        levels
            What `levels` makes of this image; None: it is made.
        """
        r = x[:, :1]
        levels = self.levels(x[:, 1:]) if levels is None else levels
        h = self._through(convolve(r, self.first.weight), levels)
        return convolve(h, adjoint(self.first.weight)) + torch.exp(self.floor) * r

    def levels(self, image: Tensor) -> list[ImageLevel]:
        """Gates and scales of all levels, finest first, for an image (batch or 1, 2, *grid)."""
        found: list[ImageLevel] = []
        while True:
            block = self.coarse if found else self.fine
            *gates, scale = block.gates(image).split(self.settings.width, 1)
            found.append(ImageLevel(block, tuple(1 + gate for gate in gates), torch.exp(0.5 * scale)))
            if max(image.shape[2:]) <= COARSEST:
                return found
            image = pooled(pad_to_multiple(image, 2))

    def _through(self, h: Tensor, levels: list[ImageLevel]) -> Tensor:
        """Down from a level's features to the coarsest, and the transpose back up."""
        (block, gates, scale), *coarser = levels
        pairs = block.pairs
        for k, gate in enumerate(gates):
            h = h + convolve(gate * convolve(h, pairs[2 * k].weight), pairs[2 * k + 1].weight)
        t = scale * h
        if coarser:
            c = self._through(self.gain * pooled(pad_to_multiple(h, 2)), coarser)
            spread = functional.interpolate(c, scale_factor=2, mode="nearest")
            t = t + self.gain / 2**self.settings.ndim * cut(spread, h.shape[2:])
        for k, gate in reversed(list(enumerate(gates))):
            back = gate * convolve(t, adjoint(pairs[2 * k + 1].weight))
            t = t + convolve(back, adjoint(pairs[2 * k].weight))
        return t


def adjoint(weight: Tensor) -> Tensor:
    """The kernel of the transposed convolution, (in, out, *taps)."""
    return weight.transpose(0, 1).flip(tuple(range(2, weight.ndim)))


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution of 3^ndim taps with zero padding, (batch, channels, *grid)."""
    ndim = x.ndim - 2
    if x.device.type == "cpu" and torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu"):
        # torch would choose a convolution of its own for a batch of one, 20 times slower in 3D
        return torch.mkldnn_convolution(x, weight, None, [1] * ndim, [1] * ndim, [1] * ndim, 1)
    return (functional.conv2d if ndim == 2 else functional.conv3d)(x, weight, padding=1)
