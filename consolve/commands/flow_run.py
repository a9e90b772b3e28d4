"""A flow stepped from the command line: frames, pictures and a record of every projection."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consolve.base.files import whole_file

if TYPE_CHECKING:
    from consolve.pde.flow.flow import Flow, StepReport
    from consolve.solvers.pressure import PressureSolver

COLUMNS = (
    "step", "time", "dt", "iterations", "relative_residual", "assemble_s", "setup_s", "solve_s",
    "divergence_before", "divergence_after", "max_velocity", "geometry_changed",
)  # fmt: skip


@dataclass
class FlowRun:
    """What a run of a flow left behind, beside its files.

    Attributes
    ----------
    steps
        One row of ``COLUMNS`` for each time step.
    wall_s
        Seconds of all steps, solves and pictures.
    files
        Written so far.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    wall_s: float = 0.0
    files: list[Path] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Sums and means over the steps."""
        counts = [row["iterations"] for row in self.steps]
        setup, solve = sum(row["setup_s"] for row in self.steps), sum(row["solve_s"] for row in self.steps)
        return {
            "steps": len(self.steps),
            "iterations_mean": sum(counts) / max(1, len(counts)),
            "iterations_max": max(counts, default=0),
            "assemble_s": sum(row["assemble_s"] for row in self.steps),
            "setup_s": setup,
            "solve_s": solve,
            "total_s": setup + solve,
            "relative_residual": max((row["relative_residual"] for row in self.steps), default=0.0),
            "divergence_max": max((row["divergence_after"] for row in self.steps), default=0.0),
            "wall_s": self.wall_s,
        }


def run_flow(
    flow: Flow,
    solver: PressureSolver,
    steps: int,
    out: Path,
    every: int,
    pixels: int,
    on_step: Callable[[int, dict[str, Any]], None] = lambda number, row: None,
    projection: Callable | None = None,
) -> FlowRun:
    """Step a flow and write frames (HDF5, XDMF), ``NAME.gif``, ``NAME.png`` and ``steps.csv`` into ``out``.

    Parameters
    ----------
    flow, solver
        The state to start from, and what solves for its pressure.
    steps, every
        Time steps, and how many lie between two frames.
    pixels
        Height of the pictures; 0 for none.
    on_step
        Called after each step with its number and row.
    projection
        What the flow calls instead of ``solver``, to look at each system; it has to call ``solver``.
    """
    from consolve.pde.flow.output import FlowWriter
    from consolve.pde.flow.picture import render, save_animation, save_picture

    name = flow.scene.name
    writer = FlowWriter(out, name)
    run = FlowRun(files=[writer.index])
    frames = []
    start = time.perf_counter()
    try:
        for number in range(1, steps + 1):
            report = flow.step(projection or solver)
            run.steps.append(_row(report, solver))
            if number % every == 0 or number == steps:
                writer.write(flow)
                if pixels:
                    frames.append(render(flow, pixels))
            on_step(number, run.steps[-1])
    finally:
        # On Ctrl-C, or when a projection fails, what was done so far is kept.
        if run.steps:
            _write_steps(run.steps, out / "steps.csv")
            run.files.append(out / "steps.csv")
        if frames:
            save_animation(frames, out / f"{name}.gif")
            save_picture(flow, out / f"{name}.png", pixels)
            run.files += [out / f"{name}.gif", out / f"{name}.png"]
        run.wall_s = time.perf_counter() - start
    return run


def _row(report: StepReport, solver: PressureSolver) -> dict[str, Any]:
    record = solver.records[-1]
    facts = {name: getattr(report, name) for name in COLUMNS if hasattr(report, name)}
    return facts | {name: getattr(record, name) for name in COLUMNS if hasattr(record, name)}


def _write_steps(rows: list[dict[str, Any]], path: Path) -> None:
    with whole_file(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
