"""A program that initialises PETSc again gets events and help again, through the plugin."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "plugin" / "lifetimes.cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, the plugin, and a function that runs the one with the other."""
    if not all(map(shutil.which, ("mpicxx", "pkg-config"))) or not SOURCE.exists():
        pytest.skip("needs mpicxx and pkg-config")
    for package in ("PETSc", "petsc"):
        found = subprocess.run(["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True)
        if found.returncode == 0:
            break
    else:
        pytest.skip("needs the headers of PETSc")
    from consolve.plugin import build_plugin

    folder = tmp_path_factory.mktemp("again")
    library = build_plugin(folder / "libconsolve.so")
    built = folder / "lifetimes"
    subprocess.run(["mpicxx", "-o", built, SOURCE, *found.stdout.split()], check=True)

    def run(*options):
        command = [built, "again", "-dll_prepend", library, "-ksp_type", "dcd", "-pc_type", "cnn", *options]
        environment = os.environ | {"CONSOLVE_PYTHON": sys.executable}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_events_are_logged_in_both(program):
    text = program("-log_view", "-ksp_dcd_fused", "no")
    for name in ("CNNSetUp", "CNNApply", "DCDOrthog"):
        counts = re.findall(rf"^{name} +(\d+) ", text, re.MULTILINE)
        assert len(counts) == 2 and counts[0] == counts[1] != "0"


def test_help_is_printed_in_both(program):
    text = program("-help")
    for option in ("pc_cnn_model", "ksp_dcd_directions"):
        assert len(re.findall(rf"^  -{option}: <now ", text, re.MULTILINE)) == 2
