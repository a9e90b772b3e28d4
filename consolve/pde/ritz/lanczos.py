"""Lanczos tridiagonalisation of a grid operator with full re-orthogonalisation."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh_tridiagonal

from consolve.base.jit import FAST, STRICT
from consolve.pde.poisson.grid import GridOperator

_AGAIN = 0.7071067811865476
_ROWS = 4


class Lanczos:
    """Orthonormal q_1 .. q_m and a tridiagonal T with A Q = Q T + beta_m q_{m+1} e_m^T.

    One step is, with all q so far in Q::

        r = A q_j - beta_{j-1} q_{j-1};   alpha_j = q_j . r;   r = r - alpha_j q_j
        r = r - Q Q^T r      repeated while it takes more than a part 1 - 1/sqrt(2) of |r|
        beta_j = |r|;   q_{j+1} = r / beta_j

    The recurrence is in float64; ``dtype`` is that of the stored basis alone, against which r is made
    orthogonal.  Where the subspace is invariant, beta_j is round-off: it becomes 0 and q_{j+1} a random unit
    vector orthogonal to the basis, so that steps can go on until the range of A is exhausted.  Of a singular
    operator everything stays orthogonal to the null space.

    No step depends on the number of threads, so the same operator, seed and dtype give the same bits.

    Sources: Lanczos (1950); Parlett, The Symmetric Eigenvalue Problem (1980), chapter 13; the repetition:
    Giraud, Langou, Rozloznik, "The loss of orthogonality in the Gram-Schmidt process" (2005).

    Parameters
    ----------
    operator
        The matrix A, on the unknowns (active cells in C order).
    vectors
        m, from 1 to :func:`rank`.
    seed
        Of the start vector, normal in each unknown, and of the restarts.
    dtype
        float64 or float32: of the stored basis.

    Attributes
    ----------
    basis
        (m, unknowns): the rows are q_1 .. q_m; those from ``size`` on are not set.
    diagonal, off_diagonal
        (m,) float64: alpha_j and beta_j.
    size
        Steps done.
    following
        (unknowns,) float64: q_{size + 1}; 0 when the range of A is exhausted.

    Raises
    ------
    ValueError
        If ``vectors`` is out of range or ``dtype`` is another one.
    """

    def __init__(self, operator: GridOperator, vectors: int, seed: int = 0, dtype: type = np.float64) -> None:
        self.rank = rank(operator)
        if not 1 <= vectors <= self.rank:
            raise ValueError(
                f"{vectors} Lanczos vectors of an operator of rank {self.rank}: expected 1 to {self.rank}"
            )
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"the basis is float32 or float64, got {np.dtype(dtype)}")
        self._matrix = operator.to_csr()
        self._null_space = operator.null_space
        self._seed = seed
        unknowns = operator.unknowns
        # The norm of a diagonally dominant matrix is at most twice its largest diagonal entry.
        bound = 2 * float(self._matrix.diagonal().max())
        self._round_off = 4 * float(np.finfo(dtype).eps) * np.sqrt(unknowns) * bound
        self.basis: NDArray = np.empty((vectors, unknowns), dtype)
        self.diagonal = np.zeros(vectors)
        self.off_diagonal = np.zeros(vectors)
        self.size = 0
        self._current = np.zeros(unknowns)
        self.following = self._random()

    @property
    def vectors(self) -> int:
        """m."""
        return self.basis.shape[0]

    def step(self) -> None:
        """One more vector: alpha, beta and the one to follow."""
        j = self.size
        if j == self.vectors:
            raise ValueError(f"all {j} Lanczos steps are done")
        previous, q = self._current, self.following
        self.basis[j] = q
        r = self._matrix @ q
        if j:
            subtract(previous, self.off_diagonal[j - 1], r)
        alpha = dot(q, r)
        subtract(q, alpha, r)
        beta = self._orthogonalise(r, j + 1) if j + 1 < self.rank else 0.0
        if beta > self._round_off:
            r /= beta
        else:
            beta, r = 0.0, self._restart(j + 1)
        self.restore(alpha, beta, r)

    def restore(self, alpha: float, beta: float, following: NDArray[np.float64]) -> None:
        """Do a step whose results are known: those of ``step`` in an earlier process."""
        j = self.size
        self.basis[j] = self.following
        self.diagonal[j], self.off_diagonal[j] = alpha, beta
        self._current, self.following = self.following, following
        self.size = j + 1

    def run(self) -> None:
        """All steps that are left."""
        while self.size < self.vectors:
            self.step()

    def _orthogonalise(self, r: NDArray[np.float64], size: int) -> float:
        """Make ``r`` orthogonal to the null space and the basis, in place; its norm, 0 if nothing is left."""
        before = np.sqrt(dot(r, r))
        while True:
            self._null_space.remove(r, r)
            project_out(self.basis[:size], r)
            after = np.sqrt(dot(r, r))
            if after <= self._round_off:
                return 0.0
            if after >= _AGAIN * before:
                return float(after)
            before = after

    def _restart(self, size: int) -> NDArray[np.float64]:
        if size == self.rank:
            return np.zeros(self.basis.shape[1])
        while True:
            r = self._random()
            r *= 1 / self._round_off  # only rounding may stop the repetition
            norm = self._orthogonalise(r, size)
            if norm > 0:
                return r / norm

    def _random(self) -> NDArray[np.float64]:
        """A random unit vector outside the null space; another one at each size."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(0, self.size)))
        r = rng.standard_normal(self.basis.shape[1])
        self._null_space.remove(r, r)
        return r / np.sqrt(dot(r, r))

    def ritz(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Eigenpairs of the tridiagonal matrix of the steps done.

        Returns
        -------
        values
            (size,) float64, ascending: the Ritz values theta_i.
        coefficients
            (size, size) float64: row i is s_i, so that the Ritz vector v_i is ``s_i @ basis``.
        residuals
            (size,) float64: |A v_i - theta_i v_i| = |beta_m s_i[m]|.
        """
        if self.size == 0:
            raise ValueError("no Lanczos step is done yet")
        diagonal, off_diagonal = self.diagonal[: self.size], self.off_diagonal[: self.size - 1]
        try:
            values, columns = eigh_tridiagonal(diagonal, off_diagonal)
        except LinAlgError:
            values, columns = eigh_tridiagonal(diagonal, off_diagonal, lapack_driver="stev")
        return values, columns.T, np.abs(self.off_diagonal[self.size - 1] * columns[-1])


def rank(operator: GridOperator) -> int:
    """Rank of the operator: unknowns less one for each component without a Dirichlet part."""
    return operator.unknowns - len(operator.null_space)


@njit(**FAST)
def dot(a, b):
    """a . b, summed in float64 in an order that the number of threads does not change."""
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * b[i]
    return total


@njit(**FAST)
def subtract(a, factor, r):
    """r -= factor a, in place."""
    for i in range(r.size):
        r[i] -= factor * a[i]


@njit(**FAST)
def _dot_four(a, b, c, d, r):
    s, t, u, v = 0.0, 0.0, 0.0, 0.0
    for i in range(r.size):
        x = r[i]
        s += a[i] * x
        t += b[i] * x
        u += c[i] * x
        v += d[i] * x
    return s, t, u, v


@njit(**FAST)
def _subtract_four(a, b, c, d, s, t, u, v, r):
    for i in range(r.size):
        r[i] -= s * a[i] + t * b[i] + u * c[i] + v * d[i]


@njit(**STRICT)
def project_out(basis, r):
    """r -= Q Q^T r in place, Q the rows of ``basis``; classical among four rows, modified among the fours.

    Four rows at a time stay in the cache between their two uses: the basis is read once from memory, 4 or 8
    bytes per row and unknown.
    """
    whole = basis.shape[0] // _ROWS * _ROWS
    for j in range(0, whole, _ROWS):
        a, b, c, d = basis[j], basis[j + 1], basis[j + 2], basis[j + 3]
        s, t, u, v = _dot_four(a, b, c, d, r)
        _subtract_four(a, b, c, d, s, t, u, v, r)
    for j in range(whole, basis.shape[0]):
        subtract(basis[j], dot(basis[j], r), r)
