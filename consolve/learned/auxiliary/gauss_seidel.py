"""Symmetric Gauss-Seidel sweeps with a matrix, around a coarse correction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import raise_together
from consolve.base.errors import MatrixError
from consolve.learned.auxiliary import sweep_kernels as kernels
from consolve.pde.matrix.coupled_rows import CoupledRows
from consolve.pde.matrix.stencil_kernels import COUPLED

Correction = Callable[[NDArray[np.float64], NDArray[np.float64]], None]
"""(residual, correction) of the ordered rows: fills the second."""


BLOCK, MOST_BLOCKS = 4096, 64
"""Rows of a block at least, and blocks at most."""


class GaussSeidel:
    """z = M r, with sweeps G = (L + E)^-1 before a correction C and G' after it::

        z = G r;   z = z + C (r - S z);   z = z + G' (r - S z)

    M is symmetric if C is, and positive definite if C is positive semi-definite; see sweep_kernels for L and
    E.  S has float32 entries; vectors are float64.

    Parameters
    ----------
    rows
        The matrix sign * S.
    bounds
        First row of each block in the new order, and one past the last; default: blocks of equal size.
    order
        Local row of each row in the new order; default: as they are.
    sweeps
        Before and after the correction, 1 or more.

    Raises
    ------
    MatrixError
        If diagonal entries differ by more than single precision holds.
    """

    def __init__(
        self,
        rows: CoupledRows,
        bounds: NDArray[np.int64] | None = None,
        order: NDArray[np.intp] | None = None,
        sweeps: int = 1,
    ) -> None:
        self._sweeps, self._ghosts = sweeps, rows.matrix.values_of_ghosts()
        count = rows.matrix.rows
        if bounds is None:
            blocks = max(1, min(MOST_BLOCKS, count // BLOCK))
            bounds = np.arange(blocks + 1) * count // blocks
        self._bounds, self._moved = bounds, order is not None
        self._order = np.arange(count, dtype=np.int32) if order is None else order.astype(np.int32)
        place = np.empty_like(self._order)
        place[self._order] = np.arange(count, dtype=np.int32)
        self._place = place
        self._lower, self._outer = np.empty(count, np.int32), np.empty(count, np.int32)
        room = np.diff(rows.csr[0]) - 1
        if rows.csr[3].size > 1:
            room = room + np.diff(rows.csr[3])
        room[rows.kind[:count] != COUPLED] = 0
        self._start = np.zeros(count + 1, np.int64)
        np.cumsum(room[self._order], out=self._start[1:])
        self._column = np.empty(self._start[-1], np.int32)
        self._value = np.empty(self._start[-1], np.float32)
        self._inverse, self._surplus = np.empty(count, np.float32), np.empty(count, np.float32)
        ghosts = rows.kind.size - count
        self._r, self._t, self._c = (np.zeros(count) for _ in range(3))
        self._old, self._new = np.zeros(count + ghosts), np.zeros(count + ghosts)
        self._fill(rows)

    def _fill(self, rows: CoupledRows) -> None:
        """Take the values; collective."""
        count, comm = rows.matrix.rows, rows.matrix.comm
        largest = float(np.abs(rows.diagonal[:count]).max(initial=0.0))
        if comm is not None:  # one scale for all, since ghosts' values are exchanged
            largest = max(comm.allgather(largest))
        self._scale = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
        with np.errstate(all="ignore"):
            kernels.fill_entries(
                self._bounds, self._order, self._place, *rows.csr, rows.kind, rows.sign / self._scale,
                rows.diagonal, self._start, self._lower, self._outer, self._column, self._value,
                self._inverse, self._surplus,
            )  # fmt: skip
        error = None
        if not np.isfinite(self._inverse).all():
            error = MatrixError(
                f"diagonal entries differ by more than single precision holds (1e38 below {largest:.3g}); "
                "scale the rows of the extreme points, or take them out of the system"
            )
        raise_together(comm, error)

    def _share(self, z: NDArray[np.float64]) -> None:
        """Let the ghosts of ``z`` have their owners' values; collective."""
        if self._ghosts is not None:
            local = z[: self._r.size]
            z[self._r.size :] = self._ghosts(local[self._place] if self._moved else local)

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64], correct: Correction) -> None:
        """z = M r; collective.

        Parameters
        ----------
        r, z
            float64, of the local rows as the matrix has them; z = 0 in rows without couplings.
        correct
            The coarse correction, on ordered rows.
        """
        bounds, source = self._bounds, r
        if self._moved:
            source = self._r
            kernels.gather(bounds, self._order, r, source)
        matrix = self._column, self._value, self._inverse
        old, new = self._old, self._new
        kernels.first_sweep(bounds, self._start, self._lower, *matrix, source, new)
        for _ in range(self._sweeps - 1):
            self._share(new)
            old, new = new, old
            kernels.forward_sweep(bounds, self._start, self._lower, *matrix, self._surplus, source, old, new)
        self._share(new)
        if self._sweeps == 1:
            kernels.residual_after_first(
                bounds, self._start, self._lower, *matrix[:2], self._surplus, new, self._t
            )
        else:
            kernels.residual(bounds, self._start, *matrix, self._surplus, source, new, self._t)
        correct(self._t, self._c)
        kernels.add(bounds, self._scale, self._c, new)
        for _ in range(self._sweeps):
            self._share(new)
            old, new = new, old
            kernels.backward_sweep(
                bounds, self._start, self._lower, self._outer, *matrix, self._surplus, source, old, new
            )
        self._old, self._new = old, new
        kernels.scatter(bounds, self._order, 1 / self._scale, new, z)

    @property
    def bytes(self) -> int:
        """Memory held."""
        names = "_order _place _lower _outer _start _column _value _inverse _surplus _r _t _c _old _new"
        return sum(getattr(self, name).nbytes for name in names.split())

    @property
    def flops(self) -> float:
        """Of one application without the correction."""
        return 4.0 * self._sweeps * (self._value.size + 2 * self._r.size)
