"""``consolve plugin``: the shared library for PETSc's option ``-dll_prepend``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from consolve.commands.output import Document, echo, print_result, progress

FAILED = 1


@click.group()
def plugin() -> None:
    """The types cnn and dcd for any program of PETSc: C, C++, Fortran or Python.

    \b
        ./program -dll_prepend $(consolve plugin path) -ksp_type cg -pc_type cnn
        export PETSC_OPTIONS="-dll_prepend $(consolve plugin path) -ksp_type cg -pc_type cnn"
    """


@plugin.command()
def path() -> None:
    """Print where the library lies; it is built if need be."""
    from consolve.plugin import plugin_path

    found = str(plugin_path())
    if any(letter in found for letter in " ,\n"):
        raise click.ClickException(
            f"PETSc takes no path with spaces or commas, such as {found!r}; "
            "build the library elsewhere: consolve plugin build --out FILE"
        )
    echo(found)


@plugin.command()
@click.option("--out", metavar="FILE", help="Library to write, NAME.so.  [default: in the user's cache]")
@click.option("--cc", metavar="COMMAND", help="C compiler, with its options.  [default: $CC, else cc]")
def build(out: str | None, cc: str | None) -> None:
    """Compile the library for this Python environment, and print where it lies."""
    if out is not None and not out.endswith(".so"):
        raise click.UsageError(f"--out {out!r}: expected a name that ends in .so")
    from consolve.plugin import build_plugin

    echo(str(build_plugin(out, cc)))


@plugin.command()
@click.option("--json", "json_path", metavar="FILE", help="Write what was found; '-' prints it alone.")
def check(json_path: str | None) -> int:
    """Try the library in a Python and a C program of PETSc; says for each step whether it works, or why not.

    The first use of the network's kernels compiles them ('consolve compile' does so beforehand).
    """
    output = Document(json_path)
    from consolve.plugin.check import check_plugin

    steps = []
    with progress() as line:
        line.start("trying the plugin")
        for step in check_plugin():
            steps.append(step)
            line.start(f"{step.name} {'ok' if step.ok else 'failed'}; next step")
    ok = all(step.ok for step in steps)
    output.write({"ok": ok, "steps": [asdict(step) for step in steps]})
    if not output.alone:
        print_result(_table(steps))
    return 0 if ok else FAILED


def _table(steps: list[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for step in steps:
        table.add_row("ok" if step.ok else "FAILED", step.name, Text(step.detail))
    return table
