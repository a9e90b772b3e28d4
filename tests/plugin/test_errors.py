"""What goes wrong in a compiled program: a message on stderr that says what to do, a non-zero exit code."""

import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace

import pytest

from consolve.plugin import build
from consolve.plugin.build import Environment, build_plugin

LIBRARY_ERROR = 76
CNN, DCD = ("-ksp_type", "cg", "-pc_type", "cnn"), ("-ksp_type", "dcd", "-pc_type", "jacobi")


@pytest.fixture
def fails(programs, library, run_program):
    """Run poisson2d with the plugin; it must fail with one message of consolve's, which is returned."""

    def failing(*options, plugin=library, **environment):
        done = run_program(programs / "poisson2d", "-dll_prepend", plugin, *options, **environment)
        assert done.code != 0 and "poisson2d: " not in done.out, done
        said = [line for line in done.err.splitlines() if line.startswith("consolve: ")]
        assert len(said) == 1 and "Traceback" not in done.err, done.err
        return done.code, said[0]

    return failing


@pytest.mark.parametrize(
    "options, words",
    [
        ((*CNN, "-pc_cnn_model", "best"), "PCCNN.setFromOptions: consolve.base.errors.OptionError"),
        ((*CNN, "-pc_cnn_grid", "5,5"), "PCCNN.setUp: consolve.base.errors.MatrixError"),
        ((*CNN, "-pc_cnn_threads", "many"), "PCCNN.setFromOptions: consolve.base.errors.OptionError"),
        ((*DCD, "-ksp_dcd_directions", "0"), "KSPDCD.setFromOptions: consolve.base.errors.OptionError"),
    ],
)
def test_bad_options(fails, options, words):
    assert words in fails(*options)[1]


def test_petsc_prints_the_message_and_an_error_code_of_its_own(programs, library, run_program):
    command = (programs / "poisson2d", "-dll_prepend", library, *CNN, "-pc_cnn_grid", "5,5")
    done = run_program(*command)
    said = [line.removeprefix("[0]PETSC ERROR: ") for line in done.err.splitlines() if line[:1] == "["]
    assert said[1] == "Error in external library"
    assert re.match(
        r"consolve \S+: .*MatrixError: PC cnn cannot use .* the grid 5 x 5 has 25 cells, ", said[2]
    )
    assert re.search(r"#1 PCCNN.setUp\(\) at .*pc_cnn.py:\d+\n.*#2 PCSetUp\(\)", done.err)
    assert "This should never happen" not in done.err and done.code not in (0, 255)


@pytest.mark.skipif(not shutil.which("mpirun"), reason="needs mpirun")
def test_ranks_say_it_once_and_in_whole_lines(programs, library, run_program):
    done = run_program(
        "mpirun", "-n", 2, "--oversubscribe", programs / "poisson2d", "-dll_prepend", library, *CNN,
        "-pc_cnn_grid", "5,5", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    )  # fmt: skip
    # PETSc writes the beginning of a line by itself, and mpirun joins what it reads: that of another rank
    # may stand before our line, nothing within it
    whole = r"consolve: PCCNN\.setUp: \S+MatrixError: PC cnn cannot use .* -pc_cnn_mask FILE\)"
    said = [line for line in done.err.splitlines() if "consolve: " in line]
    assert len(said) == 1 and re.fullmatch(rf"(\[1\]PETSC ERROR: )?{whole}", said[0]), done.err


def test_a_warning_is_one_line(programs, library, run_program):
    done = run_program(
        programs / "poisson2d", "-dll_prepend", library, "-ksp_type", "gmres", "-pc_type", "cnn",
        "-ksp_rtol", "1e-8",
    )  # fmt: skip
    assert done.code == 0
    assert re.fullmatch(r"consolve: warning: -ksp_type gmres takes .* use cg, fgmres or dcd\n", done.err)


