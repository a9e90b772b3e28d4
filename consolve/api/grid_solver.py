"""``consolve.GridSolver``: A x = b for an operator of a grid, without a matrix and without PETSc."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.base.arrays import zeros
from consolve.base.errors import ZERO_MATRIX, NotConverged
from consolve.base.scaling import check_finite, scale_of
from consolve.base.threads import check_not_forked, checked_threads, limited_to
from consolve.learned.models import load_multilevel
from consolve.learned.multilevel.engine.grid_directions import GridDirections
from consolve.learned.multilevel.engine.grid_iteration import iterate
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner, powers_of_two
from consolve.learned.multilevel.graph.choice import needs_graph
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.uniform import UniformOperator
from consolve.pde.poisson.uniform_residual import residual

if TYPE_CHECKING:
    from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner


@dataclass(frozen=True)
class GridSolution:
    """Facts of a solve.

    Parameters
    ----------
    iterations
        Done.
    residual
        ``|b - A x| / |b|``, computed in float64 at the end.
    history
        Residual norms, from the first on.
    """

    iterations: int
    residual: float
    history: tuple[float, ...]


FARTHEST = 1e140
"""Entries of a guess, where b has been scaled to about 1: beyond, norms may overflow."""


class GridSolver:
    """Solves A x = b on the cells of a grid by conjugate directions with a multilevel network.

    Nothing is assembled: A is the GridOperator, b and x are arrays of the shape of the grid.  On images of
    fluid, solid and air with faces of one coefficient, products and updates run within the sweeps of the
    network (see ``consolve.learned.multilevel.engine.grid_directions``); on other operators it is the
    preconditioned conjugate gradient method.  The residual that ends a solve is that of A, in float64.

    Parameters
    ----------
    operator
        A GridOperator.
    model
        ``multilevel``, its classical twin ``mg``, or a weights file.
    threads
        Of the kernels; Numba's number by default.

    Raises
    ------
    ValueError
        If ``operator`` is no GridOperator, there are no such weights, they are of another dimension, or there
        are no so many threads.
    """

    def __init__(
        self, operator: GridOperator, model: str | os.PathLike[str] = "multilevel", threads: int | None = None
    ) -> None:
        _check_operator(operator)
        self.threads = checked_threads(threads) or numba.get_num_threads()
        self._weights = load_multilevel(model, operator.ndim)
        self._lock = threading.RLock()
        self.model = os.fspath(model)
        self._network: MultilevelPreconditioner | GraphPreconditioner | None = None
        self._shape: tuple[int, ...] = ()
        self.update(operator)

    def update(self, operator: GridOperator) -> None:
        """Set up for another operator; memory is used again if its shape is the same.

        Raises
        ------
        ValueError
            If it is of another dimension, no operator, or zero; the solver is then as it was.
        """
        _check_operator(operator)
        if operator.ndim != self._weights.ndim:
            raise ValueError(
                f"the operator is {operator.ndim}D, this solver is for {self._weights.ndim}D grids: make "
                "another one"
            )
        check_not_forked()
        with self._lock:
            self._update(operator)

    def _update(self, operator: GridOperator) -> None:
        uniform = UniformOperator.of(operator)
        given: GridOperator = operator if uniform is None else uniform
        if given.is_zero:
            raise ValueError(ZERO_MATRIX)
        self.operator, self._uniform = given, uniform
        self._closed = given.is_singular
        on_graph = needs_graph(self.model, given)
        kept = self._network
        if (
            kept is None
            or on_graph is isinstance(kept, MultilevelPreconditioner)
            or self._shape != operator.shape
        ):
            cells = np.arange(operator.active.size, dtype=np.int32)
            self._network = None  # its memory is free before the next is taken
            kept = None
            if on_graph:  # its kernels are compiled only here
                from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner

                self._network = GraphPreconditioner(given, cells, self.threads)
                self._network.flexible = True
            else:
                self._network = MultilevelPreconditioner(given, self._weights, cells, self.threads)
        else:
            kept.update(given)
        self._shape = operator.shape

    @property
    def bytes(self) -> int:
        """Memory of the network and its vectors."""
        assert self._network is not None
        return self._network.bytes

    def solve(
        self,
        b: ArrayLike,
        x0: ArrayLike | None = None,
        rtol: float = 1e-6,
        atol: float = 0.0,
        maxiter: int = 200,
    ) -> tuple[NDArray[np.float64], GridSolution]:
        """x with ``|b - A x| <= max(rtol |b|, atol)``.

        Parameters
        ----------
        b
            Shape of the grid; what stands at cells that are not active is ignored.
        x0
            Where to start; 0 by default.
        rtol, atol, maxiter
            Tolerances, and the most iterations.

        Returns
        -------
        x
            float64, 0 at cells that are not active; of mean 0 on components without a Dirichlet part.
        solution
            Facts.

        Raises
        ------
        ValueError
            If a shape is not the grid's, or an entry is not finite.
        InconsistentRightHandSide
            If A is singular and b does not sum to 0 over a closed component.
        NotConverged
            If the tolerance is not met.
        """
        check_not_forked()
        with self._lock:
            return self._solve(b, x0, rtol, atol, maxiter)

    def _solve(
        self, b: ArrayLike, x0: ArrayLike | None, rtol: float, atol: float, maxiter: int
    ) -> tuple[NDArray[np.float64], GridSolution]:
        right = self._array(b, "b")
        scale = scale_of(right)
        if scale != 1:
            right = scale * right
        if self._closed:
            right = self._consistent(right)
        x = zeros(right.shape)
        system = _Iteration(self, right, x)
        size = system.residual_norm()
        if x0 is not None:
            with np.errstate(over="ignore"):
                guess = scale * self._array(x0, "x0")
            if not np.abs(guess).max(initial=0) < FARTHEST:
                raise ValueError(
                    f"x0 reaches {np.abs(self._array(x0, 'x0')).max():.3g}, out of all proportion to b: "
                    "begin without it"
                )
            np.copyto(x, guess, where=self.operator.active)
        system.run(max(rtol * size, scale * atol), maxiter)
        if self._closed:
            system.x = x = self.operator.remove_null_space(x)
            system.norm = system.residual_norm()
        reached = system.norm / size if size > 0 else system.norm
        if not system.norm <= system.tolerance * (1 + 1e-10 * self._closed):
            reason = "DIVERGED_MAX_IT" if np.isfinite(system.norm) else "DIVERGED_NANORINF"
            raise NotConverged(reason, system.iterations, reached)
        with np.errstate(over="ignore"):
            history = tuple(norm / scale for norm in system.history)
            x = x if scale == 1 else x / scale
        if not np.isfinite(x).all():
            raise NotConverged("DIVERGED_NANORINF", system.iterations, reached)
        return x, GridSolution(system.iterations, reached, history)

    def __reduce__(self) -> tuple[Any, ...]:
        """Set up anew: compiled kernels hold addresses of this process's memory."""
        return type(self), (self.operator, self.model, self.threads)

    def _array(self, values: ArrayLike, name: str) -> NDArray[np.float64]:
        array = np.ascontiguousarray(values, np.float64)
        if array.shape != self.operator.shape:
            raise ValueError(f"{name} has shape {array.shape}, the grid {self.operator.shape}")
        check_finite(array if not array.size else np.where(self.operator.active, array, 0.0), name, "cell")
        return array

    def _consistent(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        right = np.zeros_like(b)
        right[self.operator.active] = self.operator.null_space.consistent(b[self.operator.active])
        return right


class _Iteration:
    """One solve; for ``iterate``, a system."""

    def __init__(self, solver: GridSolver, b: NDArray[np.float64], x: NDArray[np.float64]) -> None:
        network = solver._network
        assert network is not None
        self._operator, self._uniform, self._network = solver.operator, solver._uniform, network
        self._directions: GridDirections | None = network.directions()
        self.b, self.x, self.tolerance = b, x, 0.0
        self.r = np.empty_like(b)
        self.iterations, self.norm, self.history = 0, 0.0, [0.0]

    def run(self, tolerance: float, most: int) -> None:
        """Iterate until the residual norm is under ``tolerance``; the outcome stands in the attributes."""
        self.tolerance = tolerance
        with limited_to(min(self._network.threads, numba.get_num_threads())):
            self.norm = self.residual_norm()
            self.history = [self.norm]
            if self._directions is not None and not self.test(0, self.norm):
                self.iterations, self.norm, _ = iterate(self, self.norm, most)
                self.history.append(self.norm)
            self._conjugate_gradients(most)

    def test(self, iteration: int, norm: float) -> int:
        """1 where the norm is small enough or no number."""
        return int(not norm > self.tolerance)

    def report(self, iteration: int, norm: float) -> None:
        """Note the norm of an iteration."""
        self.history.append(norm)

    def begin(self, norm: float) -> None:
        """Start in grid space from r."""
        assert self._directions is not None
        self._directions.begin(self.r.reshape(-1), norm, *powers_of_two(norm / np.sqrt(self.r.size)))

    def step(self) -> float:
        """One iteration in grid space."""
        assert self._directions is not None
        return self._directions.step(self.x.reshape(-1))

    def finish(self) -> float:
        """Bring x and r up to date."""
        assert self._directions is not None
        self._directions.add_to(self.x.reshape(-1))
        return self.residual_norm()

    def residual_norm(self) -> float:
        """Norm of r = b - A x, both 0 at cells that are not active."""
        uniform = self._uniform
        if uniform is None:
            np.subtract(self.b, self._operator.apply(self.x), out=self.r)
            self.r[~self._operator.active] = 0
            return float(np.linalg.norm(self.r))
        fixed = uniform.fixed
        volumes = (as_volume(a) for a in (self.b, self.x, self.r))
        active = as_volume(uniform.active).view(np.uint8)
        return float(
            np.sqrt(residual(active, uniform.coefficient, fixed.start, fixed.place, fixed.part, *volumes))
        )

    def _conjugate_gradients(self, most: int) -> None:
        """The flexible conjugate gradient method from x on, with one direction kept."""
        if self.test(self.iterations, self.norm):
            return
        r, z, p = self.r, np.empty_like(self.r), np.zeros_like(self.r)
        product, energy = np.zeros_like(self.r), 0.0
        while self.iterations < most and not self.test(self.iterations, self.norm):
            self._network.apply(r.reshape(-1), z.reshape(-1))
            p *= -float(np.vdot(z, product)) / energy if energy else 0.0
            p += z
            product = self._operator.apply(p, product)
            energy, along = float(np.vdot(p, product)), float(np.vdot(r, p))
            if not (energy > 0 and np.isfinite(energy)):
                return
            self.x += along / energy * p
            r -= along / energy * product
            self.norm = float(np.linalg.norm(r))
            self.iterations += 1
            if self.test(self.iterations, self.norm):
                self.norm, energy = self.residual_norm(), 0.0
            self.history.append(self.norm)


def _check_operator(operator: object) -> None:
    if not isinstance(operator, GridOperator):
        raise ValueError(
            f"operator is of type {type(operator).__name__}, expected a GridOperator; a matrix is for "
            "consolve.solve or consolve.aspreconditioner"
        )
