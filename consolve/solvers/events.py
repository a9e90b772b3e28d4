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

from consolve.solvers.petsc import PETSc

CLASS = PETSc.Log.Class("consolve")
CNN_SETUP = PETSc.Log.Event("CNNSetUp", CLASS)
CNN_APPLY = PETSc.Log.Event("CNNApply", CLASS)
CNN_HALO = PETSc.Log.Event("CNNHalo", CLASS)
DCD_ORTHOGONALISATION = PETSc.Log.Event("DCDOrthog", CLASS)

log_flops = PETSc.Log.logFlops
"""Adds to the flop count of the events that are open on this rank."""
