"""Tables of benchmark results for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

POISSON_COLUMNS = (
    ("iterations", "iterations", "d"),
    ("setup s", "setup_s", "s"),
    ("solve s", "solve_s", "s"),
    ("total s", "total_s", "s"),
    ("residual", "relative_residual", "e"),
    ("memory MiB", "peak_memory_mb", "d"),
)
FLOW_COLUMNS = (
    ("iterations", "iterations_mean", "f"),
    ("most", "iterations_max", "d"),
    ("setup s", "setup_s", "s"),
    ("solve s", "solve_s", "s"),
    ("total s", "total_s", "s"),
    ("divergence", "divergence_max", "e"),
)


def results_table(
    rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str, str]], title: str
) -> Table:
    """One line a solver; the last column says how it ended."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("solver")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for row in rows:
        cells = [_text(row.get(key), kind) for _, key, kind in columns]
        style = "" if row.get("relative_residual") is not None else "dim"
        table.add_row(row["solver"], *cells, row["reason"], style=style)
    return table


def _text(value: Any, kind: str) -> str:
    if value is None:
        return "–"
    if kind == "d":
        return f"{value:.0f}"
    if kind == "f":
        return f"{value:.1f}"
    if kind == "e":
        return f"{value:.1e}"
    return f"{value:.3f}" if value < 100 else f"{value:.1f}"
