"""Direct solve of the coarsest level, which has at most a few dozen cells."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components


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
    count, label = connected_components(sp.csr_matrix(off_diagonal), directed=False)
    alive = dirichlet + off_diagonal.sum(1) > 0
    fixed = np.bincount(label, dirichlet, minlength=count)
    vectors = [alive & (label == c) for c in range(count) if fixed[c] == 0]
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
    inverse = np.linalg.inv(np.diag(d) - off + scale * null) - null / scale
    return 0.5 * (inverse + inverse.T)
