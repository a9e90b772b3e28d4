"""The P1 discretisation of a wave problem on the structured triangle mesh of the unit square, matrix-free.

n x n vertices at spacing h; each square cell is two right triangles (the diagonal runs from the lower left
to the upper right corner) of the cell's speed.  The stiffness of the diagonal is 0, so that

    (K u)_i = sum over the 2 to 4 edges to neighbours j of k_ij (u_i - u_j),
    k_ij    = half the sum of c² of the cells beside the edge;

the mass is lumped by row sums, a third of each triangle's area to each of its vertices, and so is the first
order absorbing boundary: half of c h of each side's edge to each of its ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from consolve.pde.waves.kernels import WIDTH, power_steps
from consolve.pde.waves.problem import WaveProblem

FINEST = 8193
"""Vertices a side beyond which a grid is refused: a run would need tens of GiB."""
_BETWEEN_BOUNDS = 8
"""Steps of the power method between two looks at its bounds, an even number; entries grow to some 1e60."""


def framed(array: NDArray, dtype: DTypeLike = np.float64) -> NDArray:
    """A copy of an (n, n) array in the layout of :mod:`consolve.pde.waves.kernels`."""
    return np.pad(array, ((1, 1), (1, 1 + -array.shape[1] % WIDTH))).astype(dtype)


@dataclass(frozen=True)
class WaveGrid:
    """Arrays of ``M u_tt + C u_t + K u = M f`` on n x n vertices, float64, [y, x].

    Attributes
    ----------
    spacing
        h = 1 / (n - 1).
    speed, hole, fixed_cells
        (n-1, n-1): c of the cells, those outside the mesh, and those whose vertices are fixed.
    mass
        (n, n): lumped M; 0 at vertices outside the mesh.
    coupling_x, coupling_y
        (n, n-1) and (n-1, n): k of the edges along x and along y.
    damping
        (n, n): lumped C of the absorbing sides.
    free
        bool (n, n): vertices of the mesh where u is unknown; elsewhere u = 0.
    """

    spacing: float
    speed: NDArray[np.float64]
    hole: NDArray[np.bool_]
    fixed_cells: NDArray[np.bool_]
    mass: NDArray[np.float64]
    coupling_x: NDArray[np.float64]
    coupling_y: NDArray[np.float64]
    damping: NDArray[np.float64]
    free: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: WaveProblem, vertices: int) -> WaveGrid:
        """The grid of ``vertices`` x ``vertices``; the medium is evaluated at the cells' centres.

        Raises
        ------
        ValueError
            If there are fewer than 3 vertices a side, no unknown is left, or the source is in no cell of the
            mesh.
        """
        if int(vertices) != vertices or not 3 <= vertices <= FINEST:
            raise ValueError(
                f"a wave grid has a whole number of 3 to {FINEST} vertices a side, got {vertices}"
            )
        n = int(vertices)
        h = 1 / (n - 1)
        x, y = (np.arange(n - 1)[None, :] + 0.5) * h, (np.arange(n - 1)[:, None] + 0.5) * h
        medium = problem.medium
        speed, hole = np.array(medium.speed(x, y), np.float64), np.array(medium.hole(x, y), np.bool_)
        fixed_cells = np.asarray(medium.fixed(x, y), np.bool_) & ~hole
        if not (np.isfinite(speed) & (speed > 0)).all():
            raise ValueError("the medium must have a positive, finite speed in every cell")

        triangle = np.where(hole, 0.0, h * h / 2)
        mass = np.zeros((n, n))
        mass[:-1, :-1] += triangle * 2 / 3
        mass[1:, 1:] += triangle * 2 / 3
        mass[:-1, 1:] += triangle / 3
        mass[1:, :-1] += triangle / 3
        half = np.where(hole, 0.0, speed**2 / 2)
        coupling_x, coupling_y = np.zeros((n, n - 1)), np.zeros((n - 1, n))
        coupling_x[:-1] += half
        coupling_x[1:] += half
        coupling_y[:, :-1] += half
        coupling_y[:, 1:] += half

        damping, fixed = np.zeros((n, n)), np.zeros((n, n), np.bool_)
        drag = np.where(hole, 0.0, speed * h / 2)
        for side, condition in problem.boundaries.items():
            axis, end = _SIDES[side]
            if condition == "fixed":
                np.moveaxis(fixed, axis, 0)[end] = True
            elif condition == "absorbing":
                line, beside = np.moveaxis(damping, axis, 0)[end], np.moveaxis(drag, axis, 0)[end]
                line[:-1] += beside
                line[1:] += beside
        for corner in (np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]):
            fixed[corner] |= fixed_cells
        free = (mass > 0) & ~fixed
        if not free.any():
            raise ValueError("holes, fixed cells and fixed sides leave no unknown on this grid")
        grid = cls(h, speed, hole, fixed_cells, mass, coupling_x, coupling_y, damping, free)
        if problem.source is not None:
            grid.check_source(problem.source.x, problem.source.y)
        return grid

    def check_source(self, x: float, y: float) -> None:
        """The medium was asked at the source; the cells of this grid may be coarser than its shapes."""
        cells = self.speed.shape[0]
        i, j = min(int(x * cells), cells - 1), min(int(y * cells), cells - 1)
        if self.hole[j, i] or self.fixed_cells[j, i]:
            name = "hole" if self.hole[j, i] else "fixed cell"
            raise ValueError(
                f"on {cells + 1} x {cells + 1} vertices the source at ({x}, {y}) lies in a {name}; "
                f"move it, or take a finer grid"
            )

    @property
    def vertices(self) -> int:
        """Vertices a side."""
        return self.mass.shape[0]

    @property
    def places(self) -> NDArray[np.float64]:
        """(n,): coordinates of the vertices along each axis."""
        return np.linspace(0, 1, self.vertices)

    def stiffness_product(self, u: NDArray) -> NDArray[np.float64]:
        """K u over all vertices of the mesh, fixed ones included; (..., n, n) in, the same out."""
        flow_x = self.coupling_x * (u[..., :, 1:] - u[..., :, :-1])
        flow_y = self.coupling_y * (u[..., 1:, :] - u[..., :-1, :])
        out = np.zeros(flow_x.shape[:-1] + (self.vertices,))
        out[..., :, :-1] -= flow_x
        out[..., :, 1:] += flow_x
        out[..., :-1, :] -= flow_y
        out[..., 1:, :] += flow_y
        return out

    def inverse_mass(self) -> NDArray[np.float64]:
        """(n, n): 1 / M at unknowns, 0 elsewhere."""
        return np.divide(1.0, self.mass, out=np.zeros_like(self.mass), where=self.free)

    def largest_eigenvalue(self, tolerance: float = 5e-3, iterations: int = 500) -> tuple[float, float]:
        """Bounds low <= lambda <= high of the largest eigenvalue of M⁻¹ K on the unknowns.

        The graph of K is bipartite (vertices are coloured as a chess board), so the change of sign on one
        colour turns M⁻¹ K into the non-negative matrix M⁻¹ |K| of equal spectrum.  For such a matrix A and
        any positive x, the smallest and the largest of (A x)_i / x_i bound the spectral radius (Collatz and
        Wielandt): of the largest no more than the positive x is asked, so ``high`` is an upper bound in any
        iteration of the power method, not an estimate.  ``low`` is the Rayleigh quotient.

        Parameters
        ----------
        tolerance
            The iterations end where (high - low) / high is below it; the stable step is half as sharp.
        iterations
            Most iterations; the bounds hold in any case.
        """
        n = self.vertices
        inverse, east, north = self.inverse_mass(), np.zeros((n, n)), np.zeros((n, n))
        east[:, :-1], north[:-1] = self.coupling_x, self.coupling_y
        arrays = [framed(a) for a in (east, north, inverse)]
        x, product = framed(self.free.astype(np.float64)), framed(np.zeros((n, n)))
        inside = np.s_[1 : n + 1, 1 : n + 1]
        low, high = 0.0, np.inf
        for _ in range(0, iterations, _BETWEEN_BOUNDS):
            power_steps(product, x, *arrays, 1)
            below, above = x[inside][self.free], product[inside][self.free]
            weighted = self.mass[self.free] * below
            low = max(low, float(np.dot(weighted, above) / np.dot(weighted, below)))
            high = min(high, float(np.max(above / below)))
            if high - low <= tolerance * high:
                break
            x[inside][self.free] = np.maximum(above / above.max(), 1e-200)  # stays positive
            power_steps(product, x, *arrays, _BETWEEN_BOUNDS)
        # What the sums are rounded by goes to the safe side.
        return low * (1 - 1e-13), high * (1 + 1e-13)


_SIDES = {"left": (1, 0), "right": (1, -1), "bottom": (0, 0), "top": (0, -1)}
