"""The propagator network in torch, for training: see `consolve.learned.waves.format.PropagatorSettings`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from consolve.learned.separable.layers import SeparableConv2d
from consolve.learned.waves.format import PropagatorSettings


class TorchPropagator(nn.Module):
    """The propagator, differentiable.

    Parameters
    ----------
    settings
        Sizes; `settings.ranks` decides whether the wave convolutions are dense or compressed.
    """

    def __init__(self, settings: PropagatorSettings):
        super().__init__()
        self.settings = s = settings
        self.wave = nn.ModuleList(
            self._convolution(layer, out, in_) for layer, (out, in_, _, _) in enumerate(s.kernel_shapes())
        )
        g = s.gate_width
        self.gate = nn.ModuleList(
            [
                nn.Conv2d(s.medium_channels * s.factor**2, g, 3, padding=1),
                nn.Conv2d(g, g, 3, padding=1),
                nn.Conv2d(g, (s.layers - 1) * s.width, 1),
            ]
        )
        self.reset_parameters()

    def _convolution(self, layer: int, out_channels: int, in_channels: int) -> nn.Module:
        if self.settings.ranks is None:
            return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        return SeparableConv2d(
            in_channels,
            out_channels,
            3,
            padding=1,
            bias=False,
            rank=self.settings.ranks[layer],
            method="dense",
        )

    def reset_parameters(self) -> None:
        """Kernels that keep the variance of the wave field (Var W = 1 / fan in); gates near one; a tenth of
        that in the last layer, so that an untrained step nearly repeats the last snapshot."""
        with torch.no_grad():
            for convolution in self.wave:
                if isinstance(convolution, nn.Conv2d):
                    fan = convolution.in_channels * 9
                    convolution.weight.normal_(std=1 / math.sqrt(fan))
                else:
                    convolution.reset_parameters("torch")  # variance 1/3 of 1 / fan
                    convolution.output_factor.mul_(math.sqrt(3.0))
                    for one_way in convolution.filters:  # towards the centre, at the same norm
                        norm = one_way.norm(dim=1, keepdim=True)
                        one_way[:, 1] += 0.5 * norm[:, 0]
                        one_way.mul_(norm / one_way.norm(dim=1, keepdim=True))
            last = self.wave[-1]
            (last.weight if isinstance(last, nn.Conv2d) else last.output_factor).mul_(0.1)
            self.gate[2].weight.mul_(0.5)
            self.gate[2].bias.fill_(1.0)

    def gates(self, medium: Tensor) -> Sequence[Tensor]:
        """Gates of every hidden layer, and at last the mask of the vertices that are not fixed, from the
        medium's channels (batch, 3, ny, nx)."""
        h = functional.pixel_unshuffle(medium, self.settings.factor)
        h = functional.gelu(self.gate[0](h))
        h = functional.gelu(self.gate[1](h))
        h = self.gate[2](h).contiguous(memory_format=torch.channels_last)
        gates = h.chunk(self.settings.layers - 1, 1)
        return [*(g.contiguous(memory_format=torch.channels_last) for g in gates), 1 - medium[:, 1:2]]

    def kernels(self) -> list[Tensor]:
        """Dense kernels of the wave convolutions, built from their factors once for a whole rollout."""
        return [c.weight.contiguous(memory_format=torch.channels_last) for c in self.wave]

    def step(self, u: Tensor, gates: Sequence[Tensor], kernels: Sequence[Tensor]) -> Tensor:
        """The next `ahead` snapshots (batch, ahead, ny, nx) of the last `past` ones (batch, past, ny, nx)."""
        f = self.settings.factor
        channels_last = functional.pixel_unshuffle(u, f).contiguous(memory_format=torch.channels_last)
        h = functional.conv2d(channels_last, kernels[0], padding=1) * gates[0]
        for kernel, gate in zip(kernels[1:-1], gates[1:-1]):
            h = h + functional.conv2d(h, kernel, padding=1) * gate
        correction = functional.pixel_shuffle(functional.conv2d(h, kernels[-1], padding=1), f)
        return u[:, -1:] + gates[-1] * correction

    def forward(self, u: Tensor, medium: Tensor, steps: int) -> Tensor:
        """Rollout: the `steps` snapshots after the `past` given ones, (batch, steps, ny, nx)."""
        gates, kernels = self.gates(medium), self.kernels()
        snapshots = []
        for _ in range(-(-steps // self.settings.ahead)):
            new = self.step(u, gates, kernels)
            snapshots.append(new)
            u = torch.cat([u, new], 1)[:, -self.settings.past :]
        return torch.cat(snapshots, 1)[:, :steps]

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The parameters by name, as in a weights file."""
        return {
            name: p.detach().cpu().float().contiguous().numpy().copy() for name, p in self.named_parameters()
        }
