"""GridOperator: every kernel against a plain NumPy twin, and the operator's own invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from consolve.pde.poisson.grid import AIR, FLUID, SOLID, GridOperator, normalised_sides

SHAPES = [(1, 1), (1, 7), (6, 1), (5, 8), (17, 4), (1, 1, 1), (1, 4, 3), (4, 1, 5), (5, 6, 7), (9, 2, 2)]
SIDES = ["solid", "air", "mixed"]


def sides_of(kind, ndim):
    if kind == "mixed":
        return tuple(((SOLID, AIR), (AIR, SOLID), (SOLID, SOLID))[:ndim])
    return ((SOLID, SOLID) if kind == "solid" else (AIR, AIR),) * ndim


def random_types(shape, seed=0):
    return np.random.default_rng(seed).choice(3, shape, p=[0.7, 0.2, 0.1]).astype(np.uint8)


def along(axis, start, stop):
    return (slice(None),) * axis + (slice(start, stop),)


def twin_from_types(types, sides, mobility):
    """Face coefficients and Dirichlet part, by whole-array arithmetic."""
    k = np.ones(types.shape) if mobility is None else np.asarray(mobility, float)
    fluid = types == FLUID
    faces, dirichlet = [], np.zeros(types.shape)
    for axis, side in enumerate(sides):
        low, high = along(axis, None, -1), along(axis, 1, None)
        face = np.zeros(types.shape)
        face[low] = np.where(
            fluid[low] & fluid[high],
            1.0 if mobility is None else 2 * k[low] * k[high] / (k[low] + k[high]),
            0,
        )
        faces.append(face)
        dirichlet[low] += np.where(fluid[low] & (types[high] == AIR), k[low], 0)
        dirichlet[high] += np.where(fluid[high] & (types[low] == AIR), k[high], 0)
        for beyond, edge in zip(side, (along(axis, 0, 1), along(axis, types.shape[axis] - 1, None))):
            if beyond == AIR:
                dirichlet[edge] += np.where(fluid[edge], k[edge], 0)
    return faces, dirichlet


def twin_dense(op):
    """A on all cells, from its definition."""
    number = np.arange(op.active.size).reshape(op.shape)
    matrix = np.diag(op.dirichlet.ravel().astype(float))
    for axis, face in enumerate(op.face_coefficient):
        i = number[along(axis, None, -1)].ravel()
        j = number[along(axis, 1, None)].ravel()
        c = face[along(axis, None, -1)].ravel().astype(float)
        np.add.at(matrix, (i, i), c)
        np.add.at(matrix, (j, j), c)
        matrix[i, j] -= c
        matrix[j, i] -= c
    return matrix


def twin_components(op):
    """Labels by repeated exchange of the least label across open faces."""
    labels = np.where(op.active, np.arange(op.active.size).reshape(op.shape), -1)
    while True:
        before = labels.copy()
        for axis, face in enumerate(op.face_coefficient):
            low, high = along(axis, None, -1), along(axis, 1, None)
            is_open = face[low] > 0
            least = np.where(is_open, np.minimum(labels[low], labels[high]), 0)
            labels[low] = np.where(is_open, least, labels[low])
            labels[high] = np.where(is_open, np.minimum(least, labels[high]), labels[high])
        if np.array_equal(before, labels):
            return np.unique(labels, return_inverse=True)[1].reshape(op.shape) - int((labels < 0).any())


@pytest.fixture(params=[np.float64, np.float32])
def dtype(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("varying", [False, True])
def test_kernels_equal_their_twins(shape, sides, varying, dtype):
    rng = np.random.default_rng(1)
    types = random_types(shape, 2)
    mobility = rng.uniform(0.1, 10, shape) if varying else None
    outside = sides_of(sides, len(shape))
    op = GridOperator.from_cell_types(types, outside, mobility, dtype)
    tolerance = 1e-12 if dtype == np.float64 else 2e-6

    faces, dirichlet = twin_from_types(types, outside, mobility)
    for ours, twin in zip((*op.face_coefficient, op.dirichlet), (*faces, dirichlet)):
        np.testing.assert_allclose(ours, twin, rtol=tolerance)
    assert op.dtype == dtype and np.array_equal(op.active, types == FLUID)

    dense = twin_dense(op)
    np.testing.assert_allclose(op.diagonal().ravel(), np.diag(dense), rtol=tolerance)
    for precision in (np.float64, np.float32):
        x = rng.standard_normal(shape).astype(precision)
        scale = np.abs(dense).sum(1).max() + 1
        fine = 1e-13 if precision == dtype == np.float64 else 1e-5
        np.testing.assert_allclose(op.apply(x).ravel(), dense @ x.ravel(), atol=fine * scale)
        assert op.apply(x).dtype == precision

    cells = op.active.ravel()
    assert abs(op.to_csr() - dense[np.ix_(cells, cells)]).max() < 1e-12 if cells.any() else True
    everything = dense + np.diag((~cells).astype(float))
    assert abs(op.to_csr("all") - everything).max() < 1e-12


@pytest.mark.parametrize("shape", [(13, 14), (6, 7, 8)])
@pytest.mark.parametrize("sides", SIDES)
def test_components_equal_twin(shape, sides):
    for seed in range(5):
        types = np.random.default_rng(seed).choice(3, shape, p=[0.55, 0.43, 0.02])
        op = GridOperator.from_cell_types(types, sides_of(sides, len(shape)))
        labels, closed = op.components
        twin = twin_components(op)
        assert np.array_equal(labels, twin)
        assert np.array_equal(labels >= 0, op.active)
        assert closed.size == labels.max() + 1
        for number in range(closed.size):
            assert closed[number] == (op.dirichlet[labels == number].sum() == 0)
        # Two unknowns of one component are joined in the image too.
        assert ndimage.label(op.active)[1] == closed.size


images = hnp.arrays(
    np.uint8,
    st.one_of(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6)),
    elements=st.integers(0, 2),
)


@given(images, st.lists(st.sampled_from([SOLID, AIR]), min_size=6, max_size=6))
def test_matrix_is_a_symmetric_m_matrix(types, flat_sides):
    outside = tuple(zip(flat_sides[: types.ndim], flat_sides[3:]))
    op = GridOperator.from_cell_types(types, outside)
    matrix = op.to_csr()
    assert matrix.shape == (op.unknowns, op.unknowns) and matrix.has_canonical_format
    if not op.unknowns:
        return
    dense = matrix.toarray()
    assert np.array_equal(dense, dense.T)
    assert (dense[~np.eye(len(dense), dtype=bool)] <= 0).all()
    np.testing.assert_allclose(dense.sum(1), op.dirichlet[op.active], atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert eigenvalues[0] > -1e-12
    assert np.count_nonzero(eigenvalues < 1e-10) == op.components[1].sum()


@given(images)
def test_removing_the_null_space_leaves_the_range(types):
    op = GridOperator.from_cell_types(types)
    b = np.random.default_rng(0).standard_normal(types.shape)
    labels, closed = op.components
    result = op.remove_null_space(b)
    assert (result[~op.active] == 0).all()
    for number, is_closed in enumerate(closed):
        inside = labels == number
        if is_closed:
            assert abs(result[inside].sum()) < 1e-12 * inside.sum() * max(1, np.abs(b).max())
            np.testing.assert_allclose(np.diff(result[inside] - b[inside]), 0, atol=1e-12)
        else:
            assert np.array_equal(result[inside], b[inside])
    assert op.is_singular == bool(closed.any())


@pytest.mark.parametrize("shape", [(8, 11), (4, 5, 6)])
@pytest.mark.parametrize("kind", ["solid", "air"])
def test_eigenvalues_of_the_empty_box(shape, kind):
    op = GridOperator.from_cell_types(np.zeros(shape, int), sides_of(kind, len(shape)))
    analytic = np.zeros(1)
    for n in shape:
        angle = np.pi * np.arange(n) / n if kind == "solid" else np.pi * np.arange(1, n + 1) / (n + 1)
        analytic = np.add.outer(analytic, 2 - 2 * np.cos(angle)).ravel()
    computed = np.linalg.eigvalsh(op.to_csr().toarray())
    np.testing.assert_allclose(computed, np.sort(analytic), atol=1e-12)


def test_rows_are_slices_of_the_matrix():
    op = GridOperator.from_cell_types(random_types((7, 9, 5)), AIR)
    for numbering in ("active", "all"):
        whole = op.to_csr(numbering)
        part = op.to_csr(numbering, rows=slice(20, 61))
        assert part.shape == (41, whole.shape[1])
        assert abs(part - whole[20:61]).max() == 0


def test_out_is_filled_and_returned():
    op = GridOperator.from_cell_types(random_types((6, 7)), AIR)
    x = np.random.default_rng(0).standard_normal((6, 7))
    out = np.full((6, 7), np.nan)
    assert op.apply(x, out) is out
    assert np.array_equal(out, op.apply(x))


def test_product_takes_arrays_that_are_not_contiguous():
    op = GridOperator.from_cell_types(random_types((6, 7)), AIR)
    x = np.random.default_rng(0).standard_normal((7, 6)).T
    assert np.array_equal(op.apply(x), op.apply(x.copy()))


def test_facts_and_repr():
    op = GridOperator.from_cell_types([[0, 1, 0], [0, 2, 0]])
    assert (op.shape, op.ndim, op.unknowns) == ((2, 3), 2, 4)
    assert op.cells.tolist() == [0, 2, 3, 5] and op.cells.dtype == np.int32
    assert repr(op) == "GridOperator(2 x 3 cells, 4 unknowns, float64)"
    assert np.array_equal(op.dirichlet, [[0, 0, 0], [1, 0, 1]])
    assert not op.is_singular


def test_sides_are_normalised():
    assert normalised_sides(AIR, 2) == ((AIR, AIR), (AIR, AIR))
    assert normalised_sides([(SOLID, AIR)] * 3, 3) == ((SOLID, AIR),) * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 3)),), "integer array"),
        ((np.zeros(3, int),), "2 or 3 axes"),
        ((np.zeros((0, 3), int),), "empty"),
        ((np.array([[0, 3], [0, 0]]),), r"cell \(0, 1\) has type 3"),
        ((np.array([[0, -1], [0, 0]]),), "type -1"),
        ((np.zeros((3, 3), int), FLUID), "outside must be"),
        ((np.zeros((3, 3), int), [(SOLID, AIR)]), "outside must be"),
        ((np.zeros((3, 3), int), SOLID, np.ones((3, 2))), "mobility has shape"),
        ((np.zeros((3, 3), int), SOLID, np.zeros((3, 3))), "positive in fluid"),
        ((np.zeros((3, 3), int), SOLID, np.full((3, 3), np.nan)), "finite"),
    ],
)
def test_bad_images_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridOperator.from_cell_types(*arguments)


def parts(shape=(4, 5)):
    op = GridOperator.from_cell_types(np.zeros(shape, int), AIR)
    return [f.copy() for f in op.face_coefficient], op.dirichlet.copy(), op.active.copy()


def test_bad_coefficients_are_refused():
    for shape in ((4, 5), (3, 4, 5)):
        last = (-1,) * len(shape)
        first = (0,) * len(shape)
        for where, value in ((first, -1.0), (first, np.nan), (first, np.inf), (last, 1.0)):
            for axis in range(len(shape)):
                faces, dirichlet, active = parts(shape)
                faces[axis][where] = value
                with pytest.raises(ValueError, match="negative or non-finite"):
                    GridOperator(tuple(faces), dirichlet, active)
        faces, dirichlet, active = parts(shape)
        active[first] = False
        with pytest.raises(ValueError, match="not active"):
            GridOperator(tuple(faces), dirichlet, active)


def test_bad_arrays_are_refused():
    faces, dirichlet, active = parts()
    with pytest.raises(ValueError, match="must be boolean"):
        GridOperator(tuple(faces), dirichlet, active.astype(int))
    with pytest.raises(ValueError, match="2 face arrays"):
        GridOperator(tuple(faces[:1]), dirichlet, active)
    with pytest.raises(ValueError, match=r"face_coefficient\[1\]"):
        GridOperator((faces[0], faces[1][:, 1:]), dirichlet, active)
    with pytest.raises(ValueError, match="float32 or float64"):
        GridOperator(tuple(faces), dirichlet.astype(int), active)
    op = GridOperator(tuple(faces), dirichlet, active)
    x = np.zeros(op.shape)
    with pytest.raises(ValueError, match="x has shape"):
        op.apply(x[1:])
    for out in (x, x[:, ::-1].copy().T, x.astype(np.float32)):
        with pytest.raises(ValueError, match="out must be"):
            op.apply(x, out)
    with pytest.raises(ValueError, match="numbering"):
        op.to_csr("fluid")


def test_more_cells_than_indices_can_count_are_refused_before_anything_is_allocated():
    shape = (1 << 16, 1 << 15)
    none = np.broadcast_to(np.float64(0), shape)
    for make in (
        lambda: GridOperator.from_cell_types(np.broadcast_to(np.uint8(0), (1 << 16, 1 << 15))),
        lambda: GridOperator((none, none), none, np.broadcast_to(np.bool_(True), shape)),
    ):
        with pytest.raises(ValueError, match="65536 x 32768 cells has 2,147,483,648"):
            make()
