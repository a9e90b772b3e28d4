"""Hard grids on several ranks and with periodic axes: the iterations of one rank, and its solution."""

import functools
import json
from itertools import product
from pathlib import Path

import pytest
from mpi_program import needs_mpirun, result_on_ranks

PROGRAM = Path(__file__).with_name("graph_ranks.py")
GRIDS = [([64, 60], ()), ([64, 60], (1,)), ([65, 47], (0, 1)), ([20, 17, 22], ()), ([20, 17, 22], (0, 1))]
NAMES = ("plates", "maze", "stretched", "lognormal", "bubbles", "closed-pockets")
CASES = [(name, *grid, "dcd") for name, grid in product(NAMES, GRIDS)]
CASES += [
    ("closed-box", [151, 149], (0, 1), "dcd"),
    ("plates", [64, 60], (0,), "cg"),
    ("lognormal", [12, 17, 16], (1,), "cg"),
]
ORDINARY = [("spheres", [64, 60], (), "dcd"), ("closed-boxes", [24, 20, 22], (), "cg")]
ORDINARY_CASES = ("spheres", "closed-boxes", "closed-pockets [20")
pytestmark = needs_mpirun


@functools.cache
def found(ranks):
    return result_on_ranks(ranks, PROGRAM, json.dumps(CASES + ORDINARY))


@pytest.mark.parametrize("ranks", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_iterations_and_solution_of_one_rank(ranks):
    for case, told in found(ranks).items():
        one = told[0]["one"]
        is_ordinary = case.startswith(ORDINARY_CASES)
        for rank, layout in product(told, ("even", "uneven")):
            many = rank[layout]
            assert many["reason"] == one["reason"] == 2 and many["residual"] <= 1.01e-8, (case, many)
            assert many["levels"] == one["levels"], case
            if is_ordinary:
                assert many["engine"] == "DistributedMultilevel", case
                continue
            assert many["engine"] == one["engine"] == "GraphPreconditioner" or rank is not told[0], case
            assert many["iterations"] == one["iterations"] <= 22, (case, many, one)
            assert many["difference"] <= 1e-9, (case, many)


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_are_told_of_a_fault_of_one(ranks):
    told = result_on_ranks(ranks, PROGRAM, "faults")
    assert told["fine"] == [2] * ranks
    assert told["nan"] == [-9] * ranks
    for name, words in (("application", "no room"), ("single precision", "single precision")):
        assert all(words in str(text) for text in told[name]), told[name]
    for rank, (engine, reason, *texts) in enumerate(told["memory"]):
        assert engine == "DistributedMultilevel" and reason > 0
        assert len(texts) == (rank == 0) and all("-pc_type hypre" in text for text in texts), texts
    for network, hypre, residual in told["fallback"]:
        assert hypre < network and residual <= 1.01e-8
