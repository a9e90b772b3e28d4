"""Ray-marching of smoke and bodies on a 3D grid: absorption, a light above, shaded surfaces.

Coordinates are in cells; axis 0 points up.  Rays are parallel (an orthographic camera).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from consolve.base.jit import STRICT


@dataclass(frozen=True)
class Camera:
    """An orthographic camera.

    Attributes
    ----------
    origin
        Point seen at the centre of the picture, in cells.
    forward, up, right
        Orthonormal directions.
    scale
        Cells per pixel.
    height, width
        Of the picture, in pixels.
    """

    origin: NDArray
    forward: NDArray
    up: NDArray
    right: NDArray
    scale: float
    height: int
    width: int

    @classmethod
    def facing(
        cls, shape: tuple[int, ...], pixels: int, azimuth: float = -0.95, elevation: float = 0.22
    ) -> Camera:
        """A camera turned by ``azimuth`` about the upward axis, ``elevation`` above the horizon (radians).

        The whole box is in the picture, which is ``pixels`` high.
        """
        forward = np.array(
            [
                -np.sin(elevation),
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
            ]
        )
        right = np.array([0.0, -np.sin(azimuth), np.cos(azimuth)])
        up = np.array(
            [np.cos(elevation), np.sin(elevation) * np.cos(azimuth), np.sin(elevation) * np.sin(azimuth)]
        )
        size = np.array(shape, float)
        rise, across = np.abs(up) @ size, np.abs(right) @ size
        scale = 1.04 * rise / pixels
        return cls(size / 2, forward, up, right, scale, pixels, max(1, int(np.ceil(1.04 * across / scale))))

    def box_edges(self, shape: tuple[int, ...]) -> NDArray:
        """Picture of the twelve edges of the box, 0 to 1, (height, width)."""
        picture = np.zeros((self.height, self.width))
        corners = np.array(np.meshgrid(*[(0, n) for n in shape], indexing="ij")).reshape(3, -1).T
        for a in range(8):
            for bit in (1, 2, 4):
                if not a & bit:
                    line = np.linspace(corners[a], corners[a | bit], 4 * self.height) - self.origin
                    row = (self.height / 2 - line @ self.up / self.scale).astype(int)
                    column = (self.width / 2 + line @ self.right / self.scale).astype(int)
                    inside = (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)
                    picture[row[inside], column[inside]] = 1
        return picture


def march(
    density: NDArray,
    temperature: NDArray,
    body: NDArray,
    palette: NDArray,
    body_colour: NDArray,
    camera: Camera,
    extinction: float = 30.0,
) -> tuple[NDArray, NDArray]:
    """Colour (height, width, 3), weighted by opacity, and opacity (height, width).

    Parameters
    ----------
    density, temperature
        float32 on cells.
    body
        float32 on cells, or on a grid finer by a whole factor: solid part, smoothed; its level 1/2 is the
        surface.
    palette
        (256, 3): colour of smoke at temperatures 0 to 1.
    body_colour
        (3,)
    camera
        Where rays start.
    extinction
        Absorption per unit of density over the height of the box.
    """
    per_cell = extinction / density.shape[0]
    finer = body.shape[0] // density.shape[0]
    if body.shape != tuple(n * finer for n in density.shape):
        raise ValueError(f"body has shape {body.shape}, not a multiple of {density.shape}")
    blocks = body.reshape([m for n in density.shape for m in (n, finer)])
    light = np.empty_like(density)
    _light_from_above(density, blocks.mean((1, 3, 5)), np.float32(0.22 * per_cell), light)
    colour = np.zeros((camera.height, camera.width, 3))
    opacity = np.zeros((camera.height, camera.width))
    _march(
        density, temperature, body, light, palette, body_colour, camera.origin, camera.forward, camera.up,
        camera.right, camera.scale, per_cell, float(finer), colour, opacity,
    )  # fmt: skip
    return colour, opacity


@njit(parallel=True, **STRICT)
def _light_from_above(density, body, per_cell, light):
    """Part of the light from above that reaches each cell."""
    n0, n1, n2 = density.shape
    for j in prange(n1):
        for k in range(n2):
            reach = np.float32(1)
            for i in range(n0 - 1, -1, -1):
                light[i, j, k] = reach
                reach *= np.exp(-per_cell * density[i, j, k])
                reach *= np.float32(1) - np.float32(0.25) * body[i, j, k]


@njit(**STRICT)
def _at(field, x, y, z):
    """Linear interpolation at a point in cells."""
    n0, n1, n2 = field.shape
    x = min(max(x - 0.5, 0.0), n0 - 1.001)
    y = min(max(y - 0.5, 0.0), n1 - 1.001)
    z = min(max(z - 0.5, 0.0), n2 - 1.001)
    i, j, k = int(x), int(y), int(z)
    fx, fy, fz = x - i, y - j, z - k
    q00 = field[i, j, k] + fz * (field[i, j, k + 1] - field[i, j, k])
    q01 = field[i, j + 1, k] + fz * (field[i, j + 1, k + 1] - field[i, j + 1, k])
    q10 = field[i + 1, j, k] + fz * (field[i + 1, j, k + 1] - field[i + 1, j, k])
    q11 = field[i + 1, j + 1, k] + fz * (field[i + 1, j + 1, k + 1] - field[i + 1, j + 1, k])
    q0 = q00 + fy * (q01 - q00)
    return q0 + fx * (q10 + fy * (q11 - q10) - q0)


@njit(**STRICT)
def _surface_light(body, x, y, z, forward):
    """Brightness of a body's surface: light from above left, a bright rim, a little from everywhere."""
    d = 2.0  # wider than the steps of the raster, so that slanted faces look smooth
    g0 = _at(body, x - d, y, z) - _at(body, x + d, y, z)
    g1 = _at(body, x, y - d, z) - _at(body, x, y + d, z)
    g2 = _at(body, x, y, z - d) - _at(body, x, y, z + d)
    size = np.sqrt(g0 * g0 + g1 * g1 + g2 * g2) + 1e-6
    lit = max(0.0, (0.78 * g0 - 0.55 * g1 - 0.30 * g2) / size)
    facing = abs(g0 * forward[0] + g1 * forward[1] + g2 * forward[2]) / size
    return 0.35 + 0.95 * lit + 0.25 * (1 - facing) ** 3


