"""The iteration of KSP ``dcd`` in grid space, where its PC is a multilevel network on one rank."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.learned.grid_directions import LEAST_REDUCTION, GridDirections
from consolve.learned.multilevel import powers_of_two
from consolve.solvers import events
from consolve.solvers.closed_components import ClosedComponents
from consolve.solvers.petsc import PETSc
from consolve.solvers.stencil import Stencil

MOST_DISAGREEMENT = 2.0
"""Between the residual norm that the iteration foretells and the matrix's own, beyond round-off."""
PATIENCE = 10
"""Iterations in which the residual norm has to halve."""


class GridRoute:
    """Conjugate directions on the grid of a matrix: A = sign * scale * (its packed operator).

    Parameters
    ----------
    directions
        The iteration.
    stencil
        Where the rows lie; rows without couplings are solved at once.
    components
        Closed components of a singular operator, or None.
    threads
        Of the kernels.
    flops
        Of one application of the network, for the log.
    """

    def __init__(
        self,
        directions: GridDirections,
        stencil: Stencil,
        components: ClosedComponents | None,
        threads: int,
        flops: float,
    ) -> None:
        self._directions, self._stencil, self._components = directions, stencil, components
        self._threads, self._flops = threads, flops
        self._buffer: NDArray[np.float64] = np.empty(0)
        self._alone: NDArray[np.float64] = np.empty(0)

    def begin(self, r: PETSc.Vec, norm: float) -> None:
        """Start from a residual and its norm."""
        from consolve.solvers.pc_cnn import limited_to

        source, stencil = r.array_r, self._stencil
        self._alone = stencil.diagonal_inverse * source[stencil.diagonal_rows]
        if self._components is not None:
            self._buffer = np.empty(source.size)
            self._components.remove(source, self._buffer)
            source = self._buffer
        down, up = powers_of_two(norm / sqrt(source.size))
        with limited_to(self._threads):
            self._directions.begin(source, norm, stencil.sign * down, up)
        if self._components is not None:
            self._buffer[:] = 0

    def step(self, x: PETSc.Vec) -> float:
        """One iteration; returns the norm of the residual after it, NaN if there is no direction."""
        from consolve.solvers.pc_cnn import limited_to

        with events.CNN_APPLY, limited_to(self._threads):
            norm = self._directions.step(x.getArray() if self._components is None else self._buffer)
            events.log_flops(self._flops)
        return norm

    def add_to(self, x: PETSc.Vec) -> None:
        """Add to x what has been found since ``begin`` and does not stand in it yet; changes nothing else, so
        that it may be done to a copy of x at any time."""
        from consolve.solvers.pc_cnn import limited_to

        target = x.getArray()
        with limited_to(self._threads):
            if self._components is None:
                self._directions.add_to(target)
            else:
                found = self._buffer.copy()
                self._directions.add_to(found)
                self._components.remove(found, found)
                target += found
        target[self._stencil.diagonal_rows] += self._alone


def grid_route(ksp: PETSc.KSP) -> GridRoute | None:
    """The route of a KSP whose PC is a multilevel network of the very matrix that is solved; else None."""
    from consolve.solvers.pc_cnn import PCCNN

    pc = ksp.getPC()
    if pc.comm.size > 1 or pc.getType() not in ("cnn", "python"):
        return None
    context: Any = pc.getPythonContext()
    return context.grid_route(pc) if isinstance(context, PCCNN) else None


def run(solve: Any, route: GridRoute, norm: float) -> tuple[int, float, int]:
    """Iterate in grid space from the residual r of a solve of KSP ``dcd``.

    The norms tested on the way are the iteration's; before the end is declared, the residual is computed with
    the matrix.  Where the two part, or the iteration leads nowhere, the rest is left to the caller.

    Parameters
    ----------
    solve
        With ``ksp``, ``r``, ``x``, ``every``, ``test``, ``report`` and ``compute_residual``; its ``route`` is
        the iteration while x does not hold all that has been found.
    route
        The iteration.
    norm
        Of r = b - A x.

    Returns
    -------
    Iterations, the norm of r after them, and the reason to stop; 0: the caller goes on from there.
    """
    most, k = solve.ksp.max_it, 0
    while True:
        first, start, lowest = k, norm, norm
        lowest_at, is_sound, reason = k, True, 0
        route.begin(solve.r, norm)
        solve.route = route
        while k < most and not reason:
            after = route.step(solve.x)
            if not after < 1e3 * start:
                is_sound = False
                break
            k, norm = k + 1, after
            if norm <= 0.5 * lowest:
                lowest, lowest_at = norm, k
            is_sound = k - lowest_at < PATIENCE
            reason = solve.test(k, norm)
            ends = reason or not is_sound or norm <= LEAST_REDUCTION * start or k == most
            if ends or (solve.every and k - first == solve.every):
                break
            solve.report(k, norm)
        route.add_to(solve.x)
        solve.route = None
        foretold = norm
        solve.compute_residual()
        norm = solve.r.norm()
        reason = solve.test(k, norm)
        if k == most and not reason:
            reason = PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT
        agree = norm <= MOST_DISAGREEMENT * foretold + LEAST_REDUCTION * start
        if reason or not (is_sound and agree and norm < 0.5 * start):
            return k, norm, reason
        solve.report(k, norm)
