"""``consolve flow``: run a scene with a pressure solver of the user's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from consolve.commands.output import Document, print_result, progress
from consolve.commands.parameters import Sizes, checked_scene, grid_shape, petsc_options, petsc_words

FRAMES = 60


@click.command()
@click.argument("scene")
@click.option("--dim", type=click.Choice(["2", "3"]), default="2", show_default=True, help="Dimension.")
@click.option(
    "--cells", type=Sizes(least=8), help="N, or NX,NY[,NZ]; the last is the height.  [default: 128 or 48]"
)
@click.option("--steps", type=click.IntRange(min=1), default=100, show_default=True, help="Time steps.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", metavar="DIR", required=True, help="Directory for frames and pictures.")
@click.option("--every", type=click.IntRange(min=1), help="Steps between two frames.  [default: 60 frames]")
@click.option(
    "--pixels", type=click.IntRange(min=0), default=480, show_default=True, help="Height; 0: no pictures."
)
@click.option("--json", "json_path", metavar="FILE", help="Write what was found; '-' prints it alone.")
@petsc_options
def flow(
    scene: str,
    dim: str,
    cells: tuple[int, ...] | None,
    steps: int,
    seed: int,
    out: str,
    every: int | None,
    pixels: int,
    json_path: str | None,
    petsc_options: tuple[str, ...],
) -> None:
    """Run SCENE (plume, plume-moving-body): incompressible smoke, its pressure by PETSc.

    Default solver: -ksp_type cg -ksp_rtol 1e-6 -pc_type cnn.  Other PETSc options go after '--'.

    Into the directory go SCENE.xdmf with its HDF5 frames for ParaView, SCENE.png, SCENE.gif and steps.csv.
    """
    words = petsc_words(petsc_options)
    if 0 < pixels < 16:
        raise click.UsageError(f"--pixels {pixels}: a picture is at least 16 pixels high; 0 for none")
    ndim = int(dim)
    shape = grid_shape(cells or ({2: 128, 3: 48}[ndim],), ndim)
    output = Document(json_path)

    from consolve.base.files import check_writable_directory
    from consolve.pde.flow.flow import Flow

    simulation = Flow(checked_scene(scene, shape, seed))
    directory = check_writable_directory(out)

    from consolve.commands.flow_run import run_flow
    from consolve.commands.petsc import start_petsc

    options = start_petsc(words)
    from consolve.solvers.pressure import PressureSolver

    solver = PressureSolver(options or None)
    with progress() as line:

        def show(number: int, row: dict[str, Any]) -> None:
            line.show(f"step {number}/{steps}  {row['iterations']} iterations  time {row['time']:.2f}")

        line.start(f"{scene}, first step")
        run = run_flow(simulation, solver, steps, directory, every or max(1, steps // FRAMES), pixels, show)
    summary = run.summary()
    document = {
        "problem": {
            "scene": scene, "dim": ndim, "cells": list(shape[::-1]), "steps": steps, "seed": seed,
            "unknowns": simulation.operator.unknowns,
        },
        "options": options,
        "result": summary,
        "files": [str(path) for path in run.files],
    }  # fmt: skip
    output.write(document)
    if not output.alone:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table

    problem, result = document["problem"], document["result"]
    size = " x ".join(map(str, problem["cells"]))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("flow", f"{problem['scene']}, {size} cells, {problem['unknowns']:,} unknowns")
    table.add_row("steps", f"{result['steps']} in {result['wall_s']:.1f} s")
    table.add_row(
        "iterations", f"{result['iterations_mean']:.1f} a projection, at most {result['iterations_max']}"
    )
    table.add_row("projections", f"{result['setup_s']:.2f} s set-up + {result['solve_s']:.2f} s solve")
    table.add_row("true relative residual", f"at most {result['relative_residual']:.1e}")
    table.add_row("divergence", f"at most {result['divergence_max']:.1e} per time unit")
    for path in document["files"]:
        table.add_row("written", str(Path(path)))
    print_result(table)
