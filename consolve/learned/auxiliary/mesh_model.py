"""The network on a grid laid over the points of a mesh: the auxiliary space method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.learned.auxiliary.gauss_seidel import GaussSeidel
from consolve.learned.multilevel.setup.hierarchy import LevelFacts
from consolve.pde.mesh.auxiliary_grid import AuxiliaryGrid
from consolve.pde.mesh.rows import MeshRows
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents

Build = Callable[[GridOperator, NDArray[np.int32]], Any]
"""(operator, cells) -> network."""
MOST_CONTRAST, MOST_ANISOTROPY = 3000.0, 4.0
"""Of a grid laid over a mesh that is not for the graph."""


class MeshModel:
    """z = M r: Gauss-Seidel sweeps with the matrix, between them P N P' with the network N of a grid.

    M is linear and symmetric, positive definite if the matrix is, as N is positive definite and the sweeps
    converge (see GaussSeidel).  On several ranks the grid lies on the first.

    Parameters
    ----------
    rows
        The matrix, and the point of each row.
    build
        Makes the network; called on the first rank.
    sweeps
        Of Gauss-Seidel, before and after.

    Attributes
    ----------
    grid
        The grid.
    network
        N; None on ranks other than the first.
    components
        Closed components of the matrix.
    """

    is_symmetric = True
    cells: Any = None

    def __init__(self, rows: MeshRows, build: Build, sweeps: int) -> None:
        self._build, self._sweeps = build, sweeps
        self.update(rows)

    def update(self, rows: MeshRows) -> None:
        """Set up for another matrix, or other points."""
        self._comm, self.network = rows.matrix.comm, None
        self.grid = AuxiliaryGrid(rows)
        operator = self.grid.operator(rows)
        size = int(np.prod(self.grid.shape))
        self._smoother = GaussSeidel(rows, self.grid.bounds, self.grid.order, self._sweeps)
        self._cells, self._found = np.zeros(size), np.zeros(size)
        with together(self._comm):
            if operator is not None:
                everywhere = np.arange(size, dtype=np.int32)
                self.network = self._build(operator, everywhere)
                self._closed = ClosedComponents.of(operator, everywhere)
        self.components = rows.closed_components()

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r; collective.  What the network raises on the first rank, all raise."""
        self._smoother.apply(r, z, self._correct)

    def _correct(self, t: NDArray[np.float64], c: NDArray[np.float64]) -> None:
        """c = P N P' t."""
        cells, found, comm = self._cells, self._found, self._comm
        cells[:] = 0
        self.grid.restrict(t, cells)
        if comm is not None:
            self.grid.sum_on_first(cells)
        with together(comm):
            if self.network is not None:
                self._closed.remove(cells, cells)
                self.network.apply(cells, found)
                self._closed.remove(found, found)
        if comm is not None:
            comm.Bcast(found)
        self.grid.prolong(found, c)

    @property
    def levels(self) -> list[LevelFacts]:
        """Facts of each level of the grid, finest first; none on ranks other than the first."""
        return [] if self.network is None else list(self.network.levels)

    @property
    def bytes(self) -> int:
        """Memory held."""
        held = self.grid.bytes + self._smoother.bytes + self._cells.nbytes + self._found.nbytes
        return held + (0 if self.network is None else self.network.bytes)

    @property
    def description(self) -> str:
        """One line of the view."""
        cells = " x ".join(map(str, self.grid.shape[::-1]))
        sweeps = f"{self._sweeps} Gauss-Seidel sweep{'s' if self._sweeps > 1 else ''}"
        return f"a grid of {cells} cells laid over the points, {sweeps} with the matrix before and after"

    def close(self) -> None:
        """Let go of what is not memory."""
        if self.network is not None:
            self.network.close()


def is_uneven(operator: GridOperator) -> bool:
    """Jumps or a strong axis on a grid that was laid over a mesh, which makes faces small at its boundary: of
    a sample, the faces without the hundredth at either end differ by more than 3,000, or medians of two axes
    by more than 4."""
    sample = [face.reshape(-1)[:: max(1, face.size // 32_768)] for face in operator.face_coefficient]
    faces = [face[face > 0] for face in sample if (face > 0).any()]
    if not faces:
        return False
    low, high = np.quantile(np.concatenate(faces), (0.01, 0.99))
    medians = [float(np.median(face)) for face in faces]
    return bool(high > MOST_CONTRAST * low or max(medians) > MOST_ANISOTROPY * min(medians))
