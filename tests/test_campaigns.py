"""The campaigns with a small count each; CONTRIBUTING.md says how to run them with large ones."""

import os
import subprocess
import sys

import pytest
from mpi_program import ROOT, VARIABLES

CAMPAIGNS = ROOT / "tests" / "campaigns"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "systems.py --count 150 --seed 1000000",
        "systems.py --count 40 --seed 2000000 --ranks 2",
        "files.py --count 300 --seed 1000000",
        "kills.py --count 2 --seed 1000000",
        "rounds.py --count 2000",
    ],
)
def test_campaign(words):
    name, *options = words.split()
    done = subprocess.run(
        [sys.executable, str(CAMPAIGNS / name), *options],
        env=os.environ | VARIABLES,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
