"""The networks of the deep conjugate direction method, in torch.

A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran: A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems, ICML 2023.  The network takes the residual over its norm to a direction
close to A^-1 r; `DCDMSettings` has the formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from consolve.learned.dcdm_weights import DCDMSettings, DCDMWeights
from consolve.pde.grid import GridOperator

COARSEST = 4
"""The deep network goes down to a grid with no axis longer."""


class DirectionNetwork(nn.Module):
    """What both networks have.

    Parameters
    ----------
    settings
        Size of the network.

    Attributes
    ----------
    is_linear
        In the residual.
    """

    def __init__(self, settings: DCDMSettings):
        super().__init__()
        self.settings, self.is_linear = settings, settings.is_linear

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the weights, by the names of `DCDMSettings.tensor_shapes`."""
        return {k: v.detach().float().cpu().numpy().copy() for k, v in self.state_dict().items()}


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
        h = self.first(pad_to_multiple(x, 2))
        h = functional.relu(self.fine[0](h))
        h = residual_pairs(self.fine[1:-1], h)
        h = functional.relu(self.fine[-1](h))
        c = residual_pairs(self.coarse, pooled(h))
        h = h + functional.interpolate(c, scale_factor=2, mode="nearest")
        h = residual_pairs(self.after, h)
        return cut(self.last(h), grid)


class DeepNetwork(DirectionNetwork):
    """The deep network of the settings.

    Parameters
    ----------
    settings
        Its size.
    """

    def __init__(self, settings: DCDMSettings):
        super().__init__(settings)
        ndim, width, count = settings.ndim, settings.width, 2 * settings.pairs
        bias, gated = not settings.is_linear, settings.activation == "gates"
        self.first = convolution(ndim, 1 if gated else settings.inputs, width, bias=bias)
        self.fine_down, self.fine_up, self.down, self.up, self.bottom = (
            convolutions(ndim, width, count, bias) for _ in range(5)
        )
        self.last = convolution(ndim, width, 1, 1, bias)
        self.gain = nn.Parameter(torch.tensor(1.0))
        for name in settings.groups():
            for second in getattr(self, name)[1::2]:
                second.weight.data *= 0.3  # pairs begin as small corrections
        if gated:
            outputs = 2 * settings.pairs * width
            self.fine_gates, self.gates = (
                nn.Sequential(
                    convolution(ndim, 2, settings.gate_width),
                    nn.ReLU(),
                    convolution(ndim, settings.gate_width, settings.gate_width),
                    nn.ReLU(),
                    convolution(ndim, settings.gate_width, outputs, taps=1),
                )
                for _ in range(2)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Direction, (batch, 1, *grid), of inputs (batch, inputs, *grid); odd sizes are padded by zeros."""
        if self.settings.activation == "gates":
            return self.last(self._level(self.first(x[:, :1]), x[:, 1:], 0))
        return self.last(self._level(self.first(x), None, 0))

    def _level(self, h: Tensor, image: Tensor | None, level: int) -> Tensor:
        """The features of a level, its own coarser levels included; `image` (batch or 1, 2, *grid)."""
        grid = h.shape[2:]
        if max(grid) <= COARSEST:
            return self._pairs(self.bottom, h, None)
        down, up = (self.down, self.up) if level else (self.fine_down, self.fine_up)
        gates: Sequence[Tensor | None] = [None] * (2 * self.settings.pairs)
        if image is not None:
            gates = (1 + (self.gates if level else self.fine_gates)(image)).split(self.settings.width, 1)
        half = self.settings.pairs
        h = self._pairs(down, h, gates[:half])
        coarse_image = None if image is None else pooled(pad_to_multiple(image, 2))
        c = self._level(pooled(pad_to_multiple(h, 2)), coarse_image, level + 1)
        mode = "bilinear" if h.ndim == 4 else "trilinear"
        h = h + self.gain * cut(functional.interpolate(c, scale_factor=2, mode=mode), grid)
        return self._pairs(up, h, gates[half:])

    def _pairs(self, layers: nn.ModuleList, h: Tensor, gates: Sequence[Tensor | None] | None) -> Tensor:
        if not self.is_linear:
            return residual_pairs(layers, h)
        for k in range(self.settings.pairs):
            t, gate = layers[2 * k](h), gates[k] if gates else None
            h = h + layers[2 * k + 1](t if gate is None else t * gate)
        return h


def convolution(ndim: int, inputs: int, outputs: int, taps: int = 3, bias: bool = True) -> nn.Module:
    """A convolution of `taps`^ndim taps with zero padding."""
    return (nn.Conv2d, nn.Conv3d)[ndim - 2](inputs, outputs, taps, padding=taps // 2, bias=bias)


def convolutions(ndim: int, width: int, count: int, bias: bool = True) -> nn.ModuleList:
    """`count` convolutions of 3^ndim taps from `width` to `width` channels."""
    return nn.ModuleList(convolution(ndim, width, width, bias=bias) for _ in range(count))


def residual_pairs(convolutions: Sequence[nn.Module] | nn.ModuleList, h: Tensor) -> Tensor:
    """h + relu(W relu(V h)) for each pair V, W of convolutions."""
    for first, second in zip(convolutions[::2], convolutions[1::2]):
        h = functional.relu(second(functional.relu(first(h)))) + h
    return h


def pooled(h: Tensor) -> Tensor:
    """Averages over blocks of 2^ndim cells."""
    return (functional.avg_pool2d if h.ndim == 4 else functional.avg_pool3d)(h, 2)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros behind the last cell of each axis, up to a multiple."""
    missing = [-n % multiple for n in x.shape[2:]]
    if not any(missing):
        return x
    return functional.pad(x, [amount for m in reversed(missing) for amount in (0, m)])


def cut(x: Tensor, grid: Sequence[int]) -> Tensor:
    """The first cells along each axis: `pad_to_multiple` undone."""
    return x[(slice(None), slice(None), *(slice(0, n) for n in grid))]


def build_network(settings: DCDMSettings) -> DirectionNetwork:
    """The network of the settings, with random weights from torch's generator."""
    return (DeepNetwork if settings.network == "dcdm-deep" else DCDMNetwork)(settings)


def network_of(weights: DCDMWeights) -> DirectionNetwork:
    """The network with these weights."""
    net = build_network(weights.settings)
    net.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.tensors.items()})
    return net


def image_channels(operator: GridOperator) -> NDArray[np.float32]:
    """What a network with `image` sees of an operator, (2, *grid).

    Channel 0 is 1 at active cells; channel 1 is the Dirichlet part over the mean of the open faces'
    coefficients (a grid without open faces: over the mean Dirichlet part).
    """
    total = sum(float(face.sum()) for face in operator.face_coefficient)
    count = sum(int(np.count_nonzero(face)) for face in operator.face_coefficient)
    if count == 0:
        total, count = float(operator.dirichlet.sum()), int(np.count_nonzero(operator.dirichlet))
    mean = total / count if count and total > 0 else 1.0
    return np.stack([operator.active, operator.dirichlet / mean]).astype(np.float32)
