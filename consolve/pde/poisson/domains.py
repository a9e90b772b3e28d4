"""The gallery of named test domains: reproducible cell images in 2D and 3D, of any shape.

Every domain is a pure function of its name, shape and seed (``np.random.default_rng(seed)``).  Random
numbers are drawn in relative coordinates, before the shape is looked at, so spheres, boxes, drops, the rotor
and the pockets are the same picture at every resolution.  Walls of ``plates``, ``channels`` and ``maze`` and
the grains of ``porous`` are one or a few cells thick at every resolution: those get harder as the grid grows.

Unless stated otherwise the walls around the box are solid, and the upper side of the first axis is open.
Only ``pockets`` holds fluid that is cut off from the open side; elsewhere such cells are solid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, uniform_filter

from consolve.base.memory import require
from consolve.pde.poisson.grid import AIR, FLUID, SOLID, GridOperator, Sides
from consolve.pde.poisson.hard_domains import (
    Widths,
    baffles,
    lognormal,
    on_widths,
    widths_of,
    with_closed,
)
from consolve.pde.poisson.maze import carve_maze

CLOSED_PREFIX = "closed-"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Domain:
    """A named image of cell types, and what surrounds it.

    Attributes
    ----------
    name
        As given to :func:`make_domain`, with its ``closed-`` prefix if any.
    cell_type
        uint8, the shape of the grid: FLUID 0, SOLID 1, AIR 2.
    outside
        (low, high) cell type beyond each axis.
    mobility
        None, or float64 of the shape of the grid: 1 / density of each cell.
    widths
        None, or those of the cells along each axis; 1 otherwise.
    closed
        None, or by axis, boolean of the shape of the grid: faces to the upper neighbour that are walls.
    """

    name: str
    cell_type: NDArray[np.uint8]
    outside: Sides
    mobility: NDArray[np.float64] | None = None
    widths: Widths | None = None
    closed: tuple[NDArray[np.bool_], ...] | None = None

    @property
    def shape(self) -> Shape:
        """Cells along each axis."""
        return self.cell_type.shape

    def operator(self, dtype: type = np.float64) -> GridOperator:
        """The Poisson operator of the domain, with coefficients of ``dtype`` (float64 or float32)."""
        operator = GridOperator.from_cell_types(self.cell_type, self.outside, self.mobility, dtype)
        if self.widths is not None:
            operator = on_widths(operator, self.widths)
        return operator if self.closed is None else with_closed(operator, self.closed)


def make_domain(name: str, shape: Sequence[int], seed: int = 0, contrast: float = 1000.0) -> Domain:
    """A domain of the gallery.

    ========== =====================================================================================
    name       what it holds
    ========== =====================================================================================
    box        nothing
    spheres    four large solid spheres
    boxes      random solid boxes
    plates     solid plates one cell thick, half of them slanted, with gaps of one to three cells
    channels   passages of one cell between walls of one cell: combs and serpentines, a few outlets
    maze       a random spanning tree of passages of one cell, with a single exit
    rotor      a bar turned about the middle; the seed sets its angle
    free-surface  air above a wavy liquid with drops and solids; all outer walls solid
    porous     about 30 percent blocked by correlated random grains of a few cells
    pockets    hollow solids, whose inside is fluid cut off from the open region
    two-phase  drops ``contrast`` times as dense as what surrounds them
    bubbles    many drops ``contrast`` times as dense as what surrounds them, or by -R, 1/R times: R a number
    lognormal  coefficients exp(S g) of a normal field g, correlated over four cells; -S, 3 by default
    flat       nothing, on cells that are R times as narrow along the first axis; -R, 10 by default
    stretched  spheres, on cells whose widths go by a hyperbolic tangent (1 to 36) along N axes; -N, all
    baffles    walls of no thickness across the first axis, each with a hole
    ========== =====================================================================================

    Parameters
    ----------
    name
        One of ``DOMAIN_NAMES``; of some, followed by a number, as in ``flat-100``.  With the prefix
        ``closed-`` the problem is pure Neumann: everything outside
        is solid, and so is the air of ``free-surface``; all but ``pockets`` are then one connected region.
    shape
        Cells along each of 2 or 3 axes; at least 3 along each (1 for ``box``).
    seed
        Same name, shape and seed: same domain, always.
    contrast
        Density of the drops of ``two-phase``; other domains do not use it.

    Raises
    ------
    ValueError
        If the name is unknown, or the shape is not usable or too small.
    NotEnoughMemory
        If the image needs more memory than there is; nothing was allocated.
    """
    closed = name.startswith(CLOSED_PREFIX)
    base, number = _parted(name.removeprefix(CLOSED_PREFIX))
    if base not in _BUILDERS or (number is not None and not number > 0):
        raise ValueError(
            f"unknown domain {name!r}; known: {', '.join(DOMAIN_NAMES)}, each also with the prefix "
            f"{CLOSED_PREFIX!r} for pure Neumann; {', '.join(_NUMBERED)} may end in a positive number, as "
            "in 'flat-100'"
        )
    if len(shape) not in (2, 3) or any(int(n) != n for n in shape):
        raise ValueError(f"a domain has 2 or 3 axes with a whole number of cells each, got shape {shape}")
    cells = tuple(int(n) for n in shape)
    least = 1 if base == "box" else 3
    if min(cells) < least:
        raise ValueError(f"domain {name!r} needs at least {least} cells along each axis, got shape {cells}")
    if not contrast > 0:
        raise ValueError(f"contrast must be positive, got {contrast}")

    size = " x ".join(map(str, cells))
    require(math.prod(cells) * _BYTES.get(base, 6), f"the domain {name!r} of {size} cells")
    rng = np.random.default_rng(seed)
    cell_type, dense = _BUILDERS[base](cells, rng)
    outside = [(SOLID, SOLID)] * len(cells)
    if closed:
        cell_type[cell_type == AIR] = SOLID
    elif base != "free-surface":
        outside[0] = (SOLID, AIR)
    if base != "pockets":
        _fill_cut_off(cell_type, outside[0][1])
    ratio = 1 / number if base == "bubbles" and number is not None else contrast
    mobility = None if dense is None else np.where(dense, 1 / ratio, 1.0)
    widths = widths_of(base, cells, number)
    if base == "lognormal":
        mobility = lognormal(cells, rng, number)
    walls = baffles(cells, rng) if base == "baffles" else None
    return Domain(name, cell_type, tuple(outside), mobility, widths, walls)


def _parted(name: str) -> tuple[str, float | None]:
    """A name, and the number at its end if it may have one."""
    base, dash, text = name.partition("-")
    try:
        return (base, float(text)) if base in _NUMBERED and dash else (name, None)
    except ValueError:
        return name, None


def _fill_cut_off(cell_type: NDArray[np.uint8], beyond: int) -> None:
    """Make solid what has no way to air; without any air, all but the largest connected region."""
    if not (cell_type == SOLID).any():
        return
    has_air = beyond == AIR or (cell_type == AIR).any()
    if (beyond == AIR and (cell_type[-1] == SOLID).all()) or (cell_type == SOLID).all():
        cell_type[-1] = FLUID  # the features of a tiny grid may cover all of the opening
    region, count = label(cell_type != SOLID)
    keep = np.zeros(count + 1, np.bool_)
    if has_air:
        keep[region[cell_type == AIR]] = True
        if beyond == AIR:
            keep[region[-1]] = True
    else:
        keep[1 + np.argmax(np.bincount(region.ravel())[1:])] = True
    keep[0] = False
    if np.count_nonzero(keep) < count:
        cell_type[~keep[region]] = SOLID


def _paint_sphere(
    image: NDArray, centre: NDArray, radius: float, value: int | bool, least: float = 0.75
) -> None:
    """Set the cells whose centre is within ``radius`` of ``centre``; both in units of cells."""
    radius = max(radius, least)
    low = [max(0, int(np.floor(c - radius))) for c in centre]
    high = [min(n, int(np.ceil(c + radius)) + 1) for c, n in zip(centre, image.shape)]
    if any(a >= b for a, b in zip(low, high)):
        return
    distance = [((np.arange(a, b) + 0.5 - c) ** 2).astype(np.float32) for a, b, c in zip(low, high, centre)]
    inside = np.add.outer(distance[0], distance[1])
    if image.ndim == 3:
        inside = np.add.outer(inside, distance[2])
    image[tuple(slice(a, b) for a, b in zip(low, high))][inside < radius**2] = value


def _mean_side(shape: Shape) -> float:
    """Geometric mean of the sides: what radii are relative to, so that slabs keep their fluid."""
    return float(np.prod([float(n) for n in shape]) ** (1 / len(shape)))


def _empty(shape: Shape) -> NDArray[np.uint8]:
    return np.zeros(shape, np.uint8)


Image = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]
"""Cell types, and the dense cells of a two-phase domain."""


def _box(shape: Shape, rng: np.random.Generator) -> Image:
    return _empty(shape), None


def _spheres(shape: Shape, rng: np.random.Generator) -> Image:
    image = _empty(shape)
    for _ in range(4):
        centre = rng.uniform(0.15, 0.85, len(shape)) * shape
        radius = rng.uniform(0.10, 0.17) if len(shape) == 2 else rng.uniform(0.12, 0.20)
        _paint_sphere(image, centre, radius * _mean_side(shape), SOLID)
    return image, None


def _boxes(shape: Shape, rng: np.random.Generator) -> Image:
    image = _empty(shape)
    sides = np.array(shape)
    for _ in range(8 if len(shape) == 2 else 14):
        low, extent = rng.uniform(0, 0.85, len(shape)), rng.uniform(0.08, 0.28, len(shape))
        start = np.minimum(np.round(low * sides).astype(int), sides - 1)
        stop = np.maximum(start + 1, np.round((low + extent) * sides).astype(int))
        image[tuple(slice(a, b) for a, b in zip(start, stop))] = SOLID
    return image, None


def _plates(shape: Shape, rng: np.random.Generator) -> Image:
    image = _empty(shape)
    ndim = len(shape)
    for plate in range(16 if ndim == 2 else 20):
        axis = int(rng.integers(ndim))
        position = rng.uniform(0.05, 0.95) * shape[axis]
        extent, start = rng.uniform(0.3, 1.0, ndim - 1), rng.uniform(0, 1, ndim - 1)
        slope = rng.uniform(-1, 1, ndim - 1) * (plate % 2)
        gaps, gap_at = rng.integers(1, 4, (3, ndim - 1)), rng.uniform(0, 1, (3, ndim - 1))

        across = [n for a, n in enumerate(shape) if a != axis]
        low = [int((1 - e) * s * n) for e, s, n in zip(extent, start, across)]
        high = [min(n, a + max(1, int(e * n))) for e, a, n in zip(extent, low, across)]
        where = np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij", sparse=True)
        # A slope of at most 1 per axis keeps steps between columns at one cell: no face leads through.
        layer = np.floor(position + sum(s * (w - n / 2) for s, w, n in zip(slope, where, across)))
        layer = np.broadcast_to(layer, [b - a for a, b in zip(low, high)]).astype(int)
        solid = (layer >= 0) & (layer < shape[axis])
        for width, at in zip(gaps, gap_at):
            first = [int(t * max(0, n - w)) for t, n, w in zip(at, solid.shape, width)]
            solid[tuple(slice(a, a + w) for a, w in zip(first, width))] = False
        index: list[NDArray] = [np.broadcast_to(w, solid.shape)[solid] for w in where]
        index.insert(axis, layer[solid])
        image[tuple(index)] = SOLID
    return image, None


def _channels(shape: Shape, rng: np.random.Generator) -> Image:
    # Passages run along the first axis.  Two neighbours are joined at the bottom or at the top, below a lid:
    # ends that alternate make a serpentine, ends that repeat a comb.
    image = np.full(shape, SOLID, np.uint8)
    section = image.reshape(*shape[:2], -1)  # in 2D: one row of passages
    rows, lanes = (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])
    section = section if len(shape) == 3 else section.transpose(0, 2, 1)
    section[:-1, ::2, ::2] = FLUID
    passages = ((rows + 1) // 2, (lanes + 1) // 2)
    ends = np.array([0, shape[0] - 2])
    top = rng.integers(0, 2, (passages[0], passages[1] - 1))
    for row, lane in np.ndindex(*top.shape):
        section[ends[top[row, lane]], 2 * row, 2 * lane + 1] = FLUID
    for row in range(passages[0] - 1):
        section[ends[rng.integers(2)], 2 * row + 1, 2 * rng.integers(passages[1])] = FLUID
    outlets = rng.random(passages) < 1 / 16
    outlets[rng.integers(passages[0]), rng.integers(passages[1])] = True
    section[-1, ::2, ::2][outlets] = FLUID
    return image, None


def _maze(shape: Shape, rng: np.random.Generator) -> Image:
    return carve_maze(shape, rng), None


def _rotor(shape: Shape, rng: np.random.Generator) -> Image:
    angle = rng.uniform(0, np.pi)
    image = _empty(shape)
    along, across = (np.arange(n, dtype=np.float32) + 0.5 - n / 2 for n in shape[:2])
    reach = 0.36 * min(shape[:2])
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    lengthwise = np.add.outer(cosine * along, sine * across)
    sideways = np.add.outer(-sine * along, cosine * across)
    bar = (np.abs(lengthwise) < max(reach, 0.75)) & (np.abs(sideways) < max(0.17 * reach, 0.75))
    if len(shape) == 2:
        image[bar] = SOLID
    else:
        image[bar, shape[2] // 4 : max(shape[2] // 4 + 1, shape[2] * 3 // 4)] = SOLID
    return image, None


def _free_surface(shape: Shape, rng: np.random.Generator) -> Image:
    ndim, sides = len(shape), np.array(shape)
    height = np.full(shape[1:], 0.5)
    for order, amplitude in enumerate((0.12, 0.06, 0.03, 0.015)):
        waves, phase = rng.integers(0, order + 2, ndim - 1), rng.uniform(0, 2 * np.pi)
        waves[rng.integers(ndim - 1)] += 1
        argument = sum(
            np.multiply.outer(np.ones(shape[1]), x) if a == 1 else x.reshape(-1, *[1] * (ndim - 2))
            for a, x in enumerate(2 * np.pi * w * (np.arange(n) + 0.5) / n for w, n in zip(waves, shape[1:]))
        )
        height += amplitude * np.sin(argument + phase)
    surface = np.clip(np.round(height * shape[0]), 1, shape[0] - 1).astype(np.int32)
    layer = np.arange(shape[0], dtype=np.int32).reshape(-1, *[1] * (ndim - 1))
    image = (layer >= surface).astype(np.uint8)
    image *= AIR
    for value, count, low, high, size in ((SOLID, 3, 0.1, 0.6, 0.10), (FLUID, 6, 0.7, 0.95, 0.05)):
        for _ in range(count):
            centre = rng.uniform(0.05, 0.95, ndim)
            centre[0] = rng.uniform(low, high)
            radius = rng.uniform(0.5, 1.2) * size * _mean_side(shape)
            _paint_sphere(image, centre * sides, radius, value, least=0)
    image[-1] = AIR
    return image, None


def _porous(shape: Shape, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(shape, dtype=np.float32)
    for _ in range(2):
        noise = uniform_filter(noise, size=3, mode="reflect")
    blocked = int(0.3 * noise.size)
    threshold = np.partition(noise, blocked, axis=None)[blocked]
    return (noise < threshold).astype(np.uint8), None


def _pockets(shape: Shape, rng: np.random.Generator) -> Image:
    image = _empty(shape)
    for _ in range(5 if len(shape) == 2 else 8):
        centre = rng.uniform(0.2, 0.8, len(shape)) * shape
        radius = max(2.5, rng.uniform(0.07, 0.15) * _mean_side(shape))
        _paint_sphere(image, centre, radius, SOLID)
        # A step through a face changes the distance by at most 1, so a wall of 1.5 cannot be crossed.
        _paint_sphere(image, centre, radius - max(1.5, 0.2 * radius), FLUID)
    image[-1] = FLUID
    # One pocket that exists at every shape, in the corner between the outer walls.
    corner = [max(1, n // 8) for n in shape]
    image[tuple(slice(0, n + 1) for n in corner)] = SOLID
    image[tuple(slice(0, n) for n in corner)] = FLUID
    return image, None


def _two_phase(shape: Shape, rng: np.random.Generator) -> Image:
    dense = np.zeros(shape, np.bool_)
    for _ in range(7 if len(shape) == 2 else 12):
        centre = rng.uniform(0.08, 0.92, len(shape)) * shape
        _paint_sphere(dense, centre, rng.uniform(0.05, 0.16) * _mean_side(shape), True)
    return _empty(shape), dense


def _bubbles(shape: Shape, rng: np.random.Generator) -> Image:
    dense = np.zeros(shape, np.bool_)
    for _ in range(40 if len(shape) == 2 else 80):
        centre = rng.uniform(0, 1, len(shape)) * shape
        _paint_sphere(dense, centre, rng.uniform(0.03, 0.09) * _mean_side(shape), True)
    return _empty(shape), dense


_BUILDERS: dict[str, Callable[[Shape, np.random.Generator], Image]] = {
    "box": _box,
    "spheres": _spheres,
    "boxes": _boxes,
    "plates": _plates,
    "channels": _channels,
    "maze": _maze,
    "rotor": _rotor,
    "free-surface": _free_surface,
    "porous": _porous,
    "pockets": _pockets,
    "two-phase": _two_phase,
    "bubbles": _bubbles,
    "lognormal": _box,
    "flat": _box,
    "stretched": _spheres,
    "baffles": _box,
}
_NUMBERED = ("bubbles", "lognormal", "flat", "stretched")

_BYTES = {
    "box": 1, "pockets": 1, "flat": 1, "baffles": 2, "porous": 8, "two-phase": 9, "bubbles": 9,
    "lognormal": 25,
}  # fmt: skip
"""Bytes per cell that making an image takes at least at one time; 6 for those not named (image, labels of
regions, and which of them stay)."""

DOMAIN_NAMES: tuple[str, ...] = tuple(_BUILDERS)
"""Names that :func:`make_domain` knows, without the ``closed-`` prefix."""
