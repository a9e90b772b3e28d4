"""Reading the matrix of a mesh: symmetric rows with any couplings, each at a point."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import raise_together
from consolve.base.errors import MatrixError
from consolve.pde.matrix import row_kernels as any_rows
from consolve.pde.matrix import stencil_kernels as kinds
from consolve.pde.matrix.boundary_couplings import Couplings, couplings_to_boundary
from consolve.pde.matrix.coupled_rows import CoupledRows
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.local_rows import LocalRows
from consolve.pde.matrix.stencil import Stencil, read_stencil
from consolve.pde.matrix.stencil_faults import RowFaults
from consolve.pde.mesh import row_kernels as kernels
from consolve.pde.mesh.tensor_grid import cells_of_points
from consolve.pde.poisson.null_space import ClosedComponents, closed_numbers

ROUND_OFF = 1e-12
"""A row sum under this fraction of the row's magnitudes is 0; SINGULAR where a null space is attached."""
SINGULAR = 1e-6
LEAST_FILLING = 0.75


@dataclass(frozen=True)
class MeshRows(CoupledRows):
    """What a matrix says of a mesh; a diagonal on the rows that are not coupled.

    Parameters
    ----------
    points
        float64 (local rows and ghosts, dim): where each lies.
    row_sum
        Of S in each local row over its coupled columns; 0 where it is round-off.
    diagonal_rows, diagonal_inverse, boundary
        As in Stencil.
    """

    points: NDArray[np.float64]
    row_sum: NDArray[np.float64]
    diagonal_rows: NDArray[np.int32]
    diagonal_inverse: NDArray[np.float64]
    boundary: Couplings | None = None

    def without_matrix(self) -> MeshRows:
        """Of what is held, that which is good when the matrix has changed."""
        nothing = np.empty(0)
        no_rows = LocalRows((np.zeros(1, np.int32), np.empty(0, np.int32), nothing))
        return replace(self, matrix=no_rows, kind=self.kind[:0], diagonal=nothing, row_sum=nothing)

    @property
    def one_sided(self) -> bool:
        """Some row, on any rank, couples to a diagonal-only one."""
        return self.boundary is not None

    def distances(self) -> NDArray[np.float64]:
        """Over couplings of a sample of rows: sums of |x_i - x_j| by axis, then their number."""
        sums = np.zeros(self.points.shape[1] + 1)
        step = max(1, self.matrix.rows // 65_536)
        kernels.sum_distances(*self.matrix.own, self.kind, self.points, step, sums)
        return sums

    def closed_components(self) -> ClosedComponents:
        """Connected rows that all sum to 0; collective."""
        matrix, rows = self.matrix, self.matrix.rows
        is_open = (self.row_sum != 0) | (self.kind[:rows] != kinds.COUPLED)
        if self._all(bool(is_open.all())):
            return ClosedComponents.none()
        label = np.empty(rows, np.int64)
        count = kernels.label_components(*matrix.own, self.kind, label)
        alone = label < 0  # rows of no component
        opened = np.bincount(label[~alone], is_open[~alone], minlength=count) > 0
        if matrix.comm is None:
            number = np.append(closed_numbers(opened), np.int32(-1))
            return ClosedComponents.of_groups(number[label], int(number.max()) + 1)
        counts = matrix.comm.allgather(count)
        label[~alone] += sum(counts[: matrix.comm.rank])
        everywhere = matrix.with_ghosts(label)
        pointers, columns, values = matrix.others
        row = np.repeat(np.arange(rows), np.diff(pointers))
        kept = (values != 0) & (self.kind[rows + columns] == kinds.COUPLED)
        pairs = np.unique(np.stack((label[row[kept]], everywhere[rows + columns[kept]]), 1), axis=0)
        parts = matrix.comm.allgather((opened, pairs))
        number = closed_numbers(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
        number = np.append(number, np.int32(-1))
        return ClosedComponents.of_groups(number[label], int(number.max()) + 1, matrix.comm)

    def _all(self, fact: bool) -> bool:
        comm = self.matrix.comm
        return fact if comm is None else all(comm.allgather(fact))


def read_mesh(
    matrix: LocalRows, points: NDArray[np.floating], null_rows: NDArray[np.bool_] | None = None
) -> MeshRows:
    """Read an assembled matrix whose rows are points; collective.

    Parameters
    ----------
    matrix
        Its rows on this rank.
    points
        (local rows, 2 or 3): where each row lies.
    null_rows
        The local rows where vectors of an attached null space are constant: there, row sums under 1e-6 of the
        row's magnitudes count as 0.

    Raises
    ------
    MatrixError
        On all ranks: if there is not one finite point a row, or a row is not finite, not symmetric (1e-6
        relative), without a diagonal of the sign of the others, or has a coupling greater than definite
        matrices have (a_ij^2 > a_ii a_jj).
    """
    points = _checked(points, matrix)
    comm, rows = matrix.comm, matrix.rows
    csr = *matrix.own, *matrix.others
    kind, diagonal = np.empty(rows, np.uint8), np.empty(rows)
    row, entry, sign = any_rows.kinds_of_rows(*csr, kind, diagonal)
    faults = _PointFaults(matrix, points, 1)
    raise_together(comm, faults.error(row, kinds.NOT_FINITE, entry) if row >= 0 else None)
    signs = [int(sign)] if comm is None else comm.allgather(int(sign))
    sign = next((s for s in signs if s), 1)
    back = matrix.transposed_entries()
    kind, diagonal = matrix.with_ghosts(kind), matrix.with_ghosts(diagonal)
    row_sum = np.empty(rows)
    round_off = np.full(rows, ROUND_OFF)
    if null_rows is not None:
        round_off[null_rows] = SINGULAR
    found = [kernels.check_rows(*csr, back, kind, diagonal, sign, round_off, row_sum)]
    found.append(kernels.check_couplings(*matrix.own, kind, diagonal, sign, matrix.own[0][:-1].copy()))
    wrong = [fault for fault in found if fault[0] >= 0]
    faults = _PointFaults(matrix, points, sign)
    faults.back = back
    raise_together(comm, faults.error(*min(wrong)) if wrong else None)
    alone = np.flatnonzero(kind[:rows] == kinds.DIAGONAL_ONLY).astype(np.int32)
    inverse = diagonal[alone]
    np.divide(1.0, inverse, out=inverse, where=inverse != 0)
    boundary: Couplings | None = None
    some = bool((kind == kinds.DIAGONAL_ONLY).any())
    sided = [0]
    if some if comm is None else any(comm.allgather(some)):
        boundary = couplings_to_boundary(matrix, kind)
        sided = [boundary.row.size] if comm is None else comm.allgather(boundary.row.size)
    everywhere = np.ascontiguousarray(matrix.with_ghosts(points))
    facts = alone, inverse, boundary if any(sided) else None
    return MeshRows(matrix, kind, diagonal, sign, everywhere, row_sum, *facts)


def read_points(
    matrix: LocalRows, points: NDArray[np.floating], null_rows: NDArray[np.bool_] | None = None
) -> Stencil | MeshRows:
    """Read a matrix whose rows lie at points: as a grid's where they are those of a tensor grid and the
    couplings its neighbours', else as a mesh's; collective.

    Parameters and errors are those of ``read_mesh``.
    """
    points = np.asarray(points)
    try:
        shape, cells = cells_of_points(points, matrix.rows, matrix.comm)
        if matrix.comm is None and math.prod(shape) < 2**31:
            grid = GridMap(shape, cells.astype(np.int32), "the coordinates")
        else:
            grid = GridMap(shape, cells, "the coordinates")
        stencil = read_stencil(matrix, grid, null_rows)
    except MatrixError:
        return read_mesh(matrix, points, null_rows)
    total = matrix.rows if matrix.comm is None else matrix.comm.allreduce(matrix.rows)
    return stencil if fits_grid(stencil, total) else read_mesh(matrix, points, null_rows)


def fits_grid(stencil: Stencil, rows: int) -> bool:
    """False for a box stencil whose rows leave many cells of the grid free, as those of crossed triangles do:
    diagonal couplings over free cells come near to none of the grid's operators."""
    is_box, grid = stencil.rows is not None, stencil.grid
    return not is_box or any(grid.periodic) or rows >= LEAST_FILLING * math.prod(grid.shape)


def _checked(points: NDArray[np.floating], matrix: LocalRows) -> NDArray[np.float64]:
    """One finite point of 2 or 3 coordinates a row, those of a line in a plane."""
    points, error = np.asarray(points), None
    if points.ndim != 2 or len(points) != matrix.rows or points.shape[1] not in (1, 2, 3):
        error = MatrixError(
            f"the points are an array of shape {points.shape}, expected ({matrix.rows}, 2) or "
            f"({matrix.rows}, 3): one point for each local row"
        )
    elif points.dtype.kind not in "fiu":
        error = MatrixError(f"the points are {points.dtype}, expected real numbers")
    elif not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        error = MatrixError(f"the point of local row {row} is {points[row]}; coordinates must be finite")
    raise_together(matrix.comm, error)
    points = points.astype(np.float64)
    varies = [_spans(points[:, axis], matrix.comm) for axis in range(points.shape[1])]
    axes = [axis for axis, does in enumerate(varies) if does]
    spare = [axis for axis, does in enumerate(varies) if not does]
    axes = sorted(axes + spare[: max(0, 2 - len(axes))])
    points = points[:, axes]
    return np.column_stack((points, np.zeros(len(points)))) if len(axes) == 1 else points


def _spans(values: NDArray[np.float64], comm: Any) -> bool:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if comm is not None:
        ends = comm.allgather((low, high))
        low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    return bool(high > low)


class _PointFaults(RowFaults):
    """What is wrong with a row, which lies at a point."""

    def __init__(self, matrix: LocalRows, points: NDArray[np.float64], sign: int) -> None:
        nowhere = GridMap((1, 1), np.empty(0, np.int32), "the points")
        super().__init__(matrix, nowhere, np.empty(0, np.int32), sign)
        self._points = points

    def _text(self, row: int, fault: int, entry: int) -> str:
        if fault != kinds.NOT_DOMINANT:
            return super()._text(row, fault, entry)
        column, value = self._matrix.entry(entry)
        ends = self._matrix.global_number(row), self._matrix.global_number(column)
        return (
            f"has a[{ends[0]},{ends[1]}] = {value:.10g}, whose square is greater than the product of both "
            "diagonal entries: the matrix is indefinite, and PC cnn needs a definite one"
        )

    def _place(self, what: str, column: int) -> str:
        number = f"{what} {self._matrix.global_number(column)}"
        if column >= len(self._points):
            return f"{number} (of another rank)"
        return f"{number} (at {', '.join(f'{x:.6g}' for x in self._points[column])})"
