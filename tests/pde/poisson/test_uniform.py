"""Operators of cell images in a byte a cell: the same operator as in arrays of coefficients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolve.pde import GridOperator
from consolve.pde.poisson.run_kernels import alike
from consolve.pde.poisson.uniform import DirichletParts, UniformOperator


def random_image(seed, ndim, longest=9):
    """Cell types with rather long runs, and random sides."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, longest, ndim))
    image = rng.choice(3, shape, p=[0.8, 0.15, 0.05]).astype(np.uint8)
    sides = [tuple(pair) for pair in rng.integers(1, 3, (ndim, 2))]
    return image, sides


def operator_of(seed, ndim, scale=1.0):
    plain = GridOperator.from_cell_types(*random_image(seed, ndim))
    faces = tuple(scale * f for f in plain.face_coefficient)
    return GridOperator(faces, scale * plain.dirichlet, plain.active)


@given(st.integers(0, 10**6), st.integers(2, 3), st.sampled_from([1.0, 0.1, 3e5]))
def test_an_image_and_its_compact_form_are_one_operator(seed, ndim, scale):
    operator = operator_of(seed, ndim, scale)
    compact = UniformOperator.of(operator)
    if compact is None:
        assert all(f.max() == 0 for f in operator.face_coefficient)
        return
    assert compact.coefficient == max(f.max() for f in operator.face_coefficient)
    for a, b in zip(compact.face_coefficient, operator.face_coefficient, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(compact.dirichlet, operator.dirichlet)
    assert compact.unknowns == operator.unknowns and compact.shape == operator.shape
    assert (compact.to_csr() != operator.to_csr()).nnz == 0


@given(st.integers(0, 10**6), st.integers(2, 3))
def test_components_from_runs_are_those_from_faces(seed, ndim):
    operator = operator_of(seed, ndim)
    compact = UniformOperator.of(operator)
    if compact is None:
        return
    for a, b in zip(compact.components, operator.components, strict=True):
        np.testing.assert_array_equal(a, b)
    assert compact.is_singular == operator.is_singular


def test_runs_list_the_active_cells_in_order():
    active = np.zeros((2, 3, 70), bool)
    active[0, 0, :] = active[0, 2, 3:9] = active[1, 1, 65:] = active[1, 1, 0] = True
    operator = UniformOperator(active, 1.0, nothing_fixed(active))
    table, start = operator.runs.table, operator.runs.start
    assert table.tolist() == [[0, 70, 0, 0], [70, 6, 2, 3], [76, 1, 4, 0], [77, 5, 4, 65]]
    assert start.tolist() == [0, 1, 1, 2, 2, 4, 4]


def nothing_fixed(active):
    lines = active.size // active.shape[-1]
    return DirichletParts(np.zeros(lines + 1, np.int32), np.empty(0, np.int32), np.empty(0))


@pytest.mark.parametrize("end", [0, 1, 63, 64, 65, 128, 200])
def test_alike_finds_the_first_other_byte(end):
    row = np.ones(200, np.uint8)
    row[end:] = 0
    assert alike(row, 0, np.uint8(1)) == end
    assert alike(row, end, np.uint8(0)) == 200


def test_a_closed_or_other_face_is_not_uniform():
    operator = GridOperator.from_cell_types(np.zeros((4, 5), np.uint8), 2)
    for value in (0.0, 0.5, np.nextafter(1.0, 2.0)):
        faces = tuple(f.copy() for f in operator.face_coefficient)
        faces[0][1, 2] = value
        assert UniformOperator.of(GridOperator(faces, operator.dirichlet, operator.active)) is None


def test_single_precision_coefficients_are_taken_as_they_are():
    operator = GridOperator.from_cell_types(np.zeros((4, 5, 3), np.uint8), 2, dtype=np.float32)
    compact = UniformOperator.of(operator)
    np.testing.assert_array_equal(compact.dirichlet, operator.dirichlet)


@pytest.mark.parametrize("coefficient", [0.0, -1.0, np.inf, np.nan])
def test_a_coefficient_that_is_none_is_refused(coefficient):
    active = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="coefficient must be positive"):
        UniformOperator(active, coefficient, nothing_fixed(active))


def test_a_grid_of_one_axis_is_refused():
    with pytest.raises(ValueError, match="2 or 3 axes"):
        UniformOperator(np.ones(3, bool), 1.0, DirichletParts(*[np.zeros(2, np.int32)] * 2, np.empty(0)))
