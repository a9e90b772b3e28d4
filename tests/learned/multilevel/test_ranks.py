from pathlib import Path

import pytest
from mpi_program import needs_mpirun, result_on_ranks

PROGRAM = Path(__file__).with_name("distributed_ranks.py")

pytestmark = needs_mpirun


def run(ranks, *arguments):
    return result_on_ranks(ranks, PROGRAM, *arguments)


@pytest.mark.parametrize(
    "ranks", [1, 3, *(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (2, 4, 8))]
)
def test_ranks_compute_what_one_process_does(ranks):
    for case, found in run(ranks, "same").items():
        assert found["alike"], case
        # An axis of one cell, or parts of one: the whole is the same sum in another order, or even the same.
        assert found["difference"] < 1e-6, (case, found)
        if ranks > 1 and "last only" not in case:
            assert found["shared"] > 0, f"{case}: nothing was distributed"


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_periodic_grids(ranks):
    found = run(ranks, "periodic")
    assert "even number of cells" in found.pop("odd")
    for case, facts in found.items():
        assert facts["iterations"] <= 10, (case, facts)
        assert facts["residual"] < 2e-8 and facts["asymmetry"] < 1e-5, (case, facts)


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_traffic_is_what_the_model_foretells(ranks):
    for case, facts in run(ranks, "traffic").items():
        messages, size = facts["counted"]
        rows = 2 * 4 * facts["moved"]  # each row that lies in another rank's box: its residual and correction
        assert size - rows == facts["foretold"][1] > 0, (case, facts)
        if facts["moved"] == 0:
            assert messages == facts["foretold"][0], (case, facts)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_fault_on_one_rank_reaches_all(ranks):
    found = run(ranks, "faults")
    assert set(found["nan"]) == set(found["inf"]) == {"nan"}
    for name in ("zero", "large", "tiny"):
        assert set(found[name]) == {"finite"}, name
    for factor in ("1e-40", "1e-300"):
        messages = set(found[f"extreme {factor}"])
        assert len(messages) == 1 and "single precision" in messages.pop()
