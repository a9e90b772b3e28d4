"""Setup of a uniform finest level from a byte a cell: the levels that setup from coefficients gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolve.learned.multilevel.format import load_weights
from consolve.learned.multilevel.setup import cell_codes, finest_kernels
from consolve.learned.multilevel.setup.hierarchy import Hierarchy
from consolve.learned.multilevel.setup.level_builder import LevelBuilder, UniformLevel
from consolve.learned.multilevel.setup.perceptron_kernels import exponentials, perceptron, value_at_zero
from consolve.pde import GridOperator
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.uniform import UniformOperator

FIELDS = {"relax": ((16, 16), (0, 16)), "moves": ((0, 7), (7, 7), (14, 7), (21, 11))}
"""Shift and bits of what is packed."""


def both(operator, network, threads=2):
    """The levels from coefficients and from bytes."""
    builder = LevelBuilder(load_weights(network, operator.ndim), threads)
    plain, fast = (Hierarchy(builder, operator.shape, True) for _ in range(2))
    *faces, fixed, _ = operator._volumes
    scaled = [np.ascontiguousarray(f, np.float32) for f in faces]
    if operator.ndim == 2:
        scaled[0] = np.zeros((1, 1, 1), np.float32)
    plain.build(scaled, fixed.astype(np.float32))
    fast.build_uniform(UniformLevel.of(UniformOperator.of(operator)))
    return plain, fast


def assert_same_levels(plain, fast):
    for name, fields in FIELDS.items():
        a, b = plain.array(0, name), fast.array(0, name)
        for shift, bits in fields:
            x, y = ((q >> np.uint32(shift) & np.uint32(2**bits - 1)).astype(int) for q in (a, b))
            assert np.abs(x - y).max() <= 1, "more than one step of rounding"
            assert np.mean(x != y) < 1e-3
    for level in range(1, len(plain.layout.shapes) - 1):
        for name in set(plain.layout.offsets[level]) - {"x", "b", "residual"}:
            a, b = plain.array(level, name), fast.array(level, name)
            np.testing.assert_allclose(b, a, rtol=0, atol=3e-6 * np.abs(a).max(), err_msg=f"{level} {name}")
    np.testing.assert_allclose(fast.inverse, plain.inverse, rtol=0, atol=1e-5 * np.abs(plain.inverse).max())


@pytest.mark.parametrize("network", ["multilevel", "mg"])
@pytest.mark.parametrize("name", ["spheres", "porous", "closed-pockets", "free-surface"])
@pytest.mark.parametrize("shape", [(61, 40), (20, 23, 31)])
def test_levels_are_those_from_coefficients(network, name, shape):
    assert_same_levels(*both(make_domain(name, shape, seed=1).operator(), network))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 3), st.integers(1, 3))
def test_levels_of_random_images(seed, ndim, threads):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 14, ndim))
    if max(shape) <= 4:
        return
    image = rng.choice(3, shape, p=[0.85, 0.1, 0.05]).astype(np.uint8)
    plain = GridOperator.from_cell_types(image, [tuple(p) for p in rng.integers(1, 3, (ndim, 2))])
    part = rng.choice([0, 1, 0.5, 2.25], shape) * (plain.dirichlet > 0)
    operator = GridOperator(plain.face_coefficient, part, plain.active)
    if UniformOperator.of(operator) is not None:
        assert_same_levels(*both(operator, "multilevel", threads))


def test_answers_from_the_table_are_those_of_the_perceptron():
    """In a box of several groups of lines, nearly all cells beside walls are looked up."""
    operator = GridOperator.from_cell_types(np.zeros((40, 40, 64), np.uint8))
    assert 40 * 40 * 64 > 4 * finest_kernels._GROUP_CELLS
    assert_same_levels(*both(operator, "multilevel", 1))


def test_codes_count_open_faces():
    active = np.ones((3, 4, 5), np.uint8)
    active[1, 1, 1] = 0
    start = np.zeros(13, np.int32)
    start[1:] = 1
    code = np.empty(active.shape, np.uint8)
    cell_codes.write_codes(active, start, np.array([2], np.int32), code, 0, 12)
    assert code[1, 1, 1] == 0
    assert code[0, 0, 0] == 128 + 3 and code[1, 1, 2] == 128 + 5 and code[1, 2, 2] == 128 + 6
    assert code[0, 0, 2] == 128 + 64 + 4


def test_diagonals_that_cannot_be_packed_take_the_other_way():
    operator = GridOperator.from_cell_types(np.zeros((9, 9), np.uint8), 2)
    for factor, packed in ((2.0, True), (0.3, False), (100.0, False)):
        changed = GridOperator(operator.face_coefficient, factor * operator.dirichlet, operator.active)
        assert (UniformLevel.of(UniformOperator.of(changed)) is not None) == packed


@pytest.mark.parametrize("count", [1, 16, 37])
@pytest.mark.parametrize("features", [4, 7, 8, 17])
def test_perceptron_is_its_formula(count, features):
    rng = np.random.default_rng(count + features)
    w1, e, w2, b2, v = (
        rng.normal(size=s).astype(np.float32) for s in ((16, features), 16, (16, 16), 16, (3, 16))
    )
    phi = rng.normal(size=(features, count)).astype(np.float32)

    def hidden(x):
        inner = np.maximum(w1.astype(float) @ x + e[:, None], 0)
        return np.maximum(w2 @ inner + b2[:, None], 0)

    expected = np.tanh(v @ (hidden(phi) - hidden(np.zeros((features, 1)))))
    out, base = np.empty((3, count), np.float32), value_at_zero(w1, e, w2, b2, v)
    units, top = np.empty((16, count), np.float32), np.empty(count, np.float32)
    perceptron(phi, count, w1, e, w2, b2, v, base, units, top, out)
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_small_exponentials_are_exact_to_single_precision():
    x = np.linspace(-1, 1, 4001, dtype=np.float32)
    row = x.copy()
    exponentials(row, np.float32(1), row.size)
    np.testing.assert_allclose(row, np.exp(x.astype(float)), rtol=4e-7)
