"""Options: one table for the database, ``-help``, the docs and the command line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from petsc4py import PETSc

from consolve.base import options_table as solver_options
from consolve.pde import GridOperator
from consolve.solvers import KSPDCD, PCCNN, OptionError, ksp_dcd, pc_cnn

ROOT = Path(__file__).resolve().parents[3]
ALL = solver_options.CNN + solver_options.DCD

PROGRAM = """
import sys, petsc4py
petsc4py.init(["program", *sys.argv[1:]])
from petsc4py import PETSc
import consolve.solvers
for prefix in ("a_", "b_", "a_"):
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setOptionsPrefix(prefix)
    ksp.setType("dcd")
    ksp.getPC().setType("cnn")
    ksp.setFromOptions()
    ksp.setFromOptions()
    ksp.destroy()
"""


def run(*options):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_written_page_is_that_of_the_table():
    page = (ROOT / "docs" / "options.md").read_text()
    assert page == solver_options.markdown(), "stale: consolve options --markdown > docs/options.md"


@pytest.mark.parametrize("module, options", [(pc_cnn, solver_options.CNN), (ksp_dcd, solver_options.DCD)])
def test_docstrings_hold_the_table(module, options):
    assert solver_options.plain_table(options) in module.__doc__


@pytest.mark.parametrize("words", [["options"], ["solve", "--help"]])
def test_command_line_lists_every_option(words):
    pytest.importorskip("click")
    command = [sys.executable, "-m", "consolve", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    for option in ALL:
        assert f"-{option.name} {option.argument} " in done.stdout


def test_contexts_have_the_defaults_of_the_table():
    for context, options in ((PCCNN(), solver_options.CNN), (KSPDCD(), solver_options.DCD)):
        for option in options:
            value = getattr(context, option.attribute)
            assert value is None or str(value) in (option.default, option.default.capitalize())


def test_help_shows_each_option_once_for_each_prefix_with_its_value():
    text = run("-help", "-a_pc_cnn_model", "mg", "-a_ksp_dcd_directions", "4")
    for option in ALL:
        for prefix in ("a_", "b_"):
            lines = re.findall(rf"^  -{prefix}{option.name}: <now .*$", text, re.MULTILINE)
            assert len(lines) == 1 and option.meaning in lines[0]
    assert "-a_pc_cnn_model: <now mg : formerly auto>" in text
    assert "-b_pc_cnn_model: <now auto : formerly auto>" in text
    assert "-a_ksp_dcd_directions: <now 4 : formerly 2>" in text
    assert "-b_pc_cnn_grid: <now from the DMDA : formerly from the DMDA>" in text


def test_nothing_is_printed_without_help():
    assert run("-a_pc_cnn_model", "mg") == ""


def test_misspelt_options_are_left_over():
    left = run("-a_pc_cnn_modle", "mg", "-b_ksp_dcd_directions", "3", "-options_left")
    assert re.search(r"Option left: name:-a_pc_cnn_modle value: mg", left)
    assert "Option left: name:-b_ksp_dcd_directions" not in left


@pytest.mark.parametrize(
    "option, value, expected",
    [
        ("pc_cnn_model", "nonsense", "auto, multilevel, mg"),
        ("pc_cnn_grid", "4;3", "NX,NY"),
        ("pc_cnn_threads", "-2", "whole number from 1"),
        ("pc_cnn_threads", "²", "whole number from 1"),
        ("ksp_dcd_directions", "²", "whole number, 1 or more"),
        ("ksp_dcd_true_residual_every", "-1", "whole number, 0 or more"),
    ],
)
def test_errors_name_the_option_with_its_prefix(problems, option, value, expected):
    mat = problems.matrix(GridOperator.from_cell_types(np.zeros((3, 4), int), outside=2).to_csr())
    with pytest.raises((OptionError, PETSc.Error)) as caught:
        problems.ksp(mat, "dcd", "cnn", **{option: value})
    error = caught.value if isinstance(caught.value, OptionError) else caught.value.__cause__
    assert re.search(rf"-test\d+_{option} '{value}': .*{expected}", str(error))


def test_a_value_set_in_python_is_kept_and_checked(problems):
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setType("cnn")
    context = pc.getPythonContext()
    context.model, context.threads = "mg", 1
    pc.setFromOptions()
    assert (context.model, context.threads) == ("mg", 1)
    context.threads = 0
    with pytest.raises((OptionError, PETSc.Error)):
        pc.setFromOptions()
    pc.destroy()


FILES_OF_ONE_RANK = """
import os, sys, petsc4py
petsc4py.init(["program"])
from petsc4py import PETSc
import consolve.solvers
mpi = PETSc.COMM_WORLD.tompi4py()
first, second = sys.argv[1:3]
os.chdir(first if mpi.rank == 0 else second)

def attempt(name, action):
    try:
        action()
        text = "nothing"
    except Exception as error:
        text = str(error.__cause__ if isinstance(error, PETSc.Error) else error)
    for line in mpi.gather((name, mpi.rank, text)) or ():
        print("SAW", *line, sep="|", flush=True)

def solver():
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    dm = PETSc.DMDA().create([41, 40], stencil_width=1)
    mat = dm.createMatrix()
    row, col = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
    (x0, x1), (y0, y1) = dm.getRanges()
    for i in range(x0, x1):
        for j in range(y0, y1):
            row.index = i, j
            mat.setValueStencil(row, row, 4.0)
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < 41 and 0 <= m < 40:
                    col.index = k, m
                    mat.setValueStencil(row, col, -1.0)
    mat.assemble()
    ksp.setOperators(mat)
    ksp.getPC().setType("cnn")
    return ksp

one, two, three = solver(), solver(), solver()
PETSc.Options()["pc_cnn_model"] = "absent_on_one.h5"
attempt("option", one.setFromOptions)
PETSc.Options().delValue("pc_cnn_model")
two.getPC().getPythonContext().model = "absent_on_one.h5"
attempt("attribute", two.setUp)
three.getPC().getPythonContext().model = "damaged_on_one.h5"
attempt("contents", three.setUp)
for ksp in (one, two, three):
    ksp.destroy()
"""


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun")
def test_a_file_that_one_rank_cannot_read_is_an_error_on_all(tmp_path):
    import consolve

    weights = Path(consolve.__file__).parent / "learned" / "weights"
    whole = next(path for path in sorted(weights.glob("*.h5")) if "2d" in path.name)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(whole, tmp_path / name / "damaged_on_one.h5")
    shutil.copy(whole, tmp_path / "first" / "absent_on_one.h5")
    (tmp_path / "second" / "damaged_on_one.h5").write_bytes(b"no weights")
    command = ["mpirun", "-n", "2", sys.executable, "-c", FILES_OF_ONE_RANK]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    }
    done = subprocess.run(
        [*command, str(tmp_path / "first"), str(tmp_path / "second")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    seen = [line.split("|")[1:] for line in done.stdout.splitlines() if line.startswith("SAW")]
    assert done.returncode == 0 and len(seen) == 6, done.stdout + done.stderr
    for name, _, text in seen:
        assert ("damaged_on_one.h5" if name == "contents" else "absent_on_one.h5") in text
