"""Multigrid on a graph as a preconditioner: setup from a GridOperator, z = M r by one cycle."""

from __future__ import annotations

from types import SimpleNamespace

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle import vector_kernels as sums
from consolve.learned.multilevel.graph import vector_kernels
from consolve.learned.multilevel.graph.hierarchy import Hierarchy, finest
from consolve.learned.multilevel.setup.hierarchy import LevelFacts
from consolve.pde.poisson.grid import GridOperator, as_volume


class GraphPreconditioner:
    def __init__(
        self, operator: GridOperator, cells: NDArray[np.int32] | None = None, threads: int | None = None
    ) -> None:
        self.threads = threads or numba.get_num_threads()
        self.cells = cells
        self.k_cycle = (0, 0)
        self.update(operator)

    def update(self, operator: GridOperator) -> None:
        """Setup for another operator."""
        self._hierarchy = None
        volumes = operator._volumes
        faces, dirichlet, active = volumes[:3], volumes[3], volumes[4]
        largest = max(float(f.max()) for f in operator.face_coefficient)
        self.scale = largest if largest > 0 else max(float(dirichlet.max()), 1e-300)
        level = finest(faces, dirichlet, active, self.scale, self.threads)
        cells = operator.cells if self.cells is None else self.cells
        self._node = level.start.reshape(-1)[cells]
        self._hierarchy = Hierarchy(level, self.threads)

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        h = self._hierarchy
        total = float(sums.absolute_sum(r, self.threads))
        if total == 0:
            z[:] = 0
            return
        down = 2.0 ** -np.floor(np.log2(total / r.size))
        v = h.levels[0].vectors
        vector_kernels.scatter(r, self._node, down, v["b"], self.threads)
        h.cycle(*self.k_cycle)
        vector_kernels.gather(v["x"], self._node, 1 / down / self.scale, z, self.threads)
