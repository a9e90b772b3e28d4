"""Conjugate directions in grid space: product, scalar products and updates within the passes of the V-cycle.

On a packed level the operator is known to the last bit, so A z need not be the matrix's: it is formed in the
pass up, and the residual is brought up to date in the pass down.  With M the V-cycle, an iteration is ::

    z      = M r
    w      = A z                       and the products (r, z), (w, z), (s, z), (r, w), (w, w), (w, s), (r, r)
    beta   = -(z, s) / (p, s)
    alpha  = (r, z) / ((z, w) + beta (z, s))
    p, s   = z + beta p, w + beta s    s = A p
    x, r   = x + alpha p, r - alpha s

which is the flexible conjugate gradient method (Y. Notay: Flexible conjugate gradients, SIAM J. Sci. Comput.
22, 2000, with one direction kept) with one reduction an iteration; |r| after it follows from the products.

Everything on the grid is float32, and yet x and r stay together: p is never formed, x is kept as a
combination of the z, and w is A z of the z that is stored, computed in float64 and rounded once.  So the
rounding of A p, |A| |p| eps, which on a fine grid is far larger than |r| eps, does not come in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numba import njit, prange, types
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.jit import FAST
from consolve.base.memory import require
from consolve.learned.multilevel.cycle import cycle_kernels, vector_kernels
from consolve.learned.multilevel.cycle.cycle_kernels import COLUMNS
from consolve.learned.multilevel.cycle.layout import array_shape
from consolve.learned.multilevel.cycle.row_vectors import LANES, PRODUCTS
from consolve.learned.multilevel.setup.hierarchy import Hierarchy

SLOTS = 5
"""Corrections z that are kept before they are added to x."""
LEAST_REDUCTION = 2e-7
"""Of the residual norm: below, rounding of r in float32 tells, and r has to be computed anew."""
_X, _S = COLUMNS.index("x"), COLUMNS.index("s")


@njit(
    types.void(
        types.int64[:, ::1], types.float32[::1], types.float32[:, :, ::1], types.float32[:, ::1], types.int64,
        types.float32, types.float32, types.float64[:, ::1], types.int64,
    ),
    **FAST,
)  # fmt: skip
def _iterate(records, units, alpha, inverse, update, a, beta, sums, threads):
    """Update s and r by a and beta, z = M r, w = A z; ``sums`` gets the scalar products."""
    g, coarse = records[0], records[1]
    cycle_kernels.pass_down(g, coarse, units[0], alpha[0], update, a, beta, threads)
    cycle_kernels.v_cycle(records, units, alpha, inverse, 1, threads)
    sums[:] = 0
    cycle_kernels.pass_up(g, coarse, units[0], alpha[0], sums, threads)


@njit(**FAST)
def _scale(first, factor):
    for q in range(first.size):
        first[q] *= factor


@njit(**FAST)
def _add(first, factor, other):
    for q in range(first.size):
        first[q] += factor * other[q]


@njit(parallel=True, **FAST)
def _combine(z, factors, threads):
    """z[0] = sum of factors[m] z[m]; z is a tuple of float32 arrays of one shape."""
    n = z[0].size
    parts = max(threads, n // 16384)
    for q in prange(parts):
        low, high = n * q // parts, n * (q + 1) // parts
        _scale(z[0].reshape(-1)[low:high], factors[0])
        for m in range(1, factors.size):
            _add(z[0].reshape(-1)[low:high], factors[m], z[m].reshape(-1)[low:high])


@dataclass
class _State:
    """Scalars of the iteration, in the symbols of the module's head."""

    rr: float
    ps: float = 0.0
    rs: float = 0.0
    ss: float = 0.0
    alpha: float = 0.0
    beta: float = 0.0
    count: int = 0


