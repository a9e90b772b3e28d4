"""Canonical polyadic decomposition of a tensor by regularised alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EXACT = 1e-11
"""Relative error at which a decomposition counts as exact."""
_FIRST_WEIGHT, _LAST_WEIGHT, _ANNEALING = 1e-2, 1e-15, 0.7
"""Proximal weight at the start, its floor, and its decay per sweep, relative to the mean of diag(K^T K)."""


@dataclass(frozen=True)
class CanonicalDecomposition:
    """A tensor as a sum of R outer products of vectors.

    Attributes
    ----------
    factors
        One float64 array (n_m, R) per axis of the tensor.  The vectors of a term have equal norms.
    relative_error
        ``|X - sum_r a_r x b_r x ...| / |X|`` in the Frobenius norm (0 for a zero tensor).
    sweeps
        Sweeps over all axes that the start that was kept took.
    """

    factors: tuple[np.ndarray, ...]
    relative_error: float
    sweeps: int

    def tensor(self) -> np.ndarray:
        """The sum of the outer products."""
        shape = tuple(len(f) for f in self.factors)
        return (self.factors[0] @ _khatri_rao(self.factors[1:]).T).reshape(shape)


def largest_rank(shape: Sequence[int]) -> int:
    """The rank that is enough for every tensor of a shape: the product of all axes but the longest.

    Such a tensor is the sum, over the indices of the other axes, of (fibre along the longest axis) x (unit
    vectors), so that more terms than that add nothing.
    """
    return math.prod(shape) // max(shape)


def check_rank(rank: int, shape: Sequence[int]) -> None:
    """Raise ValueError unless 1 <= rank <= `largest_rank`."""
    most = largest_rank(shape)
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)):
        raise TypeError(f"rank must be an integer, got {rank!r}")
    if not 1 <= rank <= most:
        size = " x ".join(map(str, shape))
        raise ValueError(
            f"rank {rank} does not suit a kernel of {size}: expected 1 to {most}, the product of all its "
            f"axes but the longest, with which every such kernel is represented exactly"
        )


def canonical_decomposition(
    tensor: np.ndarray,
    rank: int,
    *,
    regularisation: float = 1e-4,
    sweeps: int = 1000,
    tolerance: float = 1e-5,
    starts: int = 3,
    seed: int = 0,
) -> CanonicalDecomposition:
    """The nearest sum of `rank` outer products that alternating least squares finds.

    The objective is ``log |X - X'|^2 + regularisation * sum of squared factors``, for X scaled to norm 1.
    For each axis m in turn, with K the Khatri-Rao product of the other factors, the factor F minimises::

        | X_(m) - F K^T |^2 + regularisation |X - X'|^2 |F|^2 + mu | F - F_old |^2

    which lowers the objective, as the logarithm is concave.  Many tensors have no best approximation of a
    given rank: terms grow without bound and cancel.  The second summand keeps them small and vanishes with
    the error, so that a tensor which has the rank is recovered where the iteration converges.  The proximal
    weight mu decreases geometrically: it carries the first sweeps over flat valleys.  Every third sweep a
    step along the last change is tried, longer as long as such steps help.

    The first start is the higher-order singular value decomposition (leading left singular vectors of each
    unfolding, random columns beyond the length of an axis); further starts are random, and the best is kept.

    Parameters
    ----------
    tensor
        Real array with at least two axes; computed in float64.
    rank
        Number of terms R, from 1 to `largest_rank`.
    regularisation
        Weight of the squared factors in the objective, at least 0.
    sweeps
        Most sweeps of each start.
    tolerance
        A start ends when the objective decreases by less than this over 20 sweeps, or the relative error is
        below 1e-11.  No further start is made after an error below 1e-10.
    starts
        Number of starts, the first included.
    seed
        Of the random columns: the same arguments give the same result.

    Raises
    ------
    ValueError
        The rank does not suit the shape, the tensor has NaN or infinite entries, or an option is out of
        range.

    References
    ----------
    T. G. Kolda and B. W. Bader, Tensor decompositions and applications, SIAM Review 51 (2009), section 3.4.
    C. Navasca, L. De Lathauwer and S. Kindermann, Swamp reducing technique for tensor decomposition, EUSIPCO
    2008 (the proximal term).
    """
    x = np.asarray(tensor, dtype=np.float64)
    if x.ndim < 2:
        raise ValueError(f"a tensor with at least 2 axes was expected, got shape {x.shape}")
    if 0 in x.shape:
        raise ValueError(f"a tensor with entries was expected, got shape {x.shape}")
    check_rank(rank, x.shape)
    if not np.isfinite(x).all():
        raise ValueError(f"the tensor of shape {x.shape} has NaN or infinite entries: nothing to decompose")
    if sweeps < 1 or starts < 1:
        raise ValueError(f"sweeps and starts must be at least 1, got {sweeps} and {starts}")
    if not (math.isfinite(regularisation) and regularisation >= 0 and tolerance >= 0):
        raise ValueError(
            f"regularisation and tolerance must be at least 0, got {regularisation} and {tolerance}"
        )
    scale = float(np.linalg.norm(x))
    if scale == 0.0:
        return CanonicalDecomposition(tuple(np.zeros((n, rank)) for n in x.shape), 0.0, 0)
    unfoldings = [np.moveaxis(x, m, 0).reshape(n, -1) / scale for m, n in enumerate(x.shape)]
    random = np.random.default_rng(seed)
    best: CanonicalDecomposition | None = None
    for start in range(starts):
        factors = (
            _singular_vectors(unfoldings, rank, random) if start == 0 else _random(x.shape, rank, random)
        )
        found = _alternate(unfoldings, factors, sweeps, tolerance, regularisation)
        if best is None or found.relative_error < best.relative_error:
            best = found
        if best.relative_error < 10 * _EXACT:
            break
    assert best is not None
    root = scale ** (1 / x.ndim)
    return CanonicalDecomposition(tuple(f * root for f in best.factors), best.relative_error, best.sweeps)


def _khatri_rao(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Column-wise Kronecker product: (product of the lengths, R), the last axis running fastest."""
    product = factors[0]
    for f in factors[1:]:
        product = (product[:, None, :] * f[None, :, :]).reshape(-1, f.shape[1])
    return product


