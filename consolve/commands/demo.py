"""``consolve demo``: the main job in under two minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from consolve.commands.output import Document, print_result, progress
from consolve.commands.parameters import Sizes, grid_shape

CELLS = (192, 288)
FRAMES = 80
SCENE = "plume"
RTOL = 1e-6


@click.command()
@click.option(
    "--out", metavar="DIR", default="consolve-demo", show_default=True, help="Directory for the results."
)
@click.option(
    "--cells", type=Sizes(least=16), default=",".join(map(str, CELLS)), show_default=True, help="NX,NY."
)
@click.option("--steps", type=click.IntRange(min=2), default=480, show_default=True, help="Time steps.")
@click.option(
    "--compare-every",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Plain CG solves every so many-th projection too.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_path", metavar="FILE", help="Write what was found; '-' prints it alone.")
def demo(
    out: str, cells: tuple[int, ...], steps: int, compare_every: int, seed: int, json_path: str | None
) -> None:
    """Smoke rises past obstacles; each pressure projection by -pc_type cnn, against plain CG.

    Two rows of a table: what the learned preconditioner took, and what plain conjugate gradients took for the
    same systems, to the same true residual.  Beside it: a picture, an animation, frames for ParaView, and a
    plot of the convergence of one projection.
    """
    from consolve.base.files import check_writable_directory

    output = Document(json_path)
    directory = check_writable_directory(out)
    from consolve.commands.flow_run import run_flow
    from consolve.commands.petsc import start_petsc
    from consolve.pde.flow.flow import Flow
    from consolve.pde.flow.scenes import make_scene

    start_petsc([])
    from consolve.solvers.pressure import PressureSolver

    common = ["-ksp_type", "cg", "-ksp_norm_type", "unpreconditioned", "-ksp_rtol", repr(RTOL)]
    learned_options = [*common, "-pc_type", "cnn"]
    with progress() as line:
        line.start("loading and compiling, which later runs need not")
        begin = time.perf_counter()
        Flow(make_scene(SCENE, (24, 16))).step(PressureSolver(learned_options, "first_"))
        first_use_s = time.perf_counter() - begin
    learned = PressureSolver(learned_options, "cnn_")
    plain = PressureSolver([*common, "-pc_type", "none", "-ksp_max_it", "20000"], "cg_")
    simulation = Flow(make_scene(SCENE, grid_shape(cells, 2), seed))
    compared: list[int] = []

    def projection(operator: Any, rhs: Any) -> Any:
        if len(learned.records) % compare_every == 0:
            compared.append(len(learned.records))
            plain(operator, rhs)
        return learned(operator, rhs)

    with progress() as line:

        def show(number: int, row: dict[str, Any]) -> None:
            line.show(f"step {number}/{steps}  cnn {row['iterations']} iterations, plain CG "
                      f"{plain.records[-1].iterations}")  # fmt: skip

        run = run_flow(
            simulation, learned, steps, directory, max(1, steps // FRAMES), 480, show, projection=projection
        )
    rows = [
        _row("cnn", "CG + learned network", [learned.records[k] for k in compared]),
        _row("cg", "plain CG", plain.records),
    ]
    last = compared[-1]
    plot = directory / "convergence.png"
    _plot(learned.records[last], plain.records[-1], plot)
    summary = run.summary()
    files = [*run.files, plot]
    problem = {
        "scene": SCENE,
        "dim": 2,
        "cells": list(cells),
        "steps": steps,
        "seed": seed,
        "rtol": RTOL,
        "unknowns": simulation.operator.unknowns,
    }
    written = [str(path) for path in files]
    output.write(
        {"problem": problem, "first_use_s": first_use_s, "results": rows, "flow": summary, "files": written}
    )
    if not output.alone:
        _show(rows, summary, simulation.operator.unknowns, cells, files)


def _row(solver: str, about: str, records: list[Any]) -> dict[str, Any]:
    """Means over the projections that both solvers solved."""
    counts = [record.iterations for record in records]
    return {
        "solver": solver,
        "about": about,
        "projections": len(records),
        "iterations_mean": sum(counts) / len(counts),
        "iterations_max": max(counts),
        "solve_s_mean": sum(record.solve_s for record in records) / len(records),
        "setup_s": sum(record.setup_s for record in records),
        "relative_residual": max(record.relative_residual for record in records),
    }


def _plot(learned: Any, plain: Any, path: Path) -> None:
    from consolve.bench import plots

    histories = {
        "cnn": learned.history / (learned.history[0] or 1),
        "cg": plain.history / (plain.history[0] or 1),
    }
    title = f"one projection, {learned.unknowns:,} unknowns"
    plots.residuals(histories, path, title, RTOL)


def _show(
    rows: list[dict[str, Any]],
    summary: dict[str, Any],
    unknowns: int,
    cells: tuple[int, ...],
    files: list[Path],
) -> None:
    from rich.table import Table

    ours, plain = rows
    size = " x ".join(map(str, cells))
    table = Table(
        title=f"Pressure projections of a smoke plume, {size}, {unknowns:,} unknowns, rtol {RTOL:g}",
        title_justify="left", title_style="bold", header_style="bold",
    )  # fmt: skip
    for heading in ("solver", "", "projections", "iterations", "most", "ms a solve", "true residual"):
        table.add_column(heading, justify="left" if heading in ("solver", "") else "right")
    for row in rows:
        table.add_row(
            row["solver"], row["about"], str(row["projections"]), f"{row['iterations_mean']:.1f}",
            str(row["iterations_max"]), f"{1e3 * row['solve_s_mean']:.1f}", f"{row['relative_residual']:.1e}",
        )  # fmt: skip
    fewer = plain["iterations_mean"] / max(1, ours["iterations_mean"])
    faster = plain["solve_s_mean"] / ours["solve_s_mean"]
    print_result(
        table,
        f"{fewer:.0f} times fewer iterations and {faster:.1f} times faster a solve, on the same systems; "
        f"set-up {ours['setup_s']:.2f} s, once",
        f"{summary['steps']} steps in {summary['wall_s']:.0f} s; divergence after projection at most "
        f"{summary['divergence_max']:.1e} per time unit",
        *[f"written  {path}" for path in files],
    )
