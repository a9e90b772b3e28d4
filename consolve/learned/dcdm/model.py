"""The networks of the deep conjugate direction method as models of PC ``cnn``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.base.errors import OptionError
from consolve.learned.dcdm.format import SHIPPED, is_dcdm_file, load_dcdm_weights
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents, closed_numbers


def is_dcdm(name: str) -> bool:
    """True if the model is one of these networks: by its name, or by what its file holds."""
    return name in SHIPPED or is_dcdm_file(name)


def build_dcdm(
    name: str,
    operator: GridOperator,
    cells: NDArray[np.integer],
    threads: int,
    precision: str,
    device: str,
) -> tuple[Any, str]:
    """The network ``name`` for the operator of one process.

    Returns
    -------
    A DCDMPreconditioner, and one line that names its weights.

    Raises
    ------
    OptionError
        If torch cannot be imported, or the device is not there.
    WeightsError
        If the weights cannot be loaded.
    """
    weights = load_dcdm_weights(name, operator.ndim)
    try:
        from consolve.learned.dcdm.inference import DCDMPreconditioner, checked_device
    except ImportError as error:
        raise OptionError(
            f"-pc_cnn_model {name}: this network runs in torch, which cannot be imported ({error}): "
            "pip install 'consolve[train]', or use -pc_cnn_model multilevel, which needs no torch"
        ) from None
    try:
        checked_device(device)
    except ValueError as error:
        raise OptionError(f"-pc_cnn_device {device}: {error}") from None
    line = f"{name}, {weights.parameters} parameters, weights {weights.digest}"
    return DCDMPreconditioner(operator, weights, cells, threads, precision, device), line


class GatheredDCDM:
    """One network on the first rank for the rows of all ranks; for periodic grids too.

    Each application gathers r and scatters z.  The network knows nothing of periodic axes: it sees zeros
    beyond both of their ends.

    Parameters
    ----------
    operator
        The local rows.
    comm
        mpi4py communicator, or None: one rank.
    build
        Makes the model and its line from an operator and the cell of each row, on the first rank.

    Attributes
    ----------
    line
        Names the weights.
    is_symmetric
        As of the network.
    components
        See ``Model``.
    """

    levels: tuple[()] = ()

    def __init__(
        self,
        operator: RowOperator,
        comm: Any,
        build: Callable[[GridOperator, NDArray[np.integer]], tuple[Any, str]],
    ) -> None:
        self._comm, self._build = comm, build
        self._first: Any = None
        self.cells = operator.cells
        self.line, self.is_symmetric, self.bytes, self.description = "", False, 0, ""
        self.components = ClosedComponents.none()
        self.update(operator)

    def update(self, operator: RowOperator) -> None:
        """Take a changed operator; the network stays as it is.  Collective."""
        self._counts = [operator.rows] if self._comm is None else self._comm.allgather(operator.rows)
        cells, active = self._gather(operator.cells), self._gather(operator.active.astype(np.uint8))
        faces = [self._gather(face) for face in operator.face_coefficient]
        dirichlet = self._gather(operator.dirichlet)
        closed, facts = ClosedComponents.none(), None
        with together(self._comm):
            if cells is not None:
                whole, wrapped = grid_of_rows(operator.shape, cells, faces, dirichlet, active)
                if self._first is None:
                    self._first, self.line = self._build(whole, cells)
                else:
                    self._first.cells = cells
                    self._first.update(whole)
                closed = closed_rows(whole, wrapped, cells)
                first = self._first
                facts = self.line, first.is_symmetric, first.bytes, first.description, closed.size
        if self._comm is not None:
            facts = self._comm.bcast(facts)
        assert facts is not None
        self.line, self.is_symmetric, self.bytes, self.description, size = facts
        self.components = closed
        if self._comm is not None and size.size:
            self.components = ClosedComponents(self._scatter(closed.group, np.int32), size, self._comm)

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = |r| f(r / |r|), |r| over all ranks; collective."""
        source = self._gather(r)
        target = np.empty(0) if source is None else np.empty(source.size)
        with together(self._comm):
            if source is not None:
                self._first.apply(source, target)
        z[:] = self._scatter(target, np.float64)

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


def grid_of_rows(
    shape: tuple[int, ...],
    cells: NDArray[np.int64],
    faces: list[NDArray[np.float64]],
    dirichlet: NDArray[np.float64],
    active: NDArray[np.uint8],
) -> tuple[GridOperator, list[NDArray[np.float64]]]:
    """The operator on all cells without the faces from last to first cells, and these: one array per axis,
    of the shape of the grid without the axis."""

    def spread(values: NDArray) -> NDArray:
        grid = np.zeros(int(np.prod(shape)), values.dtype)
        grid[cells] = values
        return grid.reshape(shape)

    volumes, wrapped = [spread(face) for face in faces], []
    for axis, volume in enumerate(volumes):
        last = np.moveaxis(volume, axis, 0)[-1]
        wrapped.append(last.copy())
        last[...] = 0
    return GridOperator(tuple(volumes), spread(dirichlet), spread(active.astype(np.bool_))), wrapped


def closed_rows(
    operator: GridOperator, wrapped: list[NDArray[np.float64]], cells: NDArray[np.integer]
) -> ClosedComponents:
    """The closed components of the rows in the given cells; operator and wrapped as from ``grid_of_rows``."""
    labels, closed = operator.components
    pairs = [np.empty((0, 2), np.int64)]
    for axis, face in enumerate(wrapped):
        layers = np.moveaxis(labels, axis, 0)
        pairs.append(np.stack([layers[-1][face > 0], layers[0][face > 0]], 1).astype(np.int64))
    number = closed_numbers(~closed, np.concatenate(pairs))
    group = np.append(number, np.int32(-1))[labels.reshape(-1)[cells]]
    return ClosedComponents.of_groups(group, int(number.max(initial=-1)) + 1)
