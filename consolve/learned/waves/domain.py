"""What a propagator was trained for, and whether a problem is of that kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.learned.waves.format import WaveWeights
from consolve.pde.waves.problem import WaveProblem
from consolve.pde.waves.sampling import STORED_VERTICES, WaveSet

_ROUNDING = 1e-5
"""Stored speeds are float32."""


class ExtrapolationWarning(UserWarning):
    """Input outside of what a surrogate was trained for."""


@dataclass(frozen=True)
class TrainedFor:
    """Problems that a propagator was trained on.

    Attributes
    ----------
    media
        Kinds of media.
    speed_range, frequency_range
        Of the medium, and of the source.
    boundaries
        ``left=... right=... bottom=... top=...``.
    interval
        Time between snapshots.
    vertices
        Along each side of the grid of the snapshots.
    recorded
        False if the weights do not say it; the values are then those of ``consolve data wave``.
    """

    media: tuple[str, ...]
    speed_range: tuple[float, float]
    frequency_range: tuple[float, float]
    boundaries: str
    interval: float
    vertices: int
    recorded: bool

    @classmethod
    def of(cls, weights: WaveWeights) -> TrainedFor:
        """From the record in the weights.

        Raises
        ------
        ValueError
            If these are not a propagator's weights, the record is not readable, or the grid is not square.
        """
        if weights.network != "propagator":
            raise ValueError(f"{weights.source}: holds a {weights.network}, a propagator is needed here")
        found = WaveSet("propagator")
        domain: dict[str, Any] = {
            "media": " ".join(found.kinds),
            "speed_range": found.speeds,
            "frequency_range": found.frequencies,
            "boundaries": boundary_text(WaveProblem(found.medium("constant", 0, ()))),
            "interval": found.interval,
            "grid": (STORED_VERTICES, STORED_VERTICES),
        }
        try:
            said = json.loads(weights.record.get("domain", "{}"))
            domain |= {name: said[name] for name in domain if name in said}
            low, high = (float(v) for v in domain["speed_range"])
            slow, fast = (float(v) for v in domain["frequency_range"])
            rows, columns = (int(n) for n in domain["grid"])
            interval = float(domain["interval"])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{weights.source}: the record of what it was trained for is damaged ({error})"
            ) from error
        if rows != columns:
            raise ValueError(f"{weights.source}: trained on {rows} x {columns} vertices, a square is needed")
        media = tuple(str(domain["media"]).split())
        return cls(media, (low, high), (slow, fast), str(domain["boundaries"]), interval, rows, bool(said))

    def refuse(self, problem: WaveProblem) -> None:
        """Raise ValueError for holes and other boundaries: the surrogate is not told of them."""
        centre = (np.arange(2 * (self.vertices - 1)) + 0.5) / (2 * (self.vertices - 1))
        if problem.medium.hole(centre[None, :], centre[:, None]).any():
            raise ValueError(
                "the medium has holes, which the surrogate does not know; take finite elements, or fixed "
                "cells (obstacles) in place of holes"
            )
        sides = boundary_text(problem)
        if sides != self.boundaries:
            raise ValueError(
                f"the sides are {sides}, the surrogate is trained for {self.boundaries} alone; take finite "
                f"elements, or train a surrogate on such data"
            )

    def speeds_outside(self, speed: NDArray) -> str:
        """A sentence if speeds are outside of those that were trained on, else ""."""
        low, high = self.speed_range
        slowest, fastest = float(np.min(speed)), float(np.max(speed))
        if slowest >= low * (1 - _ROUNDING) and fastest <= high * (1 + _ROUNDING):
            return ""
        return (
            f"speeds from {slowest:.3g} to {fastest:.3g} are outside what the surrogate is trained for, "
            f"{low:g} to {high:g}"
        )

    def warnings(self, problem: WaveProblem, speed: NDArray, kind: str | None = None) -> list[str]:
        """One sentence for each thing that training did not have: forecasts will be less exact.

        Parameters
        ----------
        problem
            Medium, source and boundaries.
        speed
            (ny, nx) speeds that the surrogate gets.
        kind
            Of the medium, if it has one.
        """
        warnings = []
        if not self.recorded:
            warnings.append("the weights do not say what they were trained for")
        if outside := self.speeds_outside(speed):
            warnings.append(outside)
        low, high = self.frequency_range
        if problem.source is not None and not low <= problem.source.frequency <= high:
            warnings.append(
                f"a source of frequency {problem.source.frequency:.3g} is outside what the surrogate is "
                f"trained for, {low:g} to {high:g}"
            )
        if kind is not None and kind not in self.media:
            warnings.append(f"{kind}: the surrogate is trained on other media ({', '.join(self.media)})")
        return warnings


def boundary_text(problem: WaveProblem) -> str:
    """Conditions on the sides as data sets and weights have them."""
    return " ".join(f"{side}={condition}" for side, condition in problem.boundaries.items())
