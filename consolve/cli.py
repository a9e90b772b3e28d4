"""The command line: ``consolve COMMAND``, its exit codes and how errors are shown.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not converged, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from consolve.base.version import __version__
from consolve.commands.bench import bench
from consolve.commands.compile import compile_kernels
from consolve.commands.data import data
from consolve.commands.demo import demo
from consolve.commands.flow import flow
from consolve.commands.options import options
from consolve.commands.plugin import plugin
from consolve.commands.solve import solve
from consolve.commands.train import train
from consolve.commands.wave import wave

FAILED, WRONG_USAGE, NOT_CONVERGED, INTERRUPTED = 1, 2, 3, 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Any command takes --debug, for the traceback of an error.  Options of PETSc go after '--'.",
)
@click.version_option(__version__, prog_name="consolve")
def cli() -> None:
    """Convolutional networks that solve: Poisson systems inside PETSc, and waves."""


for command in (demo, solve, flow, bench, data, train, wave, options, plugin, compile_kernels):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script: run a command and leave with its exit code."""
    _open_closed_streams()
    # Threads that spin while they wait cost many times their work on a machine that does other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = run(words, debug=_take_debug(words))
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == 0 and not isinstance(error, BrokenPipeError):
            _tell(f"error: standard output: {error.strerror}")
            code = FAILED
    sys.exit(code)


def _open_closed_streams() -> None:
    """Let what is printed go nowhere where a stream is closed (``>&-``), and not into the next file that is
    opened in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def run(words: list[str], debug: bool = False) -> int:
    """Run a command; errors become one line on stderr, unless ``debug``, and an exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(words)
    except click.exceptions.NoArgsIsHelpError as error:
        _tell(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        _tell(f"error: {error.format_message()}")
        context = getattr(error, "ctx", None)
        if context is not None:
            _tell(f"Try '{context.command_path} --help'.")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except BrokenPipeError:
        return 0
    except Exception as error:
        if _came_from_interrupt(error):
            return _interrupted()
        if debug:
            raise
        _tell(f"error: {_one_line(error)}")
        return NOT_CONVERGED if type(error).__name__ == "NotConverged" else FAILED


def _run(words: list[str]) -> int:
    result = cli.main(words, prog_name="consolve", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    if not issubclass(category, DeprecationWarning):
        _tell(f"warning: {' '.join(str(message).split())}")


def _tell(text: str) -> None:
    """A line on stderr.  Where it cannot be written, as on a full disk, nothing can be told of that."""
    with suppress(OSError):
        click.echo(text, err=True)


def _take_debug(words: list[str]) -> bool:
    """Remove ``--debug`` from before ``--``; True if it was there."""
    end = words.index("--") if "--" in words else len(words)
    found = "--debug" in words[:end]
    words[:end] = [word for word in words[:end] if word != "--debug"]
    return found


def _interrupted() -> int:
    _tell("interrupted")
    return INTERRUPTED


def _came_from_interrupt(error: BaseException | None) -> bool:
    """PETSc may wrap the KeyboardInterrupt of a callback into an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


EXPECTED = (ValueError, OSError, RuntimeError, ImportError, MemoryError)


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; give a smaller problem"
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; see the README for what has to be installed"
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if type(error).__module__.startswith("petsc4py"):
        from consolve.solvers.petsc.versions import innermost

        if isinstance(error.__cause__, Exception):  # ours, as newer petsc4py hands it on
            return _one_line(error.__cause__)
        return f"PETSc: {innermost(error)}"
    if isinstance(error, EXPECTED) and text:
        return text
    return f"{type(error).__name__}: {text} (unexpected; --debug shows where)"
