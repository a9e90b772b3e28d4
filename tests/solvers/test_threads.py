"""One core, and more threads than cores: the same solve."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("petsc4py")

PROGRAM = """
import sys
import petsc4py
petsc4py.init(sys.argv)
from petsc4py import PETSc
import consolve.solvers
from consolve.pde.poisson.domains import make_domain
A = consolve.solvers.assemble_matrix(make_domain("spheres", (200, 200)).operator())
x, b = A.createVecs()
b.set(1)
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setFromOptions()
ksp.solve(b, x)
x.scale(-1)
A.multAdd(x, b, b)
print(ksp.getConvergedReason(), ksp.getIterationNumber(), b.norm() / A.getSize()[0] ** 0.5 < 1e-5)
"""


def solve(*options, cores=None, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "-ksp_type", "cg", "-ksp_norm_type", "unpreconditioned", *options],
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | environment,
        capture_output=True, text=True, timeout=300,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    return done.stdout.split(), done.stderr


def test_one_core_solves():
    one = {min(os.sched_getaffinity(0))}
    out, err = solve("-pc_type", "cnn", cores=one, NUMBA_NUM_THREADS="1")
    assert out[0] == "2" and int(out[1]) < 15 and out[2] == "True", err


def test_more_threads_than_cores_solve_in_as_many_iterations():
    few, err = solve("-pc_type", "cnn", "-pc_cnn_threads", "1")
    assert few and few[0] == "2", err
    many, err = solve("-pc_type", "cnn", "-pc_cnn_threads", "64", NUMBA_NUM_THREADS="64")
    assert many == few, err


def test_more_threads_than_numba_may_start_are_refused_with_the_remedy():
    out, err = solve("-pc_type", "cnn", "-pc_cnn_threads", "64", NUMBA_NUM_THREADS="2")
    assert out == []
    assert "-pc_cnn_threads '64': expected a whole number from 1 to 2 (NUMBA_NUM_THREADS raises" in err
