"""Tables and plots of benchmarks/scaling.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dcdm_report import write_into

from consolve.bench import plots
from consolve.bench.poisson import CONVERGED

REFERENCES = ("hypre", "cg", "fft")
Row = dict[str, Any]
PLOTS: dict[str, tuple[str, Callable[[Row], float | None]]] = {
    "time": ("ns per unknown, set-up + solve", lambda row: nanoseconds(row)),
    "iterations": ("iterations", lambda row: row["iterations"] or None),
    "setup": ("set-up, share of the total", lambda row: setup_share(row)),
    "memory": ("memory added to bare processes, MiB", lambda row: max(added_memory(row), 1.0)),
}
"""Ordinate of each plot, by the end of its file's name."""


def write(found: Sequence[Row], docs: Path) -> None:
    """The plots, and between the marks of ``speed.md`` these and the tables."""
    pictures = []
    for name, (label, value) in PLOTS.items():
        path = docs / f"speed-{name}.png"
        if picture(found, path, label, value):
            pictures.append(f"![Against N, by solver: {label}]({path.name})")
    write_into(docs / "speed.md", "\n\n".join([*pictures, tables(found)]), "scaling")


def one_line(row: Row) -> str:
    """For progress."""
    head = f"{grid(row)} {row['domain']} {row['solver']}: "
    if row["total_s"] is None:
        return head + row["reason"]
    return head + f"{row['iterations']} iterations, {row['setup_s']:.3f} + {row['solve_s']:.3f} s"


def tables(found: Sequence[Row]) -> str:
    """Markdown, one table for each dimension and domain."""
    blocks = []
    for here in systems(found, "dim", "domain", "rhs", "rtol", "seed", "cores"):
        blocks.append(table(here))
    marks = {row["reason"].split(":")[0] for row in found if row["total_s"] is None}
    runs = {row["run"] for row in found}
    if len(runs) > 1:
        blocks.append(
            "A ratio with an asterisk is between times of different runs of the benchmark, perhaps at other "
            "load of the machine."
        )
    if marks:
        blocks.append(
            "Where a solver has no numbers the row says why: `timeout` is the limit of the benchmark on the "
            "whole process, repetitions included."
        )
    return "\n\n".join(blocks) + "\n"


def table(here: Sequence[Row]) -> str:
    """Of the rows of one domain, by size."""
    first = here[0]
    references = [name for name in REFERENCES if any(row["solver"] == name for row in here)]
    title = (
        f"**{first['dim']}D, {first['domain']}**: {first['rhs']} right-hand side, seed {first['seed']}, rtol "
        f"{short(first['rtol'])}, {first['cores']} core{'s' if first['cores'] > 1 else ''}"
    )
    heads = [
        "grid", "solver", "iterations", "decimals per iteration", "set-up s", "solve s", "ns per unknown",
        "set-up share", "true residual", "peak MiB", "added MiB", *(f"{name} / it" for name in references),
    ]  # fmt: skip
    lines = [title, "", f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for one_size in systems(sorted(here, key=lambda row: row["cells"]), "cells"):
        for row in one_size:
            start = f"| {grid(row)} | {row['solver']} | "
            if row["total_s"] is None:
                lines.append(start + f"{row['reason'].replace('|', '/')} |" + " |" * (len(heads) - 3))
                continue
            decimals = decimals_per_iteration(row)
            cells = [
                str(row["iterations"]), "" if decimals is None else f"{decimals:.2f}",
                seconds(row["setup_s"]), seconds(row["solve_s"]), f"{nanoseconds(row):,.1f}",
                f"{setup_share(row):.0%}", residual(row), f"{row['peak_memory_mb']:,.0f}",
                f"{added_memory(row):,.0f}",
            ]  # fmt: skip
            cells += [ratio(row, one_size, name) for name in references]
            lines.append(start + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(row: Row, others: Sequence[Row], name: str) -> str:
    """How many times the time of solver ``name`` on the same system is that of ``row``."""
    for other in others:
        if other["solver"] == name and other["total_s"] is not None:
            mark = "" if other["run"] == row["run"] else "*"
            value = other["total_s"] / row["total_s"]
            return (
                f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"
            ) + mark
    return ""


def residual(row: Row) -> str:
    """The true residual, and the reason where that says that the tolerance was not reached."""
    text = "" if row["relative_residual"] is None else f"{row['relative_residual']:.1e}"
    return text if row["reason"] in CONVERGED else f"{text} ({row['reason'].split(',')[0]})"


def nanoseconds(row: Row) -> float | None:
    """Total time of an unknown."""
    return None if row["total_s"] is None else 1e9 * row["total_s"] / row["unknowns"]


def setup_share(row: Row) -> float | None:
    return None if row["total_s"] is None else row["setup_s"] / row["total_s"]


def decimals_per_iteration(row: Row) -> float | None:
    """Decimal digits that an iteration takes off the true residual."""
    if not row["iterations"] or not row["relative_residual"]:
        return None
    return -math.log10(row["relative_residual"]) / row["iterations"]


def added_memory(row: Row) -> float:
    """MiB of system and solver: the peak less the bare processes, of which some solvers have several."""
    return row["peak_memory_mb"] - row["baseline_memory_mb"]


def grid(row: Row) -> str:
    return f"{row['cells']}{'²' if row['dim'] == 2 else '³'}"


def short(number: float) -> str:
    return f"{number:.0e}".replace("e-0", "e-")


def seconds(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.3g}"


def systems(found: Sequence[Row], *names: str) -> list[list[Row]]:
    """Rows with equal entries together, in the order in which they first come."""
    groups: dict[tuple, list[Row]] = {}
    for row in found:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.values())


def picture(found: Sequence[Row], path: Path, label: str, value: Callable[[Row], float | None]) -> bool:
    """One of the quantities against unknowns: a row of panels a dimension, a column a domain.

    Returns
    -------
    False where there is nothing to draw.
    """
    rows = [row for row in found if row["total_s"] is not None and value(row) is not None]
    if not rows:
        return False
    dims = sorted({row["dim"] for row in rows})
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    names = list(dict.fromkeys(row["solver"] for row in rows))
    is_share = "share" in label
    with plots.figure(
        path, len(domains), height=3.3, width=3.6, rows=len(dims), sharey=True, squeeze=False
    ) as (canvas, panels):
        for dim, line in zip(dims, panels):
            for domain, axes in zip(domains, line):
                here = [row for row in rows if (row["dim"], row["domain"]) == (dim, domain)]
                for number, name in enumerate(names):
                    points = sorted((row["unknowns"], value(row)) for row in here if row["solver"] == name)
                    if points:
                        look = plots.line_style(name, number)
                        look |= {"marker": plots.MARKERS.get(name, "o"), "markersize": 5}
                        axes.plot(*zip(*points), **look)
                axes.set_xscale("log")
                axes.set_yscale("linear" if is_share else "log")
                if is_share:
                    axes.set_ylim(0, 1)
                sizes = {row["cells"]: row["unknowns"] for row in here}
                axes.set_xticks(list(sizes.values()), [str(n) for n in sizes])
                axes.minorticks_off()
                axes.set_xlabel(f"N, of N{'²' if dim == 2 else '³'} cells")
                axes.set_title(f"{dim}D, {domain}")
            line[0].set_ylabel(label)
        handles = {}
        for axes in panels.ravel():
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels())))
        canvas.legend(handles.values(), handles.keys(), loc="outside right center", handlelength=1.8)
    return True
