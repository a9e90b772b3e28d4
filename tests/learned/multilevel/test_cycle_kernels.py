"""Kernels of the V-cycle against plain NumPy on arrays in natural order."""

import numpy as np
import pytest
from packed_coefficients import unpack

from consolve.learned.multilevel.cycle import cycle_kernels as ck
from consolve.learned.multilevel.cycle import line_kernels as lk
from consolve.learned.multilevel.cycle import row_vectors as rv
from consolve.learned.multilevel.cycle import vector_kernels as vk
from consolve.learned.multilevel.cycle.layout import (
    COEFFICIENTS,
    VECTORS,
    array_shape,
    level_shapes,
    record_of,
    runs_of,
)
from consolve.learned.multilevel.cycle.packing import is_packable, pack, unit_of

SHAPES = [(5, 6), (8, 8), (7, 9), (1, 6), (6, 1), (4, 5, 6), (5, 4, 7), (3, 1, 8), (6, 7, 1), (2, 3, 70)]
NONE = np.empty((0, 0))
ZERO = np.float32(0)


class SplitLevel:
    """One level with random data, in natural order and as the colour-split arrays of the engine."""

    def __init__(self, shape, seed=0):
        self.volume = (1, *shape) if len(shape) == 2 else shape
        n0, n1, n2 = self.volume
        self.split_shape = array_shape(self.volume)
        _, rows, width = self.split_shape
        i, j, k = np.meshgrid(np.arange(n0), np.arange(n1), np.arange(n2), indexing="ij")
        row = (i + (n0 > 1)) * (n1 + 2) + j + 1
        self.at = ((((i + j + k) % 2) * rows + row) * width + k // 2 + 1).ravel()
        self.rng = np.random.default_rng(seed)
        total = sum(np.ogrid[tuple(slice(0, m) for m in self.volume)])
        self.colour = total % 2
        self.arrays = {name: np.zeros(self.split_shape, np.float32) for name in (*VECTORS, "s")}

    def put(self, values, dtype=np.float32):
        out = np.zeros(self.split_shape, dtype)
        out.reshape(-1)[self.at] = values.ravel()
        return out

    def take(self, split):
        return split.reshape(-1)[self.at].reshape(self.volume)

    def random(self):
        return self.rng.standard_normal(self.volume).astype(np.float32)

    def random_faces(self):
        faces = []
        for axis in range(3):
            f = self.rng.uniform(0, 1, self.volume).astype(np.float32)
            f[(slice(None),) * axis + (-1,)] = 0
            faces.append(f)
        return faces

    def hold(self, packed, **values):
        """Keep arrays by the names of the layout, and make the record of those that the level is to have."""
        for name, array in values.items():
            self.arrays[name] = self.put(array)
        self.packed = packed
        if packed:
            self.unit = unit_of(np.float32(0.25))
            words = [np.zeros(self.split_shape, np.uint32) for _ in range(2)]
            pack(
                *(self.arrays.get(name, words[0].view(np.float32)) for name in COEFFICIENTS[:6]),
                self.unit,
                *words,
            )
            self.arrays |= dict(zip(("relax", "moves"), words))
            self.arrays |= unpack(*words, self.unit)
        self.record = record_of(self.volume, packed, self.arrays)
        return self

    def natural(self, name):
        return self.take(self.arrays[name])


def random_level(shape, packed, seed=0):
    """A level with all that a cycle reads; coefficients as setup leaves them at the sides."""
    level = SplitLevel(shape, seed)
    rng, coarse_shape = level.rng, tuple((n + 1) // 2 for n in level.volume)
    active = rng.random(level.volume) < 0.8
    faces = level.random_faces()
    weights = [rng.uniform(0, 0.3, level.volume) for _ in range(3)]
    if packed:
        faces = [(f > 0).astype(np.float32) for f in faces]
        d = rng.integers(1, 7, level.volume) * active
    else:
        d = rng.uniform(1, 2, level.volume)
    weights = inside([w * active for w in weights], level.volume, coarse_shape)
    own = active * rng.uniform(0.3, 1, level.volume) - sum(weights)
    smoother = np.divide(active, d, out=np.zeros(level.volume), where=d > 0)
    values = dict(zip(COEFFICIENTS, (smoother, d, own, *weights, *faces)))
    level.faces = faces
    return level.hold(packed, b=level.random() * active, **values)


def product(faces, d, x):
    """A x in NumPy."""
    y = d * x
    for axis, f in enumerate(faces):
        y -= f * np.roll(x, -1, axis) + np.roll(f * x, 1, axis)
    return y


@pytest.mark.parametrize("shape", SHAPES)
def test_split_layout_is_a_bijection(shape):
    level = SplitLevel(shape)
    assert len(set(level.at.tolist())) == level.at.size
    values = level.random()
    np.testing.assert_array_equal(level.take(level.put(values)), values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", [rv.RELAX, rv.RELAX_AND_RESIDUAL, rv.RESIDUAL])
@pytest.mark.parametrize("colour", [0, 1])
def test_half_sweep(shape, packed, mode, colour):
    level = random_level(shape, packed)
    x = level.random() * (level.natural("diagonal") > 0)
    level.arrays["x"][:] = level.put(x)
    b, w, d = (level.natural(name) for name in ("b", "smoother", "diagonal"))
    units = level.volume[0] if level.volume[0] > 1 else level.volume[1]
    for begin, end in ((0, units // 2), (units // 2, units)):
        ck.half_sweep(level.record, begin, end, colour, mode, np.float32(1.2), 2)
    on = level.colour == colour
    r = np.where(on, b - product(level.faces, d, x), 0)
    expected = x if mode == rv.RESIDUAL else x + 1.2 * w * r
    np.testing.assert_allclose(level.natural("x"), expected, rtol=2e-5, atol=2e-5)
    if mode != rv.RELAX:
        after = np.where(on, b - product(level.faces, d, expected), 0)
        np.testing.assert_allclose(level.natural("residual"), after, rtol=2e-5, atol=5e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("last", [rv.FRESH, rv.FRESH_AND_RESIDUAL])
def test_fresh_half_sweeps_start_from_zero(shape, packed, last):
    level = random_level(shape, packed)
    level.arrays["x"][:] = level.put(level.random() * (level.natural("diagonal") > 0))
    units = level.volume[0] if level.volume[0] > 1 else level.volume[1]
    for colour, mode in ((0, rv.FIRST), (1, last)):
        ck.half_sweep(level.record, 0, units, colour, mode, np.float32(0.9), 1)
    b, w, d = (level.natural(name) for name in ("b", "smoother", "diagonal"))
    x = np.where(level.colour == 0, 0.9 * w * b, 0).astype(np.float32)
    x += np.where(level.colour == 1, 0.9 * w * (b - product(level.faces, d, x)), 0)
    np.testing.assert_allclose(level.natural("x"), x, rtol=2e-5, atol=2e-5)
    if last == rv.FRESH_AND_RESIDUAL:
        after = np.where(level.colour == 1, b - product(level.faces, d, x), 0)
        np.testing.assert_allclose(level.natural("residual"), after, rtol=2e-5, atol=5e-5)


def prolongation(level, own, weights, coarse_shape):
    """P as a dense matrix, from its definition."""
    fine, coarse = level.volume, coarse_shape
    p = np.zeros((int(np.prod(fine)), int(np.prod(coarse))))
    for q, cell in enumerate(np.ndindex(fine)):
        block = [i // 2 if n > 1 else i for i, n in zip(cell, fine)]
        p[q, np.ravel_multi_index(block, coarse)] += own[cell]
        for axis in range(3):
            beside = list(block)
            beside[axis] += 1 if cell[axis] % 2 else -1
            if fine[axis] > 1 and 0 <= beside[axis] < coarse[axis]:
                p[q, np.ravel_multi_index(beside, coarse)] += weights[axis][cell]
    return p


def inside(weights, fine, coarse):
    """Weights, 0 where the outward block lies outside the grid, as setup leaves them."""
    out = []
    for axis, w in enumerate(weights):
        index = np.arange(fine[axis])
        beside = index // 2 + np.where(index % 2, 1, -1)
        on = (beside >= 0) & (beside < coarse[axis]) & (fine[axis] > 1)
        out.append(w * on.reshape([-1 if a == axis else 1 for a in range(3)]))
    return out


def coarse_of(level):
    """The next level, with x and b alone."""
    shape = (
        level_shapes(level.volume)[1] if max(level.volume) > 4 else tuple((n + 1) // 2 for n in level.volume)
    )
    coarse = SplitLevel(shape, seed=5)
    return coarse.hold(False, x=coarse.random())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packed", [False, True])
def test_restrict_is_the_transpose_of_prolong(shape, packed):
    level = random_level(shape, packed)
    coarse = coarse_of(level)
    unit = level.unit if packed else ZERO
    t, x = level.random(), level.random()
    level.arrays["residual"][:], level.arrays["x"][:] = level.put(t), level.put(x)
    p = prolongation(
        level, level.natural("own"), [level.natural(f"prolong{axis}") for axis in range(3)], coarse.volume
    )
    units = coarse.volume[0] if level.volume[0] > 1 else coarse.volume[1]
    for begin, end in ((0, units // 2), (units // 2, units)):
        ck.restrict(level.record, coarse.record, unit, begin, end, 2)
    np.testing.assert_allclose(coarse.natural("b").ravel(), p.T @ t.ravel(), rtol=1e-4, atol=1e-5)
    _, rows, width = coarse.split_shape
    natural = np.full((rows, rv.natural_width.py_func(width)), 3.0, np.float32)
    at = natural.ctypes.data + 4
    lk.join_lines(coarse.record, at, 0, coarse.volume[0] * coarse.volume[1])
    units = level.volume[0] if level.volume[0] > 1 else level.volume[1]
    for begin, end in ((0, units // 3), (units // 3, units)):
        ck.prolong(level.record, coarse.record, unit, at, begin, end, 2)
    expected = x.ravel() + p @ coarse.natural("x").ravel()
    np.testing.assert_allclose(level.natural("x").ravel(), expected, rtol=1e-4, atol=1e-5)


def by_single_steps(level, coarse, unit, alpha):
    """The passes, one kernel after the other."""
    units = level.volume[0] if level.volume[0] > 1 else level.volume[1]
    steps = 2 * len(alpha)
    modes = [rv.FIRST, rv.FRESH] + [rv.RELAX] * (steps - 2)
    modes[-1] = rv.FRESH_AND_RESIDUAL if steps == 2 else rv.RELAX_AND_RESIDUAL
    for q, mode in enumerate(modes):
        ck.half_sweep(level.record, 0, units, q % 2, mode, alpha[q // 2, q % 2], 1)
    ck.half_sweep(level.record, 0, units, 0, rv.RESIDUAL, ZERO, 1)
    coarse_units = coarse.volume[0] if level.volume[0] > 1 else coarse.volume[1]
    ck.restrict(level.record, coarse.record, unit, 0, coarse_units, 1)
    b = coarse.natural("b").copy()
    natural = coarse.arrays["b"].ctypes.data + 4
    lk.join_lines(coarse.record, natural, 0, coarse.volume[0] * coarse.volume[1])
    ck.prolong(level.record, coarse.record, unit, natural, 0, units, 1)
    for q in reversed(range(steps)):
        ck.half_sweep(level.record, 0, units, q % 2, rv.RELAX, alpha[q // 2, q % 2], 1)
    return b, level.natural("x").copy()


@pytest.mark.parametrize("shape", [*SHAPES, (300, 90), (61, 13, 30), (60, 900, 8)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sweeps", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_pass_does_what_single_steps_do(shape, packed, sweeps, threads):
    level = random_level(shape, packed)
    coarse = coarse_of(level)
    unit = level.unit if packed else ZERO
    alpha = np.linspace(0.8, 1.3, 2 * sweeps, dtype=np.float32).reshape(sweeps, 2)
    b, x = by_single_steps(level, coarse, unit, alpha)
    level.arrays["x"][:] = level.put(level.random() * (level.natural("diagonal") > 0))
    ck.pass_down(level.record, coarse.record, unit, alpha, 0, ZERO, ZERO, threads)
    np.testing.assert_array_equal(coarse.natural("b"), b)
    ck.pass_up(level.record, coarse.record, unit, alpha, NONE, threads)
    np.testing.assert_array_equal(level.natural("x"), x)


@pytest.mark.parametrize("shape", [(9, 12), (300, 90), (8, 7, 12), (61, 13, 30)])
@pytest.mark.parametrize("threads", [1, 2])
def test_product_and_scalar_products_in_the_pass_up(shape, threads):
    level = random_level(shape, packed=True)
    coarse = coarse_of(level)
    alpha = np.full((2, 2), 1.1, np.float32)
    s = level.random()
    level.arrays["s"][:] = level.put(s)
    ck.pass_down(level.record, coarse.record, level.unit, alpha, 0, ZERO, ZERO, threads)
    sums = np.zeros((threads, rv.PRODUCTS * rv.LANES // 2))
    ck.pass_up(level.record, coarse.record, level.unit, alpha, sums, threads)
    r, z, w = (level.natural(name).astype(float) for name in ("b", "x", "residual"))
    d = level.natural("diagonal")
    exact = product(level.faces, d, z) * (d > 0)
    np.testing.assert_allclose(w, exact, rtol=1e-7, atol=1e-30)
    s = s.astype(float)
    expected = [(u * v).sum() for u, v in ((r, z), (w, z), (s, z), (r, w), (w, w), (w, s), (r, r))]
    found = sums.reshape(threads, rv.PRODUCTS, -1).sum(axis=(0, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("shape", [(300, 90), (8, 7, 12), (61, 13, 30)])
@pytest.mark.parametrize("threads", [1, 2])
def test_update_in_the_pass_down(shape, threads):
    level, other = random_level(shape, packed=True), random_level(shape, packed=True)
    coarse = coarse_of(level)
    alpha = np.full((2, 2), 1.1, np.float32)
    r, s, w = level.natural("b").copy(), level.random(), level.random()
    level.arrays["s"][:], level.arrays["residual"][:] = level.put(s), level.put(w)
    a, beta = np.float32(0.7), np.float32(-0.3)
    ck.pass_down(level.record, coarse.record, level.unit, alpha, 1, a, beta, threads)
    np.testing.assert_allclose(level.natural("s"), w + beta * s, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(level.natural("b"), r - a * (w + beta * s), rtol=1e-6, atol=2e-6)
    other.arrays["b"][:] = level.arrays["b"]
    b = coarse.natural("b").copy()
    ck.pass_down(other.record, coarse.record, level.unit, alpha, 0, ZERO, ZERO, 1)
    np.testing.assert_array_equal(coarse.natural("b"), b)


def test_packed_coefficients_are_those_given_to_within_their_steps():
    rng = np.random.default_rng(0)
    shape, unit = (2, 30, 34), unit_of(np.float32(0.24))
    weights = [(0.24 * np.exp(rng.uniform(-1, 1, shape))).astype(np.float32) for _ in range(3)]
    kept = rng.uniform(0, 1, shape).astype(np.float32)
    smoother = rng.uniform(0, 2, shape).astype(np.float32)
    diagonal = (rng.integers(0, 176, shape) / 8).astype(np.float32)
    words = [np.empty(shape, np.uint32) for _ in range(2)]
    pack(smoother, diagonal, kept - sum(weights), *weights, unit, *words)
    found = unpack(*words, unit)
    np.testing.assert_array_equal(found["diagonal"], diagonal)
    assert (found["smoother"] <= smoother).all() and (found["smoother"] >= smoother * (1 - 2**-7)).all()
    for axis in range(3):
        assert np.abs(found[f"prolong{axis}"] - weights[axis]).max() <= 0.501 * unit
    total = found["own"] + sum(found[f"prolong{axis}"] for axis in range(3))
    np.testing.assert_allclose(total, kept, atol=0.501 / rv.KEPT)


@pytest.mark.parametrize(
    ("part", "fine"), [(0.0, True), (2.0, True), (0.125, True), (16.0, True), (0.1, False), (17.0, False)]
)
def test_only_exact_diagonals_are_packable(part, fine):
    fixed = np.zeros((3, 40, 2000), np.float32)
    fixed[1, 20, 1999] = part
    assert is_packable(fixed) == fine


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_scatter_and_gather(shape, shuffled):
    level = SplitLevel(shape)
    n = level.at.size
    active = level.rng.random(n) < 0.7
    cells = np.arange(n, dtype=np.int32)
    if shuffled:
        cells = level.rng.permutation(cells)[: n - 2]
    runs = runs_of(cells, active, *level.volume[1:])
    assert runs[:, 1].sum() == cells.size
    r = level.rng.standard_normal(cells.size)
    b, z = level.put(np.full(level.volume, 5.0)), np.full(cells.size, 7.0)
    n0, n1, _ = level.volume
    vk.scatter(r, runs, 2.0, b, n0, n1, 3)
    expected = np.full(n, 5.0)
    expected[cells[active[cells]]] = 2 * r[active[cells]]
    np.testing.assert_allclose(level.take(b).ravel(), expected, rtol=1e-6)
    vk.gather(b, runs, 0.5, z, n0, n1, 3)
    np.testing.assert_allclose(z, np.where(active[cells], r, 0), rtol=1e-6)


def test_runs_of_a_long_vector_cover_it():
    rng = np.random.default_rng(0)
    active = rng.random(40 * 30 * 20) < 0.9
    cells = np.flatnonzero(active).astype(np.int32)
    runs = runs_of(cells, active, 30, 20)
    covered = np.concatenate([line * 20 + k + np.arange(m) for _, m, line, k in runs])
    np.testing.assert_array_equal(covered, cells)


def test_absolute_sum():
    r = np.linspace(-1, 2, 1001)
    assert vk.absolute_sum(r, 3) == pytest.approx(np.abs(r).sum())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_absolute_sum_shows_faults(bad):
    r = np.ones(1000)
    r[777] = bad
    assert not np.isfinite(vk.absolute_sum(r, 2))
