"""Programs that trap floating-point exceptions (-fp_trap): ours do not end them, theirs still do."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import petsc4py
petsc4py.init(["program", "-fp_trap"])
from petsc4py import PETSc
import consolve.solvers
n = 24
da = PETSc.DMDA().create([n, n], stencil_width=1)
A = da.createMatrix()
for row in range(n * n):
    i, j = row % n, row // n
    beside = [row - 1] * (i > 0) + [row + 1] * (i + 1 < n) + [row - n] * (j > 0) + [row + n] * (j + 1 < n)
    A.setValues(row, [row, *beside], [4.0, *[-1.0] * len(beside)])
A.assemble()
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setType(sys.argv[1])
ksp.getPC().setType("cnn")
b, x = A.createVecs()
b.set(1.0)
ksp.solve(b, x)
print("reason", int(ksp.getConvergedReason()), flush=True)
b.set(0.0)
b.reciprocal()  # leaves zeros alone
b.set(1e300)
b.pointwiseMult(b, b)
print("not trapped")
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "fegetexcept"), reason="no traps in this C library")
@pytest.mark.parametrize("kind", ["cg", "dcd"])
def test_python_program(kind):
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "reason 2", done.stderr
    assert done.returncode != 0 and "loating point" in done.stderr
