"""The network of a PC ``cnn``: which engine serves a matrix, and its inference on this rank's rows."""

from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from consolve.base.errors import MatrixError
from consolve.learned.models import (
    Choice,
    Model,
    build_distributed_model,
    build_mesh_model,
    build_model,
    build_smoother,
    cycle_flops,
)
from consolve.learned.multilevel.graph.choice import look
from consolve.pde.matrix.stencil import Stencil
from consolve.pde.mesh.rows import MeshRows
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.petsc import events
from consolve.solvers.petsc.device_vectors import shared_tensors
from consolve.solvers.petsc.versions import PETSc, call, handle

if TYPE_CHECKING:
    from consolve.learned.auxiliary.gauss_seidel import GaussSeidel

_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")
"""Where MPI's launchers tell how many ranks this machine runs."""


def default_threads(working_for: int = 1) -> int:
    """Threads of the kernels on this rank: Numba's, shared among the ranks of this machine; those of so many
    ranks where it works for them."""
    texts = (os.environ.get(name, "") for name in _LOCAL_RANKS)
    ranks = next((int(t) for t in texts if t.isdigit() and int(t) > 0), PETSc.COMM_WORLD.size)
    return max(1, numba.get_num_threads() * min(working_for, ranks) // ranks)


class Network:
    """A model and the closed components of its operator.

    Attributes
    ----------
    components
        None on a regular operator.
    unknowns, rows
        Over all ranks.
    obstacle
        Why no engine serves the operator well, in words; empty where one does.
    """

    def __init__(self) -> None:
        self.components = ClosedComponents.none()
        self.unknowns = self.rows = 0
        self._flops = 0.0
        self.weights_line = self.obstacle = ""
        self._model: Model | None = None
        self._built_as: tuple[Any, ...] | None = None
        self._smoother: GaussSeidel | None = None
        self._projected: NDArray[np.float64] = np.empty(0)

    def set_up(self, pc: PETSc.PC, comm: Any, stencil: Stencil, choice: Choice) -> None:
        """Build, or update, the model that was chosen for a matrix; collective.

        Parameters
        ----------
        pc
            Whose messages they are.
        comm
            mpi4py communicator, or None: one rank.
        stencil
            What the local rows say.
        choice
            What the options say.
        """
        operator, rows = stencil.operator, stencil.grid.cells.size
        assert operator is not None
        serial = isinstance(operator, GridOperator)
        unknowns = int(np.count_nonzero(operator.active))
        totals = (unknowns, rows) if comm is None else comm.allreduce(np.array([unknowns, rows]))
        self.unknowns, self.rows = int(totals[0]), int(totals[1])
        self.components, self.obstacle = ClosedComponents.none(), ""
        if self.unknowns == 0:
            self._forget()
            return
        self._smoother = None  # its memory is free before the next is built
        seen = look(choice.name, operator, comm)
        choice = replace(choice, on_graph=seen.on_graph)
        self.obstacle = f"this grid needs multigrid on a graph, but {seen.obstacle}" if seen.obstacle else ""
        built_as = choice, serial, stencil.grid.shape, stencil.grid.periodic
        if self._built_as != built_as or self._model is None:
            self._forget()  # its memory is free before the next is built
            if isinstance(operator, GridOperator):
                cells = stencil.grid.cells.astype(np.int32, copy=False)
                self._model, self.weights_line = build_model(choice, operator, cells)
            else:
                tag = ctypes.c_int(0)
                call("PetscObjectGetNewTag", handle(pc), ctypes.byref(tag))
                self._model, self.weights_line = build_distributed_model(
                    choice, operator, comm, tag.value, events.CNN_HALO
                )
            self._built_as = built_as
        else:
            self._model.cells = stencil.grid.cells
            self._model.update(operator)
        self._smoother = build_smoother(choice, stencil)
        self._flops = cycle_flops(self._model) / (1 if comm is None else comm.size)
        self._find_closed_components(stencil)

    def set_up_mesh(self, comm: Any, rows: MeshRows, choice: Choice) -> None:
        """Build, or update, the model that was chosen for the matrix of a mesh; collective.

        Parameters
        ----------
        comm
            mpi4py communicator, or None: one rank.
        rows
            What the local rows say.
        choice
            What the options say.
        """
        own = rows.matrix.rows
        facts = np.array([own - rows.diagonal_rows.size, own])
        totals = facts if comm is None else comm.allreduce(facts)
        self.unknowns, self.rows = int(totals[0]), int(totals[1])
        self.components = ClosedComponents.none()
        self._forget()
        if self.unknowns == 0:
            return
        self._model, self.weights_line = build_mesh_model(choice, rows)
        self.components = self._model.components
        if self.components and self._projected.size != own:
            self._projected = np.empty(own)

    def _find_closed_components(self, stencil: Stencil) -> None:
        operator = stencil.operator
        if isinstance(operator, GridOperator):
            self.components = ClosedComponents.of(operator, stencil.grid.cells)
        elif self._model is not None:
            self.components = self._model.components
        if self.components and self._projected.size != stencil.grid.cells.size:
            self._projected = np.empty(stencil.grid.cells.size)

    def apply(self, source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
        """target = M source, without means over closed components; collective.

        Returns
        -------
        ``source`` without these means.
        """
        if self.components:
            self.components.remove(source, self._projected)
            source = self._projected
        if self._model is not None:
            if self._smoother is None:
                self._model.apply(source, target)
            else:
                self._smoother.apply(source, target, self._model.apply)
            events.log_flops(self.flops)
        if self.components:
            self.components.remove(target, target)
        return source

    def apply_on_device(self, r: PETSc.Vec, z: PETSc.Vec) -> bool:
        """z = M r where model and vectors are on a GPU, without a copy to the host.

        Returns
        -------
        False if that cannot be: then nothing has been done.
        """
        model: Any = self._model
        device = getattr(model, "device", None)
        if device is None or device.type != "cuda" or self.components:
            return False
        tensors = shared_tensors(r, z)
        if tensors is None:
            return False
        import torch

        torch.cuda.synchronize()  # PETSc and torch may use streams of their own
        model.apply_tensors(*tensors)
        torch.cuda.synchronize()
        return True

    def _forget(self) -> None:
        self.close()
        self._model, self._built_as, self._flops, self._smoother = None, None, 0.0, None

    def close(self) -> None:
        """Let go of what is not memory."""
        if self._model is not None:
            self._model.close()

    @property
    def flops(self) -> float:
        """Of one application, on this rank: an estimate."""
        smoothing = 0.0 if self._smoother is None else self._smoother.flops
        return getattr(self._model, "flops", self._flops) + smoothing

    @property
    def is_symmetric(self) -> bool:
        """M is linear and symmetric."""
        return bool(getattr(self._model, "is_symmetric", True))

    def allow_nonlinear(self, allowed: bool) -> None:
        """Let a model that has a nonlinear form take it, or its linear one."""
        model: Any = self._model
        if hasattr(model, "flexible"):
            model.flexible = allowed

    @property
    def model(self) -> Model | None:
        """The model; None where there are no unknowns."""
        return self._model


def mpi_communicator(mat: PETSc.Mat) -> Any:
    """mpi4py's communicator of a matrix, None on one rank.

    Raises
    ------
    MatrixError
        If mpi4py is not installed.
    """
    if mat.comm.size == 1:
        return None
    try:
        return mat.comm.tompi4py()
    except ImportError as error:
        raise MatrixError(
            f"the matrix is spread over {mat.comm.size} ranks, which PC cnn serves by mpi4py, and that "
            f"cannot be imported ({error}): pip install mpi4py, or run on one rank"
        ) from None
