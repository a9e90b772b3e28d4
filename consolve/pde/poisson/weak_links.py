"""Parts of a system that hang by links far weaker than those within them.

Such a part can move as a whole at hardly any energy, A x is the small difference of large numbers there, and
what computes it in single precision is no more definite.  Coefficients may well differ by more without it: a
cell with small coefficients all around is only badly scaled.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.periodic import PeriodicOperator
from consolve.pde.poisson.uniform import UniformOperator


def thresholds(smallest: float, largest: float, ratio: float) -> Iterator[float]:
    """Powers of ten times the largest coefficient at which a part may hang by links under ``ratio`` of it."""
    strong = largest
    while smallest < ratio * strong:
        yield strong
        strong *= 0.1


def hangs(strong: NDArray[np.bool_], without: ClosedComponents, whole: ClosedComponents) -> bool:
    """True if some part with strong links is closed without the weak ones, and has some.

    Parameters
    ----------
    strong
        Entries with a strong link.
    without, whole
        Closed components without the weak links, and with them.
    """
    entries = np.flatnonzero(strong)
    if not without or not entries.size:
        return False
    part = without.group[entries]
    closed = whole.group[entries] if whole else np.full(entries.size, -1)
    sizes = np.append(whole.size, -1)
    return bool(((part >= 0) & (sizes[closed] != without.size[part])).any())


def is_weakly_held(operator: GridOperator, ratio: float) -> bool:
    """Some part of the operator hangs by coefficients (faces, Dirichlet parts) under ``ratio`` of its own."""
    smallest, largest = span(operator)
    for link in thresholds(smallest, largest, ratio):
        least = ratio * link
        faces = tuple(np.where(f >= least, f, 0) for f in operator.face_coefficient)
        fixed = np.where(operator.dirichlet >= least, operator.dirichlet, 0)
        without = GridOperator(faces, fixed, operator.active).null_space
        strong = np.any([f >= link for f in faces], axis=0).reshape(-1)[operator.cells]
        if hangs(strong, without, operator.null_space):
            return True
    return False


def span(operator: GridOperator | PeriodicOperator) -> tuple[float, float]:
    """The smallest coefficient that is not 0, and the largest one."""
    if isinstance(operator, UniformOperator):
        part = operator.fixed.part
        own = operator.coefficient
        return min(own, float(part.min(initial=own))), max(own, float(part.max(initial=own)))
    arrays = (*operator.face_coefficient, operator.dirichlet)
    smallest = min(float(np.min(a, initial=np.inf, where=a > 0)) for a in arrays)
    return smallest, max(float(a.max(initial=0)) for a in arrays)
