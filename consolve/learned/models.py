"""The networks that ``-pc_cnn_model``, and ``model=`` of the front doors, choose from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.base.errors import MatrixError, OptionError
from consolve.learned.dcdm.format import SHIPPED
from consolve.learned.dcdm.model import GatheredDCDM, build_dcdm, is_dcdm
from consolve.learned.multilevel.cycle.transfer import Traffic
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import Weights, load_weights
from consolve.learned.multilevel.graph import choice as graph_choice
from consolve.learned.multilevel.ranks.preconditioner import DistributedMultilevel, UnservedGrid
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents

MODELS = ("auto", "multilevel", "mg", *SHIPPED)
"""Names of ``-pc_cnn_model``; any other value is the path of a weights file."""

DEFAULT = "multilevel"
"""What ``auto`` stands for."""
GATHERED_CELLS = 32_768
"""Default of ``-pc_cnn_gathered_cells``."""

GRAPH_LINE = "multigrid on a graph, for thin walls, stretched cells or jumps"
"""What the view says of it."""


@dataclass(frozen=True)
class Choice:
    """What the options say of a model.

    Parameters
    ----------
    name
        Of the model.
    threads
        Of the kernels on this rank.
    gathered_cells
        Levels with at most so many cells go to one rank.
    precision, device
        Of torch; ``auto`` and ``cpu`` for networks that do without.
    on_graph
        A multilevel model works on a graph, as ``needs_graph`` says.
    """

    name: str
    threads: int
    gathered_cells: int = GATHERED_CELLS
    precision: str = "auto"
    device: str = "cpu"
    on_graph: bool = False


class Model(Protocol):
    """A map M, built from a grid operator A so that M A is close to 1.

    Linear, symmetric and positive definite, unless an attribute ``is_symmetric`` says False: then only
    homogeneous.
    """

    cells: Any
    """C-order cell index of each entry; read again by ``update``."""
    components: ClosedComponents
    """Of the rows, as far as the model had to look for them."""

    @property
    def levels(self) -> Sequence[Any]:
        """Facts of each level, finest first; none where there are no levels."""

    @property
    def bytes(self) -> int:
        """Memory held."""

    def apply(self, r: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """z = M r, one entry for each row; 0 where the row's cell is not active."""

    def update(self, operator: Any) -> None:
        """Set up again for a changed operator of the same shape."""

    def close(self) -> None:
        """Let go of what is not memory, such as requests of MPI."""


def check_model_name(name: str | os.PathLike[str]) -> str:
    """``name``, or the path of a file, as text, if it can be a model.

    Raises
    ------
    OptionError
        If it is neither a name in ``MODELS`` nor an existing file.
    """
    name = os.fspath(name)
    if name not in MODELS and not Path(name).is_file():
        raise OptionError(
            f"no model and no file {name!r}; -pc_cnn_model takes {', '.join(MODELS)}, or a weights file "
            "FILE.h5 made by 'consolve train'"
        )
    return name


def load_multilevel(model: str | os.PathLike[str], ndim: int) -> Weights:
    """Weights of a multilevel network for grids of a dimension.

    Raises
    ------
    OptionError
        If the model is another network.
    WeightsError
        If its file cannot be used.
    """
    name = check_model_name(model)
    if is_dcdm(name):
        raise OptionError(
            f"model {name!r} is a network in torch, expected auto, multilevel, mg or a weights file made by "
            "'consolve train multilevel'"
        )
    return load_weights(DEFAULT if name == "auto" else name, ndim)


def needs_graph(name: str, operator: GridOperator | RowOperator) -> bool:
    """True where a model, by its name, and the operator of one process are for multigrid on a graph."""
    if not isinstance(operator, GridOperator) or is_dcdm(name):
        return False
    return graph_choice.needs_graph(name, operator)


def build_model(choice: Choice, operator: GridOperator, cells: NDArray[np.int32]) -> tuple[Model, str]:
    """Build a network for the operator of one process.

    Returns
    -------
    The model, and one line that names its weights.
    """
    if is_dcdm(choice.name):
        return build_dcdm(choice.name, operator, cells, choice.threads, choice.precision, choice.device)
    weights, line = _load(choice, operator.ndim)
    if choice.on_graph:  # its kernels are compiled only here
        from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner

        return GraphPreconditioner(operator, cells), GRAPH_LINE
    return MultilevelPreconditioner(operator, weights, cells), line


def build_distributed_model(
    choice: Choice, operator: RowOperator, comm: Any, tag: int, event: Any
) -> tuple[Model, str]:
    """Build a network for the operator of several ranks, or of a periodic grid; collective.

    Parameters
    ----------
    choice
        What the options say.
    operator
        The local rows.
    comm
        mpi4py communicator, or None: one rank.
    tag, event
        Of the messages: their tag, and a context manager that logs their time.

    Returns
    -------
    As build_model.
    """
    with together(comm):
        of_dcdm = is_dcdm(choice.name)
    if of_dcdm if comm is None else all(comm.allgather(of_dcdm)):
        one = (choice.threads, choice.precision, choice.device)
        gathered = GatheredDCDM(
            operator, comm, lambda whole, cells: build_dcdm(choice.name, whole, cells, *one)
        )
        return gathered, gathered.line
    with together(comm):
        weights, line = _load(choice, operator.ndim)
    try:
        model = DistributedMultilevel(
            operator, weights, comm, choice.threads, choice.gathered_cells, Traffic(tag, event)
        )
    except UnservedGrid as error:
        raise MatrixError(str(error)) from None
    return model, line


def _load(choice: Choice, ndim: int) -> tuple[Weights, str]:
    name = DEFAULT if choice.name == "auto" else choice.name
    for option, value, only in (
        ("precision", choice.precision, ("auto", "float32")),
        ("device", choice.device, ("cpu",)),
    ):
        if value not in only:
            raise OptionError(
                f"-pc_cnn_{option} {value} is for the networks that run in torch (-pc_cnn_model "
                f"{', '.join(SHIPPED)}, or a file made by 'consolve train dcdm'), not for {name!r}: leave "
                "the option out, or choose such a model"
            )
    weights = load_multilevel(name, ndim)
    return weights, f"{name}, {weights.parameters} parameters, weights {weights.digest}"


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
