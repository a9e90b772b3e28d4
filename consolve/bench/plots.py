"""Plots of benchmarks, in one style: convergence histories, and iterations and time against size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from consolve.base.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
COLOURS = {
    "cg": "#9ca3af",
    "icc": "#b08968",
    "gamg": "#2a9d8f",
    "hypre": "#3b6fb6",
    "ml": "#7fb069",
    "mg": "#8e6bbf",
    "cnn": "#e4572e",
    "dcd": "#f2a541",
    "dcd-mg": "#b59bd9",
    "fft": "#111827",
    "grid": "#0f766e",
    "dpcg": "#5c7f9c",
    "dpcg-ritz": "#a3b8c8",
    "dcdm": "#c2185b",
    "dcdm-deep": "#6a1b9a",
    "dcdm-image": "#e879a6",
}
OTHERS = ("#0ea5e9", "#d946ef", "#65a30d", "#be123c", "#0f766e")
MARKERS = dict(zip(COLOURS, "ovs^Pd*XD8<>phH"))
STYLE = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "round",
}


@contextmanager
def figure(
    path: str | Path, columns: int = 1, height: float = 3.8, width: float = 4.6, rows: int = 1, **shared: Any
) -> Iterator[Any]:
    """A figure with rows of axes in the package's style, written to ``path`` as a whole file at the end.

    ``height`` and ``width`` are of one of the axes; ``shared`` goes to ``plt.subplots`` (``sharey`` and the
    like).
    """
    with plt.style.context(STYLE):
        size = (width * columns, height * rows)
        canvas, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **shared)
        try:
            yield canvas, axes
            with whole_file(path) as part:
                canvas.savefig(part)
        finally:
            plt.close(canvas)


def colour_of(solver: str, number: int = 0) -> str:
    """The colour that a solver has in every plot."""
    return COLOURS.get(solver, OTHERS[number % len(OTHERS)])


def convergence(document: dict[str, Any], path: str | Path) -> None:
    """Relative residual against iteration and against seconds, one line a solver."""
    problem = document["problem"]
    rows = [row for row in document["results"] if row.get("history")]
    with figure(path, 2, width=5.0) as (canvas, (by_iteration, by_time)):
        for number, row in enumerate(rows):
            history, style = row["history"], line_style(row["solver"], number)
            residual = [max(value, 1e-300) for value in history["residual"]]
            by_iteration.semilogy(range(len(residual)), residual, **style)
            seconds = [row["setup_s"] + value for value in history["seconds"]]
            by_time.semilogy([0, *seconds], [residual[0], *residual], **style)
        for axes in (by_iteration, by_time):
            mark_tolerance(axes, problem["rtol"])
            axes.set_ylabel("relative residual  |b − Ax| / |b|")
        by_iteration.set_xlabel("iteration")
        by_time.set_xlabel("seconds, set-up included")
        squeeze_long_axis(by_iteration, [len(row["history"]["residual"]) for row in rows])
        squeeze_long_axis(by_time, [row["total_s"] for row in rows])
        by_iteration.set_title(_title(problem))
        by_time.set_title(_cores(document["machine"]))
        legend(canvas, by_iteration)


def residuals(
    histories: dict[str, Any], path: str | Path, title: str = "", rtol: float | None = None
) -> None:
    """Relative residual against iteration, one line a name."""
    with figure(path, width=6.2) as (canvas, axes):
        for number, (name, history) in enumerate(histories.items()):
            axes.semilogy([max(float(value), 1e-300) for value in history], **line_style(name, number))
        if rtol is not None:
            mark_tolerance(axes, rtol)
        axes.set_xlabel("iteration")
        axes.set_ylabel("relative residual  |b − Ax| / |b|")
        axes.set_title(title)
        squeeze_long_axis(axes, [len(history) for history in histories.values()])
        if len(histories) > 1:
            legend(canvas, axes)


def sizes(documents: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Iterations and total seconds against unknowns, one line a solver."""
    names = list(dict.fromkeys(row["solver"] for document in documents for row in document["results"]))
    with figure(path, 2, width=5.0) as (canvas, (iterations, seconds)):
        for number, name in enumerate(names):
            for axes, key in ((iterations, "iterations"), (seconds, "total_s")):
                points = [
                    (document["problem"]["unknowns"], row[key])
                    for document in documents
                    for row in document["results"]
                    if row["solver"] == name and row[key]
                ]
                if points:
                    style = line_style(name, number) | {"marker": MARKERS.get(name, "o"), "markersize": 5.5}
                    axes.loglog(*zip(*points), **style)
        iterations.set_ylabel("iterations")
        seconds.set_ylabel("seconds, set-up + solve")
        for axes in (iterations, seconds):
            _mark_sizes(axes, documents)
        problem = documents[0]["problem"]
        iterations.set_title(_title(problem, with_size=False))
        seconds.set_title(_cores(documents[0]["machine"]))
        legend(canvas, iterations)


