"""Right-hand sides whose norms would over- or underflow: solved times a power of two, which is exact."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FAR = 300
"""Binary exponents up to which squares of entries, and their sums, are far from both ends of float64."""


def scale_of(b: NDArray[np.float64]) -> float:
    """A power of two that brings the largest entry near 1; 1 where it is near enough."""
    largest = max(float(b.max(initial=0)), -float(b.min(initial=0)))
    exponent = math.frexp(largest)[1] if largest > 0 else 0
    return math.ldexp(1.0, min(-exponent, 1000)) if abs(exponent) > FAR else 1.0


def check_finite(values: NDArray[np.float64], name: str, what: str = "row") -> None:
    """Refuse arrays with an entry that is not finite.

    Raises
    ------
    ValueError
        With its place: a row, or the cell of a grid.
    """
    if np.isfinite(values).all():
        return
    first = np.argwhere(~np.isfinite(values))[0]
    place = int(first[0]) if values.ndim == 1 else tuple(int(i) for i in first)
    raise ValueError(f"{name} is not finite at {what} {place}; every entry must be finite")
