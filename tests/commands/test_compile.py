"""``consolve compile``: what it leaves to compile, which is nothing."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("petsc4py")

from consolve.base import kernel_cache
from consolve.cli import run
from consolve.commands.compile import JOBS, SHAPES, set_up_levels
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import load_weights
from consolve.learned.multilevel.setup import (
    coarsen_kernels,
    finest_coarsening,
    finest_kernels,
    setup_kernels,
)
from consolve.pde.poisson.domains import make_domain

SOLVE = """
from numba.core import event

class Listener(event.Listener):
    names = []
    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__qualname__)
    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
import numpy as np, consolve
from consolve.pde.poisson.domains import make_domain
for domain in ("spheres", "closed-channels", "two-phase"):
    for shape in ((40, 50), (20, 24, 22)):
        operator = make_domain(domain, shape, 3).operator()
        b = operator.remove_null_space(np.random.default_rng(0).standard_normal(shape))
        consolve.solve(operator, b, ksp="dcd")
        consolve.solve(operator.to_csr("all"), b.reshape(-1), ksp="cg")
print(Listener.names)
"""


def test_set_up_alone_compiles_what_a_preconditioner_asks_for():
    for shape in SHAPES:
        MultilevelPreconditioner(
            make_domain("spheres", shape).operator(), load_weights("multilevel", len(shape))
        )
    kernels = (
        finest_kernels.finest_level_kernels, finest_coarsening.coarse_operator, setup_kernels.level_kernels,
        setup_kernels.inverse_diagonal, coarsen_kernels.coarse_faces, coarsen_kernels.block_sums,
    )  # fmt: skip
    before = [set(kernel.signatures) for kernel in kernels]
    set_up_levels("spheres")
    assert [set(kernel.signatures) for kernel in kernels] == before and all(before)


def test_nothing_is_compiled_where_nothing_can_be_kept(monkeypatch, capsys):
    monkeypatch.setattr(kernel_cache, "TEMPORARY", "/tmp/somewhere")
    assert run(["compile"]) == 1
    assert "error: compiled kernels cannot be kept: set NUMBA_CACHE_DIR" in capsys.readouterr().err


@pytest.mark.slow
def test_the_first_solve_after_it_compiles_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "consolve", "compile", "--jobs", "2"], env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(job[0] in done.stdout for job in JOBS) and "by 2 processes at a time" in done.stdout
    found = subprocess.run([sys.executable, "-c", SOLVE], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr
