"""9- and 27-point stencils become spectrally equivalent 5- and 7-point operators."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from consolve.pde.matrix.grid_map import GridMap
from consolve.solvers import MatrixError
from consolve.solvers.matrix.stencil import read_stencil

cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "matrix_cases.py")))


def read(problems, matrix, shape, cells=None, periodic=(), **options):
    cells = np.arange(np.prod(shape)) if cells is None else cells
    axes = tuple(axis in periodic for axis in range(len(shape)))
    return read_stencil(
        problems.matrix(matrix), GridMap(shape, cells.astype(np.int32), "a test", axes), **options
    )


def eigenvalues(matrix, operator, cells):
    """Generalised eigenvalues of (A, operator), without the constant where A is singular."""
    a, b = matrix.toarray(), operator.to_csr("all").toarray()[np.ix_(cells, cells)]
    if np.linalg.eigvalsh(a)[0] < 1e-10 * a.max():
        basis = scipy.linalg.null_space(np.ones((1, len(a))))
        assert operator.is_singular
        a, b = basis.T @ a @ basis, basis.T @ b @ basis
    else:
        assert not operator.is_singular
    assert np.linalg.eigvalsh(b)[0] > 0
    return scipy.linalg.eigvalsh(a, b)


def nodes(shape, boundary, rng=None):
    """Nodes that carry unknowns; ``rng`` takes some out."""
    inside = np.ones(shape, bool)
    if boundary == "dirichlet":
        for axis in range(len(shape)):
            np.moveaxis(inside, axis, 0)[[0, -1]] = False
    if rng is not None:
        inside &= rng.random(shape) > 0.15
    return np.flatnonzero(inside)


@pytest.mark.parametrize("elements, least", [((11, 10), 1 / 3), ((6, 5, 6), 1 / 9)])
@pytest.mark.parametrize("aspect", [1, 3, 30])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
@pytest.mark.parametrize("coefficient", ["constant", "varying"])
def test_q1_elements_are_bounded_by_the_lumped_operator(
    problems, elements, least, aspect, boundary, coefficient
):
    """On whole elements each one's stiffness matrix lies between ``least`` and 1 times its lumped one."""
    rng = np.random.default_rng(0)
    spacing = (1.0, aspect, 1.0)[: len(elements)]
    k = 10 ** rng.uniform(-3, 3, elements) if coefficient == "varying" else None
    matrix, shape = cases.q1(elements, spacing, k)
    cells = nodes(shape, boundary)
    matrix = cases.on_rows(matrix, cells)
    found = eigenvalues(matrix, read(problems, matrix, shape, cells).operator, cells)
    assert least - 1e-6 < found[0] and found[-1] < (1.02 if aspect > 1 else 1 + 1e-8)


@pytest.mark.parametrize("elements, least", [((11, 10), 0.2), ((6, 5, 6), 0.07)])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_where_nodes_are_missing(problems, elements, least, boundary, seed):
    rng = np.random.default_rng(seed)
    spacing = (1.0, 1.0 + seed, 1.0)[: len(elements)]
    matrix, shape = cases.q1(elements, spacing, 10 ** rng.uniform(-2, 2, elements))
    cells = nodes(shape, boundary, rng)
    matrix = cases.on_rows(matrix, cells)
    found = eigenvalues(matrix, read(problems, matrix, shape, cells).operator, cells)
    assert least < found[0] and found[-1] < 3


@pytest.mark.parametrize("elements", [(9, 8), (5, 4, 5)])
@pytest.mark.parametrize("reaction", [0.01, 1.0, 100.0])
def test_mass_terms_keep_the_bounds(problems, elements, reaction):
    matrix, shape = cases.q1(elements, reaction=reaction)
    cells = nodes(shape, "neumann")
    found = eigenvalues(matrix, read(problems, matrix, shape).operator, cells)
    assert 0.05 < found[0] and found[-1] < 1.5


@pytest.mark.parametrize(
    "stencil, expected",
    [
        (np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]) / 3, 1.0),
        (np.array([[-1, -4, -1], [-4, 20, -4], [-1, -4, -1]]) / 6, 1.0),
    ],
)
def test_constant_stencils_keep_their_low_frequency_limit(problems, stencil, expected):
    shape = (7, 6)
    matrix = sp.lil_matrix((42, 42))
    for i, j in np.ndindex(*shape):
        for (a, b), value in np.ndenumerate(stencil):
            y, x = i + a - 1, j + b - 1
            if 0 <= y < 7 and 0 <= x < 6:
                matrix[6 * i + j, 6 * y + x] = value
    operator = read(problems, matrix, shape).operator
    np.testing.assert_allclose(operator.face_coefficient[0][1:5, 1:5], expected)
    np.testing.assert_allclose(operator.face_coefficient[1][1:6, 1:4], expected)
    np.testing.assert_allclose(operator.dirichlet[1:-1, 1:-1], 0, atol=1e-13)


def test_trilinear_elements_without_face_couplings_are_the_seven_point_operator(problems):
    """On cubes Q1 couples no face neighbours at all."""
    matrix, shape = cases.q1((5, 5, 5))
    matrix.data[abs(matrix.data) < 1e-12] = 0
    matrix.eliminate_zeros()
    operator = read(problems, matrix, shape).operator
    for face in operator.face_coefficient:
        np.testing.assert_allclose(face[1:4, 1:4, 1:4], 1)
    assert operator.is_singular


