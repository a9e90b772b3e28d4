"""PC cnn: correct solves of every kind of system, M symmetric and definite, what PETSc asks of a PC."""

import math

import numba
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from consolve.pde import GridOperator
from consolve.solvers import attach_grid

SHAPES = [(17, 23), (9, 8, 11)]


def consistent_rhs(operator, seed=1):
    b = np.random.default_rng(seed).standard_normal(operator.shape)
    return operator.remove_null_space(np.where(operator.active, b, 0)).reshape(-1)[operator.cells]


def residual(csr, x, b):
    return np.linalg.norm(b - csr @ x) / np.linalg.norm(b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("boundary", ["mixed", "open", "closed"])
@pytest.mark.parametrize("kind", ["cg", "fcg", "fgmres", "gmres", "dcd"])
def test_solves_over_fluid_cells(problems, shape, boundary, kind):
    operator = problems.operator(shape, boundary)
    csr, b = operator.to_csr(), consistent_rhs(operator)
    mat = problems.matrix(csr)
    attach_grid(mat, operator)
    # gmres takes M for exactly linear, which single precision is to 1e-6
    rtol, side = (1e-5, "right") if kind == "gmres" else (1e-8, "right" if kind == "fgmres" else "left")
    solved = problems.solve(problems.ksp(mat, kind, ksp_rtol=rtol, ksp_pc_side=side), b)
    assert solved.reason > 0 and solved.iterations <= 25
    assert residual(csr, solved.x, b) < 1.1 * rtol


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("boundary", ["mixed", "closed"])
@pytest.mark.parametrize("kind", ["cg", "dcd"])
def test_solves_over_all_cells_by_grid_option(problems, shape, boundary, kind):
    operator = problems.operator(shape, boundary)
    csr = operator.to_csr("all")
    b = np.random.default_rng(0).standard_normal(operator.shape)
    b = (operator.remove_null_space(b) + np.where(operator.active, 0, b)).reshape(-1)
    grid = ",".join(map(str, shape[::-1]))
    solved = problems.solve(problems.ksp(problems.matrix(csr), kind, pc_cnn_grid=grid), b)
    assert solved.reason > 0 and solved.iterations <= 25
    assert residual(csr, solved.x, b) < 1.1e-8
    solids = ~operator.active.reshape(-1)
    np.testing.assert_allclose(solved.x[solids], b[solids], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_solves_with_a_mask(problems, tmp_path, suffix):
    types = problems.cell_types((17, 23), "mixed")
    path = tmp_path / f"cells{suffix}"
    if suffix == ".npy":
        np.save(path, types)
    elif suffix == ".npz":
        np.savez(path, cell_type=types, other=np.zeros(3))
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file["cell_type"] = types
    operator = GridOperator.from_cell_types(types)
    csr, b = operator.to_csr(), consistent_rhs(operator)
    solved = problems.solve(problems.ksp(problems.matrix(csr), pc_cnn_mask=str(path)), b)
    assert solved.reason > 0 and residual(csr, solved.x, b) < 1.1e-8


@given(st.integers(0, 10**6), st.integers(2, 3), st.sampled_from(["mixed", "open", "closed"]))
@settings(max_examples=15)
def test_symmetric_and_positive_definite_on_random_domains(seed, ndim, boundary):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(2, 9 if ndim == 2 else 6, ndim))
    types = rng.choice([0, 0, 0, 1], shape)
    operator = GridOperator.from_cell_types(types, outside=2 if boundary == "open" else 1)
    if operator.unknowns < 2:
        return
    csr = operator.to_csr()
    mat = PETSc.Mat().createAIJ(csr.shape, csr=(csr.indptr, csr.indices, csr.data))
    attach_grid(mat, operator)
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setType("cnn")
    pc.setOperators(mat)
    pc.setUp()
    r, z = mat.createVecs()
    dense = np.empty(csr.shape)
    for column in range(csr.shape[0]):
        r.set(0)
        r[column] = 1.0
        r.assemble()
        pc.apply(r, z)
        dense[:, column] = z.array_r
    assert abs(dense - dense.T).max() <= 1e-5 * abs(dense).max()  # both 0 if no two fluid cells touch
    values = np.linalg.eigvalsh(0.5 * (dense + dense.T))
    null = int(operator.components[1].sum())
    assert (values[null:] > 1e-4 * values[-1] / operator.unknowns).all()
    assert abs(values[:null]).max(initial=0) <= 1e-5 * values[-1]
    back = csr @ dense
    spread = np.linalg.eigvals(back).real
    assert spread.max() < 3 and (np.sort(spread)[null:] > 0.05).all()


def test_negative_definite_matrix(problems):
    operator = problems.operator((16, 15), "mixed")
    csr, b = -operator.to_csr(), consistent_rhs(operator)
    mat = problems.matrix(csr)
    attach_grid(mat, operator)
    solved = problems.solve(problems.ksp(mat, "fgmres"), b)
    assert solved.reason > 0 and solved.iterations <= 25
    assert residual(csr, solved.x, b) < 1.1e-8


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e12])
def test_scale_of_the_matrix_does_not_matter(problems, scale):
    operator = problems.operator((16, 15), "mixed")
    csr, b = operator.to_csr(), consistent_rhs(operator)
    iterations = []
    for factor in (1.0, scale):
        mat = problems.matrix(factor * csr)
        attach_grid(mat, operator)
        solved = problems.solve(problems.ksp(mat), b)
        assert solved.reason > 0
        iterations.append(solved.iterations)
    assert abs(iterations[1] - iterations[0]) <= 1


