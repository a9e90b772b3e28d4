"""Direct solve of the coarsest level, which has at most a few dozen cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU, splu

from consolve.base.jit import STRICT
from consolve.learned.multilevel.cycle.transfer import SplitArrays
from consolve.pde.poisson.null_space import ClosedComponents

_MOST_BY_HAND, _MOST_DENSE = 256, 1024
"""Unknowns up to which an inverse is made without LAPACK, and at all."""


def null_vectors(off_diagonal: NDArray, dirichlet: NDArray) -> NDArray[np.float64]:
    """Orthonormal null vectors of A = diag(dirichlet + row sums) - off_diagonal, one a row.

    They are the normalised indicators of the connected components that have no Dirichlet part.  Cells without
    any coefficient are left out.

    Parameters
    ----------
    off_diagonal
        Face coefficients c_ij >= 0 as a dense symmetric matrix, (cells, cells).
    dirichlet
        Dirichlet part of each cell, (cells,).
    """
    closed = ClosedComponents.of_graph(sp.csr_matrix(off_diagonal), dirichlet > 0)
    alive = dirichlet + off_diagonal.sum(1) > 0
    vectors = [alive & (closed.group == number) for number in range(len(closed))]
    rows = [v / np.sqrt(v.sum()) for v in vectors if v.any()]
    return np.array(rows) if rows else np.zeros((0, dirichlet.size))


def pseudo_inverse(off_diagonal: NDArray, dirichlet: NDArray) -> NDArray[np.float64]:
    """Pseudo-inverse of A = diag(dirichlet + row sums) - off_diagonal in float64, (cells, cells).

    With u the null vectors and e the unit vectors of empty cells: (A + s (u u^T + e e^T))^-1 - (u u^T + e
    e^T) / s.
    """
    off = np.asarray(off_diagonal, np.float64)
    fixed = np.asarray(dirichlet, np.float64)
    d = fixed + off.sum(1)
    u = null_vectors(off, fixed)
    scale = max(float(d.mean()), 1e-30)
    null = u.T @ u + np.diag((d == 0).astype(np.float64))
    for shift in _growing():
        matrix = np.diag((1 + shift) * d) - off + scale * null
        if d.size <= _MOST_BY_HAND:
            invert(matrix)
        else:
            try:
                matrix = np.linalg.inv(matrix)
            except np.linalg.LinAlgError:  # exactly singular
                continue
        if (matrix.diagonal() > 0).all() and np.isfinite(matrix).all():
            break
    inverse = matrix - null / scale
    return 0.5 * (inverse + inverse.T)


def _growing() -> Iterator[float]:
    """Relative growth of a diagonal until rounding leaves the matrix definite: none, units in the last place,
    and more."""
    yield 0.0
    shift = 4e-16
    while shift < 1:
        yield shift
        shift *= 4


@njit(**STRICT)
def invert(a):
    """Replace a symmetric positive definite matrix by its inverse: Gauss-Jordan elimination.

    For small matrices.  LAPACK would wake the threads of BLAS for them, which then wait at full speed on the
    cores that other ranks work on.
    """
    n = a.shape[0]
    for p in range(n):
        pivot = 1 / a[p, p]
        a[p, p] = 1.0
        for k in range(n):
            a[p, k] *= pivot
        for i in range(n):
            if i != p:
                factor = a[i, p]
                a[i, p] = 0.0
                for k in range(n):
                    a[i, k] -= factor * a[p, k]


def definite_factors(matrix: sp.spmatrix) -> SuperLU:
    """Sparse factors L U of a symmetric positive definite matrix, with U of positive diagonal.

    Where rounding loses what little makes it definite, its diagonal grows by a few units in the last place.
    """
    factors = None
    for shift in _growing():
        grown = (matrix + sp.diags(shift * matrix.diagonal())).tocsc()
        try:
            factors = splu(
                grown, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        except RuntimeError:  # exactly singular
            continue
        if (factors.U.diagonal() > 0).all():
            break
    assert factors is not None
    return factors


class DirectSolve:
    """x = A^+ b on a level that is not coarsened further; its grid may be periodic.

    Parameters
    ----------
    faces, dirichlet
        The operator, volumes (n0, n1, n2); the last layer of a face array joins the last cells to the first
        ones of a periodic axis.
    periodic
        For each of the three axes.
    layout
        Of the vectors b and x.
    """

    def __init__(
        self, faces: list[NDArray], dirichlet: NDArray, periodic: tuple[bool, ...], layout: SplitArrays
    ) -> None:
        shape, n = dirichlet.shape, dirichlet.size
        index = np.arange(n).reshape(shape)
        pairs, values = [], []
        for axis, m in enumerate(shape):
            if m > 1:
                count = m if periodic[axis] else m - 1
                low, high = np.arange(count), (np.arange(count) + 1) % m
                pairs.append((index.take(low, axis).ravel(), index.take(high, axis).ravel()))
                values.append(faces[axis].take(low, axis).ravel())
        none: NDArray = np.empty(0)
        i, j = (np.concatenate([none, *(p[q] for p in pairs)]).astype(np.int64) for q in (0, 1))
        c = np.concatenate([none, *values])
        off = sp.coo_matrix((np.tile(c, 2), (np.append(i, j), np.append(j, i))), (n, n)).tocsr()
        off.eliminate_zeros()
        fixed = dirichlet.ravel().astype(np.float64)
        self._diagonal = fixed + np.asarray(off.sum(1)).ravel()
        self.b, self.x = layout.zeros(), layout.zeros()
        self._at = layout.positions(np.zeros(3, np.int64), np.array(shape))
        if n <= _MOST_DENSE:
            self._inverse = pseudo_inverse(off.toarray(), fixed).astype(np.float32)
            self.bytes = self._inverse.nbytes
            self._factors = None
            return
        self._closed = ClosedComponents.of_graph(off, fixed > 0)
        pinned = np.zeros(n)
        pinned[self._closed.first_entries()] = max(float(self._diagonal.max()), 1e-30)  # any constant will do
        self._factors = definite_factors(sp.diags(self._diagonal + pinned) - off)
        self.bytes = 12 * int(self._factors.nnz)

    def cycle(self, threads: int) -> None:
        """x = A^+ b."""
        if self._factors is None:
            self.x.reshape(-1)[self._at] = self._inverse @ self.b.reshape(-1)[self._at]
            return
        b = self.b.reshape(-1)[self._at].astype(np.float64)
        solution = self._factors.solve(self._closed.without_means(b))
        self.x.reshape(-1)[self._at] = self._closed.without_means(solution)

    @property
    def unknowns(self) -> int:
        """Cells with a coefficient."""
        return int(np.count_nonzero(self._diagonal))
