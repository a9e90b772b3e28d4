"""Programs that tests start on several ranks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}
needs_mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")


def result_on_ranks(ranks: int, program: Path, *arguments: str, folder: Any = None) -> Any:
    """What the program prints as JSON in its last line, run under mpirun in ``folder``."""
    command = ["mpirun", "-n", str(ranks), sys.executable, str(program), *arguments]
    environment = os.environ | VARIABLES
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
