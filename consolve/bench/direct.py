"""Direct solution of the empty box by SciPy's cosine and sine transforms: the floor under all iterations.

The operator of an empty box is a sum of one-dimensional ones, each diagonal in a trigonometric basis that
its two ends choose (Swarztrauber, SIAM Review 19, 1977).  Cells have unit spacing; the pressure is 0 at the
centre of the first AIR cell outside, and its normal derivative is 0 on the face towards SOLID.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from consolve.pde.poisson.domains import Domain
from consolve.pde.poisson.grid import AIR, SOLID


class BoxTransform:
    """x = A^-1 b for a domain without obstacles.

    Axes with two ends of one kind are transformed.  The first axis with two different ends is not: there the
    transform would be of the odd length 2 n + 1, and elimination in the tridiagonal systems that the others
    leave costs a tenth of it.

    Parameters
    ----------
    domain
        All cells fluid, no mobility; any walls.
    workers
        Threads.

    Raises
    ------
    ValueError
        If the domain is not an empty box.
    """

    def __init__(self, domain: Domain, workers: int = 1) -> None:
        features = domain.mobility, domain.widths, domain.closed
        if domain.cell_type.any() or any(f is not None for f in features):
            raise ValueError(
                f"the fft solver is for an empty box of fluid, {domain.name!r} holds other cells"
            )
        self.outside = domain.outside
        self.workers = workers
        shape = domain.shape
        mixed = [axis for axis, (low, high) in enumerate(domain.outside) if low != high]
        self._line = mixed[0] if mixed else None
        self._odd = mixed[1:]
        self._walls = [axis for axis, sides in enumerate(domain.outside) if sides == (SOLID, SOLID)]
        self._open = [axis for axis, sides in enumerate(domain.outside) if sides == (AIR, AIR)]
        eigenvalues = np.zeros((1,) * len(shape))
        for axis, (n, sides) in enumerate(zip(shape, domain.outside)):
            if axis != self._line:
                values = _eigenvalues(n, sides)
                eigenvalues = eigenvalues + values.reshape(
                    [-1 if a == axis else 1 for a in range(len(shape))]
                )
        self.singular = len(self._walls) == len(shape)
        if self.singular:
            eigenvalues.flat[0] = 1
        if self._line is None:
            self.inverse = 1 / eigenvalues
        else:
            self.inverse = self._pivots(eigenvalues, shape[self._line])

    def _pivots(self, eigenvalues: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """1 / pivots of the tridiagonal systems along the axis that is not transformed, which comes first."""
        assert self._line is not None
        rest = eigenvalues.squeeze(self._line)
        inverse = np.empty((n, *rest.shape))
        low, high = self.outside[self._line]
        for k in range(n):
            # A face to a wall is closed; one to air, or to the next cell, adds 1 to the diagonal.
            inverse[k] = rest + ((k > 0 or low == AIR) + (k < n - 1 or high == AIR))
            if k:
                inverse[k] -= inverse[k - 1]
            np.reciprocal(inverse[k], out=inverse[k])
        return inverse

    def solve(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        """x with A x = b, both float64 of the grid's shape; of zero mean when A is singular."""
        both = {"norm": "ortho", "workers": self.workers}
        x = b  # which no transform writes to, and at least one axis is transformed
        for axis in self._odd:
            x = self._transform(x, axis, self.outside[axis])
        if self._walls:
            x = fft.dctn(x, 2, axes=self._walls, overwrite_x=x is not b, **both)
        if self._open:
            x = fft.dstn(x, 1, axes=self._open, overwrite_x=x is not b, **both)
        if self._line is None:
            x *= self.inverse
        else:
            self._eliminate(x)
        if self.singular:
            x.flat[0] = 0
        if self._open:
            x = fft.idstn(x, 1, axes=self._open, overwrite_x=True, **both)
        if self._walls:
            x = fft.idctn(x, 2, axes=self._walls, overwrite_x=True, **both)
        for axis in self._odd:
            x = self._inverse_transform(x, axis, self.outside[axis])
        return x

    def _eliminate(self, x: NDArray[np.float64]) -> None:
        """Solve the tridiagonal systems in place, threads sharing the columns."""
        assert self._line is not None
        lines, pivots = np.moveaxis(x, self._line, 0), self.inverse
        parts = min(self.workers, lines.shape[1])
        cuts = [lines.shape[1] * part // parts for part in range(parts + 1)]

        def columns(first: int, last: int) -> None:
            y, p = lines[:, first:last], pivots[:, first:last]
            y[0] *= p[0]
            for k in range(1, len(y)):
                y[k] += y[k - 1]
                y[k] *= p[k]
            step = np.empty_like(y[0])
            for k in range(len(y) - 2, -1, -1):
                np.multiply(p[k], y[k + 1], out=step)
                y[k] += step

        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(columns, cuts[:-1], cuts[1:]))

    def _transform(self, x: NDArray, axis: int, sides: tuple[int, int]) -> NDArray:
        """Of an axis with two different ends: part of a cosine transform of its odd continuation."""
        wall_first = x if sides == (SOLID, AIR) else np.flip(x, axis)
        zero = np.zeros_like(np.take(wall_first, [0], axis))
        odd = np.concatenate([wall_first, zero, -np.flip(wall_first, axis)], axis)
        modes = fft.dct(odd, 2, axis=axis, norm="ortho", workers=self.workers, overwrite_x=True)
        return modes[_odd_entries(axis, x.ndim)]

    def _inverse_transform(self, x: NDArray, axis: int, sides: tuple[int, int]) -> NDArray:
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
