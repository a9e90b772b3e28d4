"""A zone of a wave problem: a rectangle of the sampling grid, and the P1 system of the wave equation in it.

The system is ``M w_tt + C w_t + K w = F`` on the nodes of a mesh of the zone, with lumped M and C.  Sides of
the zone that lie on the sides of the square keep the problem's condition; the others, its inner sides, are
free in K, and what comes through them is told by data: see :mod:`consolve.pde.waves.zone.data`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.problem import MediumLike, WaveProblem

FEWEST = 8
"""Vertices a side of the smallest zone: splines of degree 5 need some more than 6."""
SIDES = {"left": (1, 0), "right": (1, -1), "bottom": (0, 0), "top": (0, -1)}
"""Axis of an array [y, x] across the side, and the index of the side along it."""
_OCTILE = math.cos(math.pi / 8)
"""Its inverse bounds how much longer than a straight path one along rows, columns and diagonals is."""
_QUIET = 1e-3
"""Part of its largest value below which a signal has not begun."""


@dataclass(frozen=True)
class Zone:
    """Vertices ``bottom..top`` x ``left..right`` (ends included) of the sampling grid of the unit square.

    Parameters
    ----------
    left, bottom, right, top
        Numbers of the first and last column and row of vertices.
    vertices
        Of the sampling grid along each side of the square.

    Raises
    ------
    ValueError
        If the zone is not inside the grid, has fewer than 8 vertices a side, or is the whole square.
    """

    left: int = 32
    bottom: int = 32
    right: int = 63
    top: int = 63
    vertices: int = 64

    def __post_init__(self) -> None:
        last = self.vertices - 1
        if not (0 <= self.left < self.right <= last and 0 <= self.bottom < self.top <= last):
            raise ValueError(
                f"a zone is a rectangle of vertices from 0 to {last}, got columns {self.left} to "
                f"{self.right} and rows {self.bottom} to {self.top}"
            )
        if min(self.shape) < FEWEST:
            raise ValueError(
                f"a zone has at least {FEWEST} vertices a side, got {self.shape[0]} x {self.shape[1]}"
            )
        if not self.inner:
            raise ValueError("the zone is the whole square, which needs no data from outside: use LeapFrog")

    @classmethod
    def of(cls, rectangle: tuple[float, float, float, float], shape: tuple[int, int]) -> Zone:
        """The zone with corners (x0, y0), (x1, y1) that is sampled at ``shape`` (rows, columns) of vertices.

        Raises
        ------
        ValueError
            If the samples have different spacings along x and y, or are not vertices of a grid of the square.
        """
        x0, y0, x1, y1 = (float(a) for a in rectangle)
        rows, columns = shape
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1) or min(shape) < FEWEST:
            raise ValueError(
                f"a zone is a rectangle x0 < x1, y0 < y1 of the unit square sampled at {FEWEST} or more "
                f"vertices a side, got {rectangle} at {rows} x {columns} vertices"
            )
        h = (x1 - x0) / (columns - 1)
        cells = round(1 / h)
        corners = np.array([x0, y0, x1, y1]) * cells
        at = np.rint(corners).astype(int)
        off = abs(corners - at).max()
        if off > 1e-6 or at[2] - at[0] != columns - 1 or at[3] - at[1] != rows - 1:
            raise ValueError(
                f"the zone {rectangle} with {rows} x {columns} samples does not align with a grid of the "
                f"unit square: its spacings are {h:.6g} along x and {(y1 - y0) / (rows - 1):.6g} along y; "
                f"both must be 1/n for one whole n, and the corners multiples of it"
            )
        return cls(int(at[0]), int(at[1]), int(at[2]), int(at[3]), cells + 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of vertices."""
        return self.top - self.bottom + 1, self.right - self.left + 1

    @property
    def spacing(self) -> float:
        """Of the samples."""
        return 1 / (self.vertices - 1)

    @property
    def x(self) -> NDArray[np.float64]:
        """(columns,): coordinates of the samples."""
        return np.arange(self.left, self.right + 1) / (self.vertices - 1)

    @property
    def y(self) -> NDArray[np.float64]:
        """(rows,): coordinates of the samples."""
        return np.arange(self.bottom, self.top + 1) / (self.vertices - 1)

    @property
    def inner(self) -> tuple[str, ...]:
        """Its sides that are not on the sides of the square."""
        last = self.vertices - 1
        inside = {
            "left": self.left > 0,
            "right": self.right < last,
            "bottom": self.bottom > 0,
            "top": self.top < last,
        }
        return tuple(side for side in SIDES if inside[side])

    def depth(self, x: ArrayLike, y: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Distances of points from each inner side, in spacings of the samples."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        distance = {
            "left": x - self.x[0],
            "right": self.x[-1] - x,
            "bottom": y - self.y[0],
            "top": self.y[-1] - y,
        }
        return {side: distance[side] / self.spacing for side in self.inner}


