"""PC ``cnn``: a trained multilevel convolutional network as a preconditioner.

=======================  =============  ============================================================
option                   default        meaning
=======================  =============  ============================================================
-pc_cnn_model NAME|FILE  auto           network: auto, multilevel (learned), mg (its classical
                                        twin), or a weights file
-pc_cnn_grid NX,NY[,NZ]  from the DMDA  rows number all cells of this grid, x fastest; the fastest
                                        index comes first
-pc_cnn_mask FILE        none           rows number the fluid cells of this image (.npy, .npz, .h5):
                                        0 fluid, 1 solid, 2 air
-pc_cnn_threads N        Numba's        threads of the kernels, on each rank
=======================  =============  ============================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from consolve import solver_options
from consolve.pde import GridOperator
from consolve.solvers import events, live_contexts
from consolve.solvers.errors import InconsistentRightHandSide, MatrixError
from consolve.solvers.grid_map import find_grid
from consolve.solvers.matrices import check_consistent
from consolve.solvers.models import Model, build_model, check_model_name, cycle_flops
from consolve.solvers.options import read_options
from consolve.solvers.petsc import PETSc, call, handle, reported
from consolve.solvers.stencil import Stencil, check_matrix, read_stencil
from consolve.solvers.stencil_kernels import remove_means, scale_entries

_SYMMETRIC_METHODS = frozenset(
    (
        "cg",
        "fcg",
        "groppcg",
        "pipecg",
        "pipecgrr",
        "pipefcg",
        "pipelcg",
        "pipeprcg",
        "minres",
        "symmlq",
        "chebyshev",
    )
)
"""KSP types that are for symmetric matrices; ``dcd`` copes with one-sided Dirichlet rows."""

_TOLERANT_METHODS = frozenset(
    ("cg", "fcg", "pipefcg", "fgmres", "pipefgmres", "gcr", "pipegcr", "dcd", "richardson")
)
"""KSP types whose residual stays true although single precision rounds M r."""


class PCCNN:
    """Python context of the PC type ``cnn``: z = M r, with M linear, symmetric and positive definite.

    M is the network's on the coupled rows of the matrix, and 1 / a_ii on rows without couplings.  On a
    singular operator both r and z lose their mean over each closed component (and the part in a null space
    that is attached to the matrix), so that M stays symmetric and maps into the range.

    A matrix with the stencil of a Poisson operator is expected, on one rank; see ``find_grid`` for how the
    rows are placed on a grid and ``read_stencil`` for what is refused.

    Attributes
    ----------
    model, grid, mask, threads
        As the options ``-pc_cnn_*``; a change takes effect at the next ``setUp``.
    setups
        Number of times that the network was set up or updated.
    """

    def __init__(self) -> None:
        self.model = "auto"
        self.grid: str | None = None
        self.mask: str | Path | None = None
        self.threads: int | None = None
        self.setups = 0
        self._release()

    def _release(self) -> None:
        self._network: Model | None = None
        self._built_as: tuple[str, int | None, tuple[int, ...]] | None = None
        self._weights_line = ""
        self._flops = 0.0
        self._stencil: Stencil | None = None
        self._group: NDArray[np.int32] | None = None
        self._group_size: NDArray[np.int64] = np.empty(0, np.int64)
        self._projected: NDArray[np.float64] = np.empty(0)
        self._null_space: PETSc.NullSpace | None = None
        self._work: PETSc.Vec | None = None

    @reported
    def create(self, pc: PETSc.PC) -> None:
        live_contexts.add("PC", pc)

    @reported
    def destroy(self, pc: PETSc.PC) -> None:
        live_contexts.discard("PC", pc)
        self._release()

    @reported
    def reset(self, pc: PETSc.PC) -> None:
        self._release()

    @reported
    def setFromOptions(self, pc: PETSc.PC) -> None:
        read_options(self, pc, solver_options.CNN, "PC cnn")

    @reported
    def setUp(self, pc: PETSc.PC) -> None:
        with events.CNN_SETUP:
            self._set_up(pc)

    def _set_up(self, pc: PETSc.PC) -> None:
        amat, pmat = pc.getOperators()
        attached = pmat.getNullSpace() or amat.getNullSpace()
        self._null_space = attached if attached else None
        self._stencil = None
        try:
            check_matrix(pmat)
            grid = find_grid(pmat, pc.getDM(), self.grid, self.mask)
            stencil = read_stencil(pmat, grid, singular=self._null_space is not None)
            if not isinstance(stencil.operator, GridOperator):
                raise MatrixError("the grid is periodic, and PC cnn needs walls: use -pc_type gamg")
        except MatrixError as error:
            raise MatrixError(f"PC cnn cannot use this matrix: {error}") from None
        check_model_name(self.model)
        with self._threads():
            self._set_up_network(stencil)
            self._find_closed_components(stencil)
        self._flops = 0.0 if self._network is None else cycle_flops(self._network)
        self._stencil = stencil
        self.setups += 1

    def _set_up_network(self, stencil: Stencil) -> None:
        operator, grid = stencil.operator, stencil.grid
        if operator.unknowns == 0:
            self._network = None
        elif self._network and self._built_as == (self.model, self.threads, grid.shape):
            self._network.cells = grid.cells
            self._network.update(operator)
        else:
            self._network = None  # its memory is free before the next is built
            self._network, self._weights_line = build_model(self.model, operator, grid.cells)
            self._built_as = self.model, self.threads, grid.shape

    def _find_closed_components(self, stencil: Stencil) -> None:
        self._group = None
        if not stencil.operator.is_singular:
            return
        labels, closed = stencil.operator.components
        number = np.append(np.where(closed, np.cumsum(closed) - 1, -1), -1).astype(np.int32)
        self._group = number[labels.reshape(-1)[stencil.grid.cells]]
        self._group_size = np.bincount(self._group[self._group >= 0], minlength=int(closed.sum()))
        if self._projected.size != self._group.size:
            self._projected = np.empty(self._group.size)

    @reported
    def preSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Refuse systems that a Krylov method would report as solved, or not solve, without a word of why."""
        stencil = self._stencil
        if stencil is None or ksp.getNormType() == PETSc.KSP.NormType.NONE or _estimates_eigenvalues(ksp):
            return  # a smoother or part of a preconditioner, which claims no convergence
        rtol = ksp.getTolerances()[0]
        if ksp.getType() not in _TOLERANT_METHODS and rtol < 1e-6:
            warnings.warn(
                f"-ksp_type {ksp.getType()} takes its preconditioner as exactly linear, and -pc_type cnn is "
                f"so in single precision: at rtol {rtol:g} it may stop with a true residual of about 1e-6; "
                "use cg, fgmres or dcd",
                stacklevel=2,
            )
        values = b.array_r
        if not np.isfinite(values).all():
            return  # the KSP itself ends with DIVERGED_NANORINF
        if self._null_space is None and self._group is not None:
            check_consistent(values, self._group, self._group_size.size)
        rows = stencil.diagonal_rows
        empty = rows[stencil.diagonal_inverse == 0]
        if empty.size and values[empty].any() and self._null_space is None:
            row = int(empty[np.flatnonzero(values[empty])[0]])
            raise InconsistentRightHandSide(
                f"row {row} of the matrix is zero and the right-hand side is {values[row]:.6g} there, so "
                "there is no solution: set it to 0, or take the row out of the system"
            )
        if stencil.one_sided and ksp.getType() in _SYMMETRIC_METHODS:
            start = x.array_r[rows] if ksp.getInitialGuessNonzero() else 0.0
            inverse = stencil.diagonal_inverse
            wrong = np.abs(values[rows] * inverse - start) > 1e-12 * np.abs(values).max() * np.abs(inverse)
            if wrong.any():
                row, method = int(rows[np.flatnonzero(wrong)[0]]), ksp.getType()
                raise MatrixError(
                    f"other rows couple to row {row}, which has a diagonal only (MatZeroRows): the matrix is "
                    f"not symmetric, as -ksp_type {method} needs it; use MatZeroRowsColumns, begin with an "
                    "initial guess that holds the boundary values, or use -ksp_type fgmres"
                )

    @reported
    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        if self._null_space is None:
            self._apply(r, z)
            return
        if self._work is None:
            self._work = r.duplicate()
        r.copy(self._work)
        self._null_space.remove(self._work)
        self._apply(self._work, z)
        self._null_space.remove(z)

    @reported
    def applyTranspose(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        self.apply(pc, r, z)

    @reported
    def applySymmetricLeft(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        raise NotImplementedError(
            "PC cnn has no halves L and L^T for -ksp_pc_side symmetric: use left or right, as in "
            "-ksp_type cg, which needs M itself only"
        )

    applySymmetricRight = applySymmetricLeft

    def _apply(self, r: PETSc.Vec, z: PETSc.Vec) -> None:
        stencil = self._stencil
        if stencil is None:
            raise RuntimeError("PC cnn is applied before setUp")
        source, target = r.array_r, z.array_w
        with events.CNN_APPLY, self._threads():
            if self._group is not None:
                remove_means(self._group, self._group_size, source, self._projected)
                source = self._projected
            if self._network is not None:
                self._network.apply(source, target)
                events.log_flops(self._flops)
            if self._group is not None:
                remove_means(self._group, self._group_size, target, target)
            if stencil.sign < 0:
                np.negative(target, out=target)
            if stencil.diagonal_rows.size:
                scale_entries(stencil.diagonal_rows, stencil.diagonal_inverse, source, target)

    @reported
    def view(self, pc: PETSc.PC, viewer: PETSc.Viewer) -> None:
        kind = viewer.getType()
        if kind == "string":
            call("PetscViewerStringSPrintf", handle(viewer), b" %s", f"model {self.model}".encode())
        elif kind == "ascii":
            for line in self._description(pc.comm.size):
                viewer.printfASCII(f"  {line}\n")

    def _description(self, ranks: int) -> Iterator[str]:
        if self._stencil is None:
            yield f"model {self.model}, not set up"
            return
        operator, rows = self._stencil.operator, self._stencil.grid.cells.size
        size = " x ".join(map(str, operator.shape[::-1]))
        diagonal = self._stencil.diagonal_rows.size
        yield f"grid {size} (NX x NY...) from {self._stencil.grid.origin}"
        yield f"rows {rows}: {operator.unknowns} in the network, {diagonal} without couplings"
        yield f"closed components {0 if self._group is None else self._group_size.size}"
        threads = self.threads or numba.get_num_threads()
        yield f"ranks {ranks}, threads on each {threads}, set up {self.setups} times"
        if self._network is None:
            yield f"model {self.model}, without unknowns to work on"
        else:
            yield f"model {self._weights_line}"
            yield f"memory {self._network.bytes / 2**20:.2f} MiB"
            for number, level in enumerate(self._network.levels):
                cells = " x ".join(map(str, level.shape[::-1]))
                yield f"level {number}: {cells} cells, {level.unknowns} unknowns, {level.bytes} bytes"

    def _threads(self) -> AbstractContextManager[None]:
        return nullcontext() if self.threads is None else _limited_to(self.threads)


@contextmanager
def _limited_to(threads: int) -> Iterator[None]:
    """Kernels use so many threads; the program's own number is restored."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _estimates_eigenvalues(ksp: PETSc.KSP) -> bool:
    """True for the inner KSP of Chebyshev, which runs a few iterations and solves nothing."""
    return (ksp.getOptionsPrefix() or "").endswith("esteig_")
