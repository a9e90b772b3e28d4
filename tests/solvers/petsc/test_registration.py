"""The types cnn and dcd: registered by an import, and harmless when the interpreter ends."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from petsc4py import PETSc

import consolve.solvers as solvers

ROOT = Path(__file__).parents[3]


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip


SOLVE = """
import sys, petsc4py
petsc4py.init(["test", *sys.argv[1:]])
from petsc4py import PETSc
import numpy as np
import consolve.solvers
from consolve.pde import GridOperator
operator = GridOperator.from_cell_types(np.zeros((12, 13), int), outside=2)
mat = consolve.solvers.assemble_matrix(operator)
def solver(prefix=None):
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOptionsPrefix(prefix)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPC().setType("cnn")
    ksp.setFromOptions()
    b, x = mat.createVecs()
    b.setRandom()
    ksp.solve(b, x)
    return ksp
"""


@pytest.mark.parametrize("kind, name", [("KSP", "dcd"), ("PC", "cnn")])
def test_types_exist_under_their_own_names(kind, name):
    solver = getattr(PETSc, kind)().create(PETSc.COMM_SELF)
    solver.setType(name)
    assert solver.getType() == name
    assert isinstance(solver.getPythonContext(), getattr(solvers, f"{kind}{name.upper()}"))


@pytest.mark.parametrize("kind, name", [("KSP", "dcd"), ("PC", "cnn")])
def test_type_can_change_to_and_fro(kind, name):
    solver = getattr(PETSc, kind)().create(PETSc.COMM_SELF)
    other = {"KSP": "cg", "PC": "jacobi"}[kind]
    for step in (name, other, name, "python", name, name, other):
        solver.setType(step)
        assert solver.getType() == step
        if step == name:
            assert type(solver.getPythonContext()).__name__ == f"{kind}{name.upper()}"
        if step == "python":
            solver.setPythonContext(object())


def test_registering_again_is_harmless():
    solvers.register()
    solvers.register()
    PETSc.KSP().create(PETSc.COMM_SELF).setType("dcd")


def test_python_type_by_dotted_name(problems):
    mat = problems.matrix(sp.diags(np.arange(1.0, 13.0)))
    solvers.attach_grid(mat, (3, 4))
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType("python")
    ksp.setPythonType("consolve.solvers.KSPDCD")
    ksp.getPC().setType("python")
    ksp.getPC().setPythonType("consolve.solvers.PCCNN")
    assert problems.solve(ksp, np.ones(12)).iterations == 1


def test_contexts_die_with_their_solvers():
    from consolve.solvers.petsc import live_contexts

    before = set(live_contexts._pointers)
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setType("cnn")
    assert len(live_contexts._pointers) == len(before) + 1
    pc.destroy()
    assert live_contexts._pointers == before


@pytest.mark.parametrize(
    "ending", ["ksp = solver()", "ksp = solver(); del mat", "ksp = [solver() for _ in range(3)]", "solver()"]
)
def test_exit_code_with_living_objects(ending):
    done = python(SOLVE + ending)
    assert (done.returncode, done.stderr) == (0, "")


def test_exit_code_after_an_exception():
    done = python(SOLVE + "ksp = solver()\nraise SystemExit(7)")
    assert (done.returncode, done.stderr) == (7, "")


def test_no_option_is_left_unused():
    options = (
        "-a_pc_cnn_model mg -a_pc_cnn_threads 1 -a_ksp_dcd_directions 3 -a_ksp_dcd_true_residual_every 9"
    )
    options += " -options_left -b_pc_cnn_model multilevel"
    ending = """
a, b, c = solver("a_"), solver("b_"), solver()
print([k.getPC().getPythonContext().model for k in (a, b, c)])
print([k.getPythonContext().directions for k in (a, c)])
"""
    done = python(SOLVE + ending, *options.split())
    assert done.returncode == 0, done.stderr
    assert "['mg', 'multilevel', 'auto']\n[3, 2]" in done.stdout
    assert "no unused options" in done.stdout


def test_import_is_light():
    done = python(
        "import sys, consolve\n"
        "heavy = {'petsc4py', 'torch', 'numba', 'dolfinx', 'scipy'} & set(sys.modules)\n"
        "import consolve.solvers\n"
        "print(sorted(heavy), 'torch' in sys.modules)"
    )
    assert done.stdout.strip() == "[] False"
