"""The submodel of a zone in DOLFINx: its structured twin, other elements and schemes, ranks, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import PixelMedium, Source, WaveProblem, vrmse
from consolve.pde.waves.zone.leapfrog import NumbaSubmodel
from consolve.pde.waves.zone.zone import Zone
from tests.mpi_program import needs_mpirun, result_on_ranks

pytest.importorskip("dolfinx")
from consolve.pde.waves.zone.finite_elements import DolfinxSubmodel, zone_mesh

WAYS = ("fit", "layer", "impedance", "dirichlet", "relax")
ZONE = Zone()
SOURCE = Source(0.34, 0.3, 5.0, amplitude=10.0)
TIMES = 0.34 + 0.02 * np.arange(30)
AT = (np.arange(126) + 0.5) / 126


def disc(speed: float, **blocked: np.ndarray) -> PixelMedium:
    near = (AT - 0.68) ** 2 + (AT[:, None] - 0.66) ** 2 < 0.08**2
    return PixelMedium(np.where(near, speed, 0.75), **blocked)


def problem_with_obstacles() -> WaveProblem:
    fixed, hole = np.zeros((126, 126), bool), np.zeros((126, 126), bool)
    fixed[96:104, 78:86], hole[84:90, 98:106] = True, True
    return WaveProblem(disc(0.5, fixed=fixed, hole=hole), SOURCE)


def whole_square(problem: WaveProblem, vertices: int = 127) -> np.ndarray:
    every = (vertices - 1) // 63
    return LeapFrog(problem, vertices).run(TIMES, every=every)[:, 32:, 32:]


PROBLEM = problem_with_obstacles()


@pytest.fixture(scope="module")
def empty() -> np.ndarray:
    """The field without the disc, the obstacle and the hole: a surrogate that knows nothing of the zone."""
    return whole_square(WaveProblem(PixelMedium([[0.75]]), SOURCE))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return whole_square(PROBLEM)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_its_structured_twin(empty, way):
    model = DolfinxSubmodel(PROBLEM, ZONE, TIMES, empty, way, refinement=2)
    twin = NumbaSubmodel(PROBLEM, ZONE, TIMES, empty, way, refinement=2)
    expected = twin.run()
    # Both take 0.98 of the stable step, which they find in different ways, and divide the interval by it.
    assert model.step == pytest.approx(twin.step)
    assert abs(model.run() - expected).max() < 1e-7 * abs(expected).max()
    assert model.energy() == pytest.approx(twin.energy(), rel=1e-6)


def test_what_the_zone_scatters_is_computed(empty, truth):
    u = DolfinxSubmodel(PROBLEM, ZONE, TIMES, empty, "layer", refinement=2).run()
    assert vrmse(empty, truth) > 0.2
    assert vrmse(u, truth) < 0.1 * vrmse(empty, truth)


@pytest.mark.parametrize("way", ["layer", "dirichlet"])
@pytest.mark.parametrize(("degree", "scheme"), [(2, "leap-frog"), (1, "newmark")])
def test_other_elements_and_schemes_find_the_same_waves(way, degree, scheme):
    problem = WaveProblem(disc(0.6), SOURCE)
    fine = whole_square(problem, 253)
    model = DolfinxSubmodel(
        problem, ZONE, TIMES, fine, way, refinement=2, degree=degree, scheme=scheme, step=0.02 / 8
    )
    assert 1e-4 < vrmse(model.run(), fine) < 0.05


def test_a_source_in_the_zone_acts_as_it_is():
    problem = WaveProblem(PixelMedium([[0.75]]), Source(0.7, 0.72, 5.0, amplitude=10.0))
    times = 0.02 * np.arange(30)
    exact = LeapFrog(problem, 127).run(times, every=2)[:, 32:, 32:]
    u = DolfinxSubmodel(problem, ZONE, times, exact, "layer", refinement=2).run()
    assert vrmse(u, exact) < 2e-3


def test_the_mesh_covers_the_zone():
    zone = Zone(8, 16, 24, 40, 65)
    x = zone_mesh(zone, 2).geometry.x
    assert x[:, 0].min() == pytest.approx(8 / 64) and x[:, 0].max() == pytest.approx(24 / 64)
    assert x[:, 1].min() == pytest.approx(16 / 64) and x[:, 1].max() == pytest.approx(40 / 64)
    assert len(x) == 33 * 49


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field": np.zeros((30, 31, 32))}, "32 x 32 samples .rows, columns. need"),
        ({"times": 0.34 + 0.07 * np.arange(30)}, "too coarse in time"),
        ({"zone": (0.3, 0.3, 0.6, 0.6)}, "does not align"),
        ({"boundary": "mur"}, "unknown boundary 'mur'"),
        ({"refinement": 0}, "whole number from 1"),
        ({"degree": 4}, "degree 1, 2 or 3"),
        ({"scheme": "euler"}, "unknown scheme"),
        ({"step": 0.02}, "not stable"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"zone": ZONE, "times": TIMES, "field": np.zeros((30, 32, 32)), "boundary": "layer"}
    with pytest.raises(ValueError, match=message):
        DolfinxSubmodel(PROBLEM, **(arguments | change))


def moments() -> dict[str, float]:
    """A weighted sum of the result of each way."""
    field = whole_square(WaveProblem(PixelMedium([[0.75]]), SOURCE))[:12]
    sums = {}
    for way in ("layer", "dirichlet", "relax"):
        found = DolfinxSubmodel(PROBLEM, ZONE, TIMES[:12], field, way, refinement=2).run()
        sums[way] = float(np.sum(np.cos(np.arange(found.size)) * found.ravel()))
    return sums


@needs_mpirun
def test_ranks_find_what_one_rank_finds():
    alone, together = moments(), result_on_ranks(2, Path(__file__))
    assert all(abs(moment) > 1e-3 for moment in alone.values())
    assert together == pytest.approx(alone, rel=1e-8)


if __name__ == "__main__":
    from mpi4py import MPI

    result = moments()
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(result))
