"""Right-hand sides: reproducible, on active cells, in the range of the operator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolve.pde.poisson.domains import DOMAIN_NAMES, make_domain
from consolve.pde.poisson.grid import SOLID, GridOperator
from consolve.pde.poisson.right_hand_sides import RIGHT_HAND_SIDES, right_hand_side

ALL_NAMES = [*DOMAIN_NAMES, *(f"closed-{name}" for name in DOMAIN_NAMES)]


@given(
    st.sampled_from(RIGHT_HAND_SIDES),
    st.sampled_from(ALL_NAMES),
    st.lists(st.integers(3, 14), min_size=2, max_size=3).map(tuple),
    st.integers(0, 10**6),
)
def test_every_right_hand_side_is_consistent(kind, name, shape, seed):
    op = make_domain(name, shape, seed).operator()
    b = right_hand_side(kind, op, seed)
    assert b.shape == op.shape and b.dtype == np.float64 and np.isfinite(b).all()
    assert (b[~op.active] == 0).all()
    labels, closed = op.components
    sums = np.bincount(labels[op.active], b[op.active], minlength=closed.size)
    assert np.abs(sums[closed]).max(initial=0) < 1e-10
    assert np.array_equal(b, right_hand_side(kind, op, seed))


@pytest.mark.parametrize("kind", RIGHT_HAND_SIDES)
def test_the_seed_matters(kind):
    op = make_domain("spheres", (20, 20)).operator()
    assert not np.array_equal(right_hand_side(kind, op, 1), right_hand_side(kind, op, 2))


def test_noise_is_standard_normal():
    op = make_domain("spheres", (150, 150)).operator()
    values = right_hand_side("noise", op)[op.active]
    assert abs(values.mean()) < 0.03 and values.std() == pytest.approx(1, abs=0.03)
    neighbours = np.corrcoef(values[:-1], values[1:])[0, 1]
    assert abs(neighbours) < 0.03


def test_divergence_vanishes_in_sum_behind_walls():
    # Zero before the null space is removed too: what flows out of one cell flows into the next.
    op = GridOperator.from_cell_types(np.zeros((30, 31), int), SOLID)
    b = right_hand_side("divergence", op, 3)
    assert abs(b.sum()) < 1e-10 and np.abs(b).max() > 0.1
    half = GridOperator.from_cell_types(np.zeros((30, 31), int), SOLID)
    assert np.array_equal(b, half.remove_null_space(b)) or np.allclose(
        b, half.remove_null_space(b), atol=1e-12
    )


def test_divergence_sees_closed_faces():
    # A cell behind four closed faces has no flow at all.
    types = np.zeros((9, 9), int)
    types[3:6, 3:6] = SOLID
    types[4, 4] = 0
    op = GridOperator.from_cell_types(types, SOLID)
    assert right_hand_side("divergence", op)[4, 4] == 0


def test_points_are_few_and_balanced():
    op = make_domain("box", (20, 20, 20)).operator()
    b = right_hand_side("point", op, 1)
    assert sorted(b[b != 0].tolist()) == [-1, -1, 1, 1]


def test_no_unknowns_give_zero():
    op = GridOperator.from_cell_types(np.ones((4, 4), int))
    for kind in RIGHT_HAND_SIDES:
        assert not right_hand_side(kind, op).any()


def test_unknown_kind_is_refused():
    op = GridOperator.from_cell_types(np.zeros((4, 4), int))
    with pytest.raises(ValueError, match="unknown right-hand side 'nois'; known: noise, divergence, point"):
        right_hand_side("nois", op)