@njit(parallel=True, **STRICT)
def _march(
    density, temperature, body, light, palette, body_colour, origin, forward, up, right, scale, per_cell,
    finer, colour, opacity,
):  # fmt: skip
    height, width = opacity.shape
    size = np.array(density.shape)
    length = np.sqrt((size**2).sum())
    step = 0.4
    for row in prange(height):
        for column in range(width):
            a, b = (height / 2 - row - 0.5) * scale, (column + 0.5 - width / 2) * scale
            near, far = -length / 2, length / 2
            for axis in range(3):
                start = origin[axis] + a * up[axis] + b * right[axis]
                if abs(forward[axis]) < 1e-9:
                    if start < 0 or start > size[axis]:
                        far = near
                else:
                    s, t = -start / forward[axis], (size[axis] - start) / forward[axis]
                    near, far = max(near, min(s, t)), min(far, max(s, t))
            through = 1.0
            at = near + 0.5 * step
            while at < far and through > 0.005:
                x = origin[0] + a * up[0] + b * right[0] + at * forward[0]
                y = origin[1] + a * up[1] + b * right[1] + at * forward[1]
                z = origin[2] + a * up[2] + b * right[2] + at * forward[2]
                solid = _at(body, finer * x, finer * y, finer * z)
                if solid > 0.5:
                    shade = _surface_light(body, finer * x, finer * y, finer * z, forward)
                    shade *= 0.45 + 0.55 * _at(light, x, y, z)
                    for c in range(3):
                        colour[row, column, c] += through * body_colour[c] * shade
                    through = 0.0
                    break
                smoke = _at(density, x, y, z)
                if smoke > 1e-3:
                    part = through * (1 - np.exp(-per_cell * step * smoke))
                    hot = min(max(_at(temperature, x, y, z), 0.0), 1.0)
                    shade = 0.30 + 0.75 * _at(light, x, y, z) + 0.45 * hot
                    entry = int(hot * 255)
                    for c in range(3):
                        colour[row, column, c] += part * palette[entry, c] * shade
                    through -= part
                at += step
            opacity[row, column] = 1 - through
