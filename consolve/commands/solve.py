"""``consolve solve``: one system from files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from consolve.base import options_table as solver_options
from consolve.commands.output import Document, check_files, print_result, progress
from consolve.commands.parameters import petsc_options, petsc_words

VECTOR_KINDS = (".npy", ".mtx", ".petsc", ".bin", ".dat")


@click.command(epilog=f"\b\n{solver_options.plain_text(width=98)}".replace("\n\n", "\n\n\b\n"))
@click.argument("matrix")
@click.option("--rhs", metavar="FILE", help="Right-hand side.  [default: A y, with y white noise]")
@click.option("--grid", metavar="NX,NY[,NZ]", help="Rows number all cells of this grid, x fastest.")
@click.option(
    "--mask", metavar="FILE", help="Cell-type image (.npy, .npz, .h5); rows number its fluid cells."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the white noise without --rhs.")
@click.option(
    "--out", metavar="FILE", help="Write the solution: .npy, .mtx, or .petsc .bin .dat (PETSc binary)."
)
@click.option("--json", "json_path", metavar="FILE", help="Write what was found; '-' prints it alone.")
@click.option(
    "--plot", "plot_path", metavar="FILE", help="Draw the residual of each iteration (.png .svg .pdf)."
)
@petsc_options
def solve(
    matrix: str,
    rhs: str | None,
    grid: str | None,
    mask: str | None,
    seed: int,
    out: str | None,
    json_path: str | None,
    plot_path: str | None,
    petsc_options: tuple[str, ...],
) -> None:
    """Solve A x = b for a MATRIX from a file: PETSc binary, MatrixMarket, or SciPy .npz.

    Default solver: -ksp_type cg -ksp_rtol 1e-6 -pc_type cnn, on the true residual.  Where the rows lie is
    read from the matrix if it tells, else give --grid or --mask.  Other PETSc options go after '--':

        consolve solve A.mtx --grid 256,256 -- -ksp_type dcd -ksp_rtol 1e-8
    """
    words = petsc_words(petsc_options)
    if out is not None and Path(out).suffix not in VECTOR_KINDS:
        raise click.UsageError(f"--out {out!r}: expected a name that ends in {', '.join(VECTOR_KINDS)}")
    if plot_path is not None and Path(plot_path).suffix not in (".png", ".svg", ".pdf"):
        raise click.UsageError(f"--plot {plot_path!r}: expected a name that ends in .png, .svg or .pdf")
    if grid and mask:
        raise click.UsageError("--grid and --mask are both given; a mask has a grid of its own: give one")
    output = Document(json_path)
    check_files(out, plot_path)
    _require_memory(Path(matrix))

    from consolve.commands.petsc import start_petsc

    options = start_petsc(words)
    from consolve.solvers import NotConverged
    from consolve.solvers.pressure import solve_system

    with progress() as line:
        line.start(f"solving {matrix}")
        try:
            solution = solve_system(matrix, rhs, grid, mask, options, seed)
        except NotConverged as error:
            failed = {"reason": error.reason, "iterations": error.iterations}
            output.write(failed | {"relative_residual": error.relative_residual})
            raise
    record = asdict(solution.record)
    history = record.pop("history")
    if out is not None:
        write_vector(solution.x, Path(out))
    if plot_path is not None:
        _plot(history, record, Path(matrix).name, plot_path)
    output.write({"matrix": matrix, **record, "total_s": record["setup_s"] + record["solve_s"]})
    if not output.alone:
        _show(record, matrix, out)


def _require_memory(matrix: Path) -> None:
    """Refuse a file whose matrix cannot fit; MatrixMarket text takes up to four times what it holds."""
    from consolve.base.memory import require

    if matrix.is_file():
        with matrix.open("rb") as file:
            is_text = file.read(14) == b"%%MatrixMarket"
        size = matrix.stat().st_size
        require(size / 4 if is_text else size, f"the matrix of {matrix}", "take a machine with more memory")


def write_vector(x: Any, path: Path) -> None:
    """Write a vector as a whole file, of the kind that the suffix names."""
    import numpy as np
    import scipy.io

    from consolve.base.files import whole_file

    with whole_file(path) as part:
        if path.suffix == ".npy":
            np.save(part, x)
        elif path.suffix == ".mtx":
            scipy.io.mmwrite(part, x.reshape(-1, 1))
        else:
            with part.open("wb") as file:
                np.array([1211214, x.size], ">i4").tofile(file)
                x.astype(">f8").tofile(file)


def _plot(history: Any, record: dict[str, Any], name: str, path: str) -> None:
    from consolve.bench import plots

    scale = history[0] if len(history) and history[0] > 0 else 1.0
    plots.residuals({name: history / scale}, path, title=f"{name}, {record['unknowns']:,} rows")


def _show(record: dict[str, Any], matrix: str, out: str | None) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("matrix", f"{matrix}, {record['unknowns']:,} rows")
    table.add_row("iterations", f"{record['iterations']} ({record['reason']})")
    table.add_row("true relative residual", f"{record['relative_residual']:.2e}")
    table.add_row("seconds", f"{record['setup_s']:.3f} set-up + {record['solve_s']:.3f} solve")
    if out is not None:
        table.add_row("solution", out)
    print_result(table)
