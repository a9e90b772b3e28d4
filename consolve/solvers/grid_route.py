"""The iteration of KSP ``dcd`` in grid space, where its PC is a multilevel network on one rank."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.threads import limited_to
from consolve.learned.multilevel.engine.grid_directions import GridDirections
from consolve.learned.multilevel.engine.preconditioner import powers_of_two
from consolve.pde.matrix.stencil import Stencil
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.petsc import events
from consolve.solvers.petsc.csr_residual import residual_norm
from consolve.solvers.petsc.versions import PETSc


class GridRoute:
    """Conjugate directions on the grid of a matrix: A = sign * scale * (its packed operator).

    Parameters
    ----------
    directions
        The iteration.
    stencil
        Where the rows lie; rows without couplings are solved at once.
    components
        Closed components of the operator.
    threads
        Of the kernels.
    flops
        Of one application of the network, for the log.

    Attributes
    ----------
    is_ahead
        The iteration has found what x does not hold yet.
    """

    def __init__(
        self,
        directions: GridDirections,
        stencil: Stencil,
        components: ClosedComponents,
        threads: int,
        flops: float,
    ) -> None:
        self._directions, self._stencil, self._components = directions, stencil, components
        self._threads, self._flops = threads, flops
        self.is_ahead = False
        self._buffer: NDArray[np.float64] = np.empty(0)
        self._alone: NDArray[np.float64] = np.empty(0)

    def begin(self, r: PETSc.Vec, norm: float) -> None:
        """Start from a residual and its norm."""
        source, stencil = r.array_r, self._stencil
        self._alone = stencil.diagonal_inverse * source[stencil.diagonal_rows]
        if self._components:
            self._buffer = np.empty(source.size)
            self._components.remove(source, self._buffer)
            source = self._buffer
        down, up = powers_of_two(norm / sqrt(source.size))
        with limited_to(self._threads):
            self._directions.begin(source, norm, stencil.sign * down, up)
        if self._components:
            self._buffer[:] = 0
        self.is_ahead = True

    def step(self, x: PETSc.Vec) -> float:
        """One iteration; returns the norm of the residual after it, NaN if there is no direction."""
        with events.CNN_APPLY, limited_to(self._threads):
            norm = self._directions.step(x.getArray() if not self._components else self._buffer)
            events.log_flops(self._flops)
        return norm

    def add_to(self, x: PETSc.Vec) -> None:
        """Add to x what has been found since ``begin`` and does not stand in it yet; changes nothing else, so
        that it may be done to a copy of x at any time."""
        target = x.getArray()
        with limited_to(self._threads):
            if not self._components:
                self._directions.add_to(target)
            else:
                found = self._buffer.copy()
                self._directions.add_to(found)
                self._components.remove(found, found)
                target += found
        target[self._stencil.diagonal_rows] += self._alone

    def residual_norm(self, A: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec, r: PETSc.Vec) -> float:
        """Norm of r = b - A x, computed with the matrix and stored in r."""
        with limited_to(self._threads):
            return residual_norm(A, b, x, r)


class GivenUp(Exception):
    """Another PC has taken over from the network after this iteration."""

    def __init__(self, iteration: int, norm: float) -> None:
        super().__init__(iteration, norm)
        self.iteration, self.norm = iteration, norm


class GridSystem:
    """A solve of KSP ``dcd``, as ``consolve.learned.multilevel.engine.grid_iteration.iterate`` takes it."""

    def __init__(self, solve: Any) -> None:
        self._solve, self._route = solve, solve.route
        self.test = solve.test

    def report(self, iteration: int, norm: float) -> None:
        """Take note of an iteration that is not the last.

        Raises
        ------
        GivenUp
            If the solve is to go on with another PC; where the route is ahead, ``finish`` is to be called.
        """
        self._solve.report(iteration, norm)
        if self._solve.gives_up(iteration, norm):
            raise GivenUp(iteration, norm)

    def begin(self, norm: float) -> None:
        """Start from r."""
        self._route.begin(self._solve.r, norm)

    def step(self) -> float:
        """One iteration; returns the norm of the residual after it."""
        return self._route.step(self._solve.x)

    def finish(self) -> float:
        """Bring x and r up to date; returns the norm of r."""
        solve, route = self._solve, self._route
        route.add_to(solve.x)
        route.is_ahead = False
        if solve.A.getType() == "seqaij" and solve.null_space is None:
            return route.residual_norm(solve.A, solve.b, solve.x, solve.r)
        solve.compute_residual()
        return float(solve.r.norm())
