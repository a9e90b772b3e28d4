"""Checking a file of wave data: every value against what the file says of itself, some runs solved again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import DataCheck
from consolve.pde.waves.data import SETTINGS, WaveData, settings
from consolve.pde.waves.generation import solve_runs

TOLERANCE = 1e-4
"""Largest difference of a run solved again, over its largest |u|.  One machine repeats itself exactly; other
compilers and DOLFINx round in another order."""


@dataclass
class WaveCheck(DataCheck):
    """What :func:`check` found.

    Attributes
    ----------
    differences
        By number of each run solved again: largest difference over the largest |u|.
    largest
        Largest |u| of all runs.
    """

    differences: dict[int, float] = field(default_factory=dict)
    largest: float = 0.0


def check(
    path: str | os.PathLike[str],
    again: Sequence[int] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> WaveCheck:
    """Check a file.

    Attributes, coordinates and times against those of the set; of every run the digest, that all is finite,
    ranges, and that u is 0 where it is fixed; of some runs what their seed gives, solved again by leap-frog.

    Parameters
    ----------
    path
        File made by ``consolve data wave``.
    again
        Runs to solve again; default: one, which the digest picks.
    report
        Called with the number of runs that are checked, and of all.

    Raises
    ------
    WaveDataError
        If the file cannot be opened as a whole one.
    ValueError
        If ``again`` names a run that is not in the file.
    """
    with WaveData(path) as data:
        again = [int(data.digest[:8], 16) % data.runs] if again is None else list(again)
        wrong = [run for run in again if not 0 <= run < data.runs]
        if wrong:
            raise ValueError(f"{path} has runs 0 to {data.runs - 1}, there is no run {wrong[0]}")
        found = WaveCheck()
        _check_settings(found, data)

        def look(run: int, arrays: dict[str, Any]) -> None:
            _check_run(found, data, run, arrays)
            if report is not None:
                report(run + 1, data.runs)

        found.parts(data, look)
        for run in again:
            _check_again(found, data, run)
        return found


def _check_settings(found: WaveCheck, data: WaveData) -> None:
    expected = settings(data.wave_set, data.runs, data.vertices)
    for name in SETTINGS:
        value = data.attributes[name]
        found.require(
            value == expected[name], f"{name} is {value}, this consolve makes sets with {expected[name]}"
        )
    w = data.wave_set
    for name, array, right in (
        ("time", data.time, w.interval * np.arange(w.snapshots)),
        ("x", data.x, w.coordinates),
        ("y", data.y, w.coordinates),
    ):
        found.require(
            np.allclose(array, right, rtol=0, atol=1e-12),
            f"{name} runs from {array[0]:g} to {array[-1]:g}, expected {right[0]:g} to {right[-1]:g}",
        )


def _check_run(found: WaveCheck, data: WaveData, run: int, a: dict[str, Any]) -> None:
    def require(holds: Any, fault: str) -> None:
        found.require(holds, f"run {run}: {fault}")

    attributes = data.attributes
    u, speed, fixed = a["u"], a["speed"], a["fixed"]
    if np.isfinite(u).all():
        found.largest = max(found.largest, float(np.abs(u).max()))
        require(u.any(), "u is 0 everywhere")
        require(not u[:, fixed > 0].any(), "u is not 0 at its fixed vertices")
    else:
        require(False, "u holds NaN or Inf")
    require(_within(speed, attributes["speed_range"]), f"speeds leave {attributes['speed_range']}")
    require((fixed <= 1).all(), "fixed holds other values than 0 and 1")
    x, y, frequency, amplitude, radius, delay = (float(v) for v in a["source"])
    for name, value, key in (
        ("x", x, "place_range"),
        ("y", y, "place_range"),
        ("frequency", frequency, "frequency_range"),
        ("amplitude", amplitude, "amplitude_range"),
    ):
        low_high = attributes[key]
        require(_within(np.array(value), low_high), f"{name} of the source is {value:g}, not in {low_high}")
    require(radius > 0, f"the radius of the source is {radius:g}")
    require(abs(delay * frequency - 1.2) < 1e-9, f"delay {delay:g} does not fit frequency {frequency:g}")
    steps = float(a["start"]) / data.interval
    require(abs(steps - round(steps)) < 1e-6, f"start {a['start']:g} is no multiple of {data.interval:g}")
    if data.wave_set.whole:
        late = float(a["start"]) - 2 * delay
        require(-1e-9 < late < data.interval, "start is not the first snapshot at or after the source's end")
    else:
        require((a["parameters"][:3] == a["source"][:3]).all(), "parameters and source differ")
    kinds = data.wave_set.kinds
    require(data.kind[run] == kinds[run % len(kinds)], f"a medium of kind {data.kind[run]!r} is out of turn")


def _within(values: NDArray, low_high: Sequence[float]) -> bool:
    low, high = low_high
    return bool((np.isfinite(values) & (values >= low * (1 - 1e-6)) & (values <= high * (1 + 1e-6))).all())


def _check_again(found: WaveCheck, data: WaveData, run: int) -> None:
    stored = data.arrays(run)
    solved = solve_runs(data.wave_set, [run], data.vertices)[0]
    found.require(
        int(stored["medium_seed"]) == solved["medium_seed"]
        and np.allclose(stored["source"], solved["source"], rtol=1e-12, atol=0)
        and np.allclose(stored["speed"], solved["speed"], rtol=1e-5)
        and (stored["fixed"] == solved["fixed"]).all()
        and abs(float(stored["start"]) - solved["start"]) < 1e-12,
        f"run {run}: medium, source or start are not what its seed gives",
    )
    scale = float(np.abs(solved["u"]).max())
    difference = float(np.abs(stored["u"].astype(np.float64) - solved["u"]).max()) / scale
    found.differences[run] = difference
    found.require(
        difference <= TOLERANCE,
        f"run {run}: u differs from the run solved again by {difference:.2g} of its largest value",
    )
