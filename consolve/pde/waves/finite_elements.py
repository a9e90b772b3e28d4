"""Wave problems by finite elements in DOLFINx: P1 to P3, lumped or consistent mass, leap-frog or Newmark.

Both time schemes are one family, for theta = 0 (leap-frog) and theta = 1/4 (Newmark with beta = 1/4 and
gamma = 1/2, the average acceleration, written for displacements only):

    M (u[n+1] - 2 u[n] + u[n-1]) / dt² + C (u[n+1] - u[n-1]) / (2 dt) + K mean(u) = mean(F),
    mean(u) = theta u[n+1] + (1 - 2 theta) u[n] + theta u[n-1]

They are of second order in dt; for theta = 0 stable while dt² lambda_max(M⁻¹ K) < 4, for theta = 1/4 always.
Their energy, with v = (u[n+1] - u[n]) / dt and w = (u[n+1] + u[n]) / 2,

    E[n+1/2] = v·M v / 2 + w·K w / 2 - (1/4 - theta) dt² v·K v / 2,

changes in a step by the work of the source minus what absorbing sides take, to the accuracy of the solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import ufl
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.dolfinx_versions import assembled_matrix, fem, function_space, meshes, rows_of
from consolve.pde.waves.leapfrog import dividing_step, step_numbers
from consolve.pde.waves.mesh import Probe, check_mesh, midpoints, side_facets, without_holes
from consolve.pde.waves.problem import SNAPSHOT_INTERVAL, WaveProblem
from consolve.pde.waves.schemes import Diagonal, Implicit, largest_eigenvalue, mass_product

MASSES = ("lumped", "consistent")
SCHEMES = ("leap-frog", "newmark")
NEWMARK_STEPS = 4
"""Steps of the default Newmark step in an interval between snapshots."""

Field = Callable[[NDArray, NDArray], ArrayLike]
Drive = Callable[[float, NDArray], ArrayLike]


class WaveModel:
    """A run of one problem on a DOLFINx mesh, on the ranks of its communicator.

    Parameters
    ----------
    problem
        Medium, source and boundaries.  Conditions hold on facets that lie on sides of the unit square; the
        rest of the rim (of holes, or of a mesh of a part of the square) is free, unless it is driven.
    mesh
        Straight triangles in 2D.  Cells whose midpoint lies in a hole of the medium are left out; see
        :attr:`mesh` for what is left.  The medium is evaluated at midpoints of cells.
    degree
        1 to 3, of the Lagrange elements.
    mass
        ``"lumped"``: diagonal scaling (Hinton, Rock and Zienkiewicz, 1976), the diagonal of M scaled to the
        mass of the whole, which for straight triangles scales every element alike.  For P1 it is the row
        sum; for P2, where row sums vanish at vertices, and for P3 it stays positive, but frequencies converge
        with order 2 as those of P1, with smaller constants, and not with order 2 ``degree``.
        ``"consistent"``: M itself; leap-frog then solves with M in every step.
    scheme
        ``"leap-frog"`` or ``"newmark"``.
    step
        dt; default: the longest that divides ``interval`` and is at most 0.98 of the stable step, or
        ``interval / 4`` for Newmark.
    initial
        (u, u_t) at t = 0 as functions of arrays x, y; default: at rest.
    interval
        What the default step divides.
    driven
        Function of (x, y) arrays, True on vertices of the rim where :meth:`run` is given u; a facet is driven
        where both its ends are.
    petsc_options
        For the solver of a step, without their prefix ``wave_``; options of the command line come over them.
        Default: CG with Jacobi for leap-frog with consistent mass and for Newmark on several ranks, Cholesky
        for Newmark on one.

    Attributes
    ----------
    mesh, space, speed
        The mesh without holes, the function space and the DG0 function of c.
    mass, stiffness, damping
        PETSc Mat (consistent) or Vec (lumped), Mat, and Vec: M, K and C of all degrees of freedom.  C is
        lumped by row sums.
    step, steps, time, lost, work
        dt, steps done, present time, energy taken by absorbing sides, work of the source.
    driven_points
        (k, 2): coordinates of this rank's driven degrees of freedom.

    Raises
    ------
    ValueError
        If an argument is not usable, the step is not stable, or the source is in no cell of the mesh (without
        ``driven``).
    """

    def __init__(
        self,
        problem: WaveProblem,
        mesh: Any,
        degree: int = 1,
        mass: str = "lumped",
        scheme: str = "leap-frog",
        step: float | None = None,
        initial: tuple[Field, Field] | None = None,
        interval: float = SNAPSHOT_INTERVAL,
        driven: Field | None = None,
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, known in (("mass", mass, MASSES), ("scheme", scheme, SCHEMES)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if degree not in (1, 2, 3):
            raise ValueError(f"waves are solved with elements of degree 1, 2 or 3, got {degree}")
        check_mesh(mesh)
        self.problem, self.degree, self.scheme = problem, degree, scheme
        self.mesh = without_holes(mesh, problem.medium)
        if problem.source is not None and driven is None:
            Probe(self.mesh, [[problem.source.x, problem.source.y]])  # raises outside the mesh
        self.space = function_space(self.mesh, "Lagrange", degree)
        self._function = fem.Function(self.space)
        self.speed = self._speed()
        self._assemble(mass)
        owned = self.stiffness.getLocalSize()[0]
        self._owned = owned
        points = self.space.tabulate_dof_coordinates()[:owned]
        self._x, self._y = points[:, 0].copy(), points[:, 1].copy()
        self._driven_anywhere = driven is not None
        self._driven = self._driven_dofs(driven)
        self._free = np.ones(owned)
        self._free[self._fixed_dofs()] = 0
        self._driven = self._driven[self._free[self._driven] > 0]
        self._free[self._driven] = 0
        self.driven_points = np.column_stack([self._x, self._y])[self._driven]
        self._theta = 0.0 if scheme == "leap-frog" else 0.25
        self._largest = largest_eigenvalue(self.stiffness, self.mass, self._free) if self._theta == 0 else 0.0
        self.step = self._checked_step(step, interval)
        self._force = self._load()
        kind = Diagonal if mass == "lumped" and self._theta == 0 else Implicit
        self._scheme = kind(
            self.stiffness, self.mass, self.damping, self._force, self._free, self.step, self._theta,
            dict(petsc_options or {}),
        )  # fmt: skip
        self._initial = self._initial_state(initial)
        self.restart()

    def _speed(self) -> Any:
        space = function_space(self.mesh, "DG", 0)
        speed, middle = fem.Function(space), midpoints(self.mesh)
        values = np.asarray(self.problem.medium.speed(middle[:, 0], middle[:, 1]), np.float64)
        if self.mesh.comm.allreduce(int(np.count_nonzero(~(np.isfinite(values) & (values > 0))))):
            raise ValueError("the medium must have a positive, finite speed in every cell")
        speed.x.array[rows_of(space.dofmap.list, 1)[:, 0]] = values
        return speed

    def _assemble(self, kind: str) -> None:
        u, v, c = ufl.TrialFunction(self.space), ufl.TestFunction(self.space), self.speed
        self.stiffness = assembled_matrix(c**2 * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
        mass = assembled_matrix(ufl.inner(u, v) * ufl.dx)
        one, rows = mass.createVecs()
        one.set(1)
        if kind == "lumped":
            mass.mult(one, rows)
            total = rows.sum()
            self.mass = mass.getDiagonal()
            self.mass.scale(total / self.mass.sum())
        else:
            self.mass = mass
        sides = [side for side, condition in self.problem.boundaries.items() if condition == "absorbing"]
        facets = np.unique(np.concatenate([side_facets(self.mesh, s) for s in sides] + [_NO_ENTITIES]))
        tags = meshes.meshtags(self.mesh, 1, facets.astype(np.int32), np.ones(facets.size, np.int32))
        ds = ufl.Measure("ds", domain=self.mesh, subdomain_data=tags)
        self.damping = one.duplicate()
        assembled_matrix(c * ufl.inner(u, v) * ds(1)).mult(one, self.damping)

    def _dofs(self, dimension: int, entities: NDArray) -> NDArray[np.intp]:
        """Local numbers of the owned degrees of freedom on facets (1) or cells (2), closures included."""
        self.mesh.topology.create_connectivity(dimension, 2)
        dofs = fem.locate_dofs_topological(self.space, dimension, entities.astype(np.int32))
        return np.unique(dofs[dofs < self._owned]).astype(np.intp)

    def _fixed_dofs(self) -> NDArray[np.intp]:
        sides = [side for side, condition in self.problem.boundaries.items() if condition == "fixed"]
        facets = np.concatenate([side_facets(self.mesh, s) for s in sides] + [_NO_ENTITIES])
        middle = midpoints(self.mesh)
        cells = np.flatnonzero(self.problem.medium.fixed(middle[:, 0], middle[:, 1]))
        return np.union1d(self._dofs(1, facets), self._dofs(2, cells))

    def _driven_dofs(self, driven: Field | None) -> NDArray[np.intp]:
        if driven is None:
            return np.zeros(0, np.intp)

        def on_rim(x: NDArray) -> NDArray[np.bool_]:
            return np.array(np.broadcast_to(driven(x[0], x[1]), x.shape[1:]), np.bool_)  # writeable

        facets = meshes.locate_entities_boundary(self.mesh, 1, on_rim)
        dofs = self._dofs(1, facets)
        if self.mesh.comm.allreduce(dofs.size) == 0:
            raise ValueError("no facet of the rim is driven: the function given is True on none of them")
        return dofs

    def _load(self) -> Any:
        """F = M profile, 0 at constrained degrees of freedom."""
        load, profile = self.damping.duplicate(), self.damping.duplicate()
        profile.set(0)
        if self.problem.source is not None:
            profile.setArray(self.problem.source.profile(self._x, self._y))
        mass_product(self.mass, profile, load)
        load.setArray(load.array_r * self._free)
        source = self.problem.source
        if source is not None and not self._driven_anywhere and load.norm() == 0:
            raise ValueError(
                f"a source of radius {source.radius:g} falls between the nodes of the mesh; take a larger "
                f"radius or a finer mesh"
            )
        return load

    def _checked_step(self, step: float | None, interval: float) -> float:
        stable = self.stable_step()
        if step is None:
            if not (interval > 0 and math.isfinite(interval)):
                raise ValueError(f"the interval of snapshots must be positive and finite, got {interval}")
            return interval / NEWMARK_STEPS if math.isinf(stable) else dividing_step(stable, interval)
        if not (math.isfinite(step) and 0 < step < stable):
            raise ValueError(
                f"the step {step:.6g} is not stable: it must be positive and below {stable:.6g} on this "
                f"mesh; leave it out to have it chosen, or take the scheme 'newmark'"
            )
        return float(step)

    def _initial_state(self, initial: tuple[Field, Field] | None) -> tuple[Any, Any]:
        states = []
        for name, field in zip(("u", "u_t"), initial or (None, None)):
            state = self.damping.duplicate()
            values = 0.0 if field is None else np.asarray(field(self._x, self._y), np.float64)
            held = np.ones(self._owned)
            held[self._free == 0] = 0
            held[self._driven] = 1
            state.setArray(np.broadcast_to(values, self._owned) * held)
            if not math.isfinite(state.norm()):
                raise ValueError(f"{name} at t = 0 must be finite")
            states.append(state)
        return states[0], states[1]

    def restart(self) -> None:
        """Back to t = 0 and the initial state."""
        u, v = self._initial
        self._old = self._scheme.state_before(u, v, self._signal(0, 1)[0])
        self._now = u.copy()
        self.steps = 0
        self._account = np.zeros(2)

    def stable_step(self) -> float:
        """Leap-frog: 2 / sqrt of a Lanczos estimate of lambda_max(M⁻¹ K); Newmark: infinite."""
        return math.inf if self._theta else 2 / math.sqrt(self._largest)

    @property
    def free(self) -> NDArray[np.float64]:
        """Of this rank's degrees of freedom: 1 for unknowns, 0 where u is fixed or driven."""
        return self._free

    @property
    def time(self) -> float:
        """Of the present state."""
        return self.steps * self.step

    @property
    def lost(self) -> float:
        """Energy that absorbing sides have taken.  Collective."""
        return self.mesh.comm.allreduce(float(self._account[0]))

    @property
    def work(self) -> float:
        """Work that the source has done.  Collective."""
        return self.mesh.comm.allreduce(float(self._account[1]))

    def energy(self) -> float:
        """E half a step before :attr:`time`; ``energy() + lost - work`` keeps its value, up to what the
        solver of the steps leaves and what driven unknowns bring in.  Collective."""
        return self._scheme.energy(self._old, self._now)[0]

    @property
    def displacement(self) -> Any:
        """u at :attr:`time` as a function of :attr:`space`, its ghosts up to date; overwritten by later
        calls.  Collective."""
        self._function.x.array[: self._owned] = self._now.array_r
        self._function.x.scatter_forward()
        return self._function

    def _signal(self, first: int, steps: int) -> list[float]:
        """mean(F) / F of some steps."""
        source, theta = self.problem.source, self._theta
        if source is None:
            return [0.0] * steps
        signal = source.signal(self.step * np.arange(first - 1, first + steps + 1))
        mean: list[float] = (theta * (signal[:-2] + signal[2:]) + (1 - 2 * theta) * signal[1:-1]).tolist()
        return mean

    def advance(self, steps: int, drive: Drive | None = None) -> None:
        """Some steps on; collective.

        Parameters
        ----------
        drive
            ``drive(t, points)``: u at time t on :attr:`driven_points`; needed if the model is driven.
        """
        if self._driven_anywhere != (drive is not None):
            expected = (
                "takes the values of its driven rim" if self._driven_anywhere else "is not driven: no drive"
            )
            raise ValueError(f"a run of this model {expected}; drive is {drive!r}")
        for force in self._signal(self.steps, steps):
            driven = None
            if drive is not None:
                after = self.time + self.step
                values = np.asarray(drive(after, self.driven_points), np.float64)
                driven = self._driven, np.broadcast_to(values, self._driven.shape)
            self._account += self._scheme.advance(self._old, self._now, force, driven)
            self._old, self._now = self._now, self._old
            self.steps += 1

    def run(
        self, times: ArrayLike, points: int | ArrayLike, drive: Drive | None = None
    ) -> NDArray[np.float64]:
        """u at the given times, going on from the present one; the result is on all ranks.  Collective.

        Parameters
        ----------
        times
            Ascending multiples of :attr:`step`, the first not before :attr:`time`.
        points
            (k, 2) points of the mesh, or n for the n x n vertices of a regular grid of the unit square, where
            u is 0 outside the mesh.
        drive
            See :meth:`advance`.

        Returns
        -------
        (times, k) or (times, n, n).

        Raises
        ------
        ValueError
            If times or points are not usable.
        FloatingPointError
            If u grows beyond what its energy allows or is not finite any more.
        RuntimeError
            If the solver of a step does not converge.
        """
        marks = step_numbers(times, self.step, self.steps)
        if isinstance(points, (int, np.integer)):
            x = np.linspace(0, 1, int(points))
            places = np.column_stack([a.reshape(-1) for a in np.meshgrid(x, x)])
            probe, shape = Probe(self.mesh, places, required=False), [int(points), int(points)]
        else:
            places = np.asarray(points, np.float64)
            probe, shape = Probe(self.mesh, places), [len(places)]
        out = np.empty((marks.size, *shape))
        for k, mark in enumerate(marks):
            self.advance(int(mark) - self.steps, drive)
            out[k] = probe(self.displacement).reshape(shape)
            self._check()
        return out

    def _check(self) -> None:
        energy, kinetic = self._scheme.energy(self._old, self._now)
        if not math.isfinite(energy + kinetic):
            raise FloatingPointError(
                f"u is not finite at time {self.time:.6g}: source, initial state or driven values are too "
                f"large"
            )
        # Of a stable step the kinetic part is at most E / (1 - dt² lambda_max / 4).
        room = 1 - (1 - 4 * self._theta) * self.step**2 * self._largest / 4
        if kinetic * room > 2 * abs(energy) + 1e-20 and not self._driven_anywhere:
            raise FloatingPointError(
                f"u grows without bound at time {self.time:.6g}: the step {self.step:.6g} is not stable "
                f"after all; take a shorter one"
            )


_NO_ENTITIES = np.zeros(0, np.int32)
