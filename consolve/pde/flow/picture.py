"""Rendered pictures of a flow: glowing smoke around solid bodies, as PNG or as an animated GIF.

A 2D flow is drawn as it is, with its bodies at the resolution of the picture.  A 3D flow is ray-marched with
absorption, light from above and shaded bodies (:mod:`~consolve.pde.flow.raymarch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from consolve.base.files import write_file
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.geometry import rasterise
from consolve.pde.flow.raymarch import Camera, march

_BACKGROUND = ((0.035, 0.045, 0.085), (0.085, 0.100, 0.170))
_SMOKE = np.array(
    [
        (0.00, 0.36, 0.42, 0.60),
        (0.10, 0.55, 0.50, 0.70),
        (0.28, 0.86, 0.48, 0.52),
        (0.50, 0.98, 0.58, 0.34),
        (0.75, 1.00, 0.79, 0.45),
        (1.00, 1.00, 0.95, 0.80),
    ]
)
_BODY = np.array((0.30, 0.34, 0.45))
_LIGHT = np.array((0.80, -0.60))  # in 2D, towards the light: up, and to the left


def render(flow: Flow, pixels: int = 720) -> NDArray[np.uint8]:
    """A picture of the present state, ``pixels`` high; shape (height, width, 3), row 0 on top.

    Colour shows temperature, opacity shows smoke density.
    """
    if pixels < 16:
        raise ValueError(f"a picture is at least 16 pixels high, got {pixels}")
    colour = _render_plane(flow, pixels) if len(flow.scene.shape) == 2 else _render_volume(flow, pixels)
    return (np.clip(colour, 0, 1) ** (1 / 1.1) * 255 + 0.5).astype(np.uint8)


def save_picture(flow: Flow, path: str | Path, pixels: int = 720) -> None:
    """Write :func:`render` as PNG (or what the suffix of the path says); whole or not at all."""
    import imageio.v3 as imageio

    picture = imageio.imwrite("<bytes>", render(flow, pixels), extension=Path(path).suffix or ".png")
    write_file(path, picture)


def save_animation(frames: Sequence[NDArray[np.uint8]], path: str | Path, seconds: float = 0.05) -> None:
    """Write frames made by :func:`render` as an endless GIF; ``seconds`` per frame."""
    import imageio.v3 as imageio

    if not len(frames):
        raise ValueError("an animation needs at least one frame")
    duration = 1000 * seconds
    film = imageio.imwrite("<bytes>", np.stack(frames), extension=".gif", duration=duration, loop=0)
    write_file(path, film)


def _smoke_colour(temperature: NDArray) -> NDArray:
    """Colour of smoke of a temperature, along a new last axis."""
    t = np.clip(temperature, 0, 1)
    return np.stack([np.interp(t, _SMOKE[:, 0], _SMOKE[:, c]) for c in (1, 2, 3)], axis=-1)


def _filled(field: NDArray, solid: NDArray[np.bool_]) -> NDArray:
    """The field with solid cells taking the value of the nearest fluid cell, so that edges stay clean."""
    if not solid.any():
        return field
    nearest = ndimage.distance_transform_edt(solid, return_distances=False, return_indices=True)
    return field[tuple(nearest)]


def _background(height: int, width: int) -> NDArray:
    up = np.linspace(1, 0, height)[:, None]
    across = np.linspace(-1, 1, width)[None, :]
    glow = np.exp(-2.0 * across**2 - 3.0 * (up - 0.1) ** 2)[..., None]
    low, high = (np.array(c) for c in _BACKGROUND)
    return low + (high - low) * glow


def _render_plane(flow: Flow, pixels: int) -> NDArray:
    scene, solid = flow.scene, flow.solid
    height, width = pixels, max(1, round(pixels * scene.shape[1] / scene.shape[0]))
    y = (height - 0.5 - np.arange(height)) / height * scene.shape[0] - 0.5
    x = (np.arange(width) + 0.5) / width * scene.shape[1] - 0.5
    at = np.broadcast_arrays(y[:, None], x[None, :])
    density, temperature = (
        np.maximum(ndimage.map_coordinates(_filled(f, solid), at, order=3, mode="nearest"), 0)
        for f in (flow.density, flow.temperature)
    )
    # The smoke as a soft relief, lit from above: slopes towards the light are brighter.
    relief = ndimage.gaussian_filter(density, pixels / 400)
    slope = np.stack(np.gradient(relief, axis=(0, 1))) * (pixels / 24)
    lit = 0.92 + 0.22 * np.tanh(slope[0] * _LIGHT[0] - slope[1] * _LIGHT[1])
    opacity = (1 - np.exp(-2.6 * density))[..., None]
    colour = _background(height, width) * (1 - opacity)
    colour += opacity * _smoke_colour(temperature) * lit[..., None]

    cover = _body_cover(flow, height, width)
    if cover.any():
        shade = _bevel(cover, pixels)
        shadow = ndimage.gaussian_filter(cover, pixels / 90)[..., None]
        colour *= 1 - 0.45 * shadow * (1 - cover[..., None])
        colour += cover[..., None] * (_BODY * shade[..., None] - colour)
    return colour


def _body_cover(flow: Flow, height: int, width: int, samples: int = 3) -> NDArray:
    """Part of each pixel that bodies cover, from samples x samples points in it."""
    scene = flow.scene
    y = (1 - (np.arange(height * samples) + 0.5) / (height * samples)) * scene.extent[0]
    x = (np.arange(width * samples) + 0.5) / (width * samples) * scene.extent[1]
    inside = np.zeros((y.size, x.size), bool)
    for body in scene.bodies:
        inside |= body.covers([y[:, None], x[None, :]], flow.time)
    return inside.reshape(height, samples, width, samples).mean((1, 3))


def _bevel(cover: NDArray, pixels: int) -> NDArray:
    """Brightness of a body with rounded edges."""
    depth = ndimage.distance_transform_edt(cover > 0.5)
    rim = pixels / 45
    height = np.sqrt(np.clip(1 - (1 - np.minimum(depth / rim, 1)) ** 2, 0, 1))
    height = ndimage.gaussian_filter(height, pixels / 500)
    slope = np.stack(np.gradient(height)) * rim * 0.7
    facing = (slope[0] * _LIGHT[0] - slope[1] * _LIGHT[1] + 0.9) / np.sqrt(1 + (slope**2).sum(0))
    return 0.45 + 0.85 * np.clip(facing, 0, 1.4)


def _render_volume(flow: Flow, pixels: int) -> NDArray:
    solid = flow.solid
    density, temperature = (_filled(f, solid).astype(np.float32) for f in (flow.density, flow.temperature))
    body = ndimage.gaussian_filter(_fine_bodies(flow), 1.4)
    palette = _smoke_colour(np.linspace(0, 1, 256))
    camera = Camera.facing(flow.scene.shape, pixels)
    colour, opacity = march(density, temperature, body, palette, _BODY, camera)
    background = _background(*opacity.shape)
    edges = camera.box_edges(flow.scene.shape)[..., None]
    background = background + edges * (0.35 - background) * 0.3
    return colour + (1 - opacity)[..., None] * background


def _fine_bodies(flow: Flow) -> NDArray[np.float32]:
    """Part of each cell that bodies cover, on a grid finer by a whole factor, so that thin ones show too."""
    scene = flow.scene
    factor = max(1, 192 // max(scene.shape))
    samples = 2 if factor * max(scene.shape) <= 192 else 1
    fine = tuple(n * factor * samples for n in scene.shape)
    inside = rasterise(scene.bodies, flow.time, fine, scene.spacing / (factor * samples)) >= 0
    blocks = inside.reshape([m for n in fine for m in (n // samples, samples)])
    return blocks.mean((1, 3, 5), dtype=np.float32)
