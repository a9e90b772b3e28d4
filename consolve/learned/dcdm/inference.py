"""A network of the deep conjugate direction method as a preconditioner, in torch: z = |r| f(r / |r|).

Measured with variant 64, one core of a machine with AVX-512 and its bf16 instructions, milliseconds for one
application:

==========  ==============  =====================  ==================  =====================
grid        torch as it is  oneDNN, channels last  oneDNN, contiguous  bfloat16, channels last
==========  ==============  =====================  ==================  =====================
128^2       10.8            7.5                    11.0                4.5
512^2       345             211                    364                 76
32^3        578             26                     52                  15
64^3                        497                    581                 327
==========  ==============  =====================  ==================  =====================

torch takes its own convolution, slow in 3D, for a batch of one on small grids; here oneDNN's is called by
name.  Channels come last everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from consolve.learned.dcdm.deep import DeepNetwork, ImageLevel
from consolve.learned.dcdm.format import DCDMWeights
from consolve.learned.dcdm.network import DirectionNetwork, image_channels, network_of
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents

PRECISIONS = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
"""Of the convolutions; sums and what stands between are float32."""

_SAFE_NORM = 1e-140, 1e140
"""Norms between which no square under- or overflowed."""


class DCDMPreconditioner:
    """z = |r| f(r / |r|), f a trained network on the cells of the grid; homogeneous, and linear if f is.

    f sees 0 at cells that are not active, and what it says there is left out.  ``r`` and ``z`` are float64, f
    works in float32 (or partly bfloat16).

    Parameters
    ----------
    operator
        Whose active cells the network sees; its coefficients too, if the network was trained to.
    weights
        From `load_dcdm_weights`, of the operator's dimension.
    cells
        C-order cell index of each entry of ``r`` and ``z``; all active cells by default.
    threads
        Of torch on the CPU; None: as many as torch uses.
    precision
        ``auto``, ``float32`` or ``bfloat16``.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.

    Attributes
    ----------
    setups
        Times that an operator was taken.
    is_symmetric
        z depends linearly on r, by a symmetric positive definite matrix, up to rounding in float32.
    flops
        Of one application; 0 before the first.

    Raises
    ------
    ValueError
        If the dimensions differ, a cell lies outside the grid, or the device is not there.
    """

    components = ClosedComponents.none()
    levels: tuple[()] = ()
    is_symmetric = False

    def __init__(
        self,
        operator: GridOperator,
        weights: DCDMWeights,
        cells: NDArray[np.integer] | None = None,
        threads: int | None = None,
        precision: str = "auto",
        device: str = "cpu",
    ) -> None:
        if weights.ndim != operator.ndim:
            raise ValueError(
                f"{weights.source}: weights for {weights.ndim}D grids, the operator is {operator.ndim}D"
            )
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.weights, self.threads = weights, threads
        self.device, self.dtype = checked_device(device), PRECISIONS[precision]
        self.cells = cells
        self.setups = 0
        self.network = prepared(network_of(weights), weights.ndim, self.device, self.dtype)
        self.is_symmetric = self.network.is_symmetric and self.dtype == torch.float32
        self.flops = 0.0
        self._input = torch.empty(0)
        self._rows: Tensor | None = None
        self._cells: Tensor | None = None
        self.update(operator)

    def update(self, operator: GridOperator) -> None:
        """Take a changed operator (and ``cells``); the network stays as it is."""
        if operator.ndim != self.weights.ndim:
            raise ValueError(
                f"the operator is {operator.ndim}D, the weights are for {self.weights.ndim}D grids"
            )
        cells, size = operator.cells if self.cells is None else self.cells, operator.active.size
        if cells.size and not 0 <= cells.min() <= cells.max() < size:
            raise ValueError(f"cells must lie in 0..{size - 1} (a grid of {operator.shape} cells)")
        inputs = np.zeros((1, self.weights.settings.inputs, *operator.shape), np.float32)
        if self.weights.settings.image:
            inputs[0, 1:] = image_channels(operator)
        self._input = torch.from_numpy(inputs).to(self.device)
        self._of_image = self._made_of_image()
        self._entries, self.flops = cells.size, 0.0
        active = operator.active.reshape(-1)[cells]
        rows = np.flatnonzero(active)
        of_rows = np.asarray(cells)[rows]
        in_order = of_rows.size == size and bool((of_rows == np.arange(size)).all())
        self._rows = None if rows.size == cells.size else self._index(rows)
        self._cells = None if in_order else self._index(of_rows)
        self.setups += 1

    @torch.inference_mode()
    def _made_of_image(self) -> tuple[list[ImageLevel], ...]:
        """What the deep network makes of the cell image alone, once for an operator."""
        if not isinstance(self.network, DeepNetwork):
            return ()
        with self._computing():
            return (self.network.levels(self._input[:, 1:]),)

    def _index(self, values: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.device)

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = |r| f(r / |r|), 0 for r = 0 and where an entry's cell is not active.

        On the CPU nothing is copied from ``r`` or to ``z`` in between.  NaN or Inf in ``r`` makes all of
        ``z`` NaN; what the network makes of its own accord is passed on.
        """
        if r.shape != (self._entries,) or z.shape != (self._entries,):
            raise ValueError(f"r and z must have {self._entries} entries, got {r.shape} and {z.shape}")
        if self.device.type == "cpu":
            self.apply_tensors(shared(r), shared(z))
            return
        result = torch.empty(self._entries, dtype=torch.float64, device=self.device)
        self.apply_tensors(shared(r).to(self.device), result)
        shared(z).copy_(result)

    @torch.inference_mode()
    def apply_tensors(self, r: Tensor, z: Tensor) -> None:
        """As ``apply``, for float64 tensors on the network's device."""
        r = r if self._rows is None else r[self._rows]
        size = norm(r)
        if size == 0 or not math.isfinite(size):
            z.fill_(size * 0.0)
            return
        residual = self._input[0, 0].view(-1)
        if self._cells is None:
            torch.div(r, size, out=residual)
        else:
            residual[self._cells] = (r / size).float()
        with self._computing(), nullcontext() if self.flops else self._counting():
            direction = self.network(self._input, *self._of_image).reshape(-1)
        if self._cells is not None:
            direction = direction[self._cells]
        if self._rows is None:
            z.copy_(direction)
        else:
            z.zero_()
            z[self._rows] = direction.double()
        z.mul_(size)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Threads and precision, for the time of one application."""
        lower: AbstractContextManager = nullcontext()
        if self.dtype != torch.float32:
            lower = torch.autocast(self.device.type, self.dtype)
        with limited_to(self.threads if self.device.type == "cpu" else None), lower:
            yield

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Add up the operations of the convolutions, which are nearly all."""

        def count(layer: nn.Module, _: object, result: Tensor) -> None:
            self.flops += 2.0 * layer.weight.numel() * result[0, 0].numel()  # type: ignore[operator, union-attr]

        kinds = (nn.Conv2d, nn.Conv3d, OneDNNConvolution)
        hooks = [m.register_forward_hook(count) for m in self.network.modules() if isinstance(m, kinds)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def bytes(self) -> int:
        """Memory held between applications: weights, input and the map from entries to cells."""
        held = [*self.network.parameters(), self._input, self._rows, self._cells]
        held += [t for levels in self._of_image for level in levels for t in (*level.gates, level.scale)]
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    @property
    def description(self) -> str:
        """Precision and device, in words."""
        return f"in torch, {str(self.dtype).removeprefix('torch.')} on {self.device}"

    def close(self) -> None:
        """Nothing but memory is held."""


def checked_device(name: str) -> torch.device:
    """The device of a name.

    Raises
    ------
    ValueError
        If it is not there.
    """
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (device.index or 0):
            raise ValueError(
                f"device {name!r}: torch {torch.__version__} sees {count} CUDA devices; install a torch with "
                "CUDA and its driver, or use the device cpu"
            )
    return device


def prepared(
    network: DirectionNetwork, ndim: int, device: torch.device, dtype: torch.dtype
) -> DirectionNetwork:
    """The network for inference: on its device, channels last, with oneDNN's convolutions on the CPU."""
    layout = (torch.channels_last, torch.channels_last_3d)[ndim - 2]
    # torch's stubs know the memory format of plain tensors only
    network = network.to(device).eval().requires_grad_(False).to(memory_format=layout)  # type: ignore[call-overload]
    if device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        use_onednn(network)
    return network


def use_onednn(network: nn.Module) -> None:
    """Replace the plain convolutions of 3 taps by oneDNN's of the same weights."""
    for name, layer in list(network.named_children()):
        if not isinstance(layer, nn.Conv2d | nn.Conv3d):
            use_onednn(layer)
        elif (
            layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.kernel_size[0] > 1
        ):
            setattr(network, name, OneDNNConvolution(layer))


class OneDNNConvolution(nn.Module):
    """A convolution by oneDNN, whatever torch would choose.

    Parameters
    ----------
    layer
        Zero-padded, by numbers.
    """

    def __init__(self, layer: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        padding = (0,) * (layer.weight.ndim - 2) if layer.padding == "valid" else layer.padding
        self._rest = padding, layer.stride, layer.dilation, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of (batch, channels, *grid)."""
        return torch.mkldnn_convolution(x, self.weight, self.bias, *self._rest)


def norm(r: Tensor) -> float:
    """Euclidean norm, also where squares would leave the range of float64; NaN or Inf if r holds any."""
    size = float(torch.linalg.vector_norm(r))
    if _SAFE_NORM[0] < size < _SAFE_NORM[1] or r.numel() == 0:
        return size
    largest = float(torch.linalg.vector_norm(r, math.inf))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(torch.linalg.vector_norm(r / largest))


def shared(array: NDArray[np.float64]) -> Tensor:
    """A tensor on the memory of an array; of one that must only be read (torch has no such tensors) too."""
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


class _Writable:
    """The memory of an array, as NumPy's array interface describes it, without its protection."""

    def __init__(self, array: NDArray) -> None:
        self._array = array  # lives as long
        self.__array_interface__ = dict(array.__array_interface__, data=(array.ctypes.data, False))


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """torch uses so many threads; the program's own number is restored."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
