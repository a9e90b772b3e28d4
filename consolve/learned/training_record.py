"""What every training run keeps: steps that count whole or not at all, the revision, the plot of the log."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from consolve.files import whole_file


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
