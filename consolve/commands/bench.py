"""``consolve bench``: one problem through several solvers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from consolve.commands.bench_wave import bench_wave
from consolve.commands.output import Document, check_files, print_result, printable_rows, progress
from consolve.commands.parameters import Positive, Sizes, checked_scene, grid_shape

DEFAULT_CELLS = {2: 512, 3: 64}
OF_ALL = (
    click.option("--dim", type=click.Choice(["2", "3"]), default="2", show_default=True, help="Dimension."),
    click.option(
        "--cells", type=Sizes(), help="Grid: N for all axes, or NX,NY[,NZ].  [default: 512 in 2D, 64 in 3D]"
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--rtol", type=Positive(), default=1e-6, show_default=True, help="On the true residual."),
    click.option(
        "--solver", "solvers", multiple=True, metavar="NAME",
        help="Repeat for several: cg icc gamg hypre ml mg cnn dcd dcd-mg dcdm dcdm-image dcdm-deep dpcg "
        "fft, or your own as 'LABEL=-ksp_type ... -pc_type ...'.  [default: cg icc gamg hypre mg cnn dcd]",
    ),
    click.option(
        "--cores", type=click.IntRange(min=1), default=lambda: len(os.sched_getaffinity(0)),
        show_default="all", help="Ranks of PETSc's own solvers, threads of ours.",
    ),
    click.option(
        "--timeout", type=Positive(), default=600.0, show_default=True, help="Seconds for each solver."
    ),
    click.option("--memory-limit", type=Positive(), help="MiB for each solver.  [default: all there is]"),
    click.option("--json", "json_path", metavar="FILE", help="Write the document; '-' prints it alone."),
    click.option("--plot", "plot_path", metavar="FILE", help="Draw a picture (.png, .svg or .pdf)."),
)  # fmt: skip


def _options_of_all(command: Callable) -> Callable:
    for option in reversed(OF_ALL):
        command = option(command)
    return command


@click.group()
def bench() -> None:
    """Benchmarks: the same problem through several solvers.

    Each solver runs in processes of its own, on one rank a core (those with threads of their own, as dcd, the
    networks in torch and the direct transform, on one rank with a thread a core).  All stop at the same true
    relative residual, which is computed anew from the assembled matrix.  Loading and compiling are timed
    apart.
    """


bench.add_command(bench_wave)


@bench.command()
@_options_of_all
@click.option(
    "--domain",
    default="spheres",
    show_default=True,
    help="box spheres boxes plates channels maze rotor free-surface porous pockets two-phase "
    "bubbles[-RATIO] lognormal[-SIGMA] flat[-RATIO] stretched[-AXES] baffles; closed-NAME "
    "for pure Neumann.",
)
@click.option(
    "--rhs",
    type=click.Choice(["noise", "divergence", "point"]),
    default="noise",
    show_default=True,
    help="Right-hand side.",
)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Fastest of so many."
)
@click.option("--sizes", type=Sizes(), help="Instead of --cells: a series of sizes N, each on all axes.")
def poisson(
    dim: str,
    cells: tuple[int, ...] | None,
    seed: int,
    rtol: float,
    solvers: Sequence[str],
    cores: int,
    timeout: float,
    memory_limit: float | None,
    json_path: str | None,
    plot_path: str | None,
    domain: str,
    rhs: str,
    repeat: int,
    sizes: tuple[int, ...] | None,
) -> int:
    """One Poisson system by each solver named."""
    from consolve.bench.poisson import PoissonProblem, converged, run_poisson
    from consolve.bench.tables import POISSON_COLUMNS

    if cells and sizes:
        raise click.UsageError("--cells and --sizes are both given; --sizes is a series, --cells one grid")
    output = Document(json_path)
    _check_plot(plot_path)
    ndim = int(dim)
    chosen = _solvers(solvers)
    _check_domain(domain, ndim)
    conditions = _conditions(cores, repeat, timeout, memory_limit, history=plot_path is not None)
    grids = [grid_shape(cells or (DEFAULT_CELLS[ndim],), ndim)]
    if sizes:
        grids = [(n,) * ndim for n in sizes]
    documents = []
    for shape in grids:
        problem = PoissonProblem(ndim, shape, domain, seed, rhs, rtol)
        document = _run(run_poisson, problem, chosen, conditions)
        documents.append(document)
        if not output.alone:
            _show(document, POISSON_COLUMNS, f"{domain}, {_size(document)}, {rhs}, rtol {rtol:g}")
    runs = [printable_rows(document) for document in documents]
    output.write({"runs": runs} if sizes else runs[0])
    if plot_path:
        from consolve.bench import plots

        if sizes:
            plots.sizes(documents, plot_path)
        else:
            plots.convergence(documents[0], plot_path)
    return _exit_code([row for document in documents for row in document["results"]], converged)


@bench.command()
@click.argument("scene")
@_options_of_all
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="Time steps.")
def flow(
    scene: str,
    dim: str,
    cells: tuple[int, ...] | None,
    seed: int,
    rtol: float,
    solvers: Sequence[str],
    cores: int,
    timeout: float,
    memory_limit: float | None,
    json_path: str | None,
    plot_path: str | None,
    steps: int,
) -> int:
    """All pressure projections of SCENE (plume, plume-moving-body) by each solver named."""
    from consolve.bench.flow import FlowProblem, run_flow
    from consolve.bench.poisson import converged
    from consolve.bench.tables import FLOW_COLUMNS

    output = Document(json_path)
    _check_plot(plot_path)
    ndim = int(dim)
    chosen = _solvers(solvers)
    shape = grid_shape(cells or ({2: 256, 3: 48}[ndim],), ndim)
    checked_scene(scene, shape, seed)
    conditions = _conditions(cores, 1, timeout, memory_limit)
    document = _run(run_flow, FlowProblem(scene, ndim, shape, steps, seed, rtol), chosen, conditions)
    if not output.alone:
        _show(document, FLOW_COLUMNS, f"{scene}, {_size(document)}, {steps} steps, rtol {rtol:g}")
    output.write(document)
    if plot_path:
        from consolve.bench import plots

        plots.projections(document, plot_path)
    return _exit_code(document["results"], converged)


def _run(runner: Callable, problem: Any, solvers: Sequence[Any], conditions: Any) -> dict[str, Any]:
    size = " x ".join(map(str, problem.cells[::-1]))
    with progress() as line:
        return runner(
            problem,
            solvers,
            conditions,
            while_waiting=line.tick,
            on_start=lambda name: line.start(f"{name} on {size}"),
        )


def _conditions(
    cores: int, repeat: int, timeout: float, memory_limit: float | None, history: bool = False
) -> Any:
    from consolve.bench.poisson import Conditions

    there_are = len(os.sched_getaffinity(0))
    if cores > there_are:
        warnings.warn(
            f"--cores {cores}, but this process may use {there_are}: ranks and threads take turns, and times "
            "say little",
            RuntimeWarning,
            stacklevel=2,
        )
    return Conditions(cores, repeat, timeout, memory_limit, history)


def _solvers(names: Sequence[str]) -> list[Any]:
    from consolve.bench.roster import DEFAULT_SOLVERS, find_solver

    try:
        chosen = [find_solver(name) for name in names or DEFAULT_SOLVERS]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    labels = [solver.name for solver in chosen]
    for label in labels:
        if labels.count(label) > 1:
            raise click.UsageError(f"solver {label!r} is given twice")
    return chosen


def _check_domain(name: str, ndim: int) -> None:
    from consolve.pde.poisson.domains import make_domain

    try:
        make_domain(name, (8,) * ndim)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _check_plot(path: str | None) -> None:
    if path is not None and not path.endswith((".png", ".svg", ".pdf")):
        raise click.UsageError(f"--plot {path!r}: expected a name that ends in .png, .svg or .pdf")
    check_files(path)


def _show(document: dict[str, Any], columns: Any, title: str) -> None:
    from consolve.bench.tables import results_table

    unknowns = document["problem"]["unknowns"]
    if unknowns:
        title += f", {unknowns:,} unknowns"
    cores = document["machine"]["threads"]
    title += f", {cores} core{'s' if cores > 1 else ''}"
    print_result(results_table(document["results"], columns, title))


def _size(document: dict[str, Any]) -> str:
    return " x ".join(map(str, document["problem"]["cells"]))


def _exit_code(rows: Sequence[dict[str, Any]], converged: Callable[[dict[str, Any]], bool]) -> int:
    """0 if some solver reached the tolerance; else 3 if some ran at all, 1 if none did."""
    if any(converged(row) for row in rows):
        return 0
    return 3 if any(row["relative_residual"] is not None for row in rows) else 1
