"""What commands print and write: results to stdout, progress to stderr, whole files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from consolve.base.files import check_writable_file, whole_file


def print_result(*renderables: Any) -> None:
    """Tables and lines of text to stdout; never narrower than a table needs."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 140
    with _named_stdout():
        for renderable in renderables:
            console.print(renderable)
        sys.stdout.flush()


def echo(text: str, nl: bool = True) -> None:
    """Plain text to stdout."""
    with _named_stdout():
        click.echo(text, nl=nl)


@contextmanager
def _named_stdout() -> Iterator[None]:
    """An error of the system, as that of a full disk, says that it is about stdout."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


class Document:
    """Where the JSON of a command goes: nowhere, to a file, or alone to stdout (``-``)."""

    def __init__(self, destination: str | None) -> None:
        self.destination = destination
        if destination not in (None, "-"):
            check_writable_file(str(destination))

    @property
    def alone(self) -> bool:
        """True if stdout holds the JSON and nothing else may be printed."""
        return self.destination == "-"

    def write(self, document: Any) -> None:
        """Write it, if it was asked for."""
        if self.destination is None:
            return
        text = json.dumps(document, indent=2, allow_nan=False, default=float) + "\n"
        if self.alone:
            echo(text, nl=False)
            return
        with whole_file(self.destination) as part:
            part.write_text(text)


class Progress:
    """A line on stderr that says what runs and for how long; silent unless stderr is a terminal."""

    def __init__(self, status: Any) -> None:
        self._status = status
        self._what = ""
        self._start = time.monotonic()

    def start(self, what: str) -> None:
        """Another piece of work begins."""
        self._what, self._start = what, time.monotonic()
        self.tick()

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._status is not None:
            self._status.update(text)

    def tick(self) -> None:
        """Show the time that the present piece has taken."""
        self.show(f"{self._what}  {time.monotonic() - self._start:.0f} s")


@contextmanager
def progress() -> Iterator[Progress]:
    """A :class:`Progress` while the block runs."""
    if not sys.stderr.isatty():
        yield Progress(None)
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield Progress(status)


def check_files(*paths: str | Path | None) -> None:
    """Find out now, not after the work, whether these can be written."""
    for path in paths:
        if path is not None:
            check_writable_file(path)


def printable_rows(document: dict[str, Any]) -> dict[str, Any]:
    """A benchmark document without the residual histories, which are for plots."""
    rows = [{k: v for k, v in row.items() if k != "history"} for row in document["results"]]
    return document | {"results": rows}
