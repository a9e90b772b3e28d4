"""Kernels of the V-cycle against plain NumPy on arrays in natural order."""

import numpy as np
import pytest

from consolve.learned import cycle_kernels as ck
from consolve.learned import vector_kernels as vk
from consolve.learned.layout import level_shapes, make_layout, runs_of

SHAPES = [(5, 6), (8, 8), (7, 9), (1, 6), (6, 1), (4, 5, 6), (5, 4, 7), (3, 1, 8), (6, 7, 1)]


class SplitLevel:
    """One level with random data, in natural order and as the colour-split arrays of the engine."""

    def __init__(self, shape, seed=0):
        self.volume = (1, *shape) if len(shape) == 2 else shape
        self.layout = make_layout(shape, uniform=False)
        self.arena = np.zeros(self.layout.size, np.float32)
        n0, n1, n2 = self.volume
        i, j, k = np.meshgrid(np.arange(n0), np.arange(n1), np.arange(n2), indexing="ij")
        rows, width = (int(q) for q in self.layout.table[0, 3:5])
        row = (i + (n0 > 1)) * (n1 + 2) + j + 1
        self.at = ((((i + j + k) % 2) * rows + row) * width + k // 2 + 1).ravel()
        self.rng = np.random.default_rng(seed)
        total = sum(np.ogrid[tuple(slice(0, m) for m in self.volume)])
        self.colour = total % 2

    def put(self, values):
        rows, width = (int(q) for q in self.layout.table[0, 3:5])
        out = np.zeros((2, rows, width), np.float32)
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
@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("mode", [ck.RELAX, ck.RELAX_AND_RESIDUAL, ck.RESIDUAL])
@pytest.mark.parametrize("colour", [0, 1])
def test_half_sweep(shape, uniform, mode, colour):
    level = SplitLevel(shape)
    x, b, w, d = level.random(), level.random(), level.random(), level.random()
    faces = level.random_faces()
    if uniform:
        faces = [(f > 0).astype(np.float32) for f in faces]
    split = [level.put(a) for a in (x, b, np.zeros_like(x), w, d, *faces)]
    n0, n1, _ = level.volume
    ck.half_sweep(*split, uniform, n0, n1, colour, np.float32(1.2), mode, 0, n0 * n1)
    on = level.colour == colour
    r = np.where(on, b - product(faces, d, x), 0)
    expected = x if mode == ck.RESIDUAL else x + 1.2 * w * r
    np.testing.assert_allclose(level.take(split[0]), expected, rtol=2e-5, atol=2e-5)
    if mode == ck.RESIDUAL:
        np.testing.assert_allclose(level.take(split[2]), r, rtol=2e-5, atol=2e-5)
    if mode == ck.RELAX_AND_RESIDUAL:
        after = np.where(on, b - product(faces, d, expected), 0)
        np.testing.assert_allclose(level.take(split[2]), after, rtol=2e-5, atol=5e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_fresh_half_sweeps_start_from_zero(shape):
    level = SplitLevel(shape)
    b, w, d = level.random(), level.random(), level.random()
    faces = level.random_faces()
    garbage = level.put(level.random())
    split = [garbage] + [level.put(a) for a in (b, np.zeros_like(b), w, d, *faces)]
    n0, n1, _ = level.volume
    for colour in (0, 1):
        ck.half_sweep(*split, False, n0, n1, colour, np.float32(0.9), ck.FRESH, 0, n0 * n1)
    x = np.where(level.colour == 0, 0.9 * w * b, 0).astype(np.float32)
    x += np.where(level.colour == 1, 0.9 * w * (b - product(faces, d, x)), 0)
    np.testing.assert_allclose(level.take(split[0]), x, rtol=2e-5, atol=2e-5)


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


@pytest.mark.parametrize("shape", [s for s in SHAPES if max(s) > 4])
def test_restrict_is_the_transpose_of_prolong(shape):
    level = SplitLevel(shape)
    coarse_shape = level_shapes(shape)[1]
    coarse = SplitLevel(coarse_shape if len(shape) == 3 else coarse_shape[1:])
    own, weights = level.random(), [level.random() for _ in range(3)]
    t, x, xc = level.random(), level.random(), coarse.random()
    p = prolongation(level, own, weights, coarse_shape)
    transfers = [level.put(a) for a in (own, *weights)]
    n0, n1, _ = level.volume
    c0, c1, c2 = coarse_shape
    for start, stop in ((0, c0 * c1 // 2), (c0 * c1 // 2, c0 * c1)):
        if start == 0:
            bc, fine = coarse.put(np.zeros(coarse_shape)), level.put(x)
        ck.restrict(level.put(t), *transfers, bc, n0, n1, c0, c1, c2, start, stop)
    split = coarse.put(xc)
    natural = np.full((split.shape[1], c2 + 2), 3.0, np.float32)
    transfers = [level.put(a) for a in (own, *inside(weights, level.volume, coarse_shape))]
    ck.join_colours(split, natural, c0, c1, c2, 0, c0 * c1)
    for start, stop in ((0, n0 * n1 // 3), (n0 * n1 // 3, n0 * n1)):
        ck.prolong(fine, *transfers, natural, n0, n1, c0, c1, start, stop)
    np.testing.assert_allclose(coarse.take(bc).ravel(), p.T @ t.ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(level.take(fine).ravel(), x.ravel() + p @ xc.ravel(), rtol=1e-4, atol=1e-5)


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
