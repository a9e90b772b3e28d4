"""The flow: invariants, exact solutions, moving bodies, reports."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from direct_solver import DirectSolver

from consolve.pde.flow.bodies import Paddle, Sphere
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.scenes import SCENE_NAMES, Scene, Source, make_scene
from consolve.pde.poisson.grid import AIR, SOLID


def closed_box(shape, **more):
    return Scene("box", shape, ((SOLID, SOLID),) * len(shape), **more)


def stir(flow, seed=0):
    """A random velocity, projected."""
    rng = np.random.default_rng(seed)
    for u in flow.velocity:
        u[:] = rng.standard_normal(u.shape)
    flow.step(DirectSolver(), dt=1e-9)


def kinetic_energy(flow):
    return sum(float((u**2).sum()) for u in flow.velocity) * flow.scene.spacing ** len(flow.scene.shape)


@pytest.mark.parametrize("name", SCENE_NAMES)
@pytest.mark.parametrize("shape", [(24, 18), (12, 11, 10), (17, 9)])
def test_a_step_leaves_no_divergence_and_bounds_the_smoke(name, shape):
    flow, solver = Flow(make_scene(name, shape)), DirectSolver()
    for step in range(1, 9):
        report = flow.step(solver)
        assert report.step == flow.steps == step and report.time == flow.time
        assert report.divergence_before > 1e-3
        assert report.divergence_after < 1e-10 and report.divergence_after_rms <= report.divergence_after
        assert np.abs(flow.divergence()).max() == report.divergence_after
        assert report.incompatibility == 0
        assert report.max_velocity == max(np.abs(u).max() for u in flow.velocity)
        assert flow.density.min() >= 0 and flow.density.max() <= 1
        assert flow.temperature.min() >= 0 and flow.temperature.max() <= 1.15
        assert not flow.density[flow.solid].any() and not flow.temperature[flow.solid].any()
    assert flow.velocity[0].max() > 0.05


def test_same_scene_same_flow():
    def run():
        flow, solver = Flow(make_scene("plume-moving-body", (24, 20), seed=3)), DirectSolver()
        for _ in range(6):
            flow.step(solver)
        return (*flow.velocity, flow.density, flow.temperature, flow.pressure)

    assert all(np.array_equal(a, b) for a, b in zip(run(), run()))


@pytest.mark.parametrize("shape", [(20, 22), (10, 9, 11)])
def test_a_constant_stays_constant_past_solids(shape):
    centre = tuple(0.5 * n / shape[0] for n in shape)
    flow = Flow(closed_box(shape, bodies=(Sphere(centre, 0.22),), buoyancy=0.0))
    stir(flow)
    fluid = ~flow.solid
    flow.density[fluid], flow.temperature[fluid] = 0.7, 0.3
    for _ in range(4):
        flow.step(DirectSolver())
        np.testing.assert_allclose(flow.density[fluid], 0.7, rtol=1e-13)
        np.testing.assert_allclose(flow.temperature[fluid], 0.3, rtol=1e-13)


def test_uniform_warmth_is_carried_by_the_pressure_alone():
    flow = Flow(closed_box((12, 10, 8), buoyancy=3.0, weight=0.5))
    flow.temperature[:], flow.density[:] = 0.4, 0.2
    flow.step(DirectSolver())
    assert max(np.abs(u).max() for u in flow.velocity) < 1e-12
    rise = np.diff(flow.pressure, axis=0) / flow.scene.spacing
    np.testing.assert_allclose(rise, 3.0 * 0.4 - 0.5 * 0.2, rtol=1e-10)


def taylor_green(n):
    """The steady vortex sin(pi y) cos(pi x) in a closed box, and the greatest error after time 0.5."""
    flow, solver = Flow(closed_box((n, n), buoyancy=0.0)), DirectSolver()
    face, centre = np.arange(n + 1) / n, (np.arange(n) + 0.5) / n
    exact = (
        np.outer(np.sin(np.pi * face), np.cos(np.pi * centre)),
        -np.outer(np.cos(np.pi * centre), np.sin(np.pi * face)),
    )
    for u, e in zip(flow.velocity, exact):
        u[:] = e
    assert np.abs(flow.divergence()).max() < 1e-11
    energy = kinetic_energy(flow)
    for _ in range(n // 2):
        flow.step(solver, dt=1 / n)
    error = max(np.abs(u - e).max() for u, e in zip(flow.velocity, exact))
    return error, kinetic_energy(flow) / energy


def test_taylor_green_vortex_is_steady():
    coarse, fine = taylor_green(16), taylor_green(32)
    assert coarse[0] < 0.1 and fine[0] < coarse[0] / 1.8
    assert 0.85 < coarse[1] < 1 and 0 < 1 - fine[1] < 0.65 * (1 - coarse[1])


def test_a_drop_of_smoke_keeps_its_mass_in_a_closed_box():
    flow, solver = Flow(closed_box((40, 40), buoyancy=1.0)), DirectSolver()
    y, x = np.indices((40, 40)) / 40
    flow.density[:] = flow.temperature[:] = np.exp(-40 * ((y - 0.35) ** 2 + (x - 0.5) ** 2))
    before, height = flow.density.sum(), (y * flow.density).sum() / flow.density.sum()
    for _ in range(30):
        flow.step(solver)
    assert flow.density.sum() == pytest.approx(before, rel=0.05)
    assert (y * flow.density).sum() / flow.density.sum() > height + 0.05


def test_mirrored_scenes_make_mirrored_flows():
    source = Source((0.1, 0.5), 0.15, flicker=0.0)
    scene = Scene("test", (24, 24), ((SOLID, AIR), (SOLID, SOLID)), (), (source,), vorticity_confinement=0.1)
    flow, solver = Flow(scene), DirectSolver()
    for _ in range(10):
        flow.step(solver)
    np.testing.assert_allclose(flow.density, flow.density[:, ::-1], atol=1e-10)
    np.testing.assert_allclose(flow.velocity[1], -flow.velocity[1][:, ::-1], atol=1e-10)


@pytest.mark.parametrize("sides", [AIR, SOLID])
@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ((30, 26), Sphere((0.5, 0.43), 0.15, swing=(0.1, 0.08), period=1.3)),
        ((30, 26), Paddle((0.5, 0.43), 0.5, 0.1, angle=0.4, rate=2.0)),
        ((16, 15, 14), Sphere((0.5, 0.45, 0.43), 0.2, swing=(0.05, 0.1, 0.08))),
        ((16, 15, 14), Paddle((0.5, 0.45, 0.43), 0.5, 0.15, 0.4, angle=0.4, rate=-3.0)),
    ],
)
def test_a_moving_body_sets_the_velocity_of_its_faces(shape, body, sides):
    outside = ((SOLID, sides), *[(SOLID, SOLID)] * (len(shape) - 1))
    flow, solver = Flow(Scene("test", shape, outside, (body,), buoyancy=0.0)), DirectSolver()
    for _ in range(5):
        report = flow.step(solver, dt=0.02)
        assert report.incompatibility < 1e-10, "a rigid body inside the box keeps its volume"
        assert report.divergence_after < 1e-10
        assert report.max_velocity > 0.05
        h = flow.scene.spacing
        for axis, u in enumerate(flow.velocity):
            points = [(i + (0.0 if a == axis else 0.5)) * h for a, i in enumerate(np.indices(u.shape))]
            expected = body.velocity(axis, points, flow.time)
            inner = np.moveaxis(flow.solid, axis, 0)
            touched = np.moveaxis(inner[1:] | inner[:-1], 0, axis)
            middle = (slice(None),) * axis + (slice(1, -1),)
            np.testing.assert_allclose(u[middle][touched], expected[middle][touched], atol=1e-13)


@dataclass(frozen=True)
class Piston:
    """A block over the full width that moves up."""

    height: float = 0.5
    speed: float = 0.3
    moving: bool = True

    def bounds(self, time):
        middle = self.height + self.speed * time
        return np.array([middle - 0.1, -1.0]), np.array([middle + 0.1, 9.0])

    def covers(self, points, time):
        inside = np.abs(points[0] - self.height - self.speed * time) < 0.1
        return inside & (points[1] > -1)

    def velocity(self, axis, points, time):
        shape = np.broadcast_shapes(*(x.shape for x in points))
        return np.full(shape, self.speed if axis == 0 else 0.0)


def test_a_piston_in_a_closed_box_reports_what_it_squeezes():
    flow = Flow(closed_box((20, 10), bodies=(Piston(),), buoyancy=0.0))
    report = flow.step(DirectSolver(), dt=0.01)
    divergence, fluid = flow.divergence(), ~flow.solid
    # Volume flux of the piston over the volume of the region above, and below.
    above = int(fluid[12:, 0].sum())
    assert divergence[-1, 0] == pytest.approx(-0.3 / (above / 20), rel=1e-9)
    assert np.ptp(divergence[-above:]) < 1e-10
    assert report.incompatibility == pytest.approx(np.abs(divergence).max())
    assert report.divergence_after == pytest.approx(report.incompatibility)


def test_a_piston_under_an_opening_pushes_the_air_out():
    outside = ((SOLID, AIR), (SOLID, SOLID))
    flow = Flow(Scene("test", (20, 10), outside, (Piston(height=0.05),), buoyancy=0.0))
    report = flow.step(DirectSolver(), dt=0.01)
    assert report.divergence_after < 1e-10 and report.incompatibility == 0
    np.testing.assert_allclose(flow.velocity[0][-1], 0.3, rtol=1e-10)


def test_the_operator_is_kept_while_the_geometry_stays():
    flow, solver = Flow(make_scene("plume", (20, 16))), DirectSolver()
    first = flow.operator
    assert not any(flow.step(solver).geometry_changed for _ in range(3))
    assert flow.operator is first

    slow = Flow(replace(make_scene("plume", (20, 16)), bodies=(Sphere((0.5, 0.4), 0.12, swing=(0.1, 0.0)),)))
    changes, seen = [], [slow.operator]
    for _ in range(12):
        changes.append(slow.step(solver, dt=0.01).geometry_changed)
        assert (slow.operator is not seen[-1]) == changes[-1]
        seen.append(slow.operator)
    assert any(changes) and not all(changes)


def test_time_step_follows_the_courant_number():
    flow = Flow(make_scene("plume", (40, 30)))
    assert flow.time_step() <= flow.scene.longest_step
    solver = DirectSolver()
    for _ in range(25):
        speed = max(np.abs(u).max() for u in flow.velocity)
        assert flow.time_step() * speed <= flow.scene.courant * flow.scene.spacing
        flow.step(solver)
    still = Flow(closed_box((8, 8)))
    assert still.time_step() == still.scene.longest_step


def test_an_inexact_solver_shows_in_the_report():
    exact = DirectSolver()
    flow = Flow(make_scene("plume", (24, 18)))
    report = flow.step(lambda op, b: 0.9 * exact(op, b))
    assert report.divergence_after == pytest.approx(0.1 * report.divergence_before, rel=1e-6)


def test_a_failing_solver_leaves_the_flow_as_it_was():
    flow = Flow(make_scene("plume-moving-body", (24, 18)))
    flow.step(DirectSolver())
    before = (flow.time, flow.steps, flow.operator, [u.copy() for u in flow.velocity], flow.density.copy())

    def fail(op, b):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow.step(fail)
    with pytest.raises(ValueError, match="NaN or Inf"):
        flow.step(lambda op, b: np.full(op.shape, np.nan))
    with pytest.raises(ValueError, match=r"returned shape \(3,\)"):
        flow.step(lambda op, b: np.zeros(3))
    for dt in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="time step must be positive"):
            flow.step(DirectSolver(), dt=dt)
    assert (flow.time, flow.steps) == before[:2] and flow.operator is before[2]
    assert all(np.array_equal(a, b) for a, b in zip(flow.velocity, before[3]))
    assert np.array_equal(flow.density, before[4])


def test_bad_scenes_are_refused():
    with pytest.raises(ValueError, match="unknown scene 'smoke'; known: plume, plume-moving-body"):
        make_scene("smoke", (20, 20))
    for shape in ((20,), (20, 7), (20, 20.5)):
        with pytest.raises(ValueError, match="at least 8 cells"):
            make_scene("plume", shape)
    with pytest.raises(ValueError, match="bodies cover all cells"):
        Flow(closed_box((8, 8), bodies=(Sphere((0.5, 0.5), 2.0),)))


@pytest.mark.parametrize("name", SCENE_NAMES)
def test_the_seed_changes_a_scene(name):
    one, two = make_scene(name, (20, 20), 1), make_scene(name, (20, 20), 2)
    assert one != two and one == make_scene(name, (20, 20), 1)


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 4)])
def test_the_direct_solver_solves_every_component(shape):
    from consolve.pde.poisson.domains import make_domain
    from consolve.pde.poisson.right_hand_sides import right_hand_side

    solver = DirectSolver()
    for name in ("spheres", "closed-spheres", "pockets", "closed-pockets"):
        op = make_domain(name, shape, 1).operator()
        b = right_hand_side("noise", op)
        x = solver(op, b)
        np.testing.assert_allclose(op.apply(x), b, atol=1e-11)
        np.testing.assert_allclose(op.remove_null_space(x), x, atol=1e-12)
