"""Exceptions of our methods where no Python program hears of them: in compiled programs."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from consolve.base.floating_point import hold_traps, release_traps
from consolve.base.messages import say
from consolve.base.version import __version__
from consolve.solvers.petsc.versions import LIBRARY, self_communicator

LIBRARY_ERROR = 76
"""PETSC_ERR_LIB, "Error in external library"."""
_INITIAL = 0
"""PETSC_ERROR_INITIAL: the place where an error is found."""

_PATIENCE = 5.0
"""Seconds that a rank waits for the others before PETSc prints on it."""

translators: list[Callable[[], Any]] = []
"""The plugin's function, if there is a plugin: it lets PETSc 3.18 take the error code -1 of petsc4py, which
is none of its own, as `LIBRARY_ERROR`."""


def reported(method: Callable) -> Callable:
    """Let an exception of a method that PETSc calls also be read where no Python program catches it.

    A Python program sees the exception itself, or ``PETSc.Error`` with it as its cause, by petsc4py.  A C
    program would only see an error code: there (no Python frame below this one) the message is printed, and
    given to PETSc's error handler.  Errors that name a bad input are raised on all ranks, and printed by one,
    before PETSc prints anything or ends the program on another.

    No floating-point exception traps within the method.
    """

    @wraps(method)
    def guarded(self: Any, solver: Any, *arguments: Any) -> Any:
        traps = hold_traps()
        try:
            return method(self, solver, *arguments)
        except Exception as error:
            if sys._getframe().f_back is None:
                where = f"{type(self).__name__}.{method.__name__}"
                text = "".join(traceback.format_exception_only(type(error), error)).strip()
                rank, of_all = solver.comm.rank, isinstance(error, ValueError)
                if rank == 0 or not of_all:
                    say(f"{where}: {text}" if rank == 0 else f"rank {rank}: {where}: {text}")
                if of_all:
                    _wait_for_all(solver.comm)
                _tell_petsc(method, where, " ".join(text.split()))
            raise
        finally:
            release_traps(traps)

    return guarded


def _wait_for_all(comm: Any) -> None:
    """Wait until all ranks are here, or `_PATIENCE` is over: a rank may after all be alone with its error."""
    if comm.size == 1:
        return
    try:
        arrival = comm.tompi4py().Ibarrier()
    except ImportError:
        return
    end = time.monotonic() + _PATIENCE
    while not arrival.Test() and time.monotonic() < end:
        time.sleep(1e-3)


def _tell_petsc(method: Callable, where: str, text: str) -> None:
    """Begin the message that PETSc's error handler prints when it hears of the error code."""
    code = method.__code__
    LIBRARY.PetscError(
        self_communicator(),
        code.co_firstlineno,
        where.encode(),
        code.co_filename.encode(),
        LIBRARY_ERROR,
        _INITIAL,
        b"%s",
        f"consolve {__version__}: {text}".encode(),
    )
    for translate in translators:
        translate()
