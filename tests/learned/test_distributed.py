import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("distributed_ranks.py")

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")


def run(ranks, *arguments):
    """The JSON line that the program prints on so many ranks."""
    environment = dict(os.environ)
    for name in (
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "OMPI_MCA_rmaps_base_oversubscribe",
    ):
        environment[name] = "1"
    environment |= {"OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMP_WAIT_POLICY": "PASSIVE"}
    command = ["mpirun", "-n", str(ranks), sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "ranks", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
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


@pytest.mark.parametrize("ranks", [2, 4])
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
