"""Matrices on several ranks are read as on one, and a fault of one rank is an error on all."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")
PROGRAM = Path(__file__).parent / "stencil_ranks.py"


@functools.cache
def found(ranks):
    command = ["mpirun", "-n", str(ranks), sys.executable, str(PROGRAM)]
    environment = os.environ | {
        "PYTHONPATH": str(PROGRAM.parents[2]),
        "NUMBA_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0 and len(lines) == 1, done.stdout + done.stderr
    return json.loads(lines[0][7:])


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_every_layout_reads_the_operator_that_one_rank_reads(ranks):
    differences = found(ranks)["differences"]
    assert len(differences) > 400
    assert not {name: d for name, d in differences.items() if not d < 1e-14}


@pytest.mark.parametrize("ranks", [2, 3, 4])
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


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_other_parallel_types_are_converted(ranks):
    conversions = found(ranks)["conversions"]
    assert set(conversions) == {"mpisbaij", "mpibaij", "mpisell", "mpidense", "is"}
    assert max(conversions.values()) < 1e-14  # type is adds up what ranks share