def projections(document: dict[str, Any], path: str | Path) -> None:
    """Iterations of each projection of a flow, and seconds spent, per solver."""
    rows = [row for row in document["results"] if row["iterations_mean"] is not None]
    with figure(path, 2, width=5.0) as (canvas, (by_step, bars)):
        for number, row in enumerate(rows):
            counts = row["iterations"]
            by_step.semilogy(range(1, len(counts) + 1), counts, **line_style(row["solver"], number))
        by_step.set_xlabel("time step")
        by_step.set_ylabel("iterations of the projection")
        problem = document["problem"]
        size = " × ".join(map(str, problem["cells"]))
        by_step.set_title(f"{problem['scene']}, {size}")
        stacked_seconds(bars, rows)
        bars.set_title(_cores(document["machine"]))
        legend(canvas, by_step)


def stacked_seconds(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Horizontal bars of set-up (pale) and solve seconds."""
    names = [row["solver"] for row in rows]
    colours = [colour_of(name, number) for number, name in enumerate(names)]
    setup, solve = [row["setup_s"] for row in rows], [row["solve_s"] for row in rows]
    axes.barh(names, setup, color=colours, alpha=0.45, height=0.62)
    axes.barh(names, solve, left=setup, color=colours, height=0.62)
    longest = max((a + b for a, b in zip(setup, solve)), default=1)
    for name, a, b in zip(names, setup, solve):
        axes.text(a + b + 0.015 * longest, name, f"{a + b:.3g} s", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(0, 1.16 * longest)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds of all projections: set-up (pale) + solve")


def line_style(solver: str, number: int) -> dict[str, Any]:
    """Label, colour and stroke that a solver's line has in every plot."""
    ours = solver in ("cnn", "dcd", "dcdm", "dcdm-deep")
    return {
        "label": solver,
        "color": colour_of(solver, number),
        "linewidth": 2.4 if ours else 1.5,
        "zorder": {"cnn": 4, "dcd": 5}.get(solver, 3),
        "linestyle": {"mg": (0, (5, 1.5)), "dcd": (0, (1.2, 1.4)), "dcd-mg": (0, (5, 1.5))}.get(solver, "-"),
    }


def _mark_sizes(axes: Axes, documents: Sequence[dict[str, Any]]) -> None:
    """Ticks at the sizes that were run, by their grids."""
    problems = [document["problem"] for document in documents if document["problem"]["unknowns"]]
    labels = [f"{problem['cells'][0]}{'²' if problem['dim'] == 2 else '³'}" for problem in problems]
    axes.set_xticks([problem["unknowns"] for problem in problems], labels)
    axes.minorticks_off()
    axes.set_xlabel("grid, placed by unknowns")


def mark_tolerance(axes: Axes, rtol: float) -> None:
    """A dashed line where a solver may stop."""
    axes.axhline(rtol, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def squeeze_long_axis(axes: Axes, ends: list[float]) -> None:
    """A square-root scale where the longest line would press the others against the left edge."""
    ends = sorted(end for end in ends if end)
    if len(ends) > 1 and ends[-1] > 8 * ends[0]:
        axes.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x**2))
        axes.set_xlim(left=0)
        steps = [0, *_round_steps(ends[-1])]
        axes.set_xticks(steps, [f"{step:g}" for step in steps])


def _round_steps(end: float) -> list[float]:
    """A few round numbers that lie about evenly on a square-root scale up to ``end``."""
    return sorted({_rounded_down(part * end) for part in (0.02, 0.12, 0.3, 0.6, 1.0)})


def _rounded_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    lead = max(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8) if step <= value / power * (1 + 1e-9))
    return float(f"{lead * power:.3g}")


def legend(canvas: Figure, axes: Axes) -> None:
    """The lines of one of the axes, named beside them all."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        canvas.legend(handles, labels, loc="outside right center", handlelength=1.8)


def _title(problem: dict[str, Any], with_size: bool = True) -> str:
    size = " × ".join(map(str, problem["cells"])) if with_size else f"{problem['dim']}D"
    return f"{problem['domain']}, {size}, {problem['rhs']} right-hand side"


def _cores(machine: dict[str, Any]) -> str:
    cores = machine["threads"]
    return f"{cores} core" + ("s" if cores > 1 else "")
