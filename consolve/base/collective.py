"""Faults that one rank sees and all must hear of: an error raised on one rank alone leaves the others
waiting for it for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAP = 5e-5
"""Seconds between two looks of a rank that waits."""


def raise_together(comm: Any, error: Exception | None) -> None:
    """Raise on all ranks the error of the lowest rank that has one; collective.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    error
        This rank's error, if it has one.
    """
    chosen = _error_of_all(comm, error)
    try:
        if chosen is not None and chosen is not error:
            raise chosen from None  # this rank's own error, if any, would be shown as its context
        if chosen is not None:
            raise chosen
    finally:
        # Else the error, its traceback and this frame would hold each other, and with them the PETSc objects
        # of the callers: some ranks would let these go later than others, who wait for them at the end.
        del chosen, error


def _error_of_all(comm: Any, error: Exception | None) -> Exception | None:
    if comm is None or comm.size == 1:
        return error
    from mpi4py import MPI

    rank = comm.allreduce(comm.size if error is None else comm.rank, MPI.MIN)
    if rank == comm.size:
        return None
    kind, text = comm.bcast((type(error), str(error)) if comm.rank == rank else None, rank)
    if comm.rank == rank:
        return error
    try:
        return kind(text)
    except TypeError:  # an error class with arguments of its own
        return RuntimeError(f"{kind.__name__}: {text}")


@contextmanager
def together(comm: Any) -> Iterator[None]:
    """Run a block on all ranks; if it fails on any, all raise the error of the lowest such rank.

    The block must not communicate: a rank that fails would leave the others waiting in it.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as fault:
        error = fault
    try:
        raise_together(comm, error)
    finally:
        del error  # see raise_together


def rest(comm: Any) -> None:
    """Wait until all ranks are here, asleep: MPI's own wait keeps a core busy, which threads of another rank
    could use.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    """
    if comm is None:
        return
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(NAP)
