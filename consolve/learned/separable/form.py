"""The canonical polyadic form of a convolution kernel, and three equal ways to apply it (torch).

The kernel of a layer is a canonical polyadic form over the channels and each axis (z in 3D only)::

    W[o, i, (z,) y, x] = sum_{r=1..R} A[o, r] B[r, i] (T[r, z]) V[r, y] H[r, x]

so that a layer stores R (out + in + k_z + k_y + k_x) numbers in place of out in k_z k_y k_x.

H. Boukraichi, N. Akkari, F. Casenave and D. Ryckelynck, A priori compression of convolutional neural networks
for wave simulators, Engineering Applications of Artificial Intelligence 126 (2023), arXiv:2304.04964.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from consolve.learned.separable.canonical import canonical_decomposition, check_rank

METHODS = ("depthwise", "factored", "dense")
_DEPTHWISE_TAPS = 9
"""Kernels with more taps are faster axis by axis than as one filter per term."""
VARIANCES = ("torch", "he")
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_CONVOLVE = {2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSE = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def _positive(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return value


def _per_axis(value: int | Sequence[int], ndim: int, name: str, least: int) -> tuple[int, ...]:
    values = (value,) * ndim if isinstance(value, int) else tuple(value)
    if len(values) != ndim or any(not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name} must be an integer >= {least}, or {ndim} of them, got {value!r}")
    return values


def options_of(layer: nn.Module) -> dict:
    """Arguments of the constructor that a dense layer and its compressed one share, but for groups."""
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode"]
    if layer.transposed:
        names.append("output_padding")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.bias is not None}


def output_lengths(
    layer: nn.Module, lengths: Sequence[int], output_padding: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Lengths of a convolution's output axes (z,) y, x, dense or separable, for those of its input."""
    ndim = len(layer.kernel_size)
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size)]
    if layer.padding == "same":
        padded = reach
    else:
        padded = [0] * ndim if layer.padding == "valid" else [2 * p for p in layer.padding]
    if layer.transposed:
        extra = layer.output_padding if output_padding is None else output_padding
        parts = zip(lengths, layer.stride, padded, reach, extra)
        return tuple((n - 1) * s - p + r + e + 1 for n, s, p, r, e in parts)
    return tuple((n + p - r - 1) // s + 1 for n, p, r, s in zip(lengths, padded, reach, layer.stride))


class SeparableConvolution(nn.Module):
    """What the four layers share; use `SeparableConv2d` and its siblings.

    The parameters are `output_factor` A (out_channels, R), `input_factor` B (R, in_channels) and one
    `filter_<axis>` (R, k) for each of the axes (z,) y, x.  `weight` is the dense kernel, computed from them.

    Three ways to compute lead to the same output up to round-off; `method` may be changed at any time:

    ``depthwise``
        A 1 x 1 convolution to R channels, one filter per channel (the product of its one-way filters), a
        1 x 1 convolution to the output channels.
    ``factored``
        The same with the one-way filters applied one axis after the other: the least arithmetic, most passes.
    ``dense``
        The kernel is built and applied by one dense convolution.

    The default, ``auto``, is ``depthwise`` for up to 9 taps and ``factored`` beyond.  Milliseconds of a
    training step (forward and backward, one CPU core, torch 2.13, batch 8, 64 channels, 32 x 32, channels
    first, the least of 24; torch's dense layer takes 9.2 to 10.2 with 3 x 3 taps, 23.5 with 5 x 5)::

        rank               8     16     32     64     16 with 5 x 5
        depthwise        2.4    2.5    3.8    6.2    5.0
        factored         2.9    3.1    4.3    7.8    3.3
        dense           10.1    9.7    9.7    9.5   24.4

    Forward alone at rank 16: 0.6, 0.7, 2.8.  ``dense`` is the fastest where the rank passes the number of
    channels (a training step of 16 channels on 64 x 64 at rank 32: 9.8, 11.5, 3.5).

    Attributes
    ----------
    rank
        Number R of terms.
    relative_error
        Relative Frobenius error of the kernel when made by `from_dense`, otherwise None.  Not in the
        state dict.
    """

    axes: ClassVar[tuple[str, ...]]
    transposed: ClassVar[bool]
    dense_layer: ClassVar[Any]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: str | int | Sequence[int],
        dilation: int | Sequence[int],
        output_padding: int | Sequence[int],
        groups: int,
        bias: bool,
        padding_mode: str,
        rank: int,
        method: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        ndim = len(self.axes)
        if groups != 1:
            raise ValueError(
                f"{type(self).__name__} has no groups: groups={groups} came, only 1 is supported; keep "
                f"torch.nn.{self.dense_layer.__name__} for a grouped convolution"
            )
        self.in_channels = _positive(in_channels, "in_channels")
        self.out_channels = _positive(out_channels, "out_channels")
        self.kernel_size = _per_axis(kernel_size, ndim, "kernel_size", least=1)
        self.stride = _per_axis(stride, ndim, "stride", least=1)
        self.dilation = _per_axis(dilation, ndim, "dilation", least=1)
        self.output_padding = _per_axis(output_padding, ndim, "output_padding", least=0)
        self.groups = 1
        self.padding_mode = padding_mode
        self.padding = self._checked_padding(padding)
        self.method = method
        check_rank(rank, (self.out_channels, self.in_channels, *self.kernel_size))
        self.rank = int(rank)
        self.relative_error: float | None = None

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.output_factor = parameter(self.out_channels, self.rank)
        self.input_factor = parameter(self.rank, self.in_channels)
        for axis, k in zip(self.axes, self.kernel_size):
            setattr(self, f"filter_{axis}", parameter(self.rank, k))
        if bias:
            self.bias = parameter(self.out_channels)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _checked_padding(self, padding: str | int | Sequence[int]) -> str | tuple[int, ...]:
        modes = ("zeros",) if self.transposed else _PADDING_MODES
        if self.padding_mode not in modes:
            raise ValueError(
                f"{type(self).__name__}: padding_mode must be one of {', '.join(modes)}, "
                f"got {self.padding_mode!r}"
            )
        if not isinstance(padding, str):
            return _per_axis(padding, len(self.axes), "padding", least=0)
        if self.transposed or padding not in ("same", "valid"):
            expected = "integers" if self.transposed else "integers, 'same' or 'valid'"
            raise ValueError(f"{type(self).__name__}: padding must be {expected}, got {padding!r}")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(f"padding='same' needs stride 1 along every axis, got stride {self.stride}")
        return padding

    @property
    def method(self) -> str:
        """``depthwise``, ``factored`` or ``dense``; setting ``auto`` chooses by the size of the kernel."""
        return self._method

    @method.setter
    def method(self, value: str) -> None:
        if value not in ("auto", *METHODS):
            raise ValueError(f"method must be one of auto, {', '.join(METHODS)}, got {value!r}")
        if value == "auto":
            value = "depthwise" if math.prod(self.kernel_size) <= _DEPTHWISE_TAPS else "factored"
        self._method = value

    @property
    def filters(self) -> tuple[Tensor, ...]:
        """The one-way filters (R, k) of the axes (z,) y, x."""
        return tuple(getattr(self, f"filter_{axis}") for axis in self.axes)

    @property
    def weight(self) -> Tensor:
        """The dense kernel in torch's layout: (out, in, (k_z,) k_y, k_x), transposed layers (in, out, ...).

        Computed from the factors and differentiable; to change it, change the factors.
        """
        products = self._filter_products()
        if self.transposed:
            kernel = self.input_factor.T @ (self.output_factor.T[:, :, None] * products[:, None, :]).flatten(
                1
            )
            return kernel.reshape(self.in_channels, self.out_channels, *self.kernel_size)
        kernel = self.output_factor @ (self.input_factor[:, :, None] * products[:, None, :]).flatten(1)
        return kernel.reshape(self.out_channels, self.in_channels, *self.kernel_size)

    def _filter_products(self) -> Tensor:
        """(R, product of the kernel sizes): the products of the one-way filters of each term."""
        products, *others = self.filters
        for f in others:
            products = (products[:, :, None] * f[:, None, :]).flatten(1)
        return products

    def reset_parameters(self, variance: str = "torch") -> None:
        """Random factors that give the outputs the variance of the dense layer's initialisation.

        Each vector (a column of A, a row of B, T, V or H) is uniform on the sphere of radius rho.  With n
        vectors in a term (4 in 2D, 5 in 3D), the entries of the kernel are uncorrelated, of mean 0, and::

            Var(W) = R rho^(2n) / (out in k_z k_y k_x) = g / fan
            rho = (g out in k_z k_y k_x / (R fan))^(1/(2n))

        where fan = in k_z k_y k_x, for a transposed layer out k_z k_y k_x (as torch has it), and g = 1/3 for
        torch's default, 2 for He et al. (2015), before a ReLU.  The bias is uniform in +-1/sqrt(fan).

        Parameters
        ----------
        variance
            ``torch`` or ``he``.
        """
        if variance not in VARIANCES:
            raise ValueError(f"variance must be one of {', '.join(VARIANCES)}, got {variance!r}")
        gain = 1 / 3 if variance == "torch" else 2.0
        taps = math.prod(self.kernel_size)
        fan = (self.out_channels if self.transposed else self.in_channels) * taps
        entries = self.out_channels * self.in_channels * taps
        vectors = 2 + len(self.axes)
        radius = (gain * entries / (self.rank * fan)) ** (1 / (2 * vectors))
        with torch.no_grad():
            for factor, along in (
                (self.output_factor, 0),
                *((f, 1) for f in (self.input_factor, *self.filters)),
            ):
                factor.normal_()
                factor.mul_(radius / factor.norm(dim=along, keepdim=True))
            if self.bias is not None:
                self.bias.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan))

    def _convolve(self, x: Tensor, output_padding: tuple[int, ...]) -> Tensor:
        if (
            x.ndim not in (len(self.axes) + 1, len(self.axes) + 2)
            or x.shape[-len(self.axes) - 1] != self.in_channels
        ):
            wanted = ", ".join((str(self.in_channels), *(f"n_{axis}" for axis in self.axes)))
            raise ValueError(
                f"{type(self).__name__}: expected an input of shape (batch, {wanted}) or ({wanted}), "
                f"got {tuple(x.shape)}"
            )
        if self.method == "dense":
            return self._applied(x, self.weight, self.bias, 1, output_padding)
        convolve, ones = _CONVOLVE[len(self.axes)], (1,) * len(self.axes)
        y = convolve(x, self.input_factor.reshape(*self.input_factor.shape, *ones))
        if self.method == "depthwise":
            kernel = self._filter_products().reshape(self.rank, 1, *self.kernel_size)
            y = self._applied(y, kernel, None, self.rank, output_padding)
        else:
            y = self._along_axes(y, output_padding)
        return convolve(y, self.output_factor.reshape(*self.output_factor.shape, *ones), self.bias)

    def _apply_padding(self, x: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
        """The input, padded here unless with zeros, and the padding that is left to the convolution."""
        if self.padding_mode == "zeros" or self.padding == "valid":
            return x, self.padding
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(int(p), int(p)) for p in self.padding]
        widths = [width for pair in reversed(sides) for width in pair]
        return functional.pad(x, widths, mode=self.padding_mode), (0,) * len(self.axes)

    def _applied(
        self, x: Tensor, kernel: Tensor, bias: Tensor | None, groups: int, output_padding: tuple[int, ...]
    ) -> Tensor:
        if self.transposed:
            transpose = _TRANSPOSE[len(self.axes)]
            return transpose(
                x, kernel, bias, self.stride, self.padding, output_padding, groups, self.dilation
            )
        x, padding = self._apply_padding(x)
        return _CONVOLVE[len(self.axes)](x, kernel, bias, self.stride, padding, self.dilation, groups)

    def _along_axes(self, x: Tensor, output_padding: tuple[int, ...]) -> Tensor:
        """The one-way filters on R channels, axis by axis, with the stride and the padding of each."""
        ndim = len(self.axes)
        padding = self.padding
        if not self.transposed:
            x, padding = self._apply_padding(x)

        def only(axis: int, values: Sequence[int], otherwise: int) -> tuple[int, ...]:
            return tuple(v if a == axis else otherwise for a, v in enumerate(values))

        for axis, one_way in enumerate(self.filters):
            kernel = one_way.reshape(self.rank, 1, *only(axis, self.kernel_size, 1))
            stride, dilation = only(axis, self.stride, 1), only(axis, self.dilation, 1)
            sides = padding if isinstance(padding, str) else only(axis, padding, 0)
            if self.transposed:
                extra = only(axis, output_padding, 0)
                x = _TRANSPOSE[ndim](x, kernel, None, stride, sides, extra, self.rank, dilation)
            else:
                x = _CONVOLVE[ndim](x, kernel, None, stride, sides, dilation, self.rank)
        return x

    @classmethod
    def from_dense(
        cls,
        layer: nn.Module,
        rank: int,
        *,
        method: str = "auto",
        seed: int = 0,
        **options: Any,
    ):
        """The layer whose kernel is the canonical decomposition of a (trained) dense layer's.

        Parameters
        ----------
        layer
            `torch.nn.Conv2d`, ... as `dense_layer` of this class says, with groups=1.
        rank
            Number of terms; with the rank of the kernel or more the layer computes the same.
        method
            How the new layer computes.
        seed, options
            `seed`, `starts`, `sweeps`, `tolerance`, `regularisation` of
            `consolve.learned.separable.canonical.canonical_decomposition`.

        Returns
        -------
        Layer of this class, of the same device and dtype; `relative_error` tells how near its kernel is.

        Raises
        ------
        TypeError
            Another kind of layer.
        ValueError
            Groups, a rank that does not suit the kernel, or a kernel with NaN or infinite entries.
        """
        if not isinstance(layer, cls.dense_layer):
            raise TypeError(
                f"{cls.__name__}.from_dense expects a torch.nn.{cls.dense_layer.__name__}, "
                f"got {type(layer).__name__}"
            )
        like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        made = cls(**options_of(layer), groups=layer.groups, rank=rank, method=method, **like)
        kernel = layer.weight.detach().cpu().double().numpy()
        tensor = kernel.swapaxes(0, 1) if cls.transposed else kernel
        found = canonical_decomposition(tensor, rank, seed=seed, **options)
        with torch.no_grad():
            made.output_factor.copy_(torch.from_numpy(found.factors[0]))
            for parameter, factor in zip((made.input_factor, *made.filters), found.factors[1:]):
                parameter.copy_(torch.from_numpy(factor.T.copy()))
            if layer.bias is not None:
                made.bias.copy_(layer.bias)
        made.relative_error = found.relative_error
        return made.train(layer.training)

    def to_dense(self) -> nn.Module:
        """The torch.nn layer with the same kernel, bias and options."""
        weight = self.weight.detach()
        made = nn.utils.skip_init(
            self.dense_layer, **options_of(self), device=weight.device, dtype=weight.dtype
        )
        with torch.no_grad():
            made.weight.copy_(weight)
            if self.bias is not None:
                made.bias.copy_(self.bias)
        return made.train(self.training)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, rank={self.rank}"
        ndim = len(self.axes)
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if getattr(self, name) != (default,) * ndim:
                text += f", {name}={getattr(self, name)!r}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return f"{text}, method={self.method}"
