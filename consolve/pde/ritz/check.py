"""Checking a file of Ritz data: every right-hand side, the Ritz values, and that the two belong together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import DataCheck
from consolve.pde.ritz.data import LEAST, LOW_WEIGHT, RitzData

NORM_TOLERANCE = 1e-5
"""Largest deviation of a norm from 1: float32 rounds each entry."""


@dataclass
class RitzCheck(DataCheck):
    """What :func:`check` found.

    Attributes
    ----------
    norm_error
        Largest deviation of a norm from 1.
    rayleigh_quotient, expected_quotient, quotient_tolerance
        Mean of b . A b over the first chunk, what the Ritz values and weights let expect (sum w^2 theta /
        sum w^2 but for a correction by their number), and how far the mean may be from it by chance.
    """

    norm_error: float = 0.0
    rayleigh_quotient: float = float("nan")
    expected_quotient: float = float("nan")
    quotient_tolerance: float = float("nan")


def check(path: str | os.PathLike[str], report: Callable[[int, int], None] | None = None) -> RitzCheck:
    """Check a file.

    Ritz values ascending, positive and within the range that A allows; of every chunk the digest; of every
    right-hand side that it is finite, of unit norm, 0 outside the active cells and, of a singular operator,
    without a part in its null space; the mean Rayleigh quotient of the first chunk against the one of the
    distribution.

    Parameters
    ----------
    path
        File made by ``consolve data ritz``.
    report
        Called with the number of right-hand sides that are checked, and of all.

    Raises
    ------
    RitzDataError
        If the file cannot be opened as a whole one.
    """
    found = RitzCheck()
    with RitzData(path) as data:
        _check_values(found, data)

        def look(chunk: int, arrays: dict[str, Any]) -> None:
            samples, b = data.ritz_set.samples_of(chunk), arrays["right_hand_sides"]
            _check_chunk(found, data, samples.start, b)
            if chunk == 0 and not found.faults:
                _check_quotient(found, data, b)
            if report is not None:
                report(samples.stop, data.ritz_set.samples)

        found.parts(data, look)
    return found


def _check_values(found: RitzCheck, data: RitzData) -> None:
    values, set_ = data.ritz_values, data.ritz_set
    if not (0 < values.size <= set_.vectors and np.isfinite(values).all()):
        found.require(False, f"{values.size} finite Ritz values of {set_.vectors} vectors are not possible")
        return
    found.require((np.diff(values) >= 0).all(), "the Ritz values do not ascend")
    least, bound = LEAST * values.max(), 2 * float(data.operator.diagonal().max())
    found.require(values.min() >= least > 0, f"Ritz value {values.min():g} is under {least:g}")
    found.require(
        values.max() <= bound * (1 + 1e-12), f"Ritz value {values.max():g} exceeds |A| <= {bound:g}"
    )
    low, right = data.attributes["low_vectors"], set_.low_vectors(values.size)
    found.require(low == right, f"low_vectors is {low}, expected {right}")
    residuals = data.ritz_residuals
    found.require(
        np.isfinite(residuals).all() and (residuals >= 0).all() and (residuals <= bound).all(),
        f"residual norms of Ritz pairs are not in [0, {bound:g}]",
    )


def _check_chunk(found: RitzCheck, data: RitzData, first: int, b: NDArray[np.float32]) -> None:
    active = data.operator.active
    inside = b[:, active].astype(np.float64)
    finite = np.isfinite(b).all(axis=tuple(range(1, b.ndim)))
    if not finite.all():
        found.require(False, f"right-hand side {first + int(np.argmin(finite))} holds NaN or Inf")
        return
    norm = np.linalg.norm(inside, axis=1)
    error = np.abs(norm - 1)
    found.norm_error = max(found.norm_error, float(error.max()))
    worst = int(np.argmax(error))
    found.require(
        error[worst] <= NORM_TOLERANCE,
        f"right-hand side {first + worst} has norm {norm[worst]:.6g}, not 1",
    )
    outside = b[:, ~active].any(axis=1)
    found.require(
        not outside.any(),
        f"right-hand side {first + int(np.argmax(outside))} is not 0 outside the active cells",
    )
    null_space = data.operator.null_space
    for component in range(len(null_space)):
        part = inside[:, null_space.group == component]
        null = np.abs(part.sum(axis=1)) / np.sqrt(part.shape[1])
        found.require(
            (null <= NORM_TOLERANCE).all(),
            f"right-hand side {first + int(np.argmax(null))} has a part of {null.max():.2g} in the null "
            "space",
        )


def _check_quotient(found: RitzCheck, data: RitzData, b: NDArray[np.float32]) -> None:
    inside = b[:, data.operator.active].astype(np.float64)
    quotients = np.einsum("ij,ji->i", inside, data.operator.to_csr() @ inside.T)
    values = data.ritz_values
    weight = np.ones(values.size)
    weight[: data.ritz_set.low_vectors(values.size)] = LOW_WEIGHT**2
    weight /= weight.sum()
    ratio = float(weight @ values)
    # Mean and variance of sum w^2 c^2 theta / sum w^2 c^2 to first order in 1 / (number of Ritz vectors).
    expected = ratio - 2 * float(weight**2 @ (values - ratio))
    spread = np.sqrt(2 * (weight**2 @ (values - ratio) ** 2) / quotients.size)
    second_order = 8 * float((weight**2).sum()) ** 2 * values.max()
    found.rayleigh_quotient, found.expected_quotient = float(quotients.mean()), expected
    found.quotient_tolerance = float(6 * spread + second_order + 1e-5 * values.max())
    found.require(
        abs(found.rayleigh_quotient - expected) <= found.quotient_tolerance,
        f"the mean Rayleigh quotient is {found.rayleigh_quotient:.6g}; Ritz values and weights let expect "
        f"{expected:.6g}, at most {found.quotient_tolerance:.2g} off",
    )
