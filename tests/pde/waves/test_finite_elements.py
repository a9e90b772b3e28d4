"""Wave problems in DOLFINx: the structured operator, exact solutions, orders, energy and ranks."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mpi_program import needs_mpirun, result_on_ranks
from scipy.sparse.linalg import eigsh

pytest.importorskip("dolfinx")

from consolve.pde.waves.dolfinx_versions import meshes
from consolve.pde.waves.finite_elements import WaveModel
from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.mesh import MPI, Probe, unit_square_mesh, without_holes
from consolve.pde.waves.problem import (
    ALL_MEDIA,
    Boundaries,
    Medium,
    PixelMedium,
    Source,
    WaveProblem,
    sample_source,
    vrmse,
)

UNIT = PixelMedium([[1.0]])
FIXED, FREE = Boundaries.all("fixed"), Boundaries.all("free")
MIXED = Boundaries("absorbing", "fixed", "free", "absorbing")


def pixels(kind, n, seed=1):
    """A sampled medium as the n x n grid sees it: one speed for both triangles of a cell."""
    medium = Medium(kind, seed)
    x = (np.arange(n - 1) + 0.5) / (n - 1)
    place = x[None, :], x[:, None]
    return PixelMedium(medium.speed(*place), medium.fixed(*place), medium.hole(*place))


def to_scipy(matrix):
    indptr, indices, values = matrix.getValuesCSR()
    return sp.csr_matrix((values, indices, indptr), matrix.getSize())


def numbers(model, n):
    """Vertex of the n x n grid of each P1 degree of freedom."""
    places = np.rint(model.space.tabulate_dof_coordinates()[:, :2] * (n - 1)).astype(int)
    return places[:, 1] * n + places[:, 0]


@pytest.mark.parametrize("sides", [Boundaries(), FREE, FIXED, MIXED])
@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_the_structured_operator_is_the_assembled_one(kind, sides):
    n = 22
    problem = WaveProblem(pixels(kind, n), None, sides)
    grid, model = WaveGrid.of(problem, n), WaveModel(problem, unit_square_mesh(n))
    vertex = numbers(model, n)
    assert np.array_equal(np.sort(vertex), np.flatnonzero(grid.mass.reshape(-1)))
    unit_vectors = np.eye(n * n).reshape(-1, n, n)
    stiffness = grid.stiffness_product(unit_vectors).reshape(n * n, n * n)[np.ix_(vertex, vertex)]
    assembled = to_scipy(model.stiffness).toarray()
    assert abs(assembled - stiffness).max() < 1e-12 * abs(stiffness).max()
    for found, expected in ((model.mass, grid.mass), (model.damping, grid.damping)):
        values = expected.reshape(-1)[vertex]
        assert abs(found.array - values).max() <= 1e-12 * max(abs(values).max(), 1e-300)
    consistent = to_scipy(WaveModel(problem, unit_square_mesh(n), mass="consistent").mass)
    assert abs(consistent.sum(axis=1).A1 - model.mass.array).max() < 1e-12 * abs(grid.mass).max()


@pytest.mark.parametrize("kind", ALL_MEDIA)
def test_leap_frog_in_dolfinx_is_the_matrix_free_one(kind):
    n, times = 64, 0.02 * np.arange(0, 26, 5)
    medium = pixels(kind, n)
    problem = WaveProblem(medium, sample_source(1, Medium(kind, 1)), MIXED)
    run, model = LeapFrog(problem, n), WaveModel(problem, unit_square_mesh(n))
    assert model.step == run.step
    assert 0.995 < model.stable_step() / run.stable_step() < 1.01
    expected = run.run(times)
    assert abs(model.run(times, n) - expected).max() < 1e-12 * abs(expected).max()
    for name in ("lost", "work"):
        assert getattr(model, name) == pytest.approx(getattr(run, name), rel=1e-9)
    assert model.energy() == pytest.approx(run.energy(), rel=1e-9)


def test_the_start_with_a_velocity_is_the_same_too():
    n = 17
    u, v = (lambda x, y: np.cos(3 * x + y)), (lambda x, y: np.sin(x - 4 * y))
    x = np.linspace(0, 1, n)
    state = u(x[None, :], x[:, None]), v(x[None, :], x[:, None])
    problem = WaveProblem(pixels("smooth", n), Source(0.5, 0.5, 5.0, kind="sine", radius=0.1), MIXED)
    run = LeapFrog(problem, n, initial=state)
    model = WaveModel(problem, unit_square_mesh(n), initial=(u, v))
    times = [0.0, 0.02, 0.2]
    assert abs(model.run(times, n) - run.run(times)).max() < 1e-12


def standing(degree, cells, **how):
    """Error of a standing wave against the solution that is exact in space and discrete in time."""
    step, steps = 0.004, 60

    def mode(x, y):
        return np.sin(np.pi * x) * np.sin(np.pi * y)

    model = WaveModel(
        WaveProblem(UNIT, None, FIXED), unit_square_mesh(cells + 1), degree, step=step,
        initial=(mode, lambda x, y: 0 * x), **how,
    )  # fmt: skip
    theta = 0.25 if how.get("scheme") == "newmark" else 0.0
    eigenvalue = 2 * np.pi**2
    turn = 2 * np.arcsin(0.5 * step * np.sqrt(eigenvalue / (1 + theta * step**2 * eigenvalue)))
    points = np.random.default_rng(0).uniform(0, 1, (400, 2))
    return vrmse(model.run([steps * step], points)[0], np.cos(steps * turn) * mode(*points.T))


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("scheme", ["leap-frog", "newmark"])
def test_consistent_mass_has_order_degree_plus_one_in_h(degree, scheme):
    coarse, fine = (standing(degree, n, mass="consistent", scheme=scheme) for n in (4, 8))
    assert degree + 0.8 < math.log2(coarse / fine) < degree + 1.5


@pytest.mark.parametrize("mass", ["lumped", "consistent"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_squared_frequencies_have_order_two_by_lumped_and_twice_the_degree_by_consistent_mass(degree, mass):
    errors = []
    for cells in (8, 16) if mass == "consistent" else (16, 32):
        model = WaveModel(WaveProblem(UNIT, None, FIXED), unit_square_mesh(cells + 1), degree, mass)
        free = np.flatnonzero(model.free)
        m = sp.diags(model.mass.array, format="csr") if mass == "lumped" else to_scipy(model.mass)
        matrices = (matrix[free][:, free] for matrix in (to_scipy(model.stiffness), m))
        lowest = eigsh(next(matrices), 1, next(matrices), sigma=15.0)[0][0]
        errors.append(abs(lowest / (2 * np.pi**2) - 1))
    expected = 2 if mass == "lumped" else 2 * degree
    assert abs(math.log2(errors[0] / errors[1]) - expected) < 0.1


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_lumped_mass_is_positive_and_that_of_the_square(degree):
    model = WaveModel(WaveProblem(UNIT), unit_square_mesh(5), degree)
    assert model.mass.min()[1] > 0 and model.mass.sum() == pytest.approx(1)


@pytest.mark.parametrize("mass", ["lumped", "consistent"])
@pytest.mark.parametrize("scheme", ["leap-frog", "newmark"])
def test_both_schemes_have_order_two_in_dt(scheme, mass):
    errors, n, end = [], 9, 0.96
    problem = WaveProblem(UNIT, Source(0.5, 0.5, 3.0, radius=0.15, kind="sine"), MIXED)
    u = lambda x, y: np.cos(2 * x) * np.sin(y) * (1 - x)  # noqa: E731
    v = lambda x, y: np.sin(x * y) * (1 - x)  # noqa: E731

    def solve(step):
        model = WaveModel(problem, unit_square_mesh(n), 1, mass, scheme, step=step, initial=(u, v))
        return model.run([end], n)[0]

    exact = solve(end / 1024)
    errors = [abs(solve(end / steps) - exact).max() for steps in (32, 64, 128)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.8).all() and (orders < 2.3).all()


@pytest.mark.parametrize("how", [
    {"mass": "lumped"}, {"mass": "consistent"}, {"scheme": "newmark"}, {"degree": 2}, {"degree": 3},
    {"degree": 2, "mass": "consistent", "scheme": "newmark", "step": 0.01},
])  # fmt: skip
def test_energy_is_conserved_or_changes_by_work_and_loss(how):
    u, v = (lambda x, y: np.sin(9 * x * y)), (lambda x, y: np.cos(8 * x - y))
    model = WaveModel(
        WaveProblem(pixels("holes", 22), None, FREE), unit_square_mesh(22), **how, initial=(u, v)
    )
    start = model.energy()
    model.advance(40)
    assert abs(model.energy() / start - 1) < 1e-8 and model.lost == model.work == 0
    problem = WaveProblem(pixels("inclusions", 22), Source(0.4, 0.4, 4.0, radius=0.05))
    model = WaveModel(problem, unit_square_mesh(22), **how)
    model.run([0.7], 3)
    assert model.lost > 0 and abs(model.energy() + model.lost - model.work) < 1e-8 * model.work
    before = model.energy()
    model.run([1.0], 3)
    assert model.energy() < before


@pytest.mark.parametrize("how", [{}, {"scheme": "newmark", "step": 0.01}, {"mass": "consistent"}])
def test_a_zone_driven_by_the_outer_solution_repeats_it(how):
    n = 33
    problem = WaveProblem(pixels("smooth", n), Source(0.7, 0.7, 4.0, radius=0.05), MIXED)
    outer = WaveModel(problem, unit_square_mesh(n), **how)
    zone = meshes.create_rectangle(MPI.COMM_WORLD, [[0.0, 0.25], [0.5, 0.75]], [16, 16])
    inner = WaveModel(
        problem, zone, **(how | {"step": outer.step}), driven=lambda x, y: (x > 0.49) | (abs(y - 0.5) > 0.24)
    )
    assert inner.driven_points.shape == (16 + 16 + 17, 2)
    probe = Probe(outer.mesh, inner.driven_points)

    def drive(time, points):
        outer.advance(1)
        assert outer.time == pytest.approx(time) and points is inner.driven_points
        return probe(outer.displacement)

    points = np.random.default_rng(0).uniform([0, 0.25], [0.5, 0.75], (50, 2))
    found = inner.run([0.6], points, drive)
    expected = Probe(outer.mesh, points)(outer.displacement)
    assert abs(expected).max() > 0.01
    assert abs(found - expected).max() < 1e-7 * abs(expected).max()


def test_holes_are_taken_out_of_the_mesh():
    hole = np.zeros((8, 8), bool)
    hole[2:4, 5:7] = True
    mesh = unit_square_mesh(9)
    left = without_holes(mesh, PixelMedium(np.ones((8, 8)), hole=hole))
    assert left.topology.index_map(2).size_local == 2 * (64 - 4)
    assert left.topology.index_map(0).size_local == 81 - 1
    assert without_holes(mesh, UNIT) is mesh
    with pytest.raises(ValueError, match="leave no cell"):
        without_holes(mesh, PixelMedium([[1.0]], hole=[[True]]))
    model = WaveModel(WaveProblem(PixelMedium(np.ones((8, 8)), hole=hole)), mesh)
    with pytest.raises(ValueError, match=r"the point \(0.75, 0.375\) lies outside the mesh"):
        model.run([0.02], [[0.1, 0.1], [0.75, 0.375]])


def test_other_meshes_than_squares_serve():
    """A disc that the unit square holds: its rim is free, and its energy is kept."""
    mesh = unit_square_mesh(17)
    x = mesh.geometry.x
    p = 2 * x[:, :2] - 1
    x[:, 0] = 0.5 + 0.4 * p[:, 0] * np.sqrt(1 - p[:, 1] ** 2 / 2)
    x[:, 1] = 0.5 + 0.4 * p[:, 1] * np.sqrt(1 - p[:, 0] ** 2 / 2)
    model = WaveModel(WaveProblem(UNIT, None), mesh, initial=(lambda x, y: x * y, lambda x, y: 0 * x))
    assert abs(model.mass.sum() - np.pi * 0.16) < 0.01 and model.damping.sum() == 0
    start = model.energy()
    model.run([1.0], [[0.5, 0.5]])
    assert abs(model.energy() / start - 1) < 1e-10


def test_an_unstable_step_is_refused_and_newmark_has_none():
    problem = WaveProblem(UNIT)
    for how in ({}, {"degree": 2}, {"mass": "consistent"}):
        stable = WaveModel(problem, unit_square_mesh(9), **how).stable_step()
        with pytest.raises(ValueError, match="not stable: it must be positive and below"):
            WaveModel(problem, unit_square_mesh(9), **how, step=1.001 * stable)
    assert WaveModel(problem, unit_square_mesh(9), scheme="newmark").stable_step() == math.inf
    with pytest.raises(ValueError, match="positive"):
        WaveModel(problem, unit_square_mesh(9), scheme="newmark", step=0.0)


@pytest.mark.parametrize("how", [{}, {"degree": 2}, {"degree": 3}, {"degree": 2, "mass": "consistent"}])
def test_the_stable_step_is_where_stability_ends(how):
    """Against the eigenvalues of the dense matrices."""
    model = WaveModel(WaveProblem(pixels("smooth", 5), None, FREE), unit_square_mesh(5), **how)
    mass = np.diag(model.mass.array) if how.get("mass") != "consistent" else to_scipy(model.mass).toarray()
    largest = np.linalg.eigvals(np.linalg.solve(mass, to_scipy(model.stiffness).toarray())).real.max()
    assert 0.99 < model.stable_step() * math.sqrt(largest) / 2 < 1.0001


def test_growth_without_bound_is_an_error(monkeypatch):
    monkeypatch.setattr(
        "consolve.pde.waves.finite_elements.largest_eigenvalue", lambda *a: 100.0
    )  # far too low
    noise = np.random.default_rng(0)
    model = WaveModel(
        WaveProblem(UNIT, None, FREE), unit_square_mesh(17), step=0.1,
        initial=(lambda x, y: noise.normal(size=x.size), lambda x, y: 0 * x),
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"grows without bound|not finite"):
        model.run([2.0], 5)


def test_petsc_options_reach_the_solver_and_a_solver_that_gives_up_is_an_error():
    problem = WaveProblem(UNIT, Source(0.5, 0.5, 4.0, radius=0.1))
    options = {"ksp_type": "cg", "pc_type": "none", "ksp_max_it": 1}
    model = WaveModel(problem, unit_square_mesh(17), scheme="newmark", petsc_options=options)
    with pytest.raises(RuntimeError, match="gave up with reason -3 after 1 iterations"):
        model.run([0.4], 3)
    expected = WaveModel(problem, unit_square_mesh(17), scheme="newmark").run([0.4], 9)
    options = {"ksp_type": "cg", "pc_type": "sor", "ksp_rtol": 1e-12}
    found = WaveModel(problem, unit_square_mesh(17), scheme="newmark", petsc_options=options).run([0.4], 9)
    assert abs(found - expected).max() < 1e-9 * abs(expected).max() and abs(expected).max() > 0.01


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda m: WaveModel(WaveProblem(UNIT), m, 4), "degree 1, 2 or 3, got 4"),
        (lambda m: WaveModel(WaveProblem(UNIT), m, mass="thin"), "unknown mass 'thin'"),
        (lambda m: WaveModel(WaveProblem(UNIT), m, scheme="euler"), "unknown scheme 'euler'"),
        (lambda m: WaveModel(WaveProblem(UNIT), m, interval=-1.0), "interval"),
        (lambda m: WaveModel(WaveProblem(UNIT), m, driven=lambda x, y: x > 2), "True on none"),
        (lambda m: WaveModel(WaveProblem(UNIT), m, driven=lambda x, y: x < 1).advance(1), "takes the values"),
        (lambda m: WaveModel(WaveProblem(UNIT), m).advance(1, lambda t, p: 0), "is not driven"),
        (lambda m: WaveModel(WaveProblem(UNIT), m).run([0.013], 3), "not a multiple of the step"),
        (lambda m: WaveModel(WaveProblem(UNIT), m).run([0.02], [[2.0, 0.5]]), r"\(2, 0.5\) lies outside"),
        (lambda m: WaveModel(WaveProblem(UNIT), m).run([0.02], [0.5, 0.5]), "an array"),
        (lambda m: WaveModel(WaveProblem(UNIT, Source(0.55, 0.57, 4.0, radius=1e-4)), m), "falls between"),
        (lambda m: WaveModel(WaveProblem(UNIT), m, initial=(lambda x, y: x / 0, np.add)), "finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(unit_square_mesh(9))


def test_meshes_that_are_not_of_triangles_and_sources_outside_the_mesh_are_refused():
    quads = meshes.create_unit_square(MPI.COMM_WORLD, 4, 4, meshes.CellType.quadrilateral)
    with pytest.raises(ValueError, match="meshes of triangles in 2D, got quadrilateral"):
        WaveModel(WaveProblem(UNIT), quads)
    part = meshes.create_rectangle(MPI.COMM_WORLD, [[0.0, 0.0], [0.5, 0.5]], [4, 4])
    with pytest.raises(ValueError, match="outside the mesh"):
        WaveModel(WaveProblem(UNIT, Source(0.7, 0.7, 4.0)), part)


PROGRAM = Path(__file__).parent / "finite_elements_ranks.py"


@functools.cache
def found(ranks):
    return result_on_ranks(ranks, PROGRAM)


@needs_mpirun
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_results_on_ranks_are_those_on_one(ranks):
    alone, together = found(1), found(ranks)
    assert set(alone["runs"]) == set(together["runs"]) and len(alone["runs"]) == 7
    for name, expected in alone["runs"].items():
        values, other = np.array(expected), np.array(together["runs"][name])
        assert abs(values).max() > 1e-3
        assert abs(other - values).max() < 1e-8 * abs(values).max(), name


@needs_mpirun
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_errors_are_the_same_on_all_ranks(ranks):
    for words, text in zip(("outside the mesh", "outside the mesh", "leave no cell"), found(ranks)["errors"]):
        assert words in text
