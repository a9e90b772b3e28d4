"""What the networks of the deep conjugate direction method are made of, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from consolve.learned.dcdm.format import DCDMSettings


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
