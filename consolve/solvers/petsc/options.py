"""Options of the solvers as PETSc's database holds them, and PETSc's ``-help`` for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from consolve.base.collective import together
from consolve.base.errors import OptionError
from consolve.base.options_table import Option
from consolve.solvers.petsc import events
from consolve.solvers.petsc.versions import PETSc, options_of

Check = Callable[[str], Any]
"""As ``Option.check``."""

_helped: set[tuple[int, str, str]] = set()
"""Titles and prefixes whose help is printed: PETSc prints that of a prefix once, between its initialisation
and its end."""


def read_options(
    context: Any,
    solver: PETSc.Object,
    options: tuple[Option, ...],
    title: str,
    checks: Mapping[str, Check] | None = None,
) -> None:
    """Set the attributes of ``context`` from the options database, under the prefix of ``solver``.

    With ``-help`` the options are then printed as PETSc prints its own.  Collective.

    Parameters
    ----------
    context
        Python context with an attribute for each option (``Option.attribute``).
    solver
        The PC or KSP.
    options
        What to read; values of the context that are not in the database are checked too.
    title
        Heading in the help.
    checks
        By the name of an option: a check in the place of the table's, for what the table cannot know.

    Raises
    ------
    OptionError
        On all ranks, if a value is none that the option takes on any of them; the error names the option with
        its prefix.
    """
    database = options_of(solver)
    prefix = solver.getOptionsPrefix() or ""
    before = {option: getattr(context, option.attribute) for option in options}
    with together(_communicator(solver)):  # a file may be there on some ranks only
        _read(context, options, database, prefix, checks or {})
    if PETSc.Options().hasName("help"):
        _print_help(context, solver, before, title, prefix)


def _read(
    context: Any,
    options: tuple[Option, ...],
    database: PETSc.Options,
    prefix: str,
    checks: Mapping[str, Check],
) -> None:
    for option in options:
        now = getattr(context, option.attribute)
        if database.hasName(option.name):
            text = database.getString(option.name, "")
        elif now is not None:
            text = str(now)
        else:
            continue
        check = checks.get(option.name, option.check)
        setattr(context, option.attribute, _checked(option, check, prefix, text))


def _communicator(solver: PETSc.Object) -> Any:
    """mpi4py's, or None: one rank, or mpi4py is not there (faults of one rank then stay with it)."""
    if solver.comm.size == 1:
        return None
    try:
        return solver.comm.tompi4py()
    except ImportError:
        return None


def _checked(option: Option, check: Check, prefix: str, text: str) -> Any:
    try:
        return check(text)
    except ValueError as error:
        raise OptionError(f"-{prefix}{option.name} {text!r}: {error}") from None


def _print_help(
    context: Any, solver: PETSc.Object, before: dict[Option, Any], title: str, prefix: str
) -> None:
    key = events.generation, title, prefix
    if key in _helped:
        return
    _helped.add(key)
    lines = [f"  {title} options"]
    for option, formerly in before.items():
        now = getattr(context, option.attribute)
        shown = [option.default if value is None else value for value in (now, formerly)]
        lines.append(
            f"  -{prefix}{option.name}: <now {shown[0]} : formerly {shown[1]}>: {option.argument}, "
            f"{option.meaning} (consolve {type(context).__name__})"
        )
    PETSc.Sys.Print("\n".join(lines), comm=solver.comm)
