"""Residual of the discrete wave equation on a surrogate's snapshots: the physics-informed part of a loss."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

MARGIN = 3
"""Vertices next to a side or a fixed vertex for which the stencil reaches beyond."""


def _midpoint_difference(u: Tensor, axis: int) -> Tensor:
    """Fourth-order staggered difference ``(27 (u_1 - u_0) - (u_2 - u_-1)) / 24`` between neighbours."""
    n = u.shape[axis]

    def shifted(k: int) -> Tensor:
        return u.narrow(axis, k, n - 3)

    return (27 * (shifted(2) - shifted(1)) - (shifted(3) - shifted(0))) / 24


def _at_midpoints(c: Tensor, axis: int) -> Tensor:
    """Fourth-order interpolation ``(9 (c_0 + c_1) - (c_-1 + c_2)) / 16`` between neighbours."""
    n = c.shape[axis]

    def shifted(k: int) -> Tensor:
        return c.narrow(axis, k, n - 3)

    return (9 * (shifted(1) + shifted(2)) - (shifted(0) + shifted(3))) / 16


def divergence_of_flux(u: Tensor, speed: Tensor, spacing: float) -> Tensor:
    """``div(c^2 grad u)`` at vertices at least `MARGIN` from the sides; of fourth order where c is smooth.

    Parameters
    ----------
    u
        (batch, time, ny, nx).
    speed
        (batch, 1, ny, nx) at the vertices.
    spacing
        Distance h of the vertices.

    Returns
    -------
    Tensor
        (batch, time, ny - 6, nx - 6).
    """
    inner = slice(MARGIN, -MARGIN)
    total: Tensor | float = 0.0
    for axis, other in ((-1, -2), (-2, -1)):
        flux = _at_midpoints(speed**2, axis) * _midpoint_difference(u, axis)
        part = _midpoint_difference(flux, axis)
        crop = [slice(None)] * 4
        crop[other] = inner
        total = total + part[tuple(crop)]
    return total / spacing**2  # type: ignore[return-value]


def wave_residual(u: Tensor, speed: Tensor, fixed: Tensor, interval: float, spacing: float) -> Tensor:
    """Mean square residual of ``u_tt = div(c^2 grad u)``, relative to that of ``u_tt``, one value per run.

    In time by Numerov's implicit formula, which is of fourth order as the stencil in space::

        R = u[n+1] - 2 u[n] + u[n-1] - dt^2 / 12 L (u[n+1] + 10 u[n] + u[n-1])

    over the vertices at least `MARGIN` from the sides and from fixed vertices.

    Parameters
    ----------
    u
        (batch, time, ny, nx) with at least three snapshots.
    speed, fixed
        (batch, 1, ny, nx): speed and mask of the fixed vertices.
    interval
        Time dt between the snapshots.
    spacing
        Distance h of the vertices.
    """
    before, now, after = u[:, :-2], u[:, 1:-1], u[:, 2:]
    second = after - 2 * now + before
    inner = slice(MARGIN, -MARGIN)
    flux = divergence_of_flux((after + 10 * now + before) / 12, speed, spacing)
    near = functional.max_pool2d(fixed, 2 * MARGIN + 1, stride=1, padding=MARGIN)
    open_ = (near == 0)[..., inner, inner].to(u.dtype)
    second = second[..., inner, inner]
    residual = (second - interval**2 * flux) * open_
    floor = torch.finfo(torch.float32).tiny
    return residual.square().mean((1, 2, 3)) / ((second * open_).square().mean((1, 2, 3)) + floor)
