"""What every training run keeps: steps that count whole or not at all, the log and its plot, the revision."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from consolve.base.files import open_in_place, whole_file

COLUMNS = ("step", "seconds", "loss", "smoothed_loss", "validation_loss", "rate")


@contextmanager
def interrupts_deferred() -> Iterator[list[int]]:
    """Ctrl-C inside the block takes effect at its end; the list that the block gets fills with those so far.

    Blocks may be nested: then it takes effect at the end of the outer one.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        signal.raise_signal(signal.SIGINT)


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
        with open(self.path, "w" if first else "a", newline="", opener=open_in_place) as file:
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


def plot_log(
    log: Path,
    picture: Path,
    ylabel: str = "decimals per iteration",
    sign: float = -1.0,
    logarithmic: bool = False,
) -> None:
    """``sign`` times the columns smoothed_loss and validation_loss of a training log against steps, a PNG."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    rows = np.genfromtxt(log, delimiter=",", names=True, ndmin=1)
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    axes.plot(rows["step"], sign * rows["smoothed_loss"], color="0.6", label="training, smoothed")
    axes.plot(
        rows["step"], sign * rows["validation_loss"], color="#1f6feb", marker="o", ms=3, label="validation"
    )
    axes.set(xlabel="step", ylabel=ylabel, title=log.stem)
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both" if logarithmic else "major")
    axes.legend(frameon=False)
    with whole_file(picture) as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)


def revision() -> str:
    """Git revision of the source, ``unknown`` outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


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


def digest_of(*digests: str) -> str:
    """One digest of several data sets, in order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
