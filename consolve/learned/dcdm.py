"""The networks of the deep conjugate direction method, in torch.

A. Kaneda, O. Akar, J. Chen, V. A. T. Kala, D. Hyde, J. Teran: A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems, ICML 2023.  The network takes the residual over its norm to a direction
close to A^-1 r; `DCDMSettings` has the formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from consolve.learned.dcdm_weights import DCDMSettings, DCDMWeights
from consolve.pde.grid import GridOperator


class DirectionNetwork(nn.Module):
    """What both networks have.

    Parameters
    ----------
    settings
        Size of the network.

    Attributes
    ----------
    is_symmetric
        The direction depends linearly on the residual, by a symmetric positive definite matrix.
    """

    is_symmetric = False

    def __init__(self, settings: DCDMSettings):
        super().__init__()
        self.settings = settings

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
    from consolve.learned.dcdm_deep import DeepNetwork

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
