"""PC ``cnn``: a trained multilevel convolutional network as a preconditioner.

========================  =============  ===========================================================
option                    default        meaning
========================  =============  ===========================================================
-pc_cnn_model NAME|FILE   auto           network: auto, multilevel (learned), mg (its classical
                                         twin), in torch dcdm (as published), dcdm-image (the same,
                                         which sees walls; both for -ksp_type dcd and other flexible
                                         methods) and dcdm-deep, or a weights file
-pc_cnn_grid NX,NY[,NZ]   from the DMDA  rows number all cells of this grid, x fastest; the fastest
                                         index comes first
-pc_cnn_mask FILE         none           rows number the fluid cells of this image (.npy, .npz,
                                         .h5): 0 fluid, 1 solid, 2 air
-pc_cnn_threads N         all, shared    threads of the kernels on each rank; by default Numba's,
                                         shared among the ranks of a machine
-pc_cnn_gathered_cells N  32768          on several ranks: levels with at most so many cells go to
                                         one of them
-pc_cnn_precision NAME    auto           of networks in torch: float32, bfloat16, or auto, which is
                                         float32
-pc_cnn_device NAME       cpu            of networks in torch: cpu, cuda, or cuda:N
-pc_cnn_smooth N          auto           Gauss-Seidel sweeps with the matrix before and after the
                                         network; auto: 1 where the network's grid only comes near
                                         to the matrix (9- and 27-point stencils, meshes), else 0
-pc_cnn_fallback NAME     none           hypre or gamg: PETSc's PC that takes the system over
                                         (options under cnn_fallback_) where no engine serves it:
                                         dcd stagnates, or memory is short; none: a warning says so
========================  =============  ===========================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.base.errors import MatrixError
from consolve.base.messages import warn
from consolve.base.options_table import CNN
from consolve.base.threads import check_not_forked, limited_to
from consolve.learned.models import GATHERED_CELLS, Choice, Model, check_model_name
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.pde.matrix.stencil import Stencil
from consolve.pde.matrix.stencil_kernels import scale_entries
from consolve.pde.mesh.rows import MeshRows, fits_grid, read_mesh
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.fallback import Fallback
from consolve.solvers.grid_route import GridRoute
from consolve.solvers.matrix.attached import CELLS, attached_points
from consolve.solvers.matrix.boundary_rows import BoundaryRows
from consolve.solvers.matrix.find_grid import find_grid
from consolve.solvers.matrix.local_matrix import LocalMatrix, as_aij
from consolve.solvers.matrix.plex_points import PlexPoints
from consolve.solvers.matrix.stencil import check_matrix, null_rows, read_stencil
from consolve.solvers.network import Network, default_threads, mpi_communicator
from consolve.solvers.petsc import events, live_contexts
from consolve.solvers.petsc.options import read_options
from consolve.solvers.petsc.reporting import reported
from consolve.solvers.petsc.versions import PETSc, call, handle
from consolve.solvers.presolve import (
    FLEXIBLE_CONJUGATE_METHODS,
    check_system,
    claims_convergence,
    refuse_unfit_method,
    start_with_boundary_values,
    warn_of_method,
)


class PCCNN:
    """Python context of the PC type ``cnn``: z = M r, with M linear, symmetric and positive definite.

    The published network of the deep conjugate direction method is none of this, only homogeneous,
    M(s r) = s M r for s > 0: methods that need more are refused.  On several ranks the first one applies
    the networks of this method to the rows of all.

    M is the network's on the coupled rows of the matrix, and 1 / a_ii on rows without couplings.  On a
    singular operator both r and z lose their mean over each closed component (and the part in a null space
    that is attached to the matrix), so that M stays symmetric and maps into the range.  Where other rows
    couple to such a row, one-sidedly, M is that of the system without it; see ``BoundaryRows``.

    A matrix with the stencil of a Poisson operator is expected; see ``find_grid`` for how the rows are placed
    on a grid and ``read_stencil`` for what is refused.

    Attributes
    ----------
    model, grid, mask, threads, gathered_cells, precision, device, smooth, fallback
        As the options ``-pc_cnn_*``; a change takes effect at the next ``setUp``.
    coordinates
        (local rows, dim), from PCSetCoordinates.  What ``attach_points`` gave to the matrix comes first.
    setups
        Number of times that the network was set up or updated.
    """

    def __init__(self) -> None:
        self.model = "auto"
        self.grid: str | None = None
        self.mask: str | Path | None = None
        self.threads: int | None = None
        self.gathered_cells = GATHERED_CELLS
        self.precision, self.device, self.fallback = "auto", "cpu", "none"
        self.smooth: int | None = None
        self.coordinates: NDArray[np.float64] | None = None
        self._plex = PlexPoints()
        self._served = Network()
        self.setups = 0
        self._gave_guess = False
        self._state = -1
        self._null_space: PETSc.NullSpace | None = None
        self._work: PETSc.Vec | None = None
        self._boundary: BoundaryRows | None = None
        self._taken_over: Fallback | None = None
        self._release()

    def _release(self) -> None:
        self._served.close()
        self._served = Network()
        self._comm: Any = None
        self._stencil: Stencil | MeshRows | None = None
        self._given_up = ""
        self._release_petsc()

    def _release_petsc(self) -> None:
        """Give up what PETSc holds for us; PETSc 3.18 would keep what Python alone lets go."""
        for held in (self._null_space, self._work, self._boundary, self._taken_over):
            if held is not None:
                held.destroy()
        self._null_space = self._work = self._boundary = self._taken_over = None

    @property
    def network(self) -> Model | None:
        """The model in use; None before setUp, and where the matrix has no coupled rows."""
        return self._served.model

    @property
    def flops(self) -> float:
        """Of one application, on this rank: an estimate."""
        return self._served.flops

    @property
    def components(self) -> ClosedComponents:
        """The closed components of the operator."""
        return self._served.components

    @reported
    def create(self, pc: PETSc.PC) -> None:
        events.register()
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
        read_options(self, pc, CNN, "PC cnn", {"pc_cnn_model": check_model_name})

    @reported
    def setUp(self, pc: PETSc.PC) -> None:
        with events.CNN_SETUP:
            self._set_up(pc)

    def _set_up(self, pc: PETSc.PC) -> None:
        check_not_forked()
        amat, pmat = pc.getOperators()
        attached = pmat.getNullSpace() or amat.getNullSpace()
        self._release_petsc()
        self._null_space = attached if attached else None
        self._stencil = None
        try:
            check_matrix(pmat)
            self._comm = mpi_communicator(pmat)
            with together(self._comm):
                name = check_model_name(self.model)
            stencil = self._read(pmat, pc.getDM())
            threads = self.threads or default_threads()
            choice = Choice(
                name, threads, self.gathered_cells, self.precision, self.device, smooth=self.smooth,
                gathered_threads=self.threads or default_threads(pc.comm.size),
            )  # fmt: skip
            with limited_to(threads):
                if isinstance(stencil, MeshRows):
                    self._served.set_up_mesh(self._comm, stencil, choice)
                else:
                    self._served.set_up(pc, self._comm, stencil, choice)
        except MatrixError as error:
            raise MatrixError(f"PC cnn cannot use this matrix: {error}") from None
        if stencil.boundary is not None:
            rows, inverse = stencil.diagonal_rows, stencil.diagonal_inverse
            self._boundary = BoundaryRows(pmat, stencil.boundary, rows, inverse)
        self._stencil = stencil.without_matrix()  # its arrays have done their work
        self._state = pmat.stateGet()
        self.setups += 1
        if self._given_up or self._served.obstacle:
            self.give_up(pc, self._given_up or self._served.obstacle)

    def give_up(self, pc: PETSc.PC, why: str) -> bool:
        """Hand the system over to ``fallback``, for all set-ups to come; or warn, once.  Collective.

        Parameters
        ----------
        pc
            This one.
        why
            No engine serves it, in words.

        Returns
        -------
        Whether another PC takes over now.
        """
        if self._taken_over is not None:
            return False
        is_first, self._given_up = not self._given_up, why
        if self.fallback != "none":
            self._taken_over = Fallback(pc, self.fallback, self._served.components)
        if is_first and pc.comm.rank == 0:
            advice = "-pc_type hypre or gamg may serve it better, -pc_cnn_fallback hypre hands it over"
            taken = f"PC {self.fallback} takes over (-pc_cnn_fallback)"
            warn(f"{why}: {advice if self._taken_over is None else taken}")
        return self._taken_over is not None

    def _read(self, pmat: PETSc.Mat, dm: PETSc.DM | None) -> Stencil | MeshRows:
        """What a matrix says of a grid, or of a mesh where the points of its rows are known and no grid's."""
        points = attached_points(pmat)
        points = self.coordinates if points is None else points
        for plex in (dm, pmat.getDM()):
            if points is None:
                points = self._plex.points(plex, pmat.getLocalSize()[0], self._comm)
        has_grid = bool(self.grid or self.mask or pmat.query(CELLS))
        try:
            stencil = read_stencil(pmat, find_grid(pmat, dm, self.grid, self.mask, points), self._null_space)
            if points is None or has_grid or fits_grid(stencil, pmat.getSize()[0]):
                return stencil
        except MatrixError:
            if points is None or has_grid:
                raise
        null = None if self._null_space is None else null_rows(pmat, self._null_space)
        return read_mesh(LocalMatrix(as_aij(pmat)), points, null)

    @reported
    def preSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Refuse systems that a Krylov method would report as solved, or not solve, without a word of why."""
        if self._stencil is None:
            return
        self._served.allow_nonlinear(ksp.getType() in FLEXIBLE_CONJUGATE_METHODS)
        if claims_convergence(ksp):
            refuse_unfit_method(ksp, self._served)
            warn_of_method(ksp)
            check_system(b, self._stencil, self._served, self._null_space is not None, self._comm)
        self._gave_guess = start_with_boundary_values(ksp, b, x, self._stencil)

    @reported
    def postSolve(self, pc: PETSc.PC, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Give back what preSolve changed."""
        if self._gave_guess:
            ksp.setInitialGuessNonzero(False)
            self._gave_guess = False

    @reported
    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        with self._in_range(r, z) as source:
            if self._taken_over is not None:
                self._taken_over.apply(source, z)
                return
            self._apply(source if self._boundary is None else self._boundary.eliminate(source), z)

    @reported
    def applyTranspose(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        if self._taken_over is None and not self._served.is_symmetric:
            raise NotImplementedError(
                f"PC cnn has no transpose of the network {self.model}, which is not symmetric: use "
                "-ksp_type dcd, fcg or fgmres"
            )
        with self._in_range(r, z) as source:
            if self._taken_over is not None:
                self._taken_over.apply(source, z, transposed=True)
                return
            self._apply(source, z)
            if self._boundary is not None:
                self._boundary.substitute(z)

    @contextmanager
    def _in_range(self, r: PETSc.Vec, z: PETSc.Vec) -> Iterator[PETSc.Vec]:
        """r, and after the block z, without their parts in the attached null space."""
        if self._null_space is None:
            yield r
            return
        if self._work is None:
            self._work = r.duplicate()
        r.copy(self._work)
        self._null_space.remove(self._work)
        yield self._work
        self._null_space.remove(z)

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
        with events.CNN_APPLY, limited_to(self.threads or default_threads()):
            if not stencil.diagonal_rows.size and self._served.apply_on_device(r, z):
                if stencil.sign < 0:
                    z.scale(-1.0)
                return
            source, target = r.array_r, z.array_w
            source = self._served.apply(source, target)
            if stencil.sign < 0:
                np.negative(target, out=target)
            if stencil.diagonal_rows.size:
                scale_entries(stencil.diagonal_rows, stencil.diagonal_inverse, source, target)

    def grid_route(self, pc: PETSc.PC) -> GridRoute | None:
        """How KSP ``dcd`` may solve in grid space; None where the grid's operator is not the matrix."""
        stencil, model = self._stencil, self._served.model
        amat, pmat = pc.getOperators()
        if (
            not isinstance(stencil, Stencil)
            or self._taken_over is not None
            or not stencil.is_exact
            or self.smooth
            or stencil.boundary is not None
            or not isinstance(model, MultilevelPreconditioner)
            or amat.handle != pmat.handle
            or pmat.stateGet() != self._state
        ):
            return None
        threads = self.threads or default_threads()
        with limited_to(threads):
            directions = model.directions()
        if directions is None:
            return None
        return GridRoute(directions, stencil, self.components, threads, self.flops)

    @reported
    def view(self, pc: PETSc.PC, viewer: PETSc.Viewer) -> None:
        kind = viewer.getType()
        if kind == "string":
            call("PetscViewerStringSPrintf", handle(viewer), b" %s", f"model {self.model}".encode())
        elif kind == "ascii":
            for line in self._description(pc.comm.size):
                viewer.printfASCII(f"  {line}\n")
            if self._taken_over is not None:
                viewer.printfASCII(f"  {self._given_up}: taken over by\n")
                self._taken_over.pc.view(viewer)

    def _description(self, ranks: int) -> Iterator[str]:
        if self._stencil is None:
            yield f"model {self.model}, not set up"
            return
        network, grid = self._served, getattr(self._stencil, "grid", None)
        if grid is None:
            yield "mesh, from the points of the rows"
        else:
            size = " x ".join(map(str, grid.shape[::-1]))
            around = [name for name, p in zip("xyz", grid.periodic[::-1]) if p]
            periodic = f", periodic along {', '.join(around)}" if around else ""
            yield f"grid {size} (NX x NY...) from {grid.origin}{periodic}"
        rest = network.rows - network.unknowns
        yield f"rows {network.rows}: {network.unknowns} in the network, {rest} without couplings"
        yield f"closed components {len(network.components)}"
        threads = self.threads or default_threads()
        yield f"ranks {ranks}, threads on each {threads}, set up {self.setups} times"
        if network.model is None:
            yield f"model {self.model}, without unknowns to work on"
            return
        yield f"model {network.weights_line}"
        how = getattr(network.model, "description", "")
        if how:
            yield f"{how}{', all on the first rank' if ranks > 1 else ''}"
        yield f"memory {network.model.bytes / 2**20:.2f} MiB{' on the first rank' if ranks > 1 else ''}"
        holders = getattr(network.model, "ranks", None)
        for number, level in enumerate(network.model.levels):
            cells = " x ".join(map(str, level.shape[::-1]))
            held = ""
            if ranks > 1 and holders:
                count = holders[min(number, len(holders) - 1)]
                held = f", on {count} rank{'s' if count > 1 else ''}"
            yield f"level {number}: {cells} cells, {level.unknowns} unknowns, {level.bytes} bytes{held}"
