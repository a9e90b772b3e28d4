"""Incompressible flow of hot smoke on a MAC grid, with pressure projection by a solver of the caller's.

One step of length dt:

1. bodies move; solid cells, open faces and the pressure operator follow if the raster changed;
2. smoke, temperature and velocity are carried along the flow: MacCormack with a limiter (Selle, Fedkiw, Kim,
   Liu and Rossignac 2008, "An unconditionally stable MacCormack method"), traced back by second-order
   Runge-Kutta;
3. buoyancy (Boussinesq) and vorticity confinement (Fedkiw, Stam and Jensen 2001) act;
4. solid faces take the velocity of their solid, and the projection makes the rest free of divergence:
   A q = -(net outflow of each cell), u -= difference of q, where q = pressure dt / (density spacing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consolve.base.threads import check_not_forked
from consolve.pde.flow import kernels as flow_kernels
from consolve.pde.flow.geometry import FlowGeometry, rasterise
from consolve.pde.flow.scenes import Scene, Source
from consolve.pde.poisson.grid import GridOperator, as_volume

PressureSolver = Callable[[GridOperator, NDArray[np.float64]], NDArray[np.float64]]
"""Solves A p = b: takes the operator and b on all cells (0 where not active), returns p alike."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes
    ----------
    step
        Number of the step, from 1.
    time, dt
        At the end of the step, and its length.
    divergence_before, divergence_after
        Greatest absolute divergence of a fluid cell before and after the projection, per time unit.
    divergence_after_rms
        Root mean square of the divergence after the projection, per time unit.
    incompatibility
        Greatest mean divergence of a region without a way out, per time unit: what moving bodies press into
        it, and no pressure can remove.  0 unless a body squeezes an enclosed region.
    max_velocity
        Greatest velocity component after the step, lengths per time unit.
    geometry_changed
        True if solid cells changed, so that the operator is a new object.
    """

    step: int
    time: float
    dt: float
    divergence_before: float
    divergence_after: float
    divergence_after_rms: float
    incompatibility: float
    max_velocity: float
    geometry_changed: bool


class Flow:
    """The state of a flow and its time step.

    Parameters
    ----------
    scene
        Box, bodies, sources and constants; see :func:`~consolve.pde.flow.scenes.make_scene`.

    Attributes
    ----------
    velocity
        One float64 array per axis on the faces of that axis: one entry more than cells along it.
    density, temperature
        float64, the shape of the grid: of the smoke, relative to the air around; 0 in solids.
    pressure
        float64, the shape of the grid: of the last projection, over the density of the air.
    time, steps
        Since the start.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.time, self.steps = 0.0, 0
        owner = rasterise(scene.bodies, 0.0, scene.shape, scene.spacing)
        self._geometry = FlowGeometry(owner, scene.outside)
        if not self._geometry.fluid.any():
            raise ValueError(f"scene {scene.name!r}: bodies cover all cells of the grid {scene.shape}")
        self.velocity = tuple(np.zeros(f.shape) for f in self._geometry.open_faces)
        self._geometry.set_solid_velocity(self.velocity, scene.bodies, 0.0, scene.spacing)
        self.density, self.temperature = np.zeros(scene.shape), np.zeros(scene.shape)
        self.pressure = np.zeros(scene.shape)
        self._sources = [_source_cells(s, scene) for s in scene.sources]
        self._emit(self.density, self.temperature)

    @property
    def operator(self) -> GridOperator:
        """The pressure operator; the same object for as long as the solid cells stay the same."""
        return self._geometry.operator

    @property
    def solid(self) -> NDArray[np.bool_]:
        """Solid cells."""
        return ~self._geometry.fluid

    def divergence(self) -> NDArray[np.float64]:
        """Divergence of the velocity in fluid cells, per time unit; 0 in solid cells."""
        return _net_outflow(self.velocity, self._geometry) / self.scene.spacing

    def time_step(self) -> float:
        """The next step's length: the fastest flow crosses at most ``courant`` cells."""
        scene = self.scene
        reach = scene.courant * scene.spacing
        push = scene.buoyancy * np.abs(self.temperature).max() + scene.weight * np.abs(self.density).max()
        speed = max(float(np.abs(u).max()) for u in self.velocity) + np.sqrt(reach * push)
        return min(scene.longest_step, reach / speed) if speed > 0 else scene.longest_step

    def step(self, pressure_solver: PressureSolver, dt: float | None = None) -> StepReport:
        """Advance by one time step.  The state changes only once the step is complete.

        Parameters
        ----------
        pressure_solver
            Called once, with the operator and a right-hand side that lies in its range.
        dt
            Length of the step; default :meth:`time_step`.

        Raises
        ------
        ValueError
            If ``dt`` is not positive, or the solver returns another shape or numbers that are not finite.
        """
        check_not_forked()
        dt = self.time_step() if dt is None else float(dt)
        if not (dt > 0 and np.isfinite(dt)):
            raise ValueError(f"the time step must be positive and finite, got {dt}")
        scene, old, time = self.scene, self._geometry, self.time + dt
        geometry = self._geometry_at(time) if any(b.moving for b in scene.bodies) else old

        density, temperature = self._carry_cells(geometry, dt)
        temperature *= np.exp(-scene.cooling * dt)
        self._emit(density, temperature)
        for field in (density, temperature):
            field[~geometry.fluid] = 0
        velocity = self._carry_velocity(geometry, dt)
        self._add_forces(velocity, density, temperature, geometry, dt)
        geometry.set_solid_velocity(velocity, scene.bodies, time, scene.spacing)

        before = _net_outflow(velocity, geometry)
        rhs = geometry.operator.remove_null_space(-before) if geometry.singular else -before
        incompatibility = float(np.abs(rhs + before).max())
        q = np.asarray(pressure_solver(geometry.operator, rhs), np.float64)
        if q.shape != scene.shape:
            raise ValueError(f"the pressure solver returned shape {q.shape}, expected {scene.shape}")
        if not np.isfinite(q).all():
            raise ValueError("the pressure solver returned NaN or Inf; look at its reason and its options")
        _subtract_gradient(velocity, q, geometry)
        after = _net_outflow(velocity, geometry)

        self.velocity, self.density, self.temperature = velocity, density, temperature
        self.pressure = q * (scene.spacing / dt)
        self.time, self.steps, self._geometry = time, self.steps + 1, geometry
        h = scene.spacing
        return StepReport(
            step=self.steps,
            time=time,
            dt=dt,
            divergence_before=float(np.abs(before).max()) / h,
            divergence_after=float(np.abs(after).max()) / h,
            divergence_after_rms=float(np.linalg.norm(after)) / np.sqrt(max(1, geometry.fluid.sum())) / h,
            incompatibility=incompatibility / h,
            max_velocity=max(float(np.abs(u).max()) for u in velocity),
            geometry_changed=geometry is not old,
        )

    def _geometry_at(self, time: float) -> FlowGeometry:
        """The geometry at a time: the present one if no cell changes."""
        scene = self.scene
        owner = rasterise(scene.bodies, time, scene.shape, scene.spacing)
        unchanged = np.array_equal(owner, self._geometry.owner)
        return self._geometry if unchanged else FlowGeometry(owner, scene.outside)

    def _emit(self, density: NDArray, temperature: NDArray) -> None:
        """Let the sources give off smoke."""
        for cells, smoke, heat in self._sources:
            density[cells] = np.maximum(density[cells], smoke)
            temperature[cells] = np.maximum(temperature[cells], heat)

    def _carry_cells(self, geometry: FlowGeometry, dt: float) -> tuple[NDArray, NDArray]:
        fields = np.stack([as_volume(self.density), as_volume(self.temperature)])
        known = (self._geometry.cells_known, geometry.cells_known)
        density, temperature = self._carry(fields, known, as_volume(geometry.fluid), None, dt)
        return density.reshape(self.scene.shape), temperature.reshape(self.scene.shape)

    def _carry_velocity(self, geometry: FlowGeometry, dt: float) -> tuple[NDArray, ...]:
        carried = []
        for axis, u in enumerate(self.velocity):
            at = axis + 3 - u.ndim
            known = (self._geometry.faces_known[at], geometry.faces_known[at])
            where = as_volume(geometry.open_faces[axis])
            carried.append(self._carry(as_volume(u)[None], known, where, at, dt)[0].reshape(u.shape))
        return tuple(carried)

    def _carry(
        self,
        fields: NDArray,
        known: tuple[NDArray, NDArray],
        where: NDArray,
        staggered: int | None,
        dt: float,
    ) -> NDArray:
        """Fields (with a leading axis) after dt; ``known`` before and after the bodies moved."""
        offset = np.full(3, 0.5)
        if staggered is not None:
            offset[staggered] = 0
        flow = (*_volumes(self.velocity), *self._geometry.faces_known)
        forward, low, high, out = (np.empty_like(fields) for _ in range(4))
        cells = dt / self.scene.spacing
        flow_kernels.advect(fields, known[0], where, offset, *flow, cells, forward, low, high)
        # Nodes that the bodies have just left hold no value to correct against.
        both = where & ((known[0] & flow_kernels.KNOWN) > 0)
        flow_kernels.correct(fields, forward, low, high, known[1], both, offset, *flow, cells, out)
        return out

    def _add_forces(
        self,
        velocity: tuple[NDArray, ...],
        density: NDArray,
        temperature: NDArray,
        geometry: FlowGeometry,
        dt: float,
    ) -> None:
        scene = self.scene
        _add_at_faces(velocity[0], dt * (scene.buoyancy * temperature - scene.weight * density), 0)
        if scene.vorticity_confinement:
            shape = (3, *as_volume(density).shape)
            curl, force = np.empty(shape), np.empty(shape)
            flow_kernels.vorticity(*_volumes(velocity), curl)
            flow_kernels.confinement(curl, as_volume(geometry.fluid), force)
            for axis, u in enumerate(velocity):
                component = force[axis + 3 - u.ndim].reshape(scene.shape)
                # spacing N x (curl / spacing): the spacing drops out
                _add_at_faces(u, dt * scene.vorticity_confinement * component, axis)


