"""Python programs that nobody touched take the types from PETSC_OPTIONS alone."""

import ctypes
import sys

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from consolve.plugin.check import PROGRAM_PY


@pytest.fixture
def options(library):
    return f"-dll_prepend {library} -ksp_type dcd -pc_type cnn -ksp_rtol 1e-8"


def test_petsc4py_program(options, run_program, library):
    plain = run_program(sys.executable, PROGRAM_PY, options="-ksp_type cg -pc_type none -ksp_rtol 1e-8")
    learned = run_program(sys.executable, PROGRAM_PY, options=options)
    assert (plain.code, plain.err) == (0, "") and (learned.code, learned.err) == (0, "")
    results = [dict(zip(done.out.split()[::2], done.out.split()[1::2])) for done in (plain, learned)]
    assert [r["pc"] for r in results] == ["none", "cnn"]
    assert all(int(r["reason"]) > 0 and float(r["error"]) < 1e-6 for r in results)
    assert 4 * int(results[1]["iterations"]) < int(results[0]["iterations"])


def test_types_of_plugin_and_of_an_import_are_the_same(library, run_program):
    code = """
import sys
sys.path.append(sys.argv[1])
from petsc4py import PETSc
def types():
    ksp = PETSc.KSP().create()
    ksp.setType("dcd")
    ksp.getPC().setType("cnn")
    return [type(s.getPythonContext()).__name__ for s in (ksp, ksp.getPC())]
first = types()
import consolve.solvers
consolve.solvers.register()
print(first, types(), consolve.solvers.KSPDCD.__name__)
"""
    from consolve.plugin.build import FOLDER

    for text in (code, code.replace("from petsc4py", "import consolve.solvers\nfrom petsc4py", 1)):
        done = run_program(sys.executable, "-c", text, FOLDER.parents[1], options=f"-dll_prepend {library}")
        assert (done.code, done.err) == (0, "")
        assert done.out == "['KSPDCD', 'PCCNN'] ['KSPDCD', 'PCCNN'] KSPDCD\n"


def test_type_can_change_to_and_fro(library, run_program):
    code = """
from petsc4py import PETSc
for kind, name, other in (("KSP", "dcd", "cg"), ("PC", "cnn", "jacobi")):
    solver = getattr(PETSc, kind)().create()
    for step in (name, other, name, "python", name, name, other):
        solver.setType(step)
        assert solver.getType() == step
        if step == name:
            assert type(solver.getPythonContext()).__name__ == kind + name.upper(), step
        if step == "python":
            solver.setPythonContext(object())
"""
    done = run_program(sys.executable, "-c", code, options=f"-dll_prepend {library}")
    assert done == (0, "", "")


def test_bad_option_is_an_exception(options, run_program):
    done = run_program(sys.executable, PROGRAM_PY, options=f"{options} -pc_cnn_model best")
    assert done.code == 1 and "-pc_cnn_model 'best'" in done.err and "Traceback" in done.err


def test_consolve_that_cannot_be_imported_is_an_error(options, run_program, tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('broken on purpose')\n")
    done = run_program(sys.executable, PROGRAM_PY, options=options, PYTHONPATH=str(tmp_path))
    assert done.code == 1 and "petsc4py.PETSc.Error: error code 76" in done.err
    assert "cannot import consolve.solvers: ImportError: broken on purpose" in done.err


_FAILED = ctypes.CFUNCTYPE(None)(lambda: None)
"""What the plugin calls when a method has failed."""


def test_petsc_of_another_precision_is_refused(monkeypatch):
    from petsc4py import PETSc

    from consolve.plugin.start import start

    address = ctypes.cast(ctypes.CDLL(PETSc.__file__).PetscInitialize, ctypes.c_void_p).value
    assert start(address, ctypes.cast(_FAILED, ctypes.c_void_p).value) is None
    monkeypatch.setattr(PETSc, "ScalarType", np.complex128)
    assert "computes in complex128; consolve needs one for float64" in start(
        address, ctypes.cast(_FAILED, ctypes.c_void_p).value
    )


DOLFINX = """
import dolfinx, dolfinx.fem.petsc, numpy, ufl
from mpi4py import MPI
from petsc4py import PETSc

mesh = dolfinx.mesh.create_unit_square(MPI.COMM_WORLD, 24, 20)
V = dolfinx.fem.FunctionSpace(mesh, ("P", 1))
u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
mesh.topology.create_connectivity(1, 2)
facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
wall = dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_topological(V, 1, facets), V)
form = dolfinx.fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
A = dolfinx.fem.petsc.assemble_matrix(form, bcs=[wall])
A.assemble()
exact, b = A.createVecs()
exact.setRandom()
A.mult(exact, b)
x = b.duplicate()
ksp = PETSc.KSP().create(mesh.comm)
ksp.setOperators(A)
ksp.setFromOptions()
ksp.solve(b, x)
x.axpy(-1.0, exact)
print(ksp.getType(), ksp.getPC().getType(), ksp.getIterationNumber(), x.norm() / exact.norm())
"""


def test_dolfinx_program(options, run_program):
    """The numbering of the unknowns is DOLFINx's own: the grid is found in the matrix."""
    dolfinx = pytest.importorskip("dolfinx")
    code = DOLFINX
    if not dolfinx.__version__.startswith("0.5"):
        code = code.replace("FunctionSpace(", "functionspace(")
    done = run_program(sys.executable, "-c", code, options=options)
    assert done.code == 0, done.err
    ksp, pc, iterations, error = done.out.split()
    assert (ksp, pc) == ("dcd", "cnn") and int(iterations) <= 12 and float(error) < 1e-6
