"""First use from several threads at once, in a fresh process each: nobody meets what is half made."""

import subprocess
import sys

import pytest

SOLVERS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import consolve
from consolve.pde import AIR, GridOperator

operator = GridOperator.from_cell_types(np.zeros((20, 30), int), outside=AIR)

def iterations(_):
    return consolve.GridSolver(operator).solve(np.ones((20, 30)))[1].iterations

with ThreadPoolExecutor(4) as pool:
    print(sorted(pool.map(iterations, range(4))))
"""

IMPORTS = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from consolve.base.hdf5 import import_h5py

start = Barrier(8)

def ours(_):
    start.wait()
    return import_h5py().File.__name__

def theirs(_):
    start.wait()
    import h5py
    return h5py.File.__name__

with ThreadPoolExecutor(8) as pool:
    jobs = [pool.submit(f, 0) for f in [ours, theirs] * 4]
    print(*{job.result() for job in jobs})
"""

LINES = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from numba import njit
from consolve.base.threads import run_lines
from consolve.learned.multilevel.cycle.line_kernels import compiled

@njit(nogil=True)
def double(x, first, end):
    for i in range(first, end):
        x[i] *= 2

def work(n):
    x = np.arange(100.0)
    run_lines(double, 100, 3, x)
    return bool((x == 2 * np.arange(100.0)).all()), id(compiled()["join_lines"])

sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(8) as pool:
    found = set(pool.map(work, range(32)))
print([ok for ok, _ in found])
"""


@pytest.mark.parametrize(
    "program, printed", [(SOLVERS, "[4, 4, 4, 4]"), (IMPORTS, "File"), (LINES, "[True]")]
)
def test_first_use_from_several_threads(program, printed):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr
