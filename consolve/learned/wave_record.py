"""The record of a training of a wave surrogate: its log, where its data came from."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from consolve.files import whole_file
from consolve.pde.wave_data import WaveData

COLUMNS = ("step", "seconds", "loss", "smoothed_loss", "validation_loss", "rate")


class TrainingLog:
    """One row of `COLUMNS` for each validation, in a CSV file.

    Parameters
    ----------
    path
        Of the file; it is not touched before a row comes.
    """

    def __init__(self, path: Path):
        self.path = path

    def append(self, first: bool, step: int, seconds: float, *numbers: float) -> None:
        """Add a row; the `first` of a run replaces the log of another."""
        first = first or not self.path.exists()
        with open(self.path, "w" if first else "a", newline="") as file:
            writer = csv.writer(file)
            if first:
                writer.writerow(COLUMNS)
            writer.writerow([step, f"{seconds:.1f}", *(f"{x:.4e}" for x in numbers)])

    def cut(self, step: int) -> None:
        """Drop what lies after a step: a run that was killed may have logged what it will log again."""
        if not self.path.exists():
            return
        rows = [row.split(",") for row in self.path.read_text().splitlines()[1:]]
        kept = [row for row in rows if len(row) == len(COLUMNS) and int(row[0]) <= step]
        with whole_file(self.path) as part, open(part, "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *kept])


def differences(found: Any, expected: Any, name: str = "") -> list[str]:
    """Where two records of settings differ, each as a line; tuples and lists are one thing."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return [
            line
            for key in sorted(set(found) | set(expected))
            for line in differences(found.get(key), expected.get(key), f"{name} {key}".strip())
        ]
    if json.dumps(found) == json.dumps(expected):
        return []
    return [f"{name or 'record'} is {found!r}, asked for is {expected!r}"]


def domain_of(data: WaveData) -> dict[str, Any]:
    """What a training set says of the problems in it, for the record in the weights."""
    names = ("set", "media", "speed_range", "frequency_range", "boundaries")
    domain = {name: data.attributes[name] for name in names}
    return {**domain, "interval": data.interval, "grid": [int(n) for n in data.u.shape[2:]]}


def digest_of(*digests: str) -> str:
    """One digest of several data sets, in order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


def check_apart(data: WaveData, validation: WaveData) -> None:
    """Refuse a validation set that shares runs with the training set.

    Raises
    ------
    ValueError
        Both are of the same split and seed: run r of one is run r of the other.
    """
    if data.wave_set == validation.wave_set:
        raise ValueError(
            f"{validation.path} is of the {data.wave_set.split} split with seed {data.wave_set.seed}, as "
            f"{data.path} is: they share runs; make one with 'consolve data wave --split validation'"
        )
