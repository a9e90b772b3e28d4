"""Dense convolutions without torch: the sums over all taps of a tile stay in registers.

The twin of `separable_kernels`, by the same `matrix_tiles.multiply`: no copies of the image by taps, each
tile adds up its taps directly from the framed image.
"""

from __future__ import annotations

import itertools

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.base.jit import FAST
from consolve.learned.separable.matrix_tiles import ADDED, LANES, aligned, multiply, pack, padded

BLOCK_POINTS = 64
"""Points of a block of rows, the work between two looks at the weights."""


@njit(**FAST)
def dense_blocks(x, frame, offsets, taps, depth, w, bias, out, shape, pitch, block_rows, first, last):
    rows, width = shape[1], shape[2]
    blocks = (rows + block_rows - 1) // block_rows
    for block in range(first, last):
        plane, row = block // blocks, block % blocks * block_rows
        x_at = (plane * frame[1] + row) * frame[2] * depth
        out_at = (plane * rows + row) * width * pitch
        multiply(
            x, x_at, depth, frame[2] * depth, offsets, 0, taps, depth, w, 0, out, out_at, pitch,
            width * pitch, bias, 0, bias, 0, 0, 0, ADDED, min(block_rows, rows - row), width, pitch // LANES,
        )  # fmt: skip


@njit(parallel=True, **FAST)
def dense_image(x, frame, offsets, taps, depth, w, bias, out, shape, pitch, block_rows, threads):
    """A dense convolution of an image in its frame: out (shape, pitch) from x (frame, depth), both flat."""
    blocks = shape[0] * ((shape[1] + block_rows - 1) // block_rows)
    for q in prange(threads):
        first, last = blocks * np.int64(q) // threads, blocks * (np.int64(q) + 1) // threads
        dense_blocks(x, frame, offsets, taps, depth, w, bias, out, shape, pitch, block_rows, first, last)


def checked_image(x: NDArray, channels: int, ndim: int, what: str) -> NDArray[np.float32]:
    """The image as contiguous float32 (z, y, x, channels).

    Raises
    ------
    ValueError
        Another number of axes or channels, an empty axis, or no floating-point numbers.
    """
    x = np.asarray(x)
    axes = ("z", "y", "x")[3 - ndim :]
    if x.ndim != ndim + 1 or x.shape[-1] != channels or 0 in x.shape:
        raise ValueError(
            f"{what}: expected an image of shape (n_{', n_'.join(axes)}, {channels}), channels last, "
            f"got {x.shape}"
        )
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"{what}: expected floating-point numbers, got {x.dtype}; convert with astype(float32)"
        )
    return np.ascontiguousarray(x, np.float32).reshape((1,) * (3 - ndim) + x.shape)


def checked_factor(values: NDArray, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    """A finite float32 array; None in the shape stands for any length.

    Raises
    ------
    ValueError
        Another shape, or NaN or Inf.
    """
    values = np.asarray(values, np.float32)
    if values.ndim != len(shape) or any(n not in (None, m) or m == 0 for n, m in zip(shape, values.shape)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or Inf; train or install the weights again")
    return values


def odd_lengths(lengths: tuple[int, ...], name: str) -> tuple[int, ...]:
    if any(n % 2 == 0 for n in lengths):
        raise ValueError(
            f"{name}: odd filter lengths are needed for an output of the input's size, got {lengths}"
        )
    return lengths


class Convolution:
    """A dense 2D or 3D convolution of stride 1 that keeps the size by zero padding, as `torch.nn.Conv2d`.

    Parameters
    ----------
    weight
        (out, in, (k_z,) k_y, k_x), odd lengths.
    bias
        (out,) or None.

    Raises
    ------
    ValueError
        An ill-shaped kernel or bias, an even length, NaN or Inf.
    """

    def __init__(self, weight: NDArray, bias: NDArray | None = None):
        self.ndim = max(2, np.ndim(weight) - 2)
        weight = checked_factor(weight, "weight", (None,) * (self.ndim + 2))
        if self.ndim > 3:
            raise ValueError(f"weight: expected 2 or 3 filter axes, got shape {weight.shape}")
        self.out_channels, self.in_channels = weight.shape[:2]
        self.lengths = odd_lengths(weight.shape[2:], "weight")
        self._weights = pack(np.moveaxis(weight.reshape(*weight.shape[:2], -1), (2, 1), (0, 1)))
        self._bias = aligned(padded(self.out_channels))
        if bias is not None:
            self._bias[: self.out_channels] = checked_factor(bias, "bias", (self.out_channels,))

    def arguments(self, x: NDArray) -> tuple:
        """Those of `dense_image` for an image, without the threads."""
        image = checked_image(x, self.in_channels, self.ndim, "Convolution")
        shape = np.array(image.shape[:3], np.int64)
        lengths = (1,) * (3 - self.ndim) + self.lengths
        framed = np.pad(image, [(n // 2, n // 2) for n in lengths] + [(0, 0)])
        frame = np.array(framed.shape[:3], np.int64)
        taps = [(z * frame[1] + y) * frame[2] + x for z, y, x in itertools.product(*map(range, lengths))]
        offsets = np.array(taps, np.int64) * self.in_channels
        pitch = padded(self.out_channels)
        out = aligned(int(shape.prod()) * pitch)
        return (
            framed.ravel(), frame, offsets, len(taps), self.in_channels, self._weights, self._bias, out,
            shape, pitch, max(1, BLOCK_POINTS // int(shape[2])),
        )  # fmt: skip

    def __call__(self, x: NDArray, threads: int = 1) -> NDArray[np.float32]:
        """The convolution of an image ((z,) y, x, in) as float32 ((z,) y, x, out)."""
        arguments = self.arguments(x)
        if threads == 1:  # a parallel region takes longer to compile, and waits for all threads
            shape, block_rows = arguments[8], arguments[-1]
            dense_blocks(*arguments, 0, int(shape[0]) * -(-int(shape[1]) // block_rows))
        else:
            dense_image(*arguments, threads)
        whole = arguments[7].reshape(*np.shape(x)[:-1], -1)
        return np.ascontiguousarray(whole[..., : self.out_channels])
