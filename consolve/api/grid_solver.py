"""``consolve.GridSolver``: A x = b for an operator of a grid, without a matrix and without PETSc."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.base.arrays import zeros
from consolve.base.errors import InconsistentRightHandSide, NotConverged
from consolve.learned.multilevel.engine.grid_directions import GridDirections
from consolve.learned.multilevel.engine.grid_iteration import iterate
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner, powers_of_two
from consolve.learned.multilevel.format import load_weights
from consolve.learned.multilevel.graph.choice import needs_graph
from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner
from consolve.pde.poisson.grid import GridOperator, as_volume
from consolve.pde.poisson.uniform import UniformOperator
from consolve.pde.poisson.uniform_residual import residual

_INCONSISTENT = 1e-6
"""A closed component's sum of b over that of |b|: above it, there is no solution."""


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
        If there are no such weights, or they are of another dimension.
    """

    def __init__(self, operator: GridOperator, model: str = "multilevel", threads: int | None = None) -> None:
        self.threads = threads or numba.get_num_threads()
        self._weights = load_weights(model, operator.ndim)
        self._network: MultilevelPreconditioner | GraphPreconditioner | None = None
        self._model = model
        self._shape: tuple[int, ...] = ()
        self.update(operator)

    def update(self, operator: GridOperator) -> None:
        """Set up for another operator; memory is used again if its shape is the same."""
        self._uniform = UniformOperator.of(operator)
        given: GridOperator = operator if self._uniform is None else self._uniform
        self.operator = given
        self._closed = given.is_singular
        on_graph = needs_graph(self._model, given)
        kind = GraphPreconditioner if on_graph else MultilevelPreconditioner
        if not isinstance(self._network, kind) or self._shape != operator.shape:
            cells = np.arange(operator.active.size, dtype=np.int32)
            self._network = None  # its memory is free before the next is taken
            if on_graph:
                self._network = GraphPreconditioner(given, cells, self.threads)
                self._network.flexible = True
            else:
                self._network = MultilevelPreconditioner(given, self._weights, cells, self.threads)
        else:
            self._network.update(given)
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
            If a shape is not the grid's.
        InconsistentRightHandSide
            If A is singular and b does not sum to 0 over a closed component.
        NotConverged
            If the tolerance is not met.
        """
        right = self._array(b, "b")
        if self._closed:
            right = self._consistent(right)
        x = zeros(right.shape)
        system = _System(self, right, x)
        size = system.residual_norm()
        if x0 is not None:
            np.copyto(x, self._array(x0, "x0"), where=self.operator.active)
        system.run(max(rtol * size, atol), maxiter)
        if self._closed:
            x = self.operator.remove_null_space(x)
        reached = system.norm / size if size > 0 else system.norm
        if not system.norm <= system.tolerance:
            reason = "DIVERGED_MAX_IT" if np.isfinite(system.norm) else "DIVERGED_NANORINF"
            raise NotConverged(reason, system.iterations, reached, "raise maxiter, or loosen rtol")
        return x, GridSolution(system.iterations, reached, tuple(system.history))

    def _array(self, values: ArrayLike, name: str) -> NDArray[np.float64]:
        array = np.ascontiguousarray(values, np.float64)
        if array.shape != self.operator.shape:
            raise ValueError(f"{name} has shape {array.shape}, the grid {self.operator.shape}")
        return array

    def _consistent(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        labels, closed = self.operator.components
        inside = labels[self.operator.active]
        values = b[self.operator.active]
        sums = np.bincount(inside, values, minlength=closed.size)
        sizes = np.bincount(inside, np.abs(values), minlength=closed.size)
        bad = np.flatnonzero(closed & (np.abs(sums) > _INCONSISTENT * sizes))
        if bad.size:
            raise InconsistentRightHandSide(
                f"the operator is singular and the right-hand side sums to {sums[bad[0]]:.3g} over a "
                f"component of {np.count_nonzero(inside == bad[0])} cells without Dirichlet part, where it "
                "has to sum to 0: subtract its mean there (GridOperator.remove_null_space)"
            )
        return self.operator.remove_null_space(b)


class _System:
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
        before = numba.get_num_threads()
        numba.set_num_threads(min(self._network.threads, before))
        try:
            self.norm = self.residual_norm()
            self.history = [self.norm]
            if self._directions is not None and not self.test(0, self.norm):
                self.iterations, self.norm, _ = iterate(self, self.norm, most)
                self.history.append(self.norm)
            self._conjugate_gradients(most)
        finally:
            numba.set_num_threads(before)

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
