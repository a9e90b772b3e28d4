"""Boundary rows that MatZeroRows leaves one-sided: PC cnn is that of the system without them, wherever it
stands."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from matrix_cases import keep_dirichlet_rows, q1
from mpi_program import needs_mpirun, result_on_ranks

from consolve.pde import GridOperator

PROGRAM = Path(__file__).with_name("boundary_ranks.py")


@needs_mpirun
@pytest.mark.parametrize("ranks", [1, 2])
def test_nested_solvers_need_the_iterations_of_the_outermost(ranks):
    found = result_on_ranks(ranks, PROGRAM)
    assert len(found) == (32 if ranks == 1 else 30)
    for case, facts in found.items():
        if case.startswith("none"):  # a fixed number of iterations
            assert facts["residual"] < 1e-6, (case, facts)
            continue
        outermost = found[f"outermost | {case[-2:]}"]["iterations"]
        assert outermost <= 4
        assert facts["reason"] > 0 and facts["residual"] < 3e-6, (case, facts)
        assert facts["iterations"] <= outermost + 1, (case, facts)


def system(kind):
    """(matrix, the same without couplings to its boundary, boundary rows, A_ib A_bb^-1)"""
    if kind == "box stencil":
        csr, shape = q1((11, 14))
        csr = csr + 0.01 * sp.identity(csr.shape[0])
    else:
        shape = (9, 8, 7) if kind == "3D" else (12, 15)
        csr = GridOperator.from_cell_types(np.zeros(shape, int), 2).to_csr()
    if kind == "negative":
        csr = -csr
    inside = np.zeros(shape, bool)
    inside[(slice(1, -1),) * len(shape)] = True
    rows = np.flatnonzero(~inside.reshape(-1))
    kept = keep_dirichlet_rows(csr, rows, 3.0 if kind != "negative" else -3.0)
    couplings = kept.tolil()
    couplings[rows] = 0
    ratio = sp.csr_matrix(couplings[:, rows]) / kept[rows[0], rows[0]]
    couplings[:, np.flatnonzero(inside.reshape(-1))] = 0
    return kept, sp.csr_matrix(kept - couplings), rows, ratio, shape


@pytest.mark.parametrize("kind", ["2D", "3D", "negative", "box stencil"])
def test_m_is_that_of_the_eliminated_system(problems, kind):
    """M = [[A_bb^-1, 0], [-S A_ib A_bb^-1, S]] for any residual, and bitwise S where r_b = 0."""
    kept, eliminated, rows, ratio, shape = system(kind)
    grid = ",".join(map(str, shape[::-1]))
    pair = [problems.ksp(problems.matrix(a), pc_cnn_grid=grid) for a in (kept, eliminated)]
    for ksp in pair:
        ksp.setUp()
    rng = np.random.default_rng(1)
    r = rng.standard_normal(kept.shape[0])
    expected = problems.apply(pair[1], r - ratio @ r[rows])
    # Sweeps with the matrix are in double precision, and show the rounding of both eliminations.
    np.testing.assert_allclose(problems.apply(pair[0], r), expected, rtol=1e-12, atol=1e-15 * abs(r).max())
    assert not np.array_equal(problems.apply(pair[1], r), expected)
    r[rows] = 0
    np.testing.assert_array_equal(problems.apply(pair[0], r), problems.apply(pair[1], r))

    x, y = rng.standard_normal((2, r.size))
    z = problems.vector(np.zeros(r.size))
    pair[0].getPC().applyTranspose(problems.vector(y), z)
    assert problems.apply(pair[0], x) @ y == pytest.approx(x @ z.array_r, rel=1e-5)


def test_changed_matrix_has_other_couplings(problems):
    kept, _, rows, _, shape = system("2D")
    mat = problems.matrix(kept)
    ksp = problems.ksp(mat, "stcg", pc_cnn_grid=",".join(map(str, shape[::-1])))
    b = np.random.default_rng(0).standard_normal(kept.shape[0])
    for factor in (1.0, 2.0):
        mat.scale(factor)
        solved = problems.solve(ksp, b)
        assert solved.reason > 0 and solved.iterations <= 6
    indptr, indices, data = mat.getValuesCSR()
    symmetric = sp.csr_matrix((data, indices, indptr), kept.shape).tolil()
    symmetric[np.ix_(np.setdiff1d(np.arange(kept.shape[0]), rows), rows)] = 0
    ksp.setOperators(problems.matrix(sp.csr_matrix(symmetric)))
    assert problems.solve(ksp, b).iterations <= 6
    assert ksp.getPC().getPythonContext()._boundary is None
