"""A compiled C program uses the Python classes by name, with nothing but options."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TYPES = ["-ksp_type", "python", "-ksp_python_type", "consolve.solvers.KSPDCD"]
TYPES += ["-pc_type", "python", "-pc_python_type", "consolve.solvers.PCCNN"]


def _petsc_flags() -> list[str] | None:
    if not (shutil.which("mpicc") and shutil.which("pkg-config")):
        return None
    for name in ("petsc", "PETSc"):
        found = subprocess.run(["pkg-config", "--cflags", "--libs", name], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.split()
    return None


FLAGS = _petsc_flags()
pytestmark = pytest.mark.skipif(FLAGS is None, reason="needs mpicc, pkg-config and PETSc's headers")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "dirichlet"
    source = Path(__file__).with_name("dirichlet.c")
    flags = [f for f in FLAGS if f.startswith(("-I", "-D"))], [f for f in FLAGS if f.startswith(("-L", "-l"))]
    subprocess.run(["mpicc", *flags[0], str(source), "-o", str(path), *flags[1]], check=True)
    return path


def run(program, *options):
    import petsc4py

    paths = [str(ROOT), str(Path(petsc4py.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    # An embedded Python finds a virtual environment by the PATH only.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [str(program), "-python", sys.executable, *options], capture_output=True, text=True, timeout=120,
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip


@pytest.mark.parametrize(
    "extra", [[], ["-attach"], ["-pc_cnn_grid", "20,30"], ["-pc_cnn_model", "mg"]], ids=" ".join
)
def test_solves_and_ends_cleanly(program, extra):
    done = run(program, *TYPES, "-ksp_rtol", "1e-6", "-options_left", *extra)
    assert done.returncode == 0, done.stderr
    solves = re.findall(r"solve (\d) iterations (\d+) reason (-?\d+) residual (\S+)", done.stdout)
    assert len(solves) == 2
    for _, iterations, reason, residual in solves:
        assert int(iterations) <= 8 and int(reason) > 0 and float(residual) < 1.01e-6
    assert "no unused options" in done.stdout


def test_view(program):
    done = run(program, *TYPES, "-ksp_view")
    for words in ("Python: consolve.solvers.PCCNN", "grid 20 x 30", "from the DMDA", "directions kept 2"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        (["-pc_cnn_grid", "10,10"], "PCCNN.setUp: consolve.base.errors.MatrixError: PC cnn cannot use"),
        (
            ["-pc_cnn_model", "best"],
            "PCCNN.setFromOptions: consolve.base.errors.OptionError: -pc_cnn_model",
        ),
        (["-ksp_dcd_directions", "x"], "KSPDCD.setFromOptions: consolve.base.errors.OptionError"),
    ],
)
def test_errors_can_be_read_and_end_the_program(program, options, words):
    done = run(program, *TYPES, *options)
    assert done.returncode != 0
    assert done.stderr.count(words) == 1
