"""What PC cnn meets in programs: boundary kinds, ways of storing a matrix, dimensions, ranks, all combined.

Each of the cases is solved to 1e-10 and compared with a direct solution of the same matrix.
"""

import functools
import tempfile
from pathlib import Path

import pytest
from mpi_program import needs_mpirun, result_on_ranks

pytestmark = needs_mpirun
PROGRAM = Path(__file__).with_name("wild_ranks.py")
MOST_ITERATIONS = {"mixed": 40, "box stencil": 40}
RANKS = [1, 3, *(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (2, 4, 8))]


@functools.cache
def found(ranks, dim):
    with tempfile.TemporaryDirectory() as folder:
        return result_on_ranks(ranks, PROGRAM, str(dim), folder=folder)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("ranks", RANKS)
def test_solutions_are_those_of_a_direct_solver(ranks, dim):
    cases = found(ranks, dim)
    assert len(cases) == 96
    for case, facts in cases.items():
        assert facts["reason"] > 0 and facts["error"] < 1e-7, (case, facts)
        assert facts["iterations"] <= MOST_ITERATIONS.get(case.split(" | ")[0], 15), (case, facts)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_iterations_are_those_of_one_rank(ranks, dim):
    """Sums in another order may cost an iteration."""
    alone = found(1, dim)
    for case, facts in found(ranks, dim).items():
        assert abs(facts["iterations"] - alone[case]["iterations"]) <= 1, (case, facts, alone[case])