def _random(shape: Sequence[int], rank: int, random: np.random.Generator) -> list[np.ndarray]:
    factors = [random.standard_normal((n, rank)) for n in shape]
    return [f / np.linalg.norm(f, axis=0) for f in factors]


def _singular_vectors(
    unfoldings: Sequence[np.ndarray], rank: int, random: np.random.Generator
) -> list[np.ndarray]:
    factors = _random([len(u) for u in unfoldings], rank, random)
    for f, unfolding in zip(factors, unfoldings):
        _, vectors = np.linalg.eigh(unfolding @ unfolding.T)
        count = min(rank, len(unfolding))
        leading = vectors[:, ::-1][:, :count]
        largest = np.abs(leading).argmax(axis=0)
        f[:, :count] = leading * np.where(leading[largest, np.arange(count)] < 0, -1.0, 1.0)
    return factors


def _balance(factors: list[np.ndarray]) -> list[np.ndarray]:
    """The same terms with vectors of equal norms."""
    norms = np.stack([np.linalg.norm(f, axis=0) for f in factors])
    size = np.exp(np.log(np.maximum(norms, 1e-300)).mean(axis=0)) * norms.all(axis=0)
    return [f * (size / np.where(n > 0, n, 1.0)) for f, n in zip(factors, norms)]


def _measure(
    unfolding: np.ndarray, factors: Sequence[np.ndarray], regularisation: float
) -> tuple[float, float]:
    """Error |X - X'|, and the objective ``log |X - X'|^2 + regularisation * sum |F|^2``."""
    error = float(np.linalg.norm(unfolding - factors[0] @ _khatri_rao(factors[1:]).T))
    size = sum(float(np.vdot(f, f)) for f in factors)
    return error, 2 * math.log(max(error, 1e-300)) + regularisation * size


def _sweep(
    unfoldings: Sequence[np.ndarray], factors: list[np.ndarray], proximal: float, ridge: float
) -> list[np.ndarray]:
    factors = list(factors)
    rank = factors[0].shape[1]
    for m, unfolding in enumerate(unfoldings):
        others = factors[:m] + factors[m + 1 :]
        product = _khatri_rao(others)
        normal = product.T @ product
        mu = proximal * max(float(np.trace(normal)) / rank, 1e-300)
        change = (unfolding - factors[m] @ product.T) @ product - ridge * factors[m]
        normal.flat[:: rank + 1] += mu + ridge
        factors[m] = factors[m] + np.linalg.solve(normal, change.T).T
    return _balance(factors)


def _alternate(
    unfoldings: Sequence[np.ndarray],
    factors: list[np.ndarray],
    sweeps: int,
    tolerance: float,
    regularisation: float,
) -> CanonicalDecomposition:
    proximal, reach, history, error = _FIRST_WEIGHT, 2.0, [math.inf], 1.0
    best, best_error, best_objective = factors, math.inf, math.inf
    for count in range(1, sweeps + 1):
        previous, factors = factors, _sweep(unfoldings, factors, proximal, regularisation * error**2)
        error, objective = _measure(unfoldings[0], factors, regularisation)
        if count > 5 and count % 3 == 0:
            trial = _balance([f + reach * (f - p) for f, p in zip(factors, previous)])
            trial_error, trial_objective = _measure(unfoldings[0], trial, regularisation)
            if trial_objective < objective:
                factors, error, objective = trial, trial_error, trial_objective
                reach = min(1.5 * reach, 100.0)
            else:
                reach = max(0.5 * reach, 1.0)
        if objective < best_objective:
            best, best_error, best_objective = factors, error, objective
        history.append(best_objective)
        if best_error < _EXACT or (count > 60 and history[-21] - best_objective < tolerance):
            break
        proximal = max(proximal * _ANNEALING, _LAST_WEIGHT)
    return CanonicalDecomposition(tuple(best), best_error, count)
