"""The plugin, the programs in examples/c, and how both are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "c"
NAMES = ("poisson2d", "poisson3d", "neumann", "dirichlet_rows", "moving", "poisson")


class Done(NamedTuple):
    """What a program did."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> tuple[str, int, int, float]:
        """(solver, iterations, reason, error) of the line that a program of examples/c prints at its end."""
        pattern = r"^\w+: (\w+ \+ \w+), iterations (\d+), reason (-?\d+), error (\S+)$"
        found = re.findall(pattern, self.out, re.MULTILINE)
        assert len(found) == 1, self
        solver, iterations, reason, error = found[0]
        return solver, int(iterations), int(reason), float(error)


def run(*command: object, options: str = "", **environment: str) -> Done:
    """Run a command away from this environment: nothing of Python's is on the PATH or in PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "CONSOLVE_PYTHON")}
    own = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if p != own)
    kept |= {"PETSC_OPTIONS": options, "OMP_WAIT_POLICY": "PASSIVE"} | environment
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=300,
        env=kept,
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def run_program() -> Callable[..., Done]:
    return run


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("needs a C compiler")
    from consolve.plugin import build_plugin

    return build_plugin(tmp_path_factory.mktemp("plugin") / "libconsolve.so")


def petsc_package() -> str:
    """The name for pkg-config of the PETSc that petsc4py is linked with."""
    petsc4py = pytest.importorskip("petsc4py.PETSc")
    if not all(map(shutil.which, ("make", "pkg-config", "mpicc"))):
        pytest.skip("needs make, pkg-config and mpicc")
    version = ".".join(map(str, petsc4py.Sys.getVersion()))
    for name in ("PETSc", "petsc"):
        found = subprocess.run(["pkg-config", "--modversion", name], capture_output=True, text=True)
        if found.returncode == 0:
            if found.stdout.strip() != version:
                pytest.skip(f"needs the headers of PETSc {version}, pkg-config has {found.stdout.strip()}")
            return name
    pytest.skip("needs the headers of PETSc")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of examples/c, built by their Makefile."""
    petsc_package()
    folder = tmp_path_factory.mktemp("programs")
    names = [n for n in NAMES if n != "poisson" or (shutil.which("gfortran") and shutil.which("mpif90"))]
    command = ["make", "-C", str(EXAMPLES), f"OUT={folder}", f"TARGETS={' '.join(names)}", "all"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="session")
def cxx_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program beside this file."""
    package = petsc_package()
    if not shutil.which("mpicxx"):
        pytest.skip("needs a C++ compiler")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True)
    program = tmp_path_factory.mktemp("cxx") / "lifetimes"
    words = flags.stdout.split()
    compiled, linked = (
        [w for w in words if w[:2] in ("-I", "-D")],
        [w for w in words if w[:2] in ("-L", "-l")],
    )
    source = str(Path(__file__).with_name("lifetimes.cpp"))
    subprocess.run(["mpicxx", *compiled, source, "-o", str(program), *linked], check=True)
    return program
