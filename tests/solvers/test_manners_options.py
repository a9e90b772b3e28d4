"""Options: one table for the database, ``-help``, the docs and the command line."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from petsc4py import PETSc

from consolve import solver_options
from consolve.pde import GridOperator
from consolve.solvers import KSPDCD, PCCNN, OptionError, ksp_dcd, pc_cnn

ROOT = Path(__file__).resolve().parents[2]
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
            assert value is None or str(value) == option.default


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
