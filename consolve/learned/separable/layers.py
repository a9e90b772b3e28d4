"""Compressed convolution layers: kernels that are sums of R products of one-way filters (torch).

The kernel of a layer is a canonical polyadic form over the channels and each axis (z in 3D only)::

    W[o, i, (z,) y, x] = sum_{r=1..R} A[o, r] B[r, i] (T[r, z]) V[r, y] H[r, x]

so that a layer stores R (out + in + (k_z +) k_y + k_x) numbers in place of out in (k_z) k_y k_x.

H. Boukraichi, N. Akkari, F. Casenave and D. Ryckelynck, A priori compression of convolutional neural networks
for wave simulators, 2023, arXiv:2304.04964.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from consolve.learned.separable.form import SeparableConvolution, output_lengths


class _Separable(SeparableConvolution):
    """Constructor and forward of the layers that are not transposed."""

    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rank: int,
        method: str = "auto",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode,
            rank, method, device, dtype,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.output_padding)


class _SeparableTranspose(SeparableConvolution):
    """Constructor and forward of the transposed layers."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rank: int,
        method: str = "auto",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, rank, method, device, dtype,
        )  # fmt: skip

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """As `torch.nn.ConvTranspose2d`: `output_size` (the last axes are read) replaces `output_padding`."""
        if output_size is None:
            return self._convolve(x, self.output_padding)
        ndim = len(self.axes)
        wanted = tuple(output_size)[-ndim:]
        least = output_lengths(self, x.shape[-ndim:], (0,) * ndim)
        extra = tuple(w - n for w, n in zip(wanted, least))
        if len(wanted) != ndim or any(not 0 <= e < s for e, s in zip(extra, self.stride)):
            most = tuple(n + s - 1 for n, s in zip(least, self.stride))
            raise ValueError(f"output_size {tuple(output_size)} was asked for: expected {least} to {most}")
        return self._convolve(x, extra)


class SeparableConv2d(_Separable):
    """`torch.nn.Conv2d` with the kernel ``sum_r A[o, r] B[r, i] V[r, y] H[r, x]``.

    Arguments and behaviour are those of `torch.nn.Conv2d` with groups=1, and the keywords `rank`, from 1 to
    `consolve.learned.separable.canonical.largest_rank`, and `method`, see `SeparableConvolution`.
    """

    axes = ("y", "x")
    dense_layer = nn.Conv2d


class SeparableConv3d(_Separable):
    """`torch.nn.Conv3d` with the kernel ``sum_r A[o, r] B[r, i] T[r, z] V[r, y] H[r, x]``.

    Arguments and behaviour are those of `torch.nn.Conv3d` with groups=1, and `rank` and `method` as in
    `SeparableConv2d`.  The first axis may be time.
    """

    axes = ("z", "y", "x")
    dense_layer = nn.Conv3d


class SeparableConvTranspose2d(_SeparableTranspose):
    """`torch.nn.ConvTranspose2d` with the kernel of `SeparableConv2d`; A keeps the output channels."""

    axes = ("y", "x")
    dense_layer = nn.ConvTranspose2d


class SeparableConvTranspose3d(_SeparableTranspose):
    """`torch.nn.ConvTranspose3d` with the kernel of `SeparableConv3d`; A keeps the output channels."""

    axes = ("z", "y", "x")
    dense_layer = nn.ConvTranspose3d


SEPARABLE: dict[Any, Any] = {
    layer.dense_layer: layer
    for layer in (SeparableConv2d, SeparableConv3d, SeparableConvTranspose2d, SeparableConvTranspose3d)
}
"""The compressed layer of each dense one."""


