"""The generator network in torch, for training: see `consolve.learned.waves.format.GeneratorSettings`."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from consolve.learned.separable.layers import SeparableConv3d
from consolve.learned.waves.format import GeneratorSettings


def shuffle(h: Tensor, factor: int) -> Tensor:
    """Depth to space in time, y and x: (batch, f^3, t, y, x) to (batch, f t, f y, f x); channel
    ``f^2 dt + f dy + dx`` at (t, y, x) becomes point (f t + dt, f y + dy, f x + dx)."""
    batch, _, t, y, x = h.shape
    h = h.reshape(batch, factor, factor, factor, t, y, x).permute(0, 4, 1, 5, 2, 6, 3)
    return h.reshape(batch, factor * t, factor * y, factor * x)


class TorchGenerator(nn.Module):
    """The generator, differentiable.

    Parameters
    ----------
    settings
        Sizes; `settings.ranks` decides whether the convolutions of the decoder are dense or compressed.
    """

    low: Tensor
    high: Tensor

    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.settings = s = settings
        points = math.prod(s.coarsest)
        self.encoder = nn.ModuleList(
            [
                nn.Linear(s.features, s.hidden),
                nn.Linear(s.hidden, s.hidden),
                nn.Linear(s.hidden, s.seeds * points),
            ]
        )
        self.decoder = nn.ModuleList(
            self._convolution(layer, out, in_) for layer, (out, in_, *_) in enumerate(s.kernel_shapes())
        )
        self.register_buffer("low", torch.tensor(s.low), persistent=False)
        self.register_buffer("high", torch.tensor(s.high), persistent=False)
        self.reset_parameters()

    def _convolution(self, layer: int, out_channels: int, in_channels: int) -> nn.Module:
        if self.settings.ranks is None:
            return nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        return SeparableConv3d(
            in_channels,
            out_channels,
            3,
            padding=1,
            bias=False,
            rank=self.settings.ranks[layer],
            method="dense",
        )

    def reset_parameters(self) -> None:
        """Kernels of variance 1 / fan in, dense and compressed alike."""
        with torch.no_grad():
            for convolution in self.decoder:
                if isinstance(convolution, nn.Conv3d):
                    convolution.weight.normal_(std=1 / math.sqrt(27 * convolution.in_channels))
                else:
                    convolution.reset_parameters("torch")  # variance 1/3 of 1 / fan
                    convolution.output_factor.mul_(math.sqrt(3.0))

    def features(self, parameters: Tensor) -> Tensor:
        """Parameters scaled to [-1, 1], and sines and cosines of their multiples of pi/2."""
        p = 2 * (parameters - self.low) / (self.high - self.low) - 1
        waves = [
            f(math.pi / 2 * k * p)
            for k in range(1, self.settings.harmonics + 1)
            for f in (torch.sin, torch.cos)
        ]
        return torch.cat([p, *waves], 1)

    def forward(self, parameters: Tensor) -> Tensor:
        """The field (batch, time, y, x) of parameters (batch, number), in units of the training set."""
        s = self.settings
        h = functional.gelu(self.encoder[0](self.features(parameters)))
        h = functional.gelu(self.encoder[1](h))
        h = self.encoder[2](h).view(-1, s.seeds, *s.coarsest)
        h = functional.interpolate(h, scale_factor=2, mode="trilinear", align_corners=False)
        h = self.decoder[0](h)
        for convolution in self.decoder[1:-1]:
            h = h + convolution(functional.gelu(h))
        return s.scale * shuffle(self.decoder[-1](functional.gelu(h)), s.factor)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The parameters by name, as in a weights file."""
        return {
            name: p.detach().cpu().float().contiguous().numpy().copy() for name, p in self.named_parameters()
        }