@dataclass(frozen=True)
class ZoneSystem:
    """What the ways of feeding in data ask of a discretisation with n nodes.

    Attributes
    ----------
    x, y
        (n,): places of the nodes.
    mass, damping
        (n,): lumped M, and C of the problem's own absorbing sides.
    absorbing, flux
        (n,) for each inner side: lumped integrals of c and of c² along it.
    free
        bool (n,): nodes where u is unknown; elsewhere u = 0.
    stiffness
        K applied to the last axis of (..., n).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mass: NDArray[np.float64]
    damping: NDArray[np.float64]
    absorbing: dict[str, NDArray[np.float64]]
    flux: dict[str, NDArray[np.float64]]
    free: NDArray[np.bool_]
    stiffness: Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class ZoneGrid:
    """The structured system of a zone: each cell between samples is ``refinement``² cells of two triangles.

    Arrays are [y, x] as in :class:`consolve.pde.waves.grid.WaveGrid`; ``stable_step`` is that of its cells.
    """

    zone: Zone
    refinement: int
    coupling_x: NDArray[np.float64]
    coupling_y: NDArray[np.float64]
    system: ZoneSystem
    stable_step: float

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of vertices of the mesh."""
        rows, columns = self.zone.shape
        return (rows - 1) * self.refinement + 1, (columns - 1) * self.refinement + 1

    @classmethod
    def of(cls, problem: WaveProblem, zone: Zone, refinement: int) -> ZoneGrid:
        """Vertices and elements are those of the square's mesh of that spacing."""
        if int(refinement) != refinement or refinement < 1:
            raise ValueError(f"the refinement of a zone is a whole number from 1 on, got {refinement}")
        r = int(refinement)
        # Everything outside the zone becomes a hole: mass, couplings and damping are then those of the zone.
        alone = WaveProblem(_Cut(problem.medium, zone), None, problem.boundaries)
        grid = WaveGrid.of(alone, (zone.vertices - 1) * r + 1)
        rows, columns = slice(zone.bottom * r, zone.top * r + 1), slice(zone.left * r, zone.right * r + 1)
        cells = np.s_[zone.bottom * r : zone.top * r, zone.left * r : zone.right * r]
        kx = grid.coupling_x[rows, columns.start : columns.stop - 1].copy()
        ky = grid.coupling_y[rows.start : rows.stop - 1, columns].copy()
        length = np.where(grid.hole[cells], 0.0, grid.spacing / 2)
        absorbing: dict[str, NDArray[np.float64]] = {}
        flux: dict[str, NDArray[np.float64]] = {}
        for side in zone.inner:
            for name, weight in ((absorbing, grid.speed[cells]), (flux, grid.speed[cells] ** 2)):
                axis, end = SIDES[side]
                array = np.zeros(grid.mass[rows, columns].shape)
                line, beside = np.moveaxis(array, axis, 0)[end], np.moveaxis(weight * length, axis, 0)[end]
                line[:-1] += beside
                line[1:] += beside
                name[side] = array.ravel()
        shape = grid.mass[rows, columns].shape
        y, x = np.meshgrid(grid.places[rows], grid.places[columns], indexing="ij")

        def stiffness(u: NDArray[np.float64]) -> NDArray[np.float64]:
            return _product(kx, ky, u.reshape(u.shape[:-1] + shape)).reshape(u.shape)

        system = ZoneSystem(
            x=x.ravel(),
            y=y.ravel(),
            mass=grid.mass[rows, columns].ravel(),
            damping=grid.damping[rows, columns].ravel(),
            absorbing=absorbing,
            flux=flux,
            free=grid.free[rows, columns].ravel(),
            stiffness=stiffness,
        )
        return cls(zone, r, kx, ky, system, 2 / math.sqrt(grid.largest_eigenvalue()[1]))


