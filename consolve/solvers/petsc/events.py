"""PETSc's log events of the solvers: what ``-log_view`` shows under the class ``consolve``.

=============  =========================================================
event          is the time of
=============  =========================================================
CNNSetUp       reading the matrix and laying out the network
CNNApply       one inference, z = M r, with its halo exchanges
CNNHalo        one halo exchange between ranks
DCDOrthog      making a direction A-orthogonal to earlier ones
=============  =========================================================

Each is a context manager::

    with events.CNN_APPLY:
        ...
"""

from __future__ import annotations

import ctypes

from consolve.solvers.petsc.versions import PETSc, call

NAMES = {
    "CNN_SETUP": "CNNSetUp",
    "CNN_APPLY": "CNNApply",
    "CNN_HALO": "CNNHalo",
    "DCD_ORTHOGONALISATION": "DCDOrthog",
}
CNN_SETUP: PETSc.LogEvent
CNN_APPLY: PETSc.LogEvent
CNN_HALO: PETSc.LogEvent
DCD_ORTHOGONALISATION: PETSc.LogEvent

log_flops = PETSc.Log.logFlops
"""Adds to the flop count of the events that are open on this rank."""

generation = -1
"""How many times a program has initialised PETSc again after finalising it."""


def register() -> None:
    """Make the events known to PETSc, unless it knows them.

    To be called when a solver is created: PETSc forgets all events when a program finalises it, and may be
    initialised again in the same process.
    """
    global generation
    if generation >= 0 and _are_known():
        return
    generation += 1
    # petsc4py keeps the numbers of events by their names: another PETSc needs other names.
    marker = " " * generation
    log_class = PETSc.Log.Class(f"consolve{marker}")
    for variable, name in NAMES.items():
        globals()[variable] = PETSc.Log.Event(f"{name}{marker}", log_class)


def _are_known() -> bool:
    number = ctypes.c_int(-1)
    name = NAMES["CNN_SETUP"] + " " * generation
    call("PetscLogEventGetId", name.encode(), ctypes.byref(number))
    return number.value == globals()["CNN_SETUP"].id


register()
