"""Reading the matrix of a mesh: what it says, and what is refused."""

import mesh_cases
import numpy as np
import pytest
import scipy.sparse as sp

from consolve.base.errors import MatrixError
from consolve.pde.matrix.local_rows import rows_of_csr
from consolve.pde.matrix.stencil import Stencil
from consolve.pde.mesh.rows import MeshRows, read_mesh, read_points
from consolve.pde.poisson.null_space import ClosedComponents


def changed(matrix, *entries):
    matrix = sp.lil_matrix(matrix)
    for row, column, value in entries:
        matrix[row, column] = value
    return sp.csr_matrix(matrix)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("ndim, degree", [(2, 1), (2, 2), (3, 1)])
def test_what_rows_say(ndim, degree, sign):
    matrix, points = mesh_cases.system(ndim, 6, degree, "kept")
    read = read_mesh(rows_of_csr(sp.csr_matrix(sign * matrix)), points)
    fixed = np.flatnonzero(mesh_cases.on_boundary(points, ndim))
    assert read.sign == sign and not read.one_sided and not read.closed_components()
    np.testing.assert_array_equal(read.diagonal_rows, fixed)
    np.testing.assert_allclose(read.diagonal_inverse, sign)
    free = np.setdiff1d(np.arange(len(points)), fixed)
    sums = np.asarray(matrix.sum(1)).reshape(-1)[free]
    np.testing.assert_allclose(read.row_sum[free], np.where(np.abs(sums) > 1e-10, sums, 0), atol=1e-10)


def test_one_sided_boundary_rows_are_told():
    matrix, points = mesh_cases.system(2, 6, boundary="neumann")
    fixed = mesh_cases.on_boundary(points, 2)
    kept = sp.csr_matrix(sp.diags((~fixed).astype(float)) @ matrix + sp.diags(fixed.astype(float)))
    read = read_mesh(rows_of_csr(kept), points)
    assert read.one_sided and set(read.boundary.column) <= set(np.flatnonzero(fixed))


@pytest.mark.parametrize("copies", [1, 3])
def test_closed_components_are_those_of_the_matrix(copies):
    matrix, points = mesh_cases.system(2, 7, boundary="neumann")
    opened, more = mesh_cases.system(2, 6)
    whole = sp.csr_matrix(sp.block_diag([matrix] * copies + [opened]))
    places = np.concatenate([points + [2 * k, 0] for k in range(copies)] + [more + [-2, 0]])
    found = read_mesh(rows_of_csr(whole), places).closed_components()
    expected = ClosedComponents.of_matrix(whole)
    np.testing.assert_array_equal(found.group, expected.group)
    assert len(found) == copies


def test_a_null_space_lets_row_sums_be_rough():
    matrix, points = mesh_cases.system(2, 6, boundary="neumann")
    rough = matrix + sp.diags(1e-9 * matrix.diagonal())
    assert not read_mesh(rows_of_csr(sp.csr_matrix(rough)), points).closed_components()
    assert (
        len(
            read_mesh(
                rows_of_csr(sp.csr_matrix(rough)), points, np.ones(len(points), bool)
            ).closed_components()
        )
        == 1
    )


@pytest.mark.parametrize(
    "entries, message",
    [
        ([(3, 3, np.nan)], "row 3 .* must be finite"),
        ([(3, 3, 0.0)], "row 3 .* zero diagonal"),
        ([(3, 3, -4.0)], "row 3 .* indefinite"),
        ([(5, 1, -0.77)], r"not symmetric"),
        ([(2, 9, 50.0), (9, 2, 50.0)], "row 2 .* the matrix is indefinite"),
    ],
)
def test_rows_at_fault_are_named(entries, message):
    matrix, points = mesh_cases.system(2, 6)
    with pytest.raises(MatrixError, match=message):
        read_mesh(rows_of_csr(changed(matrix, *entries)), points)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_one_entry_without_its_transposed_one_is_found(seed, ordered):
    """Whichever it is, and in whatever order columns stand."""
    matrix, points = mesh_cases.system(2, 40)  # chunks of some 20 rows
    random = np.random.default_rng(seed)
    row = int(random.integers(10, len(points) - 10))
    column = row + int(random.choice([-9, -5, -2, 2, 5, 9]))
    broken = changed(matrix, (row, column, -0.3), (column, row, 0.0))
    broken.eliminate_zeros()
    for sound, given in ((True, matrix.copy()), (False, broken)):
        given.sort_indices()
        if not ordered:
            for k in range(len(points)):
                part = slice(*given.indptr[k : k + 2])
                mixed = random.permutation(given.indptr[k + 1] - given.indptr[k])
                given.indices[part], given.data[part] = given.indices[part][mixed], given.data[part][mixed]
        if sound:
            read_mesh(rows_of_csr(given), points)
        else:
            with pytest.raises(MatrixError, match=rf"row ({row}|{column}) .* not symmetric"):
                read_mesh(rows_of_csr(given), points)


@pytest.mark.parametrize(
    "points, message",
    [
        (np.zeros((3, 2)), r"\(3, 2\), expected \(\d+, 2\) or"),
        (np.zeros(5), r"\(5,\), expected"),
        (np.zeros((25, 4)), r"\(25, 4\), expected"),
        (np.full((25, 2), "a"), "expected real numbers"),
        (np.where(np.arange(50).reshape(25, 2) == 7, np.inf, 1.0), "point of local row 3 .* finite"),
    ],
)
def test_points_that_do_not_fit(points, message):
    matrix = sp.eye(25, format="csr")
    for read in (read_mesh, read_points):
        with pytest.raises(MatrixError, match=message):
            read(rows_of_csr(matrix), points)


def test_points_of_a_grid_are_read_as_a_grid():
    """Bilinear elements on a lattice; crossed triangles, whose rows leave half of theirs free, are a mesh."""
    from matrix_cases import q1

    matrix, shape = q1((5, 6))
    lattice = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in shape[::-1]]), -1).reshape(-1, 2)
    matrix = sp.csr_matrix(matrix + sp.eye(matrix.shape[0]))
    matrix.sort_indices()
    assert isinstance(read_points(rows_of_csr(matrix), lattice), Stencil)
    n = 6
    corners = np.stack(np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij"), -1).reshape(-1, 2)
    middles = np.stack(np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5, indexing="ij"), -1).reshape(-1, 2)
    points, cells = np.concatenate((corners, middles)), []
    for i in range(n):
        for j in range(n):
            a, b, c, d = (
                i * (n + 1) + j,
                (i + 1) * (n + 1) + j,
                (i + 1) * (n + 1) + j + 1,
                i * (n + 1) + j + 1,
            )
            m = (n + 1) ** 2 + i * n + j
            cells += [(a, b, m), (b, c, m), (c, d, m), (d, a, m)]
    crossed = sp.csr_matrix(mesh_cases.p1(points, np.array(cells)) + 0.1 * sp.eye(len(points)))
    assert isinstance(read_points(rows_of_csr(crossed), points), MeshRows)


def test_flat_points_in_space_make_a_plane():
    matrix, points = mesh_cases.system(2, 6)
    raised = np.insert(points, 1, 3.5, axis=1)
    np.testing.assert_array_equal(read_mesh(rows_of_csr(matrix), raised).points, points)
    line = sp.csr_matrix(sp.diags([2.1 * np.ones(9), -np.ones(8), -np.ones(8)], [0, 1, -1]))
    assert read_mesh(rows_of_csr(line), np.arange(9.0)[:, None]).points.shape == (9, 2)
