"""Reading a matrix row by row: on many ranks, with periodic axes, with box stencils."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.base.arrays import zeros
from consolve.base.collective import raise_together
from consolve.base.exchange import CellDirectory, Messages
from consolve.pde.matrix import lump_kernels, regular_kernels, row_kernels, wrap_kernels
from consolve.pde.matrix import stencil_kernels as kernels
from consolve.pde.matrix.boundary_couplings import Couplings, couplings_to_boundary
from consolve.pde.matrix.coupled_rows import CoupledRows
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.local_rows import LocalRows
from consolve.pde.matrix.stencil_faults import RowFaults
from consolve.pde.poisson.null_space import ClosedComponents

_LEAST_BALANCE = 0.25


@dataclass
class Rows:
    """What the rows of a matrix say; coefficients by local row, or by cell where ``by_cell``.

    ``faces``, ``dirichlet`` and ``active`` are flat; ``kind`` and ``diagonal`` are of the local rows; the
    others as in Stencil.
    """

    grid: GridMap
    by_cell: bool
    faces: tuple[NDArray[np.float64], ...]
    dirichlet: NDArray[np.float64]
    active: NDArray[np.bool_]
    kind: NDArray[np.uint8]
    diagonal: NDArray[np.float64]
    sign: int
    is_exact: bool = True
    is_loose: bool = False
    """Some row has a negative row sum, which is taken as 0."""
    boundary: Couplings | None = None
    box: CoupledRows | None = None
    """What was lumped."""


class RowReader:
    """Reads the rows of one rank, together with all others; each method is collective.

    Parameters
    ----------
    matrix
        The local rows.
    grid
        The cell of each local row.
    threshold
        A row sum under this fraction of the diagonal is 0.
    """

    def __init__(self, matrix: LocalRows, grid: GridMap, threshold: float) -> None:
        self._matrix, self._grid, self._threshold = matrix, grid, threshold
        self._comm = matrix.comm
        self._cells = matrix.with_ghosts(grid.cells)
        self._back = matrix.transposed_entries()
        self._csr = (*matrix.own, *matrix.others)
        self._shape = np.array((1,) * (3 - len(grid.shape)) + grid.shape, np.int64)
        self._kind = np.empty(matrix.rows, np.uint8)
        self._diagonal = np.empty(matrix.rows)
        self._faults = RowFaults(matrix, grid, self._cells, 1)
        self._faults.back = self._back

    def read(self) -> Rows:
        """All that the rows say.

        Raises
        ------
        MatrixError
            On all ranks, about the lowest row at fault; see read_stencil.
        """
        return self._read_regular() or self._read_any()

    def _read_regular(self) -> Rows | None:
        """The rows of a matrix without peculiarities; None if there are any on some rank."""
        rows = self._new_rows(self._agreed_sign(int(kernels.sign_of_diagonal(*self._matrix.own))))
        read = regular_kernels.read_plain if rows.by_cell else regular_kernels.read_regular
        fine = read(
            *self._csr, self._back, self._cells, *self._geometry(), rows.sign, self._threshold,
            *_volume(rows.faces), rows.dirichlet, rows.active, rows.kind, rows.diagonal,
            max(1, min(numba.get_num_threads(), self._matrix.rows // 1024)),
        )  # fmt: skip
        return rows if self._everywhere(fine) else None

    def _read_any(self) -> Rows:
        matrix = self._matrix
        row, entry, sign = row_kernels.kinds_of_rows(*self._csr, self._kind, self._diagonal)
        fault = self._faults.error(row, kernels.NOT_FINITE, entry) if row >= 0 else None
        raise_together(self._comm, fault)
        sign = self._agreed_sign(int(sign))
        self._faults = RowFaults(matrix, self._grid, self._cells, sign)
        self._faults.back = self._back
        kind = matrix.with_ghosts(self._kind)
        while True:
            rows = self._new_rows(sign)
            fault, (one_sided, mixed, row_sums, diagonals), weak = row_kernels.read_any(
                *self._csr, self._back, self._cells, *self._geometry(), sign, self._threshold, rows.by_cell,
                *_volume(rows.faces), rows.dirichlet, rows.active, kind, rows.diagonal,
            )  # fmt: skip
            if self._everywhere(fault[1] != kernels.OFF_STENCIL) or not self._recognise_periodic_axes():
                break
        positive_row, positive_entry, loose_row = weak
        box, positive = not self._everywhere(mixed == 0), not self._everywhere(positive_row < 0)
        total, size = self._sum(row_sums), self._sum(diagonals)
        faults = [fault] if fault[0] >= 0 else []
        if positive_row >= 0 and not box:
            faults.append((positive_row, kernels.POSITIVE_COUPLING, positive_entry))
        # Reactions of the wrong sign, as in Newton's matrices, and eliminated neighbours of a coupling of the
        # diagonal's sign make row sums negative; but a definite operator has 1' A 1 > 0.
        rows.is_loose = not self._everywhere(loose_row < 0)
        least = -kernels.ROUND_OFF if box and positive else kernels.ROUND_OFF
        if loose_row >= 0 and not total > least * size:
            faults.append((loose_row, kernels.NOT_DOMINANT, -1))
        raise_together(self._comm, self._faults.error(*min(faults)) if faults else None)
        if not self._everywhere(not one_sided):
            rows.boundary = couplings_to_boundary(matrix, kind)
        rows.is_exact = not (box or rows.is_loose)
        if box:
            self._lump(rows, kind)
            rows.box = CoupledRows(matrix, kind, rows.diagonal, sign)
        return rows

    def refuse_closed(self, rows: Rows, closed: ClosedComponents) -> None:
        """Refuse rows of negative sums that make a component indefinite: on one rank, 1' A 1 over a closed
        component is the sum of them alone.

        Raises
        ------
        MatrixError
            About the lowest such row.
        """
        if not closed:
            return
        total = np.add.reduceat(np.append(self._matrix.own[2], 0.0), self._matrix.own[0][:-1])
        loose = rows.sign * total < -kernels.DOMINANCE_TOLERANCE * np.abs(rows.diagonal)
        wrong = np.flatnonzero(loose & (closed.group >= 0))
        if wrong.size:
            raise self._faults.error(int(wrong[0]), kernels.NOT_DOMINANT, -1)

    def _new_rows(self, sign: int) -> Rows:
        grid = self._grid
        by_cell = self._comm is None and not any(grid.periodic)
        size = int(np.prod(self._shape)) if by_cell else self._matrix.rows
        faces = tuple(zeros(size) for _ in grid.shape)
        arrays = zeros(size), zeros(size, np.bool_)
        return Rows(grid, by_cell, faces, *arrays, self._kind, self._diagonal, sign)

    def _geometry(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        periodic = self._grid.periodic
        return self._shape, np.array((False,) * (3 - len(periodic)) + periodic)

    def _everywhere(self, fact: bool) -> bool:
        if self._comm is None:
            return bool(fact)
        from mpi4py import MPI

        return bool(self._comm.allreduce(bool(fact), MPI.LAND))

    def _sum(self, value: float) -> float:
        return float(value) if self._comm is None else float(sum(self._comm.allgather(float(value))))

    def _agreed_sign(self, sign: int) -> int:
        """That of the lowest rank that has one, else 1."""
        signs = [sign] if self._comm is None else self._comm.allgather(sign)
        return next((s for s in signs if s), 1)

    def _recognise_periodic_axes(self) -> bool:
        """Whether couplings from last to first cells make more axes periodic.

        A grid given one cell too wide can look periodic too, its vertical couplings lying along one diagonal;
        real box stencils use both diagonals alike.
        """
        wraps, diagonals = np.zeros(3, np.int64), np.zeros((2, 3, 2), np.int64)
        wrap_kernels.wrapping_couplings(*self._csr, self._cells, self._shape, wraps, diagonals)
        if self._comm is not None:
            from mpi4py import MPI

            self._comm.Allreduce(MPI.IN_PLACE, wraps)
            self._comm.Allreduce(MPI.IN_PLACE, diagonals)
        ndim = len(self._grid.shape)
        periodic = tuple(bool(p or w) for p, w in zip(self._grid.periodic, wraps[3 - ndim :]))
        lopsided = (diagonals.min(axis=2) < _LEAST_BALANCE * diagonals.max(axis=2)).any()
        if periodic == self._grid.periodic or lopsided:
            return False
        self._grid = replace(self._grid, periodic=periodic)
        return True

    def _lump(self, rows: Rows, kind: NDArray[np.uint8]) -> None:
        """Turn couplings along diagonals into faces; see lump_kernels."""
        count, shape = self._matrix.rows, self._geometry()
        cells = self._cells[:count].astype(np.int64)
        ascending = bool((cells[1:] > cells[:-1]).all())
        order = np.arange(count) if ascending else np.argsort(cells, kind="stable")
        known, node, node_kind = cells[order], order, self._kind
        halo = np.empty((0, 3), np.int64)
        if self._comm is not None:
            wanted, edge = lump_kernels.cells_beside(known, *shape)
            wanted = np.unique(wanted)
            told = known[edge], order[edge], self._kind[order[edge]]
            facts = CellDirectory(self._comm, int(np.prod(self._shape)), *told).look_up(wanted)
            halo = facts[facts[:, 0] >= 0]
            known = np.concatenate((known, wanted[facts[:, 0] >= 0]))
            node = np.concatenate((order, np.arange(count, count + len(halo))))
            node_kind = np.concatenate((self._kind, halo[:, 2].astype(np.uint8)))
            by_cell = np.argsort(known, kind="stable")
            known, node = known[by_cell], node[by_cell]
        flow, grounded = np.zeros((count + len(halo), 3)), np.zeros(count)
        lump_kernels.lump_rows(
            *self._csr, self._cells, kind, order, known, node, node_kind, *shape, rows.sign,
            self._diagonal, flow, grounded,
        )  # fmt: skip
        if self._comm is not None:
            messages = Messages(self._comm, halo[:, 0])
            row, share = messages.send(halo[:, 1]), messages.send(flow[count:])
            np.add.at(flow, row, share)
        row, axis, cut, dirichlet = lump_kernels.close_lumping(
            flow, grounded, self._cells, kind, self._diagonal, rows.by_cell,
            *_volume(rows.faces), rows.dirichlet,
        )  # fmt: skip
        fits = self._sum(cut) <= self._sum(dirichlet)
        raise_together(self._comm, self._faults.negative_face(row, axis) if row >= 0 and not fits else None)


def _volume(faces: tuple[NDArray[np.float64], ...]) -> tuple[NDArray[np.float64], ...]:
    """Faces of three axes; that across the one layer of a 2D grid has none."""
    return faces if len(faces) == 3 else (np.empty(0), *faces)