def _product(kx: NDArray, ky: NDArray, u: NDArray) -> NDArray[np.float64]:
    flow_x, flow_y = kx * np.diff(u, axis=-1), ky * np.diff(u, axis=-2)
    out = np.zeros(u.shape)
    out[..., :, :-1] -= flow_x
    out[..., :, 1:] += flow_x
    out[..., :-1, :] -= flow_y
    out[..., 1:, :] += flow_y
    return out


class _Cut:
    """A medium with nothing outside a zone."""

    def __init__(self, medium: MediumLike, zone: Zone) -> None:
        self._medium = medium
        self._zone = zone
        self.speed = medium.speed
        self.fixed = medium.fixed

    def hole(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
        z = self._zone
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        inside = (x > z.x[0]) & (x < z.x[-1]) & (y > z.y[0]) & (y < z.y[-1])
        return np.asarray(self._medium.hole(x, y) | ~inside)


def arrival_times(problem: WaveProblem, zone: Zone) -> NDArray[np.float64]:
    """(rows, columns): no wave of the source is at a sample of the zone before this time.

    The shortest travel time over the sampling grid along rows, columns and diagonals, each edge at the
    largest speed of the cells beside it, times cos(pi/8): a lower bound of that of the cells' speeds.  The
    wave begins 3 radii from the source's centre, when the signal first exceeds a thousandth of its peak.
    Without a source waves come from an initial state unknown here, and all times are -inf.
    """
    s = problem.source
    if s is None:
        return np.full(zone.shape, -math.inf)
    n = zone.vertices
    h = zone.spacing
    centre = (np.arange(n - 1) + 0.5) * h
    speed = np.asarray(problem.medium.speed(centre[None, :], centre[:, None]), np.float64)
    padded = np.pad(speed, 1, mode="edge")
    along_x = np.maximum(padded[:-1, 1:-1], padded[1:, 1:-1])  # (n, n-1)
    along_y = np.maximum(padded[1:-1, :-1], padded[1:-1, 1:])  # (n-1, n)
    at = np.arange(n * n).reshape(n, n)
    edges = (
        (at[:, :-1], at[:, 1:], h / along_x),
        (at[:-1], at[1:], h / along_y),
        (at[:-1, :-1], at[1:, 1:], math.sqrt(2) * h / speed),
        (at[1:, :-1], at[:-1, 1:], math.sqrt(2) * h / speed),
    )
    i, j, cost = (np.concatenate([np.ravel(e[k]) for e in edges]) for k in range(3))
    graph = coo_matrix((cost, (i, j)), shape=(n * n, n * n)).tocsr()
    column, row = min(int(s.x / h), n - 2), min(int(s.y / h), n - 2)
    travel = dijkstra(
        graph, directed=False, indices=at[row : row + 2, column : column + 2].ravel(), min_only=True
    )
    t = np.linspace(0, min(s.end, 4 / s.frequency), 2001)
    size = abs(s.signal(t))
    onset = t[np.flatnonzero(size > _QUIET * size.max())[0]] if size.max() > 0 else math.inf
    head = (3 * s.radius + math.sqrt(2) * h) / speed.min()
    arrival = onset + np.maximum(_OCTILE * travel - head, 0).reshape(n, n)
    return arrival[zone.bottom : zone.top + 1, zone.left : zone.right + 1]


def source_load(problem: WaveProblem, system: ZoneSystem) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Nodes that the source moves, and M times its profile at them."""
    if problem.source is None:
        return np.zeros(0, np.intp), np.zeros(0)
    load = system.mass * system.free * problem.source.profile(system.x, system.y)
    nodes = np.flatnonzero(load)
    return nodes, load[nodes]
