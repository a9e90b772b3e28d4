"""The networks that ``-pc_cnn_model`` chooses from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consolve.pde import GridOperator
from consolve.pde.row_operator import RowOperator
from consolve.solvers.collective import together
from consolve.solvers.errors import MatrixError, OptionError

MODELS = ("auto", "multilevel", "mg")
"""Names of ``-pc_cnn_model``; any other value is the path of a weights file."""

DEFAULT = "multilevel"
"""What ``auto`` stands for."""


class Model(Protocol):
    """A symmetric positive definite linear map M, built from a grid operator A so that M A is close to 1."""

    cells: Any
    """C-order cell index of each entry; read again by ``update``."""
    group: NDArray[np.int32] | None
    """Closed component of each row, -1 for rows of none; None where not looked for, or there are none."""
    group_size: NDArray[np.int64]
    """Rows of each over all ranks."""

    @property
    def levels(self) -> list[Any]:
        """Facts of each level, finest first."""

    @property
    def bytes(self) -> int:
        """Memory held."""

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r, one entry for each row; 0 where the row's cell is not active."""

    def update(self, operator: Any) -> None:
        """Set up again for a changed operator of the same shape."""

    def close(self) -> None:
        """Let go of what is not memory, such as requests of MPI."""


def check_model_name(name: str) -> str:
    """``name`` if it can be a model.

    Raises
    ------
    OptionError
        If it is neither a name in ``MODELS`` nor an existing file.
    """
    if name not in MODELS and not Path(name).is_file():
        raise OptionError(
            f"no model and no file {name!r}; -pc_cnn_model takes {', '.join(MODELS)}, or a weights file "
            "FILE.h5 made by 'consolve train'"
        )
    return name


def build_model(name: str, operator: GridOperator, cells: NDArray[np.int32]) -> tuple[Model, str]:
    """Build the network ``name`` for the operator of one process.

    Returns
    -------
    The model, and one line that names its weights.
    """
    from consolve.learned.multilevel import MultilevelPreconditioner

    weights, line = _load(name, operator.ndim)
    return MultilevelPreconditioner(operator, weights, cells), line


def build_distributed_model(
    name: str, operator: RowOperator, comm: Any, threads: int, gathered: int, tag: int, event: Any
) -> tuple[Model, str]:
    """Build the network ``name`` for the operator of several ranks, or of a periodic grid; collective.

    Parameters
    ----------
    name
        Of the model.
    operator
        The local rows.
    comm
        mpi4py communicator, or None: one rank.
    threads
        Of the kernels on this rank.
    gathered
        Levels with at most so many cells go to one rank.
    tag, event
        Of the messages: their tag, and a context manager that logs their time.

    Returns
    -------
    As build_model.
    """
    from consolve.learned.distributed import DistributedMultilevel, UnservedGrid
    from consolve.learned.transfer import Traffic

    with together(comm):
        weights, line = _load(name, operator.ndim)
    try:
        return DistributedMultilevel(operator, weights, comm, threads, gathered, Traffic(tag, event)), line
    except UnservedGrid as error:
        raise MatrixError(f"PC cnn cannot use this matrix: {error}") from None


def _load(name: str, ndim: int) -> tuple[Any, str]:
    from consolve.learned.weights import load_weights

    weights = load_weights(DEFAULT if name == "auto" else name, ndim)
    line = f"{DEFAULT if name == 'auto' else name}, {weights.parameters} parameters, weights {weights.digest}"
    return weights, line


def cycle_flops(model: Model) -> float:
    """Additions and multiplications of one V-cycle over the unknowns of each level; 0 where not known.

    A relaxation costs 5 and for each neighbour 4, on the finest level 2 (its faces are counted as equal, so
    that with variable coefficients the count is a lower bound); a transfer costs 2 for each coarse neighbour
    and 2 for the own block; the coarsest level is a dense product.
    """
    weights = getattr(model, "weights", None)
    if weights is None or not model.levels:
        return 0.0
    sweeps = weights.tensors["alpha"].shape[1]
    *levels, coarsest = model.levels
    total = 2.0 * coarsest.unknowns**2
    for number, level in enumerate(levels):
        axes = len(level.shape)
        row = (4 if number else 2) * axes
        # Down: the first colour sees b only, the last relaxation leaves its residual behind.
        residual = row + 2 + (2 if sweeps > 1 else row + 2)
        down = 0.5 * (2 + (row + 2) + (2 * sweeps - 2) * (row + 5) + residual)
        total += level.unknowns * (down + sweeps * (row + 5) + 4 * (axes + 1))
    return total