@pytest.mark.parametrize("options", [CNN, DCD])
def test_python_that_is_not_there(fails, options):
    code, message = fails(*options, CONSOLVE_PYTHON="/no/python")
    assert code == LIBRARY_ERROR
    assert message.startswith("consolve: CONSOLVE_PYTHON=/no/python cannot be run as Python 3; ")
    assert sys.executable in message


@pytest.mark.parametrize("text", ["exit 3", "echo not python", "exec cat"], ids=["fails", "prints", "waits"])
def test_program_that_is_not_python(fails, tmp_path, text):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "python").chmod(0o755)
    assert "cannot be run as Python 3" in fails(*CNN, CONSOLVE_PYTHON=str(tmp_path / "python"))[1]


def test_python_by_name_on_the_path(programs, library, run_program):
    done = run_program(programs / "poisson2d", "-dll_prepend", library, *CNN, CONSOLVE_PYTHON=sys.executable)
    assert (done.code, done.err) == (0, "") and done.report[0] == "cg + cnn"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"program": "/gone/bin/python"}, "/gone/bin/python, is not there any more; build it again"),
        ({"library": ""}, "has no shared library libpython"),
        ({"library": "/gone/libpython.so"}, "cannot load Python's library: /gone/libpython.so"),
        ({"version": "3.1"}, "the program is linked with Python 3."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_environment_that_has_changed(fails, monkeypatch, tmp_path, change, words):
    other = replace(Environment.current(), **change)
    monkeypatch.setattr(Environment, "current", classmethod(lambda cls: other))
    code, message = fails(*CNN, plugin=build_plugin(tmp_path / "libother.so"))
    assert code == LIBRARY_ERROR and words in message


def test_petsc4py_of_another_petsc_is_refused_unloaded(fails, tmp_path):
    """A module of its name that defines PetscInitialize itself stands for one that is linked with another."""
    folder = tmp_path / "petsc4py" / "lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").write_text(f"def getPathArchPETSc():\n    return {str(folder)!r}, ''\n")
    (tmp_path / "other.c").write_text("int PetscInitialize(void) { return 0; }\n")
    module = folder / f"PETSc{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(
        [*build.find_compiler(), "-shared", "-fPIC", tmp_path / "other.c", "-o", module], check=True
    )
    code, message = fails(*CNN, PYTHONPATH=str(tmp_path))
    assert code == LIBRARY_ERROR
    assert f"is linked with another PETSc than the program: {module} uses {module}, the program " in message

    module.write_text("no library")
    code, message = fails(*CNN, PYTHONPATH=str(tmp_path))
    assert code == LIBRARY_ERROR and "cannot be loaded beside the program's PETSc" in message

    module.unlink()
    code, message = fails(*CNN, PYTHONPATH=str(tmp_path))
    assert code == LIBRARY_ERROR and "there is no extension module PETSc" in message


@pytest.mark.parametrize(
    "module, words",
    [
        ("petsc4py", "cannot import petsc4py: broken on purpose"),
        ("numba", "cannot import consolve.solvers: ImportError: broken on purpose"),
        ("consolve", "cannot import consolve: "),
    ],
)
def test_modules_that_cannot_be_imported(fails, tmp_path, module, words):
    (tmp_path / f"{module}.py").write_text("raise ImportError('broken on purpose')\n")
    code, message = fails(*CNN, PYTHONPATH=str(tmp_path))
    assert code == LIBRARY_ERROR and words in message


@pytest.mark.skipif(not shutil.which("mpirun"), reason="needs mpirun")
def test_all_ranks_end(programs, library, run_program):
    done = run_program(
        "mpirun", "-n", 2, "--oversubscribe", programs / "poisson2d", "-dll_prepend", library, *CNN,
        CONSOLVE_PYTHON="/no/python", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    )  # fmt: skip
    assert done.code != 0 and "CONSOLVE_PYTHON=/no/python cannot be run as Python 3" in done.err