class GridDirections:
    """The iteration on the levels of a preconditioner whose finest level is packed.

    Parameters
    ----------
    hierarchy
        The levels.  Vectors of the finest are overwritten.
    threads
        Of the kernels.
    """

    def __init__(self, hierarchy: Hierarchy, threads: int) -> None:
        self.hierarchy, self._threads = hierarchy, threads
        self._runs, self._scale = np.empty((0, 4), np.int32), 1.0
        shape = array_shape(hierarchy.layout.shapes[0])
        self._shape = shape
        require(4 * SLOTS * math.prod(shape), "the vectors of an iteration in grid space")
        self._z = [hierarchy.array(0, "x")]
        self._s = zeros(shape, np.float32)
        self._sums = np.zeros((threads, PRODUCTS * LANES // 2))
        self._records = hierarchy.records.copy()
        self._records[0, _S] = self._s.ctypes.data + 4
        self._state = _State(0.0)
        self._down = self._up = 0.0
        self._p, self._x = np.zeros(SLOTS), np.zeros(SLOTS)
        self._slot = 0

    def serve(self, runs: NDArray[np.int32], scale: float) -> None:
        """Work for a matrix.

        Parameters
        ----------
        runs
            int32 (runs, 4): where the entries of vectors lie, see layout.runs_of.
        scale
            The matrix is ``scale`` times the packed operator.
        """
        self._runs, self._scale = runs, scale

    @property
    def bytes(self) -> int:
        """Memory beside that of the hierarchy."""
        return len(self._z) * self._s.nbytes

    def begin(self, r: NDArray[np.float64], norm: float, down: float, up: float) -> None:
        """Start from a residual.

        Parameters
        ----------
        r
            One entry for each row; those of cells that are not active are ignored.
        norm
            Its norm.
        down, up
            Factor that brings entries of r near 1, and its inverse up to the sign, which is the matrix's.
        """
        hierarchy, (n0, n1, _) = self.hierarchy, self.hierarchy.layout.shapes[0]
        vector_kernels.scatter(r, self._runs, down, hierarchy.array(0, "b"), n0, n1, self._threads)
        self._s.reshape(-1)[:] = 0
        self._state = _State((norm * down) ** 2)
        self._down, self._up = abs(down), up / self._scale
        self._p[:] = self._x[:] = 0
        self._slot = 0

    def step(self, x: NDArray[np.float64]) -> float:
        """One iteration.

        Returns
        -------
        The norm of the new residual; NaN if there is none: M or A was found not to be positive definite, or r
        not finite.  ``x`` is added to where the slots are full.
        """
        if self._slot == SLOTS:
            self._fold(x)
        hierarchy, state = self.hierarchy, self._state
        if self._slot == len(self._z):
            self._z.append(zeros(self._shape, np.float32))
        self._records[0, _X] = self._z[self._slot].ctypes.data + 4
        update = int(state.count > 0)
        _iterate(
            self._records, hierarchy.units, hierarchy.alpha, hierarchy.inverse, update,
            np.float32(state.alpha), np.float32(state.beta), self._sums, self._threads,
        )  # fmt: skip
        rz, wz, sz, rw, ww, ws, rr = (
            float(v) for v in self._sums.reshape(self._threads, PRODUCTS, -1).sum(axis=(0, 2))
        )
        beta = -sz / state.ps if state.ps > 0 else 0.0
        ps = wz + beta * sz
        if not (rz > 0 and ps > 0 and isfinite(rz / ps) and isfinite(rr)):
            return float("nan")
        alpha = rz / ps
        # Kernels advance by these numbers in single precision: so does what follows from them.
        alpha, beta = float(np.float32(alpha)), float(np.float32(beta))
        rs = rw + beta * state.rs
        ss = ww + 2 * beta * ws + beta * beta * state.ss
        self._p *= beta
        self._p[self._slot] = 1.0
        self._x += alpha * self._p
        self._slot += 1
        after = max(rr - 2 * alpha * rs + alpha * alpha * ss, 0.0)
        self._state = _State(after, ps, rs - alpha * ss, ss, alpha, beta, state.count + 1)
        return sqrt(after) / self._down

    def _fold(self, x: NDArray[np.float64]) -> None:
        """Empty the slots: x takes its part, and the first slot becomes p."""
        self.add_to(x)
        self._x[:] = 0
        _combine(tuple(self._z), self._p.astype(np.float32), self._threads)
        self._p[:] = 0
        self._p[0] = 1.0
        self._slot = 1

    def add_to(self, x: NDArray[np.float64]) -> None:
        """Add what the iteration has found since it began, but for what ``step`` has added."""
        n0, n1, _ = self.hierarchy.layout.shapes[0]
        z = self._z + self._z[:1] * (SLOTS - len(self._z))  # as many as the kernel is compiled for
        weights = self._up * self._x[: self._slot]
        vector_kernels.gather_combination(tuple(z), weights, self._runs, x, n0, n1, self._threads)
