"""Direct solution of the empty box by cosine and sine transforms: the floor that iterations are held against.

The operator of an empty box is a sum of one-dimensional ones, each diagonal in a trigonometric basis that
its two ends choose (Swarztrauber, SIAM Review 19, 1977).  Cells have unit spacing; the pressure is 0 at the
centre of the first AIR cell outside, and its normal derivative is 0 on the face towards SOLID.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from consolve.pde.domains import Domain
from consolve.pde.grid import AIR, SOLID


class BoxTransform:
    """x = A^-1 b for a domain without obstacles.

    Parameters
    ----------
    domain
        All cells fluid, no mobility; any walls.
    workers
        Threads of the transforms.

    Raises
    ------
    ValueError
        If the domain is not an empty box.
    """

    def __init__(self, domain: Domain, workers: int = 1) -> None:
        if domain.cell_type.any() or domain.mobility is not None:
            raise ValueError(
                f"the fft solver is for an empty box of fluid, {domain.name!r} holds other cells"
            )
        self.outside = domain.outside
        self.workers = workers
        eigenvalues = np.zeros((1,) * domain.cell_type.ndim)
        for axis, (n, sides) in enumerate(zip(domain.shape, domain.outside)):
            line = [1] * domain.cell_type.ndim
            line[axis] = n
            eigenvalues = eigenvalues + _eigenvalues(n, sides).reshape(line)
        self.singular = not any(AIR in sides for sides in domain.outside)
        if self.singular:
            eigenvalues.flat[0] = 1
        self.inverse = 1 / eigenvalues

    def solve(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        """x with A x = b, both float64 of the grid's shape; of zero mean when A is singular."""
        x = b
        for axis, sides in enumerate(self.outside):
            x = self._transform(x, axis, sides)
        x = x * self.inverse
        if self.singular:
            x.flat[0] = 0
        for axis, sides in enumerate(self.outside):
            x = self._inverse_transform(x, axis, sides)
        return x

    def _transform(self, x: NDArray, axis: int, sides: tuple[int, int]) -> NDArray:
        if sides == (SOLID, SOLID):
            return fft.dct(x, 2, axis=axis, norm="ortho", workers=self.workers)
        if sides == (AIR, AIR):
            return fft.dst(x, 1, axis=axis, norm="ortho", workers=self.workers)
        wall_first = x if sides == (SOLID, AIR) else np.flip(x, axis)
        zero = np.zeros_like(np.take(wall_first, [0], axis))
        odd = np.concatenate([wall_first, zero, -np.flip(wall_first, axis)], axis)
        modes = fft.dct(odd, 2, axis=axis, norm="ortho", workers=self.workers, overwrite_x=True)
        return modes[_odd_entries(axis, x.ndim)]

    def _inverse_transform(self, x: NDArray, axis: int, sides: tuple[int, int]) -> NDArray:
        if sides == (SOLID, SOLID):
            return fft.idct(x, 2, axis=axis, norm="ortho", workers=self.workers, overwrite_x=True)
        if sides == (AIR, AIR):
            return fft.idst(x, 1, axis=axis, norm="ortho", workers=self.workers, overwrite_x=True)
        n = x.shape[axis]
        modes = np.zeros([2 * n + 1 if a == axis else s for a, s in enumerate(x.shape)])
        modes[_odd_entries(axis, x.ndim)] = x
        odd = fft.idct(modes, 2, axis=axis, norm="ortho", workers=self.workers, overwrite_x=True)
        wall_first = odd[tuple(slice(n) if a == axis else slice(None) for a in range(x.ndim))]
        return wall_first if sides == (SOLID, AIR) else np.flip(wall_first, axis)


def _eigenvalues(n: int, sides: tuple[int, int]) -> NDArray[np.float64]:
    """Of the one-dimensional operator on n cells, in the order of the transform."""
    if sides == (SOLID, SOLID):
        angle = np.pi * np.arange(n) / n
    elif sides == (AIR, AIR):
        angle = np.pi * np.arange(1, n + 1) / (n + 1)
    else:
        angle = np.pi * np.arange(1, 2 * n, 2) / (2 * n + 1)
    return 4 * np.sin(angle / 2) ** 2


def _odd_entries(axis: int, ndim: int) -> tuple[slice, ...]:
    return tuple(slice(1, None, 2) if a == axis else slice(None) for a in range(ndim))
