"""``consolve options``: what ``-pc_type cnn`` and ``-ksp_type dcd`` take."""

from __future__ import annotations

import click

from consolve.base import options_table as solver_options
from consolve.commands.output import echo


@click.command()
@click.option("--markdown", is_flag=True, help="As the page docs/options.md.")
def options(markdown: bool) -> None:
    """List the PETSc options of -pc_type cnn and -ksp_type dcd.

    They go on the command line of any program with PETSc, into PETSC_OPTIONS or .petscrc, and after '--' in
    'consolve solve' and 'consolve flow'.
    """
    echo(solver_options.markdown() if markdown else solver_options.plain_text(), nl=not markdown)