def _source_cells(source: Source, scene: Scene) -> tuple[NDArray[np.bool_], NDArray, NDArray]:
    """Cells inside a source, and the density and temperature of each."""
    square = np.zeros(scene.shape)
    radius = max(source.radius, scene.spacing)
    for axis, (n, c) in enumerate(zip(scene.shape, source.centre)):
        x = ((np.arange(n) + 0.5) * scene.spacing - c) / radius
        square += (x**2).reshape([-1 if a == axis else 1 for a in range(len(scene.shape))])
    cells = square < 1
    profile = np.minimum(1, 2 * (1 - square[cells]))
    random = np.random.default_rng(scene.seed).uniform(-1, 1, profile.size)
    heat = source.temperature * (1 + source.flicker * random) * profile
    return cells, source.density * profile, heat


def _volumes(velocity: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
    """Velocities of three axes as 3D arrays; a 2D flow stands still along the first."""
    if velocity[0].ndim == 3:
        return velocity
    still = np.zeros((2, velocity[0].shape[0] - 1, velocity[0].shape[1]))
    return still, *(as_volume(u) for u in velocity)


def _net_outflow(velocity: tuple[NDArray, ...], geometry: FlowGeometry) -> NDArray:
    out = np.empty(geometry.fluid.shape)
    flow_kernels.net_outflow(*_volumes(velocity), as_volume(geometry.fluid), as_volume(out))
    return out


def _subtract_gradient(velocity: tuple[NDArray, ...], q: NDArray, geometry: FlowGeometry) -> None:
    q = as_volume(np.ascontiguousarray(q))
    for axis, (u, is_open) in enumerate(zip(velocity, geometry.open_faces)):
        flow_kernels.subtract_gradient(as_volume(u), as_volume(is_open), q, axis + 3 - u.ndim)


def _add_at_faces(u: NDArray, at_cells: NDArray, axis: int) -> None:
    """Add to each face the mean of its two cells; to the outermost faces their only cell's value."""
    along, cells = np.moveaxis(u, axis, 0), np.moveaxis(at_cells, axis, 0)
    along[1:-1] += 0.5 * (cells[1:] + cells[:-1])
    along[0] += cells[0]
    along[-1] += cells[-1]
