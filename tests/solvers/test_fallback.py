"""-pc_cnn_fallback: who takes over where no engine serves, and the one warning where nobody does."""

import warnings

import numpy as np
import pytest

PETSc = pytest.importorskip("petsc4py.PETSc")

from hard_grids import hard_operator, matrix_of  # noqa: E402

from consolve.learned.multilevel.format import load_weights, save_weights  # noqa: E402
from consolve.learned.multilevel.graph import choice  # noqa: E402
from consolve.pde.poisson.domains import make_domain  # noqa: E402
from consolve.solvers import assemble_matrix, attach_grid  # noqa: E402


@pytest.fixture
def weights(tmp_path):
    """A file that is named itself stays with the network, which a maze defeats."""
    save_weights(load_weights("mg", 2), tmp_path / "mine.h5")
    return str(tmp_path / "mine.h5")


def make_ksp(mat, **options):
    ksp = PETSc.KSP().create(mat.comm)
    ksp.setOperators(mat)
    ksp.setOptionsPrefix("over_")
    database = PETSc.Options("over_")
    chosen = {"ksp_type": "dcd", "pc_type": "cnn", "ksp_max_it": 600} | options
    for name, value in chosen.items():
        database.setValue(name, value)
    ksp.setFromOptions()
    for name in chosen:
        database.delValue(name)
    ksp.setTolerances(rtol=1e-8)
    return ksp


def solve(ksp, mat, b):
    """Iterations, true residual and what was warned of."""
    right, x = mat.createVecLeft(), mat.createVecRight()
    right.array_w[:] = b
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ksp.solve(right, x)
    residual = right.duplicate()
    mat.mult(x, residual)
    residual.aypx(-1.0, right)
    return ksp.getIterationNumber(), residual.norm() / right.norm(), [str(w.message) for w in caught]


def noise(operator):
    b = np.random.default_rng(0).standard_normal(operator.shape)
    return operator.remove_null_space(b)[operator.active]


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.parametrize("name", ["maze", "closed-channels"])
def test_one_warning_without_a_fallback(weights, name, fused):
    operator = make_domain(name, (64, 60), 3).operator()
    b, mat = noise(operator), assemble_matrix(operator)
    ksp = make_ksp(mat, pc_cnn_model=weights, ksp_dcd_fused=fused)
    many, residual, told = solve(ksp, mat, b)
    assert many > 40 and residual <= 1e-8
    (text,) = told
    assert "20 iterations" in text and "-pc_type hypre" in text and "-pc_cnn_fallback" in text
    assert solve(ksp, mat, b)[2] == []


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.parametrize("fallback", ["hypre", "gamg"])
@pytest.mark.parametrize("name, sign", [("maze", 1), ("closed-channels", 1), ("maze", -1)])
def test_another_pc_takes_over_where_dcd_stagnates(weights, name, sign, fallback, fused):
    operator = make_domain(name, (64, 60), 3).operator()
    b, mat = noise(operator), assemble_matrix(operator)
    mat.scale(sign)
    ksp = make_ksp(mat, pc_cnn_model=weights, ksp_dcd_fused=fused, pc_cnn_fallback=fallback)
    first, residual, told = solve(ksp, mat, b)
    assert residual <= 1e-8 and first < 20 + 60
    assert len(told) == 1 and f"PC {fallback} takes over" in told[0]
    inner = ksp.getPC().getPythonContext()._taken_over.pc
    assert inner.getType() == fallback and inner.getOptionsPrefix() == "over_cnn_fallback_"
    # The next solve begins with it, and so do those after another set-up.
    for _ in range(2):
        later, residual, told = solve(ksp, mat, b)
        assert residual <= 1e-8 and later < first - 15 and told == []
        mat.scale(2.0)
        ksp.setOperators(mat)
    ksp.getPC().view(PETSc.Viewer().createASCII("/dev/null"))
    ksp.reset()
    assert ksp.getPC().getPythonContext()._taken_over is None


def test_what_set_up_foresees(monkeypatch):
    """A grid that needs the graph, and no memory to gather it."""
    operator = hard_operator("maze", (400, 410), (0,))
    csr = matrix_of(operator)
    b = np.random.default_rng(0).standard_normal(csr.shape[0])
    b = operator.closed_components(operator.cells).without_means(b)
    parts = csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data
    mat = PETSc.Mat().createAIJ(csr.shape, csr=parts, comm=PETSc.COMM_SELF)
    attach_grid(mat, operator.shape, operator.cells)
    monkeypatch.setattr(choice, "available", lambda: 2**26)
    for kind in ("dcd", "cg"):
        ksp = make_ksp(mat, pc_cnn_fallback="hypre", ksp_type=kind)
        iterations, residual, told = solve(ksp, mat, b)
        assert iterations <= 40 and residual <= 1e-6
        assert len(told) == 1 and "0.1 GiB are left: PC hypre takes over" in told[0]
