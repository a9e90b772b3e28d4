"""Matrices on several ranks are read as on one, and a fault of one rank is an error on all."""

import functools
from pathlib import Path

import pytest
from mpi_program import needs_mpirun, result_on_ranks

pytestmark = needs_mpirun
PROGRAM = Path(__file__).parent / "stencil_ranks.py"
RANKS = [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]


@functools.cache
def found(ranks):
    return result_on_ranks(ranks, PROGRAM)


@pytest.mark.parametrize("ranks", RANKS)
def test_every_layout_reads_the_operator_that_one_rank_reads(ranks):
    differences = found(ranks)["differences"]
    assert len(differences) > 400
    assert not {name: d for name, d in differences.items() if not d < 1e-14}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    "fault, words",
    [
        ("nan", ["row 23 (cell (3, 2))", "a[23,24] = nan", "finite"]),
        ("asymmetric", ["row 23", "a[23,24] = -3", "a[24,23] = -1", "not symmetric"]),
        ("asymmetric across ranks", ["row 14", "a[14,21] = -1", "a[21,14] = -3", "not symmetric"]),
        ("one side missing", ["row 14", "a[14,21] = -1", "a[21,14] = 0"]),
        ("positive", ["row 14", "a[14,21] = 0.5", "M-matrix"]),
        ("far", ["row 2 (cell (0, 2))", "column 30 (cell (4, 2))", "not a neighbour"]),
        ("indefinite", ["row 40", "diagonal -4", "indefinite"]),
        ("zero diagonal", ["row 40", "zero diagonal"]),
        ("not dominant", ["row 3", "row sum -2.5", "not diagonally dominant"]),
        ("cells", ["a test places", "the matrix has"]),
    ],
)
def test_a_fault_of_one_rank_is_the_same_error_on_all(ranks, fault, words):
    text, everywhere = found(ranks)["errors"][fault]
    assert everywhere
    for word in words:
        assert word in text


@pytest.mark.parametrize("ranks", RANKS)
def test_other_parallel_types_are_converted(ranks):
    conversions = found(ranks)["conversions"]
    assert set(conversions) == {"mpisbaij", "mpibaij", "mpisell", "mpidense", "is"}
    assert max(conversions.values()) < 1e-14  # type is adds up what ranks share