def test_dirichlet_rows_that_are_kept(problems):
    """As PETSc's tutorials leave them: identity rows, to which inner rows still couple."""
    shape = (14, 15)
    csr = GridOperator.from_cell_types(np.zeros(shape, int), outside=2).to_csr().tolil()
    border = np.ones(shape, bool)
    border[1:-1, 1:-1] = False
    for row in np.flatnonzero(border):
        csr.data[row] = [4.0 if column == row else 0.0 for column in csr.rows[row]]
    csr = csr.tocsr()
    b = np.random.default_rng(0).standard_normal(csr.shape[0])
    solved = problems.solve(problems.ksp(problems.matrix(csr), "fgmres", pc_cnn_grid="15,14"), b)
    assert solved.reason > 0 and solved.iterations <= 25
    assert residual(csr, solved.x, b) < 1.1e-8


def test_null_space_attached_to_the_matrix_is_kept_out(problems):
    operator = problems.operator((12, 13), "closed", seed=11)
    csr = operator.to_csr()
    mat = problems.matrix(csr)
    attach_grid(mat, operator)
    constant = PETSc.NullSpace().create(constant=True, comm=PETSc.COMM_SELF)
    mat.setNullSpace(constant)
    ksp = problems.ksp(mat)
    ksp.setUp()
    r = np.random.default_rng(0).standard_normal(csr.shape[0])
    z = problems.apply(ksp, r)
    assert abs(z.sum()) < 1e-10 * abs(z).sum()
    np.testing.assert_allclose(problems.apply(ksp, r + 3.0), z, atol=1e-6 * abs(z).max())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("numbering", ["active", "all"])
