"""A model on the first rank for the rows of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import rest, together
from consolve.base.threads import limited_to
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.periodic import PeriodicOperator

Build = Callable[[Any, NDArray[np.integer]], tuple[Any, str]]


class GatheredModel:
    """One model on the first rank for the rows of all ranks; for periodic grids too.

    Each application gathers r and scatters z.  The constructor and all methods are collective.

    Parameters
    ----------
    operator
        The local rows.
    comm
        mpi4py communicator, or None: one rank.
    build
        Makes the model and its line from the whole operator and the cell of each row, on the first rank.
    threads
        Of the kernels on the first rank, while the others sleep.
    periodic
        The model takes a PeriodicOperator; else a GridOperator, without faces from last to first cells.

    Attributes
    ----------
    line
        Names the weights.
    is_symmetric
        As of the model, unless ``flexible`` allows it another form.
    flexible
        The caller takes a nonlinear M; of use where the model has one.
    levels, bytes, description
        Of the model; the same on all ranks.
    ranks
        Ranks that hold a part of each level.
    components
        See ``Model``.

    Raises
    ------
    Exception
        On all ranks, what the model raised on the first one.
    """

    ranks: Sequence[int] = (1,)

    def __init__(
        self, operator: RowOperator, comm: Any, build: Build, threads: int, periodic: bool = True
    ) -> None:
        self._comm, self._build, self._threads, self._periodic = comm, build, threads, periodic
        self._first: Any = None
        self.cells = operator.cells
        self.line, self.bytes, self.description, self._flexible = "", 0, "", False
        self.levels: Sequence[Any] = ()
        self._symmetric = (False, False)
        self.components = ClosedComponents.none()
        self.update(operator)

    def update(self, operator: RowOperator) -> None:
        """Take a changed operator."""
        self._counts = [operator.rows] if self._comm is None else self._comm.allgather(operator.rows)
        cells, active = self._gather(operator.cells), self._gather(operator.active.astype(np.uint8))
        faces = [self._gather(face) for face in operator.face_coefficient]
        dirichlet = self._gather(operator.dirichlet)
        closed, facts = ClosedComponents.none(), None
        with self._alone():
            if cells is not None:
                whole = PeriodicOperator.of_rows(operator.shape, cells, faces, dirichlet, active)
                del faces, dirichlet, active
                taken = whole if self._periodic else whole.inner
                if self._first is None:
                    self._first, self.line = self._build(taken, cells)
                else:
                    self._first.cells = cells
                    self._first.update(taken)
                closed = whole.closed_components(cells)
                facts = self.line, self._first.bytes, self._first.levels, closed.size, self._facts_of_form()
        if self._comm is not None:
            facts = self._comm.bcast(facts)
        assert facts is not None
        self.line, self.bytes, self.levels, size, (self._symmetric, self.description) = facts
        self.components = closed
        if self._comm is not None and size.size:
            self.components = ClosedComponents(self._scatter(closed.group, np.int32), size, self._comm)

    def _facts_of_form(self) -> tuple[tuple[bool, bool], str]:
        """Whether the model is symmetric, without and with ``flexible``, and how it is described."""
        first = self._first
        if not hasattr(first, "flexible"):
            return (first.is_symmetric,) * 2, getattr(first, "description", "")
        forms = []
        for first.flexible in (False, True):
            forms.append(bool(first.is_symmetric))
        first.flexible = self._flexible
        return (forms[0], forms[1]), getattr(first, "description", "")

    @property
    def is_symmetric(self) -> bool:
        """M is linear and symmetric."""
        return self._symmetric[self._flexible]

    @property
    def flexible(self) -> bool:
        """See the class."""
        return self._flexible

    @flexible.setter
    def flexible(self, allowed: bool) -> None:
        self._flexible = allowed
        if hasattr(self._first, "flexible"):
            self._first.flexible = allowed

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r on the local rows."""
        source = self._gather(r)
        target = np.empty(0) if source is None else np.empty(source.size)
        with self._alone():
            if source is not None:
                self._first.apply(source, target)
        z[:] = self._scatter(target, np.float64)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The first rank works, the others sleep; what it raises, all raise."""
        with together(self._comm):
            try:
                with limited_to(self._threads):
                    yield
            finally:
                rest(self._comm)

    def _gather(self, values: NDArray) -> Any:
        """The values of all ranks on the first, None on the others."""
        if self._comm is None:
            return values
        values = np.ascontiguousarray(values)
        whole = np.empty(sum(self._counts), values.dtype) if self._comm.rank == 0 else None
        self._comm.Gatherv(values, None if whole is None else [whole, self._counts])
        return whole

    def _scatter(self, whole: NDArray, dtype: type[np.generic]) -> NDArray:
        """Each rank's part of what the first rank holds."""
        if self._comm is None:
            return whole
        own = np.empty(self._counts[self._comm.rank], dtype)
        self._comm.Scatterv([whole, self._counts] if self._comm.rank == 0 else None, own)
        return own

    @property
    def flops(self) -> float:
        """Of one application, on this rank."""
        return self._first.flops if self._first is not None else 0.0

    def close(self) -> None:
        """Nothing but memory is held."""
