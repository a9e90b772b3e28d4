"""The networks that ``-pc_cnn_model``, and ``model=`` of the front doors, choose from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.base.errors import MatrixError, OptionError
from consolve.learned.dcdm.format import SHIPPED
from consolve.learned.dcdm.model import build_dcdm, is_dcdm
from consolve.learned.gathered import GatheredModel
from consolve.learned.multilevel.cycle.transfer import Traffic
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import Weights, load_weights
from consolve.learned.multilevel.graph.choice import gathering_obstacle, needs_graph
from consolve.learned.multilevel.ranks.preconditioner import DistributedMultilevel, UnservedGrid
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.matrix.stencil import Stencil
from consolve.pde.mesh.rows import MeshRows
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.pde.poisson.periodic import PeriodicOperator

if TYPE_CHECKING:
    from consolve.learned.auxiliary.gauss_seidel import GaussSeidel

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
        A multilevel model works on a graph, as ``graph.choice.look`` says.
    smooth
        Gauss-Seidel sweeps with the matrix, before and after the network; None: one where the grid's operator
        is not the matrix, else none.
    gathered_threads
        Of the kernels where one rank works for all and the others sleep; 0: ``threads``.
    """

    name: str
    threads: int
    gathered_cells: int = GATHERED_CELLS
    precision: str = "auto"
    device: str = "cpu"
    on_graph: bool = False
    smooth: int | None = None
    gathered_threads: int = 0


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
        # The network knows nothing of periodic axes: it sees zeros beyond both of their ends.
        one = (choice.threads, choice.precision, choice.device)
        gathered = GatheredModel(
            operator,
            comm,
            lambda whole, cells: build_dcdm(choice.name, whole, cells, *one),
            choice.threads,
            periodic=False,
        )
        return gathered, gathered.line
    with together(comm):
        weights, line = _load(choice, operator.ndim)
    if choice.on_graph:
        return _gathered_graph(choice, operator, comm)
    try:
        model = DistributedMultilevel(
            operator, weights, comm, choice.threads, choice.gathered_cells, Traffic(tag, event)
        )
    except UnservedGrid as error:
        if any(operator.periodic) and not gathering_obstacle(operator.shape, comm):
            return _gathered_graph(choice, operator, comm)  # which takes rings of any length
        raise MatrixError(str(error)) from None
    return model, line


def build_mesh_model(choice: Choice, rows: MeshRows) -> tuple[Model, str]:
    """Build a network for the points of a mesh; collective.

    Returns
    -------
    As build_model.
    """
    from consolve.learned.auxiliary.mesh_model import (
        MeshModel,
        is_uneven,
    )  # its kernels are compiled only here

    comm = rows.matrix.comm
    with together(comm):
        if is_dcdm(choice.name):
            raise OptionError(
                f"-pc_cnn_model {choice.name} needs rows that number the cells of a grid, and this matrix is "
                "that of a mesh: use auto, multilevel or mg"
            )
        if choice.smooth == 0:
            raise OptionError("-pc_cnn_smooth 0: a mesh needs one Gauss-Seidel sweep at least")
        if (
            choice.name == "auto"
        ):  # perceptrons save nothing there, and their set-up takes three times as long
            choice = replace(choice, name="mg")
        _, line = _load(choice, rows.points.shape[1])

    def build(operator: GridOperator, cells: NDArray[np.int32]) -> Model:
        on_graph = is_uneven(operator) and needs_graph(choice.name, operator)
        return build_model(replace(choice, on_graph=on_graph), operator, cells)[0]

    return MeshModel(rows, build, 1 if choice.smooth is None else choice.smooth), line


def build_smoother(choice: Choice, stencil: Stencil) -> GaussSeidel | None:
    """Sweeps with the matrix around a network, where its grid's operator is not the matrix; collective."""
    if stencil.rows is None or choice.smooth == 0 or is_dcdm(choice.name):
        return None
    from consolve.learned.auxiliary.gauss_seidel import GaussSeidel

    return GaussSeidel(stencil.rows, sweeps=choice.smooth or 1)


def _gathered_graph(choice: Choice, operator: RowOperator, comm: Any) -> tuple[Model, str]:
    from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner

    threads = choice.gathered_threads or choice.threads

    def build(whole: PeriodicOperator, cells: NDArray[np.integer]) -> tuple[GraphPreconditioner, str]:
        return GraphPreconditioner(whole, cells, threads), GRAPH_LINE

    return GatheredModel(operator, comm, build, threads), GRAPH_LINE


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
