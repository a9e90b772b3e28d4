"""Shifts, parities and blocks of torch batches (batch, n0, n1[, n2])."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

TINY = 1e-30


def over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / b.clamp_min(TINY), torch.zeros_like(a))


def upper(x: Tensor, axis: int) -> Tensor:
    """Value of the upper neighbour along a grid axis (wraps: multiply by a face coefficient)."""
    return torch.roll(x, -1, axis + 1)


def lower(x: Tensor, axis: int) -> Tensor:
    return torch.roll(x, 1, axis + 1)


def squash(t: Tensor) -> Tensor:
    """t / (1 + t): maps [0, inf) to [0, 1)."""
    return t / (1 + t)


def pad_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    pad = [p for n, m in zip(reversed(x.shape[1:]), reversed(shape[1:])) for p in (0, m - n)]
    return nn.functional.pad(x, pad) if any(pad) else x


def pad_even(x: Tensor, factor: tuple[int, ...]) -> Tensor:
    return pad_to(x, (x.shape[0], *(n + (-n) % k for n, k in zip(x.shape[1:], factor))))


def crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x if x.shape == tuple(shape) else x[tuple(slice(0, n) for n in shape)]


def parity(x: Tensor, axis: int) -> Tensor:
    """True at odd indices along a grid axis."""
    n = x.shape[axis + 1]
    view = [1] * x.ndim
    view[axis + 1] = n
    return (torch.arange(n, device=x.device) % 2 == 1).reshape(view).expand_as(x)


def at_odd(x: Tensor, axis: int) -> Tensor:
    """x at odd indices along an axis, 0 at even ones."""
    return torch.where(parity(x, axis), x, torch.zeros_like(x))


def at_even(x: Tensor, axis: int) -> Tensor:
    return torch.where(parity(x, axis), torch.zeros_like(x), x)


def _blocks(x: Tensor, factor: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    view: list[int] = [x.shape[0]]
    for n, k in zip(x.shape[1:], factor):
        view += [n // k, k]
    return x.reshape(view), tuple(range(2, len(view), 2))


def block_sum(x: Tensor, factor: tuple[int, ...]) -> Tensor:
    view, axes = _blocks(x, factor)
    return view.sum(axes)


def block_max(x: Tensor, factor: tuple[int, ...]) -> Tensor:
    view, axes = _blocks(x, factor)
    return view.amax(axes)


def spread(x: Tensor, factor: tuple[int, ...]) -> Tensor:
    """Each coarse value on all cells of its block."""
    for axis, k in enumerate(factor):
        if k > 1:
            x = x.repeat_interleave(k, axis + 1)
    return x
