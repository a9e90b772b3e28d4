"""The example of a field split: one step against a direct solver, the steady flow against the literature."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from petsc4py import PETSc

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "stokes_fieldsplit.py"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr("sys.argv", [EXAMPLE.name])
    spec = importlib.util.spec_from_file_location("example_stokes_fieldsplit", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    options = PETSc.Options("stokes_")
    for name in options.getAll():
        options.delValue(name)


def test_one_time_step_equals_a_direct_solution(example):
    n = 14
    A, lid = example.assemble(n, 0.5 / n**2, 1.0)
    b = np.zeros(A.shape[0])
    b[: lid.size] = lid
    ksp = example.make_solver(n, A)
    x, rhs = ksp.getOperators()[0].createVecs()
    rhs.array_w[:] = b
    ksp.solve(rhs, x)
    velocity, pressure = ksp.getPC().getFieldSplitSubKSP()
    assert pressure.getPC().getType() == "cnn"
    assert pressure.getPC().getPythonContext().components is not None  # PETSc's own matrix is singular
    assert [ksp.getPC().getType() for ksp in velocity.getPC().getFieldSplitSubKSP()] == ["cnn", "cnn"]
    pinned = sp.lil_matrix(A)
    pinned[-1] = 0
    pinned[-1, -1] = 1  # the pressure of the last cell is 0
    exact = spla.spsolve(pinned.tocsc(), b)
    velocities = 2 * n * (n - 1)
    found, error = x.array_r.copy(), ksp.getConvergedReason()
    ksp.destroy()
    assert error > 0
    scale = np.abs(exact[:velocities]).max()
    np.testing.assert_allclose(found[:velocities], exact[:velocities], atol=1e-6 * scale)
    p, q = found[velocities:], exact[velocities:]
    np.testing.assert_allclose(p - p.mean(), q - q.mean(), atol=1e-6 * np.abs(q).max())


def test_start_up_ends_in_the_steady_flow(example):
    stream, divergence, iterations = example.run(n=16, end=0.1)
    assert stream == pytest.approx(-0.1001, abs=0.004)
    assert divergence < 1e-4 and iterations < 22
