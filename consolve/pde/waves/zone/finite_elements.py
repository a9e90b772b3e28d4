"""The finite-element submodel of a zone in DOLFINx, told by a surrogate's field what happens outside.

A surrogate knows the field of a whole problem about right; the submodel solves the wave equation in a zone
with the true medium and the problem's own conditions, so that what the zone scatters is computed.  From the
field it takes what comes in through the zone's inner sides, in one of the ways of
:mod:`consolve.pde.waves.zone.data`, and the state at the first time.  Its twin on structured grids, without
DOLFINx, is :class:`consolve.pde.waves.zone.leapfrog.NumbaSubmodel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ufl
from mpi4py import MPI
from numpy.typing import ArrayLike, NDArray

from consolve.pde.waves.dolfinx_versions import assembled_matrix, fem, meshes
from consolve.pde.waves.finite_elements import WaveModel
from consolve.pde.waves.mesh import Probe
from consolve.pde.waves.problem import WaveProblem
from consolve.pde.waves.schemes import Diagonal, Driven, Implicit
from consolve.pde.waves.zone.data import ZoneField
from consolve.pde.waves.zone.feed import FeedOptions, ZoneFeed, step_marks, zone_of
from consolve.pde.waves.zone.zone import Zone, ZoneSystem, source_load

_CLOSE = 1e-9
THETA = {"leap-frog": 0.0, "newmark": 0.25}
"""Of the family of schemes in :mod:`consolve.pde.waves.finite_elements`."""
_CHUNK = 64
"""Steps of which forces are held at once."""


def zone_mesh(zone: Zone, refinement: int, comm: Any = MPI.COMM_WORLD) -> Any:
    """Triangle mesh of a zone: each cell between samples is ``refinement``² squares of two triangles."""
    if int(refinement) != refinement or refinement < 1:
        raise ValueError(f"the refinement of a zone is a whole number from 1 on, got {refinement}")
    rows, columns = zone.shape
    corners = [np.array([zone.x[0], zone.y[0]]), np.array([zone.x[-1], zone.y[-1]])]
    cells = [(columns - 1) * int(refinement), (rows - 1) * int(refinement)]
    return meshes.create_rectangle(comm, corners, cells, meshes.CellType.triangle)


class _ZoneModel(WaveModel):
    """The matrices of a zone, without a source; inner sides are free in them."""

    def system(self, zone: Zone) -> ZoneSystem:
        """Of this rank's own degrees of freedom; its stiffness product is collective."""
        absorbing: dict[str, NDArray[np.float64]] = {}
        flux: dict[str, NDArray[np.float64]] = {}
        trial, test = ufl.TrialFunction(self.space), ufl.TestFunction(self.space)
        one, line = self.stiffness.createVecs()
        one.set(1)
        for side in zone.inner:
            axis = 0 if side in ("left", "right") else 1
            coordinates = zone.y if axis else zone.x
            place = coordinates[0] if side in ("left", "bottom") else coordinates[-1]
            facets = _facets(self.mesh, axis, float(place))
            tags = meshes.meshtags(self.mesh, 1, facets, np.ones(facets.size, np.int32))
            ds = ufl.Measure("ds", domain=self.mesh, subdomain_data=tags)
            for weights, c in ((absorbing, self.speed), (flux, self.speed**2)):
                assembled_matrix(c * ufl.inner(trial, test) * ds(1)).mult(one, line)
                weights[side] = line.array_r.copy()

        def stiffness(u: NDArray[np.float64]) -> NDArray[np.float64]:
            out = np.empty(u.shape)
            for row, product in zip(np.atleast_2d(u), out.reshape(-1, u.shape[-1])):
                one.setArray(row)
                self.stiffness.mult(one, line)
                product[:] = line.array_r
            return out

        places = self.space.tabulate_dof_coordinates()[: self.free.size]
        return ZoneSystem(
            x=places[:, 0].copy(),
            y=places[:, 1].copy(),
            mass=self.mass.array_r.copy(),
            damping=self.damping.array_r.copy(),
            absorbing=absorbing,
            flux=flux,
            free=self.free > 0,
            stiffness=stiffness,
        )

    def scheme_with(
        self, damping: NDArray, held: NDArray[np.intp], petsc_options: Mapping[str, Any]
    ) -> _Explicit | _Solving:
        """The steps in time with more damping, on given values at ``held``."""
        whole, load = self.damping.copy(), self.damping.duplicate()
        whole.setArray(whole.array_r + damping)
        load.set(0)
        free = self.free.copy()
        free[held] = 0
        kind: Any = _Explicit if self.scheme == "leap-frog" else _Solving
        theta = THETA[self.scheme]
        return kind(self.stiffness, self.mass, whole, load, free, self.step, theta, dict(petsc_options))


def _facets(mesh: Any, axis: int, place: float) -> NDArray[np.int32]:
    return meshes.locate_entities_boundary(mesh, 1, lambda x: abs(x[axis] - place) < _CLOSE)


