"""A uniform grid laid over the points of a mesh, and the Poisson operator on it that a matrix comes near to.

The auxiliary space method (Xu, Computing 56, 1996): z = S r + P M P' r with a smoother S on the mesh and a
solver M on a grid where good ones are at hand.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.base.errors import MatrixError
from consolve.base.memory import require
from consolve.pde.matrix.stencil_kernels import COUPLED
from consolve.pde.mesh import grid_kernels as kernels
from consolve.pde.mesh.rows import MeshRows
from consolve.pde.poisson.grid import GridOperator, operator_bytes

SPACING = {2: 1.7, 3: 1.2}
"""Widths of a cell over the mean distance of neighbouring points, by dimension."""
MOST_CELLS = 4
"""Cells of the box a row: where points fill less of it, cells are wider."""
ISOTROPIC = 1.25
"""Spacings within this factor of each other become equal."""
CHUNK = 4096
"""Rows of a chunk at least."""
MOST_CHUNKS = 64
_MEAN = {2: 0.5 * math.pi, 3: 2.0}
"""Length over the mean component along an axis, of directions of equal likelihood."""


class AuxiliaryGrid:
    """Cells of equal size around the points of a mesh; all is collective.

    Parameters
    ----------
    rows
        The matrix, and the point of each row.

    Attributes
    ----------
    shape
        Cells along each axis, in NumPy's order: (NY, NX) or (NZ, NY, NX).
    spacing
        Their size along each axis, in the same order.
    order
        Local rows sorted by cell; all methods take and give vectors in this order.
    bounds
        First sorted row of each chunk, and one past the last.
    """

    def __init__(self, rows: MeshRows) -> None:
        self._comm = rows.matrix.comm
        place = np.ascontiguousarray(rows.points[:, ::-1])
        own = rows.matrix.rows
        self.ndim = place.shape[1]
        low, high, spacing = self._measure(place[:own], rows)
        counts = np.maximum(np.ceil((high - low) / spacing).astype(int) + 1, 2)
        self.shape, self.spacing = tuple(map(int, counts)), spacing
        with together(self._comm):
            size = " x ".join(map(str, self.shape))
            require(operator_bytes(self.shape, np.float64), f"the auxiliary grid of {size} cells")
        pad = 3 - self.ndim
        middle = 0.5 * (low + high) - 0.5 * spacing * (counts - 1)
        self._low = np.concatenate((np.zeros(pad), middle))
        self._per_spacing = np.concatenate((np.ones(pad), 1 / spacing))
        self._volume = np.array((1,) * pad + self.shape)
        self._point = np.concatenate((np.zeros((len(place), pad)), place), axis=1)
        first, part = np.empty(own, np.int64), np.empty((own, 3))
        kernels.place_points(self._point[:own], self._low, self._per_spacing, self._volume, first, part)
        self.order = np.empty(own, np.int32)
        kernels.sort_by_cell(first, int(self._volume.prod()), self.order)
        self._first, self._part = first[self.order], part[self.order].astype(np.float32)
        self._layer = self.shape[-1] * self.shape[-2] if self.ndim == 3 else 0
        self.bounds = self._chunks()

    def _measure(self, place: NDArray[np.float64], rows: MeshRows) -> tuple[NDArray, NDArray, NDArray]:
        """Lowest and highest coordinates, and the size of a cell along each axis."""
        low, high = place.min(axis=0, initial=np.inf), place.max(axis=0, initial=-np.inf)
        sums = np.append(rows.distances(), [len(place)])
        sums[: self.ndim] = sums[: self.ndim][::-1].copy()
        if self._comm is not None:
            from mpi4py import MPI

            self._comm.Allreduce(MPI.IN_PLACE, low, MPI.MIN)
            self._comm.Allreduce(MPI.IN_PLACE, high, MPI.MAX)
            self._comm.Allreduce(MPI.IN_PLACE, sums)
        *distances, couplings, total = sums
        with np.errstate(all="ignore"):
            mean = np.array(distances) * (_MEAN[self.ndim] / couplings)
        longest = float((high - low).max())
        if not longest > 0:
            raise MatrixError(
                f"the {int(total)} points of the mesh all lie at {low[::-1]}: give the point of each row"
            )
        mean = np.where(mean > 1e-9 * longest, mean, longest)  # flat along that axis
        if mean.max() < ISOTROPIC * mean.min():
            mean[:] = np.exp(np.log(mean).mean())
        spacing = SPACING[self.ndim] * mean
        boxes = float(np.prod((high - low) / spacing + 1))
        spacing *= max(1.0, boxes / (MOST_CELLS * total + 64)) ** (1 / self.ndim)
        return low, high, spacing

    def _chunks(self) -> NDArray[np.int64]:
        """Chunks of whole layers, two at least."""
        layers = self.shape[0]
        rows_before = np.searchsorted(
            self._first,
            np.arange(layers + 1) * (self._volume[1:].prod() if self.ndim == 3 else self.shape[1]),
        )
        wanted = min(MOST_CHUNKS, len(self.order) // CHUNK, layers // 2)
        if wanted < 2:
            return np.array([0, len(self.order)])
        targets = np.arange(1, wanted) * (len(self.order) / wanted)
        at = np.searchsorted(rows_before, targets)
        cuts = [0]
        for layer in at:
            if layer - cuts[-1] >= 2:
                cuts.append(int(layer))
        if layers - cuts[-1] < 2:
            cuts.pop()
        return np.append(rows_before[cuts], len(self.order)).astype(np.int64)

    def operator(self, rows: MeshRows) -> GridOperator | None:
        """What the couplings of a matrix of these points say, on the first rank; None on the others."""
        volumes, touched = np.zeros((self.ndim + 1, *self.shape)), np.zeros(self.shape)
        faces = [v.reshape(self._volume) for v in volumes]
        if self.ndim == 2:
            faces.insert(0, np.zeros((0, 0, 0)))
        geometry = self._point, self._low, self._per_spacing
        kernels.add_couplings(
            self.bounds, self._stride(rows), self.order, *rows.csr, rows.kind, rows.sign, rows.row_sum,
            *geometry, *faces,
        )  # fmt: skip
        self.restrict((rows.kind[self.order] == COUPLED).astype(np.float64), touched.reshape(-1))
        if self._comm is not None:
            for array in (volumes, touched):
                self.sum_on_first(array)
            if self._comm.rank:
                return None
        return _operator(volumes, touched > 0)

    def _stride(self, rows: MeshRows) -> int:
        """Chunks so far apart add to no cell in common."""
        chunks = self.bounds.size - 1
        first, last = np.empty(chunks), np.empty(chunks)
        own_start, own_column, _, ghost_start, ghost_column, _ = rows.csr
        kernels.reach_of_chunks(
            self.bounds, self.order, own_start, own_column, ghost_start, ghost_column, self._point, self._low,
            self._per_spacing, 3 - self.ndim, first, last,
        )  # fmt: skip
        last = np.maximum.accumulate(last)
        for stride in range(1, chunks):
            if (first[stride:] > last[:-stride]).all():
                return stride
        return chunks

    def sum_on_first(self, array: NDArray[np.float64]) -> None:
        """Let ``array`` on the first rank be the sum over all; collective."""
        from mpi4py import MPI

        if self._comm.rank == 0:
            self._comm.Reduce(MPI.IN_PLACE, array)
        else:
            self._comm.Reduce(array, None)

    def restrict(self, r: NDArray[np.float64], cells: NDArray[np.float64]) -> None:
        """cells += P' r of the local rows; ``cells`` float64, flat."""
        kernels.restrict(self.bounds, self._first, self._part, self._layer, self.shape[-1], r, cells)

    def prolong(self, cells: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = P cells on the local rows."""
        kernels.prolong(self.bounds, self._first, self._part, self._layer, self.shape[-1], cells, z)

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self._first.nbytes + self._part.nbytes + self.order.nbytes + self._point.nbytes


def _operator(volumes: NDArray[np.float64], touched: NDArray[np.bool_]) -> GridOperator:
    """Coefficients without what is negative, and without what leads to cells that no point touches."""
    *faces, dirichlet = volumes
    active = touched
    for axis, face in enumerate(faces):
        both = np.zeros_like(active)
        lower = [slice(None)] * active.ndim
        upper = list(lower)
        lower[axis], upper[axis] = slice(0, -1), slice(1, None)
        both[tuple(lower)] = active[tuple(lower)] & active[tuple(upper)]
        face[~both | (face < 0)] = 0
    dirichlet[~active | (dirichlet < 0)] = 0
    diagonal = GridOperator(tuple(faces), dirichlet, active).diagonal()
    active = active & (diagonal > 0)
    return GridOperator(tuple(faces), dirichlet, active)
