"""Multigrid on a graph as a preconditioner: setup from a GridOperator, z = M r by one cycle."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.base.messages import warn
from consolve.learned.multilevel.cycle.vector_kernels import absolute_sum
from consolve.learned.multilevel.graph import vector_kernels
from consolve.learned.multilevel.graph.choice import difficulty
from consolve.learned.multilevel.graph.hierarchy import GraphHierarchy, finest
from consolve.learned.multilevel.graph.sample import sample_of_grid
from consolve.learned.multilevel.setup.hierarchy import LevelFacts
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.periodic import PeriodicOperator
from consolve.pde.poisson.weak_links import is_weakly_held

MOST_NONLINEAR, MOST_DOUBLE = 1e10, 1e13
"""How much weaker than its own the links of a part may be for the K-cycle to serve better than a linear one,
and for double precision to bear them.  Coefficients as such may span more."""


class GraphPreconditioner:
    """z = M r: one multigrid cycle on graphs whose coarse cells follow widths, walls and jumps.

    For grids on which halving every axis, with one unknown a coarse cell, is not enough; see
    :func:`consolve.learned.multilevel.graph.choice.difficulty`.  M is linear and symmetric, positive definite
    if A is (on the range of A if A is singular), unless ``flexible`` is set.  Coefficients are float32,
    vectors float64.

    Parameters
    ----------
    operator
        The finest level.
    cells
        int32: C-order cell index of each entry of ``r`` and ``z``; all active cells by default.
    threads
        Numba threads; as many as Numba may use by default.

    Attributes
    ----------
    flexible
        The caller takes a nonlinear M: coarse levels with walls or jumps then get two steps of conjugate
        gradients (K-cycle) each time, but where coefficients differ so much that a linear M does better.

    Raises
    ------
    ValueError
        If an index in ``cells`` lies outside the grid, or coefficients leave the range of single precision.
    """

    def __init__(
        self,
        operator: GridOperator | PeriodicOperator,
        cells: NDArray[np.integer] | None = None,
        threads: int | None = None,
    ) -> None:
        self.threads = threads or numba.get_num_threads()
        self.cells = None if cells is None else np.ascontiguousarray(cells, np.int32)
        size = operator.active.size
        if cells is not None and cells.size and not (0 <= cells.min() <= cells.max() < size):
            raise ValueError(f"cells must lie in 0..{size - 1} (a grid of {operator.shape} cells)")
        self.flexible = False
        self.components = ClosedComponents.none()
        self.setups = 0
        self._is_extreme = False
        self._hierarchy: GraphHierarchy | None = None
        self.update(operator)

    def update(self, operator: GridOperator | PeriodicOperator) -> None:
        """Setup for another operator."""
        self._hierarchy = None  # its memory is free before the next is taken
        *faces, dirichlet, active = operator._volumes
        largest = max(float(f.max()) for f in operator.face_coefficient)
        largest = largest if largest > 0 else float(dirichlet.max())
        self.scale = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
        level = finest(faces, dirichlet, active, self.scale, self.threads)
        cells = operator.cells if self.cells is None else self.cells
        self._node = level.start.reshape(-1)[cells]
        inner = operator if isinstance(operator, GridOperator) else operator.inner
        self._is_extreme = is_weakly_held(inner, 1 / MOST_NONLINEAR)
        if self._is_extreme and is_weakly_held(inner, 1 / MOST_DOUBLE):
            warn(
                f"parts of the grid hang by coefficients under {1 / MOST_DOUBLE:g} of those within them: "
                "double precision leaves few digits of A x there, so that the residual may fall slowly, or "
                "stop short of the tolerance"
            )
        jumps = difficulty(sample_of_grid(operator)).jumps > 0
        self._hierarchy = GraphHierarchy(level, operator.ndim, jumps, self.threads)
        self.setups += 1

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r.

        Parameters
        ----------
        r
            float64, one entry for each of ``cells``; those whose cell is not active are ignored.
        z
            float64, one entry for each of ``cells``; 0 where the cell is not active.
        """
        hierarchy = self._hierarchy
        assert hierarchy is not None
        if r.shape != self._node.shape or z.shape != self._node.shape:
            raise ValueError(f"r and z must have {self._node.size} entries, got {r.shape} and {z.shape}")
        with np.errstate(all="ignore"):
            total = float(absolute_sum(r, self.threads))
        if total == 0:
            z[:] = 0
            return
        vectors = hierarchy.levels[0].vectors
        vector_kernels.scatter(r, self._node, vectors["b"], self.threads)
        hierarchy.cycle(self.flexible and not self._is_extreme)
        vector_kernels.gather(vectors["x"], self._node, 1 / self.scale, z, self.threads)

    @property
    def is_symmetric(self) -> bool:
        """M is linear and symmetric."""
        may_differ = self._hierarchy is not None and self._hierarchy.is_irregular
        return not (self.flexible and may_differ) or self._is_extreme

    @property
    def levels(self) -> Sequence[LevelFacts]:
        """Facts of each level, finest first."""
        return [] if self._hierarchy is None else self._hierarchy.facts

    @property
    def bytes(self) -> int:
        """Memory of the levels and of the map from entries to nodes."""
        return self._node.nbytes + sum(level.bytes for level in self.levels)

    @property
    def flops(self) -> float:
        """Of one linear cycle: an estimate."""
        return 0.0 if self._hierarchy is None else self._hierarchy.flops

    def directions(self) -> None:
        """No iteration in grid space."""
        return None

    def close(self) -> None:
        """Nothing but memory is held."""