class _Explicit(Diagonal):
    """Leap-frog with a force that is given in every step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        slowed = self.mass.array_r + self.step / 2 * self.damping.array_r
        self._weight = self.free * self.step**2 / slowed

    def push(self, force: NDArray[np.float64]) -> None:
        """Force of the next step."""
        self.load.setArray(force * self.free)

    def _advance(self, old: Any, now: Any, force: float, driven: Driven | None) -> None:
        super()._advance(old, now, 0.0, None)
        old.setArray(old.array_r + self._weight * self.load.array_r)
        if driven is not None:
            old.array[driven[0]] = driven[1]


class _Solving(Implicit):
    """Newmark with a force that is given in every step."""

    def push(self, force: NDArray[np.float64]) -> None:
        """Force of the next step."""
        self.load.setArray(force * self.free)


class DolfinxSubmodel:
    """Finite elements in a zone, fed by a field at its samples.  All methods are collective.

    Parameters
    ----------
    problem
        The true medium, source and boundaries of the whole square.  A source that reaches into the zone acts
        there as it is.
    zone
        :class:`consolve.pde.waves.zone.zone.Zone`, or (x0, y0, x1, y1).
    times
        (k,) at equal distances: when the field is given.
    field
        (k, rows, columns): u at the samples of the zone, with errors; the same on all ranks.
    boundary
        One of ``wave_zone_feed.WAYS``.
    refinement
        Squares of the mesh along each cell between samples.
    degree
        Of the elements, 1 to 3; their mass is lumped.
    scheme
        ``"leap-frog"`` or ``"newmark"``.
    step
        dt, which divides the interval of the data; default: as
        :class:`consolve.pde.waves.finite_elements.WaveModel` takes it.
    comm
        Communicator of the mesh.
    petsc_options
        For the solver of Newmark's steps.
    options
        Further fields of :class:`consolve.pde.waves.zone.feed.FeedOptions`.

    Attributes
    ----------
    mesh, space, speed
        Of the zone.

    Raises
    ------
    ValueError
        If zone, times and field do not fit each other, the data are too coarse in time for the source, or an
        option is not usable.
    """

    def __init__(
        self,
        problem: WaveProblem,
        zone: Zone | Sequence[float],
        times: ArrayLike,
        field: ArrayLike,
        boundary: str = "fit",
        refinement: int = 4,
        degree: int = 1,
        scheme: str = "leap-frog",
        step: float | None = None,
        comm: Any = MPI.COMM_WORLD,
        petsc_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.problem = problem
        self.zone = zone_of(zone, field)
        data = ZoneField.checked(problem, self.zone, times, field)
        self._data = ZoneFeed(problem, data, refinement, FeedOptions(boundary, **options))
        alone = WaveProblem(problem.medium, None, problem.boundaries)
        model = _ZoneModel(
            alone,
            zone_mesh(self.zone, refinement, comm),
            degree,
            "lumped",
            scheme,
            step,
            interval=data.interval,
        )
        self.mesh, self.space, self.speed, self.step = model.mesh, model.space, model.speed, model.step
        system = model.system(self.zone)
        self._feed = self._data.on(system)
        self._theta = THETA[scheme]
        self._scheme = model.scheme_with(self._feed.damping, self._feed.held, petsc_options or {})
        self._source_nodes, load = source_load(problem, system)
        self._load = load * self._feed.inside[self._source_nodes]
        self._function = fem.Function(self.space)
        x, y = np.meshgrid(self.zone.x, self.zone.y)
        self._probe = Probe(self.mesh, np.column_stack([x.ravel(), y.ravel()]), required=False)
        self._old, self._now = (self._scheme.load.duplicate() for _ in range(2))

    def _forces(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(times, own degrees of freedom)."""
        forces = np.zeros((times.size, self._feed.inside.size))
        forces[:, self._feed.nodes] = self._feed.forces(times)
        if self.problem.source is not None:
            forces[:, self._source_nodes] += self.problem.source.signal(times)[:, None] * self._load
        return forces

    def run(self, times: ArrayLike | None = None) -> NDArray[np.float64]:
        """u at the samples of the zone, from the first time of the data on.

        Parameters
        ----------
        times
            Ascending, within the time of the data, each the first time plus a multiple of :attr:`step`;
            default: those of the data.

        Returns
        -------
        (times, rows, columns), on all ranks.

        Raises
        ------
        FloatingPointError
            If u is not finite.
        RuntimeError
            If the solver of a step does not converge.
        """
        data = self._data.data
        asked = data.times if times is None else np.asarray(times, np.float64)
        marks = step_marks(asked, data, self.step)
        self._start()
        out, now = np.empty((marks.size, *self.zone.shape)), 0
        for k, mark in enumerate(marks):
            while now < mark:
                steps = min(int(mark) - now, _CHUNK)
                self._advance(now, steps)
                now += steps
            owned = self._now.array_r
            self._function.x.array[: owned.size] = owned
            self._function.x.scatter_forward()
            out[k] = self._probe(self._function).reshape(self.zone.shape)
        out += self._data.outside(asked)
        if not np.isfinite(out).all():
            raise FloatingPointError("u is not finite in the zone: data or source are too large")
        return out

    def _start(self) -> None:
        u, v = (self._scheme.load.duplicate() for _ in range(2))
        for vector, values in zip((u, v), self._feed.initial):
            vector.setArray(values)
        self._scheme.push(self._forces(self._data.data.times[:1])[0])
        self._old, self._now = self._scheme.state_before(u, v, 1.0), u

    def _advance(self, first: int, steps: int) -> None:
        t = self._data.data.times[0] + self.step * np.arange(first - 1, first + steps + 1)
        forces = self._forces(t)
        held = self._feed.held_values(t[2:])
        theta = self._theta
        for n in range(steps):
            mean = forces[n + 1]
            if theta:
                mean = theta * forces[n] + (1 - 2 * theta) * mean + theta * forces[n + 2]
            self._scheme.push(mean)
            driven = (self._feed.held, held[n]) if self._data.options.boundary == "dirichlet" else None
            self._scheme.advance(self._old, self._now, 1.0, driven)
            self._old, self._now = self._now, self._old

    def energy(self) -> float:
        """Of w, half a step before the time that the last run ended at."""
        return self._scheme.energy(self._old, self._now)[0]
