"""PC cnn on meshes and box stencils: few iterations at every size, right solutions, on ranks too."""

from pathlib import Path

import mesh_cases
import numpy as np
import pytest
import scipy.sparse as sp
from matrix_cases import q1
from mpi_program import needs_mpirun, result_on_ranks
from petsc4py import PETSc
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from consolve.solvers import MatrixError, attach_points
from consolve.solvers.matrix.plex_points import points_of_plex

PROGRAM = Path(__file__).with_name("mesh_ranks.py")


def solved(problems, matrix, points, kind="cg", rtol=1e-9, **options):
    mat = problems.matrix(matrix)
    if points is not None:
        attach_points(mat, points)
    ksp = problems.ksp(mat, kind, ksp_rtol=rtol, ksp_norm_type="unpreconditioned", **options)
    b = np.random.default_rng(7).standard_normal(matrix.shape[0])
    if abs(matrix.sum(1)).max() < 1e-9:
        b -= b.mean()
    found = problems.solve(ksp, b)
    residual = np.linalg.norm(b - matrix @ found.x) / np.linalg.norm(b)
    assert found.reason > 0 and residual < 1.01 * rtol
    return found


@pytest.mark.parametrize(
    "ndim, sizes, degree, most",
    [(2, (16, 32, 64, 128), 1, 10), (2, (16, 64), 2, 16), (3, (8, 16, 24), 1, 18), (3, (6, 12), 2, 24)],
)
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_iterations_do_not_grow(problems, ndim, sizes, degree, most, boundary):
    found = [
        solved(problems, *mesh_cases.system(ndim, n, degree, boundary), rtol=1e-8).iterations for n in sizes
    ]
    assert max(found) <= most and found[-1] <= found[0] + 4, found


@pytest.mark.parametrize("kind", ["cg", "dcd", "fcg"])
@pytest.mark.parametrize("boundary", ["dirichlet", "mixed", "kept"])
def test_solutions_are_those_of_a_direct_solver(problems, kind, boundary):
    matrix, points = mesh_cases.system(2, 20, boundary=boundary)
    found = solved(problems, matrix, points, kind)
    b = np.random.default_rng(7).standard_normal(matrix.shape[0])
    np.testing.assert_allclose(found.x, spsolve(matrix.tocsc(), b), rtol=1e-6, atol=1e-7)


def test_one_sided_boundary_rows(problems):
    """As MatZeroRows leaves them: an identity row, whose column stays in the others."""
    matrix, points = mesh_cases.system(2, 20, boundary="neumann")
    fixed = mesh_cases.on_boundary(points, 2)
    kept = sp.csr_matrix(sp.diags((~fixed).astype(float)) @ matrix + sp.diags(fixed.astype(float)))
    assert solved(problems, kept, points).iterations <= 14


@pytest.mark.parametrize("contrast, most", [(1e3, 24), (1e6, 36)])
def test_materials(problems, contrast, most):
    points, cells = mesh_cases.simplices(2, 48, hole=False)
    inside = points[cells].mean(1)[:, 0] > 0.5
    matrix = mesh_cases.p1(points, cells, np.where(inside, contrast, 1.0))
    free = ~mesh_cases.on_boundary(points, 2)
    assert solved(problems, sp.csr_matrix(matrix[free][:, free]), points[free]).iterations <= most


@pytest.mark.parametrize("exponent", [-200, -30, 30, 200])
def test_units_of_the_matrix_do_not_matter(problems, exponent):
    matrix, points = mesh_cases.system(2, 20)
    scaled = solved(problems, sp.csr_matrix(matrix * 2.0**exponent), points).iterations
    assert scaled == solved(problems, matrix, points).iterations


@pytest.mark.parametrize("elements", [(24, 24), (64, 60), (12, 12, 12), (20, 18, 16)], ids=str)
@pytest.mark.parametrize("rtol, most", [(1e-6, 6), (1e-10, 9)])
def test_bilinear_elements_take_few_iterations(problems, elements, rtol, most):
    matrix, shape = q1(elements)
    inner = np.ones(shape, bool)
    inner[0] = False
    free = np.flatnonzero(inner)
    found = solved(problems, sp.csr_matrix(matrix[free][:, free]), None, rtol=rtol)
    assert found.iterations <= most
    without = solved(problems, sp.csr_matrix(matrix[free][:, free]), None, rtol=rtol, pc_cnn_smooth=0)
    assert without.iterations > found.iterations


