"""KSP dcd on several ranks: the same iteration as on one, three reductions an iteration, no rank astray."""

import functools
from pathlib import Path

import numpy as np
import pytest
from mpi_program import needs_mpirun, result_on_ranks

pytestmark = needs_mpirun
PROGRAM = Path(__file__).parent / "dcd_ranks.py"
PRECONDITIONERS = ("none", "jacobi", "bjacobi", "proposals")


@functools.cache
def found(ranks):
    return result_on_ranks(ranks, PROGRAM)


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("domain", ["open", "closed"])
@pytest.mark.parametrize("pc", PRECONDITIONERS)
@pytest.mark.parametrize("directions", [1, 2, 4])
def test_same_solution_as_on_one_rank(ranks, domain, pc, directions):
    case = found(ranks)[f"{domain} {pc} {directions}"]
    many, one = case["many"], case["one"]
    assert many["ranks_agree"] and many["reason"] == one["reason"] == 2
    assert many["relative"] <= 1.01e-9 and one["relative"] <= 1.01e-9
    np.testing.assert_allclose(many["x"], one["x"], atol=2e-7)
    if pc != "bjacobi":  # one block for each rank is another preconditioner on each number of ranks
        assert abs(many["iterations"] - one["iterations"]) <= 1
        assert abs(many["fallbacks"] - one["fallbacks"]) <= 1


@pytest.mark.parametrize("pc", ["none", "jacobi", "bjacobi"])
@pytest.mark.parametrize("domain, each", [("open", 3), ("closed", 5)])
def test_three_reductions_an_iteration(domain, each, pc):
    """However many directions are kept; two more where a null space is removed from the proposals."""
    for directions in (1, 2, 4):
        many = found(2)[f"{domain} {pc} {directions}"]["many"]
        assert many["iterations"] > 10
        assert each * many["iterations"] <= many["reductions"] <= each * many["iterations"] + 10


def test_huge_and_tiny_proposals_count_on_any_number_of_ranks():
    """Only the proposals that are no directions, one in five, are replaced."""
    for domain in ("open", "closed"):
        many = found(2)[f"{domain} proposals 2"]["many"]
        assert many["fallbacks"] <= many["iterations"] / 5 + 1