@pytest.mark.parametrize("boundary", ["mixed", "closed"])
def test_bad_numbers_are_never_hidden(problems, value, numbering, boundary):
    operator = problems.operator((9, 10), boundary)
    csr = operator.to_csr(numbering)
    mat = problems.matrix(csr)
    attach_grid(mat, operator) if numbering == "active" else attach_grid(mat, operator.shape)
    ksp = problems.ksp(mat)
    ksp.setUp()
    for entry in (0, csr.shape[0] // 2):
        r = np.ones(csr.shape[0])
        r[entry] = value
        assert not np.isfinite(problems.apply(ksp, r)).all()
    for kind in ("cg", "dcd"):
        solved = problems.solve(problems.ksp(mat, kind), r)
        assert solved.reason == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF


def test_works_without_options(problems):
    operator = problems.operator((9, 10), "mixed")
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPC().setType("cnn")
    solved = problems.solve(ksp, consistent_rhs(operator))
    assert solved.reason > 0 and ksp.getPC().getPythonContext().model == "auto"


def test_transposed_application_is_the_same(problems):
    operator = problems.operator((9, 10), "mixed")
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    ksp = problems.ksp(mat)
    ksp.setUp()
    r = consistent_rhs(operator)
    z = problems.vector(np.zeros_like(r))
    ksp.getPC().applyTranspose(problems.vector(r), z)
    np.testing.assert_array_equal(z.array_r, problems.apply(ksp, r))


def test_several_right_hand_sides_at_once(problems):
    operator = problems.operator((9, 10), "mixed")
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    ksp = problems.ksp(mat)
    ksp.setUp()
    n = operator.unknowns
    columns = np.random.default_rng(0).standard_normal((n, 3))
    X = PETSc.Mat().createDense((n, 3), array=columns.copy(order="F"), comm=PETSc.COMM_SELF)
    Y = PETSc.Mat().createDense((n, 3), comm=PETSc.COMM_SELF)
    Y.setUp()
    X.assemble()
    Y.assemble()
    ksp.getPC().matApply(X, Y)
    for q in range(3):
        expected = problems.apply(ksp, np.ascontiguousarray(columns[:, q]))
        np.testing.assert_array_equal(Y.getDenseArray()[:, q], expected)


def test_update_of_the_real_network_is_as_good_as_new(problems):
    first, second = (problems.operator((20, 21), "mixed", seed=s) for s in (0, 1))
    mats = []
    for operator in (first, second):
        mats.append(problems.matrix(operator.to_csr("all")))
        attach_grid(mats[-1], operator.shape)
    r = np.random.default_rng(0).standard_normal(420)
    new = problems.ksp(mats[1])
    new.setUp()
    used = problems.ksp(mats[0])
    problems.solve(used, np.ones(420))
    used.setOperators(mats[1])
    used.setUp()
    np.testing.assert_array_equal(problems.apply(used, r), problems.apply(new, r))


def test_several_solvers_at_once(problems):
    systems = []
    for seed, shape in enumerate([(15, 16), (6, 7, 8), (20, 9)]):
        operator = problems.operator(shape, "mixed", seed)
        mat = problems.matrix(operator.to_csr())
        attach_grid(mat, operator)
        systems.append((operator, problems.ksp(mat, "dcd", pc_cnn_model=["auto", "mg", "multilevel"][seed])))
    for _ in range(2):
        for operator, ksp in systems:
            b = consistent_rhs(operator)
            assert residual(operator.to_csr(), problems.solve(ksp, b).x, b) < 1.1e-8
    assert [k.getPC().getPythonContext().model for _, k in systems] == ["auto", "mg", "multilevel"]


def test_all_rows_diagonal(problems):
    mat = problems.matrix(sp.diags(np.arange(1.0, 13.0)))
    attach_grid(mat, (3, 4))
    solved = problems.solve(problems.ksp(mat), np.ones(12))
    assert solved.iterations == 1
    np.testing.assert_allclose(solved.x, 1 / np.arange(1.0, 13.0))


def test_threads_are_limited_and_given_back(problems):
    operator = problems.operator((30, 31), "mixed")
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    before = numba.get_num_threads()
    ksp = problems.ksp(mat, pc_cnn_threads=1)
    seen = []
    ksp.setUp()
    network = ksp.getPC().getPythonContext().network
    apply = network.apply
    network.apply = lambda r, z: (seen.append(numba.get_num_threads()), apply(r, z))[1]
    problems.apply(ksp, np.ones(operator.unknowns))
    assert seen == [1] and numba.get_num_threads() == before


def test_view_names_model_grid_and_levels(problems, tmp_path):
    operator = problems.operator((20, 30), "closed")
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    ksp = problems.ksp(mat, pc_cnn_model="mg")
    ksp.setUp()
    path = tmp_path / "view.txt"
    viewer = PETSc.Viewer().createASCII(str(path), comm=PETSc.COMM_SELF)
    ksp.getPC().view(viewer)
    viewer.destroy()
    text = path.read_text()
    network = ksp.getPC().getPythonContext().network
    for words in (
        "type: cnn",
        "grid 30 x 20",
        "model mg",
        network.weights.digest,
        "set up 1 times",
        "level 1:",
    ):
        assert words in text
    assert f"rows {operator.unknowns}" in text and f"level 0: 30 x 20 cells, {operator.unknowns} unk" in text


def test_iterations_do_not_grow_with_size(problems):
    counts = []
    for n in (32, 128):
        operator = GridOperator.from_cell_types(np.zeros((n, n), int), outside=((1, 1), (1, 2)))
        mat = problems.matrix(operator.to_csr())
        attach_grid(mat, operator)
        solved = problems.solve(problems.ksp(mat, ksp_rtol=1e-6), consistent_rhs(operator))
        counts.append(solved.iterations)
    assert max(counts) <= 10 and math.fabs(counts[1] - counts[0]) <= 2