@pytest.mark.parametrize("elements, periodic", [((24, 24), (0,)), ((10, 12, 10), (1, 2))], ids=str)
def test_periodic_bilinear_elements(problems, elements, periodic):
    matrix, _ = q1(elements, periodic=periodic)
    matrix = sp.csr_matrix(matrix + 1e-3 * sp.eye(matrix.shape[0]))
    assert solved(problems, matrix, None).iterations <= 10


def test_the_view_names_the_grid_and_the_sweeps(problems, capfd):
    matrix, points = mesh_cases.system(2, 20)
    mat = problems.matrix(matrix)
    attach_points(mat, points)
    ksp = problems.ksp(mat, "cg", ksp_view=None, pc_cnn_smooth=2)
    problems.solve(ksp, np.ones(matrix.shape[0]))
    ksp.view()
    text = capfd.readouterr().out
    assert "mesh, from the points of the rows" in text
    assert "laid over the points, 2 Gauss-Seidel sweeps with the matrix" in text


@pytest.mark.parametrize("degree", [1, 2])
def test_the_points_of_a_plex_are_found(problems, degree):
    """Its numbering is PETSc's own; no call tells the points."""
    points, cells = mesh_cases.simplices(2, 16)
    plex = PETSc.DMPlex().createFromCellList(
        2, cells.astype(PETSc.IntType), points, interpolate=True, comm=PETSc.COMM_SELF
    )
    PETSc.Options()["plex_petscspace_degree"] = degree
    element = PETSc.FE().createDefault(2, 1, True, PETSc.DETERMINE, "plex_", PETSc.COMM_SELF)
    plex.setField(0, element)
    plex.createDS()
    matrix, places = mesh_cases.system(2, 16, degree, "neumann")
    found = points_of_plex(plex, matrix.shape[0], None)
    distance, row = cKDTree(places).query(found)
    assert distance.max() < 1e-9 and len(set(row)) == len(places)
    reordered = sp.csr_matrix((matrix + 0.01 * sp.eye(len(places)))[row][:, row])
    ksp = problems.ksp(problems.matrix(reordered), "cg", ksp_rtol=1e-8, ksp_norm_type="unpreconditioned")
    ksp.setDM(plex)
    ksp.setDMActive(False)
    solved_by = problems.solve(ksp, np.ones(len(places)))
    assert solved_by.reason > 0 and solved_by.iterations <= 16
    assert points_of_plex(plex, matrix.shape[0] + 1, None) is None


def test_changed_matrices_are_set_up_again(problems):
    """The same points, other values: as a fresh solver."""
    matrix, points = mesh_cases.system(2, 24)
    mat = problems.matrix(matrix)
    attach_points(mat, points)
    ksp = problems.ksp(mat, "cg", ksp_rtol=1e-9, ksp_norm_type="unpreconditioned")
    b = np.random.default_rng(7).standard_normal(matrix.shape[0])
    problems.solve(ksp, b)
    scale = sp.diags(np.exp(points[:, 0]))
    other = sp.csr_matrix(scale @ matrix @ scale)
    other.sort_indices()
    mat.setValuesCSR(other.indptr.astype(PETSc.IntType), other.indices.astype(PETSc.IntType), other.data)
    mat.assemble()
    again = problems.solve(ksp, b)
    fresh = solved(problems, other, points)
    assert ksp.getPC().getPythonContext().setups == 2
    np.testing.assert_allclose(again.x, fresh.x, rtol=1e-12, atol=1e-14)


def test_what_is_refused(problems):
    matrix, points = mesh_cases.system(2, 12, degree=2)
    mat = problems.matrix(matrix)
    with pytest.raises(ValueError, match=r"local rows: expected real numbers of shape"):
        attach_points(mat, points[:-1])
    with pytest.raises(ValueError, match="local row 4 .* finite"):
        attach_points(mat, np.where(np.arange(len(points))[:, None] == 4, np.nan, points))
    ksp = problems.ksp(mat, "cg")
    with pytest.raises((MatrixError, PETSc.Error)) as caught:
        problems.solve(ksp, np.ones(len(points)))
    error = caught.value
    assert "attach_points" in str(error.__cause__ or error)


@needs_mpirun
def test_ranks_take_as_many_iterations():
    one, *others = (result_on_ranks(ranks, PROGRAM) for ranks in (1, 2, 3))
    for found in (one, *others):
        for case, facts in found.items():
            if case in ("one row at fault", "no sweep"):
                expected = "not symmetric" if case == "one row at fault" else "one Gauss-Seidel sweep"
                assert facts["same"] and expected in facts["error"], (case, facts)
                continue
            assert facts["reason"] > 0 and facts["difference"] < 1e-7, (case, facts)
            assert abs(facts["iterations"] - one[case]["iterations"]) <= 1, (case, facts, one[case])
