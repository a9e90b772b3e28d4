"""Levels that are one cell thick, in memory that shows when it is read unwritten: see campaigns."""

import json
import subprocess
import sys

import numpy as np
import pytest
from campaigns import thin_shapes
from mpi_program import ROOT, needs_mpirun

pytestmark = needs_mpirun


@pytest.mark.parametrize("ranks", [1, 2])
def test_grids_that_are_or_become_one_cell_thick(ranks, tmp_path):
    """Periodic, or shared by ranks: faces along an axis of one cell are zeros, not what memory holds."""
    found, fault = thin_shapes.run(tmp_path, "nan", ranks, "reported")
    assert not fault and len(found) == 9
    for number, facts in found.items():
        assert not thin_shapes.faults(facts), (number, facts)
        assert facts["cg"]["iterations"] <= 14 and facts["dcd"]["iterations"] <= 14, facts
    first, *others = (np.load(tmp_path / f"{number}.npy") for number in range(5))
    assert all(other.tobytes() == first.tobytes() for other in others)


@pytest.mark.slow
def test_campaign(tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "campaigns" / "thin_shapes.py"), "--count", "120"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["tried"] == 120 and counts["shared"] > 20 and counts["refused"] == 0
