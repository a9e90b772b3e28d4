"""Memory that shows when it is used: guards around arrays, and a fill of what nobody has written yet.

``install`` replaces, in the modules of the network, the allocation of arrays by one with guards on both sides
(and a fill where it need not be zero), and the layout of an arena by one with guards between its arrays.
Bounds checks do not see the kernels that work with addresses; these guards do.
"""

import os

import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle import coarsest, layout, transfer
from consolve.learned.multilevel.cycle.layout import Layout, array_shape
from consolve.learned.multilevel.cycle.transfer import SplitArrays
from consolve.learned.multilevel.engine import grid_directions
from consolve.learned.multilevel.engine import preconditioner as engine
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.ranks import level, row_exchange
from consolve.learned.multilevel.ranks import preconditioner as ranks
from consolve.learned.multilevel.ranks.preconditioner import DistributedMultilevel
from consolve.learned.multilevel.setup import hierarchy, level_builder

GUARD = 80
"""Values before and after each array: more than a row of a thin grid has."""
VALUES = {"nan": np.nan, "number": 3e7}
"""What guards and arrays of np.empty hold, by the environment's CONSOLVE_POISON."""


class Guards:
    """The guards of the arrays that were made since ``clear``."""

    def __init__(self, value: float) -> None:
        self.value = np.float32(value)
        self._made: list[NDArray[np.float32]] = []

    def clear(self) -> None:
        """Forget them all."""
        self._made.clear()

    def zeros(self, shape, dtype=np.float64):
        """np.zeros between two guards."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        words = -(-size // 4)
        whole = np.zeros(words + 2 * GUARD, np.float32)
        self.fill(whole[:GUARD], whole[GUARD + words :])
        return whole[GUARD : GUARD + words].view(np.uint8)[:size].view(dtype).reshape(shape)

    def empty(self, shape, dtype=np.float64):
        """np.empty between two guards, and filled."""
        array = self.zeros(shape, dtype)
        if array.dtype.kind == "f":
            array.fill(self.value)
        else:
            array.view(np.uint8).fill(1 if array.dtype == np.bool_ else 0x7D)
        return array

    def spread(self, made: Layout) -> Layout:
        """A layout with a guard before each of its arrays, and one at the end."""
        offsets, count = [], 0
        for arrays in made.offsets:
            offsets.append({n: at + GUARD * (count + q + 1) for q, (n, at) in enumerate(arrays.items())})
            count += len(arrays)
        return Layout(made.shapes, made.packed, tuple(offsets), made.size + GUARD * (count + 1))

    def fill_arena(self, made: hierarchy.Hierarchy) -> None:
        """Fill the guards of a spread arena."""
        gaps = [made.arena[at - GUARD : at] for arrays in made.layout.offsets for at in arrays.values()]
        last, shape = made.layout.offsets[-1]["b"], array_shape(made.layout.shapes[-1])
        self.fill(*gaps, made.arena[last + int(np.prod(shape)) :])

    def fill(self, *guards: NDArray[np.float32]) -> None:
        """Fill these, and watch them."""
        for guard in guards:
            guard.fill(self.value)
        self._made += guards

    @property
    def whole(self) -> bool:
        """No guard was written to."""
        pattern = self.value.view(np.uint32)
        return all((guard.view(np.uint32) == pattern).all() for guard in self._made)


class _NumPy:
    """NumPy, but for the memory that it gives."""

    def __init__(self, guards: Guards) -> None:
        self.zeros, self.empty = guards.zeros, guards.empty

    def __getattr__(self, name):
        return getattr(np, name)

    def empty_like(self, other, dtype=None):
        return self.empty(np.shape(other), dtype or other.dtype)


def install() -> Guards:
    """Poison all memory of networks that are made from now on."""
    guards = Guards(VALUES[os.environ["CONSOLVE_POISON"]])
    for module in (hierarchy, transfer, grid_directions, ranks):
        module.zeros = guards.zeros
    for module in (
        hierarchy,
        level_builder,
        transfer,
        grid_directions,
        ranks,
        engine,
        level,
        row_exchange,
        coarsest,
    ):
        module.np = _NumPy(guards)
    hierarchy.make_layout = lambda shape, packed: guards.spread(layout.make_layout(shape, packed))
    plain = hierarchy.Hierarchy.__init__

    def with_guards(self, *arguments, **options):
        plain(self, *arguments, **options)
        guards.fill_arena(self)

    hierarchy.Hierarchy.__init__ = with_guards
    return guards


def frame_is_zero(network: DistributedMultilevel | MultilevelPreconditioner) -> bool:
    """x and the coefficients of all levels of a network are 0 where they hold no cell."""
    arrays = []
    if isinstance(network, DistributedMultilevel):
        inner = network._tail
        for level in network._levels:
            arrays += [(level.layout.shape, name, array) for name, array in level.arrays.items()]
    else:
        inner = network._hierarchy
    if isinstance(inner, hierarchy.Hierarchy):
        for number, offsets in enumerate(inner.layout.offsets):
            shape = inner.layout.shapes[number]
            arrays += [(shape, name, inner.array(number, name)) for name in offsets]
    for shape, name, array in arrays:
        if name not in ("b", "residual"):
            rest = array.copy().reshape(-1)
            rest[SplitArrays((0, 0, 0), shape).positions(np.zeros(3, int), np.array(shape))] = 0
            if rest.any():
                return False
    return True
