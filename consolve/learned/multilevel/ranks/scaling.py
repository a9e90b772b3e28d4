"""Operators of several ranks whose coefficients single precision does not bear: M is then the diagonal's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.messages import warn
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.weak_links import hangs, thresholds

SINGLE_HOLD = 1e-5
"""Links, relative to those of a part that hangs by them, with which single precision still converges."""


def is_beyond(
    comm: Any,
    operator: RowOperator,
    scale: float,
    faces: list[Any],
    fixed: NDArray[np.float32],
    whole: ClosedComponents,
    components: Callable[[list[Any], NDArray[np.float32]], ClosedComponents],
) -> bool:
    """Some part of the grid, over all ranks, hangs by links under SINGLE_HOLD of its own; collective.

    Parameters
    ----------
    comm
        mpi4py communicator, or None: one rank.
    operator
        The local rows.
    scale
        What divides the coefficients in ``faces`` and ``fixed``, volumes on this rank's box and halo.
    whole, components
        The closed components of the rows, and how to find those of other such volumes.
    """
    coefficients = *operator.face_coefficient, operator.dirichlet
    least = min(float(np.min(c, initial=np.inf, where=c > 0)) for c in coefficients) / scale
    most = max(float(c.max(initial=0)) for c in coefficients) / scale
    if comm is not None:
        ends = comm.allgather((least, most))
        least, most = min(e[0] for e in ends), max(e[1] for e in ends)
    for link in thresholds(least, most, SINGLE_HOLD):
        limit = np.float32(SINGLE_HOLD * link)
        kept = [np.where(f >= limit, f, np.float32(0)) for f in faces]
        without = components(kept, np.where(fixed >= limit, fixed, np.float32(0)))
        strong = np.any([f >= link * scale for f in operator.face_coefficient], axis=0)
        found = hangs(strong, without, whole)
        if found if comm is None else any(comm.allgather(found)):
            return True
    return False


def diagonal(faces: list[Any], fixed: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of the operator on a box and its halo, right in the box; with a warning."""
    warn(
        f"parts of the grid hang by coefficients under {SINGLE_HOLD:g} of those within them, which levels "
        "in single precision do not bear, on several ranks or a periodic grid: PC cnn only scales by the "
        "diagonal; -pc_type gamg or hypre may need fewer iterations"
    )
    total = fixed.astype(np.float64)
    for axis, face in enumerate(faces):
        if fixed.size and fixed.shape[axis] > 1:
            total += face
            total += np.roll(face, 1, axis)
    return total