def test_stored_zeros_of_a_box_pattern_leave_the_star(problems):
    rng = np.random.default_rng(0)
    faces, dirichlet = cases.random_fluxes((5, 6), rng)
    star = cases.fluxes(faces, dirichlet)
    pattern, _ = cases.q1((4, 5))
    box = sp.csr_matrix(pattern, copy=True)
    dense = star.toarray()
    rows = np.repeat(np.arange(30), np.diff(box.indptr))
    box.data[:] = dense[rows, box.indices]
    operator = read(problems, box, (5, 6)).operator
    for axis in range(2):
        np.testing.assert_array_equal(operator.face_coefficient[axis], faces[axis])


def test_round_off_of_assembly_on_diagonals_is_no_coupling(problems):
    faces, dirichlet = cases.random_fluxes((5, 6), np.random.default_rng(0), closed=0)
    matrix = cases.fluxes(faces, dirichlet).tolil()
    matrix[0, 7] = 1e-17
    matrix[7, 0] = -2e-17
    matrix[0, 20] = 1e-17
    operator = read(problems, matrix, (5, 6)).operator
    np.testing.assert_array_equal(operator.face_coefficient[0], faces[0])


def couples_along_a_diagonal(matrix, shape, cells):
    """Some entry joins cells that differ along two axes or more."""
    pairs = sp.coo_matrix(matrix)
    pairs.eliminate_zeros()
    a, b = (np.array(np.unravel_index(cells[index], shape)) for index in (pairs.row, pairs.col))
    return bool(((a != b).sum(0) > 1).any())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.integers(0, 10**6), st.integers(2, 3), st.sampled_from([0.7, 1.0]), st.sampled_from([1.0, -1e-7]),
    st.sets(st.integers(0, 2)),
)  # fmt: skip
@example(seed=6576, ndim=2, fill=0.7, scale=1.0, periodic=set())
def test_agrees_with_the_plain_twin(problems, seed, ndim, fill, scale, periodic):
    """Random sizes, missing nodes, kept Dirichlet rows, periodic axes of one, two and more cells."""
    rng = np.random.default_rng(seed)
    periodic = {axis for axis in periodic if axis < ndim}
    elements = tuple(int(n) for n in rng.integers(1, 5, ndim))
    spacing = tuple(10 ** rng.uniform(-1, 1, ndim))
    matrix, shape = cases.q1(elements, spacing, 10 ** rng.uniform(-1, 1, elements), 0.0, periodic)
    cells = np.flatnonzero(rng.random(shape) < fill)
    if cells.size == 0:
        return
    matrix = cases.on_rows(matrix, cells)
    kept = np.flatnonzero(rng.random(cells.size) < 0.1)
    matrix = cases.keep_dirichlet_rows(matrix, kept)
    off = sp.csr_matrix(matrix - sp.diags(matrix.diagonal()))
    coupled = np.flatnonzero(abs(off).sum(1) > 0)
    off = off[coupled][:, coupled]
    if off.nnz and off.max() > 0 and not couples_along_a_diagonal(off, shape, cells[coupled]):
        # Flat elements couple positively along an axis; on few nodes that alone may be left of a box stencil.
        with pytest.raises(MatrixError, match="must have the other sign"):
            read(problems, scale * matrix, shape, cells, periodic)
        return
    stencil = read(problems, scale * matrix, shape, cells, periodic)
    faces, dirichlet, active = cases.to_grid(stencil.operator, shape, cells)
    plain_faces, plain_dirichlet, plain_active = cases.lumped(matrix, shape, cells, periodic)
    assert stencil.sign == (np.sign(scale) if active.any() else 1)
    np.testing.assert_array_equal(active, plain_active)
    size = abs(scale) * abs(matrix).max()
    for axis in range(ndim):
        np.testing.assert_allclose(
            faces[axis], abs(scale) * plain_faces[axis], rtol=1e-9, atol=1e-9 * size, err_msg=str(axis)
        )
    np.testing.assert_allclose(dirichlet, abs(scale) * plain_dirichlet, rtol=1e-9, atol=1e-12 * size)


def test_cells_that_touch_at_a_corner_alone_are_grounded(problems):
    """Without a path of faces the coupling goes into both Dirichlet parts: the operator stays definite."""
    matrix = sp.csr_matrix([[2.0, -1.0], [-1.0, 2.0]])
    operator = read(problems, matrix, (2, 2), np.array([0, 3])).operator
    np.testing.assert_array_equal(operator.dirichlet, [[2, 0], [0, 2]])
    assert not any(f.any() for f in operator.face_coefficient)


@pytest.mark.parametrize("kind", ["helmholtz", "negative along x", "asymmetric"])
def test_unfit_box_stencils_are_refused(problems, kind):
    matrix, shape = cases.q1((6, 6))
    if kind == "helmholtz":
        matrix, words = cases.q1((6, 6), (1.0, 3.0), reaction=-0.1)[0], "not diagonally dominant"
    elif kind == "negative along x":
        line = sp.diags([-1, 2, -1], [-1, 0, 1], (7, 7)).tolil()
        line[0, 0] = line[6, 6] = 1
        matrix = 6 * sp.kron(line, sp.eye(7)) - sp.kron(sp.eye(7), line) + 1e-3 * matrix + 1e-3 * sp.eye(49)
        words = "negative one along x"
    else:
        matrix = matrix.tolil()
        matrix[9, 17] *= 1.5
        words = "not symmetric"
    with pytest.raises(MatrixError, match=words):
        read(problems, matrix, shape)