def rank_for(
    compression: float, in_channels: int, out_channels: int, kernel_size: Sequence[int], bias: bool = False
) -> int:
    """The largest rank with which a layer stores at most 1/compression of its dense twin's numbers.

    ``R (out + in + sum k) + b <= (out in prod k + b) / compression`` with b = out where the bias is counted,
    otherwise 0; always less than `consolve.learned.separable.canonical.largest_rank`.

    Parameters
    ----------
    compression
        At least 1.
    kernel_size
        Lengths along (z,) y, x.

    Raises
    ------
    ValueError
        The compression is below 1, or asks for less than rank 1 (the message says how much is possible).
    """
    if not (math.isfinite(compression) and compression >= 1):
        raise ValueError(f"compression must be a finite number >= 1, got {compression!r}")
    shape = (out_channels, in_channels, *kernel_size)
    if len(shape) not in (4, 5) or min(shape) < 1:
        raise ValueError(f"kernel_size must be 2 or 3 positive lengths, got {kernel_size!r} (shape {shape})")
    fixed = out_channels if bias else 0
    dense = math.prod(shape) + fixed
    rank = math.floor((Fraction(dense) / Fraction(compression) - fixed) / sum(shape))
    if rank < 1:
        raise ValueError(
            f"compression {compression:g} is out of reach for {in_channels} -> {out_channels} channels with "
            f"kernel {tuple(kernel_size)}: rank 1 compresses {dense / (sum(shape) + fixed):.4g} times; "
            f"ask for less or leave this layer dense"
        )
    return rank


CONVOLUTIONS: Any = (*SEPARABLE, *SEPARABLE.values())


def parameters_of(module: nn.Module) -> int:
    """Numbers stored by the convolutions of a layer or network, kernels and biases, dense and compressed.

    Counts `torch.nn.Conv2d`, `Conv3d`, their transposes and their compressed layers, each parameter once;
    other layers do not count.

    Raises
    ------
    TypeError
        There is no such convolution in the module.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, CONVOLUTIONS)]
    if not layers:
        raise TypeError(f"{type(module).__name__} is not, and does not contain, a 2D or 3D convolution")
    return sum(p.numel() for p in {id(p): p for layer in layers for p in layer.parameters()}.values())


def flops_of(layer: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-adds of a dense or compressed convolution layer on an input.

    With N and M the numbers of points of input and output, taps at the padding counted, the bias not:

    - dense ``M out in prod k / groups``, transposed ``N out in prod k / groups``;
    - compressed, axis by axis (`factored`, whichever way the layer computes): ``N in R`` for the channels,
      ``R k`` times the points after each axis (transposed: before it), ``M R out``.

    Parameters
    ----------
    input_shape
        (batch, channels, (z,) y, x), or without batch.

    Raises
    ------
    TypeError
        Not a 2D or 3D convolution.
    ValueError
        The shape does not suit the layer.
    """
    if not isinstance(layer, CONVOLUTIONS):
        raise TypeError(f"a 2D or 3D convolution layer was expected, got {type(layer).__name__}")
    ndim = len(layer.kernel_size)
    *batch, channels = input_shape[:-ndim] if len(input_shape) in (ndim + 1, ndim + 2) else (0, 0)
    points = tuple(input_shape[-ndim:])
    output = output_lengths(layer, points) if channels == layer.in_channels else ()
    if not output or min(output) < 1:
        raise ValueError(
            f"input shape {tuple(input_shape)} does not suit {layer}: expected (batch, {layer.in_channels}, "
            f"{ndim} lengths that leave an output)"
        )
    count = math.prod(batch)
    channel_product = layer.in_channels * layer.out_channels // layer.groups
    if not isinstance(layer, SeparableConvolution):
        applied = points if layer.transposed else output
        return count * math.prod(applied) * channel_product * math.prod(layer.kernel_size)
    total = math.prod(points) * layer.in_channels + math.prod(output) * layer.out_channels
    lengths = list(points)
    for axis, k in enumerate(layer.kernel_size):
        before = math.prod(lengths)
        lengths[axis] = output[axis]
        total += k * (before if layer.transposed else math.prod(lengths))
    return count * layer.rank * total
