"""Flow kernels against whole-array NumPy twins, on random grids with solids, 2D and 3D."""

import itertools

import numpy as np
import pytest

from consolve.pde.flow import kernels

SHAPES = [(1, 6, 7), (1, 1, 5), (4, 5, 6), (1, 9, 2), (5, 3, 4)]


def faces_of(fluid, axis):
    """True at faces with fluid on a side."""
    padded = np.pad(fluid, [(int(a == axis),) * 2 for a in range(3)])
    along = np.moveaxis(padded, axis, 0)
    return np.ascontiguousarray(np.moveaxis(along[1:] | along[:-1], 0, axis))


def bits(known):
    out = np.zeros(known.shape, np.uint8)
    kernels.mark_corners(known, out)
    return out


def upper(known):
    """The eight corners above each node, the last node repeated."""
    padded = np.pad(known, [(0, 1)] * 3, mode="edge")
    n0, n1, n2 = known.shape
    return [padded[a : n0 + a, b : n1 + b, c : n2 + c] for a, b, c in itertools.product((0, 1), repeat=3)]


class Setting:
    def __init__(self, shape, seed=0, blocked=0.2):
        rng = np.random.default_rng(seed)
        self.shape = shape
        self.fluid = rng.random(shape) > blocked
        self.known_faces = [faces_of(self.fluid, axis) for axis in range(3)]
        if shape[0] == 1:
            self.known_faces[0][:] = True
        self.u = [rng.standard_normal(k.shape) for k in self.known_faces]
        if shape[0] == 1:
            self.u[0][:] = 0
        self.bits = [bits(k) for k in self.known_faces]
        self.fields = rng.standard_normal((2, *shape))
        self.rng = rng

    @property
    def flow(self):
        return (*self.u, *self.bits)


def base(x, n):
    x = np.clip(x, 0, n - 1)
    i = np.minimum(x.astype(int), max(n - 2, 0))
    return i, np.minimum(i + 1, n - 1), x - i


def corners(field, at):
    lows, highs, fractions = zip(*(base(x, n) for x, n in zip(at, field.shape)))
    for bit in itertools.product((0, 1), repeat=3):
        index = tuple(h if b else low for b, low, h in zip(bit, lows, highs))
        weight = np.prod([f if b else 1 - f for b, f in zip(bit, fractions)], axis=0)
        yield index, weight


def twin_sample(field, known, at, default):
    total, weight = np.zeros(at[0].shape), np.zeros(at[0].shape)
    for index, w in corners(field, at):
        w = np.where(known[index], w, 0)
        total += w * np.where(known[index], field[index], 0)
        weight += w
    return np.where(weight > 1e-12, total / np.maximum(weight, 1e-300), default)


def twin_range(field, known, at, default):
    values = np.array([np.where(known[i], field[i], np.nan) for i, _ in corners(field, at)])
    none = np.isnan(values).all(0)
    values = np.where(none, 0, values)
    return np.where(none, default, np.nanmin(values, 0)), np.where(none, default, np.nanmax(values, 0))


def twin_trace(setting, at, dt):
    def velocity(points):
        result = []
        for axis in range(3):
            nodes = [x - (0 if a == axis else 0.5) for a, x in enumerate(points)]
            result.append(twin_sample(setting.u[axis], setting.known_faces[axis], nodes, 0.0))
        return result

    first = velocity(at)
    middle = velocity([x - 0.5 * dt * v for x, v in zip(at, first)])
    return [np.clip(x - dt * v, 0, n) for x, v, n in zip(at, middle, setting.shape)]


def positions(shape, offset):
    return [g + o for g, o in zip(np.indices(shape).astype(float), offset)]


@pytest.mark.parametrize("shape", SHAPES)
def test_known_bits(shape):
    known = np.random.default_rng(0).random(shape) > 0.3
    expected = known * kernels.KNOWN + np.all(upper(known), axis=0) * kernels.CORNERS_KNOWN
    assert np.array_equal(bits(known), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("staggered", [None, 1, 2])
@pytest.mark.parametrize("blocked", [0.0, 0.4])
def test_advection_and_its_correction(shape, staggered, blocked):
    s = Setting(shape, 1, blocked)
    offset = np.full(3, 0.5)
    if staggered is None:
        fields, known = s.fields, s.fluid
    else:
        offset[staggered] = 0
        fields, known = s.u[staggered][None], s.known_faces[staggered]
    where = known & (s.rng.random(known.shape) > 0.1)
    forward, low, high, out = (np.empty_like(fields) for _ in range(4))
    kernels.advect(fields, bits(known), where, offset, *s.flow, 0.9, forward, low, high)
    kernels.correct(fields, forward, low, high, bits(known), where, offset, *s.flow, 0.9, out)

    at = [x - o for x, o in zip(twin_trace(s, positions(known.shape, offset), 0.9), offset)]
    back = [x - o for x, o in zip(twin_trace(s, positions(known.shape, offset), -0.9), offset)]
    for m, field in enumerate(fields):
        expected = np.where(where, twin_sample(field, known, at, field), field)
        np.testing.assert_allclose(forward[m], expected, atol=1e-13)
        least, greatest = twin_range(field, known, at, field)
        np.testing.assert_allclose(low[m], np.where(where, least, field), atol=1e-13)
        np.testing.assert_allclose(high[m], np.where(where, greatest, field), atol=1e-13)
        again = twin_sample(forward[m], known, back, forward[m])
        corrected = np.clip(forward[m] + 0.5 * (field - again), low[m], high[m])
        np.testing.assert_allclose(out[m], np.where(where, corrected, forward[m]), atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_net_outflow(shape):
    s = Setting(shape, 2)
    out = np.empty(shape)
    kernels.net_outflow(*s.u, s.fluid, out)
    expected = sum(np.diff(u, axis=axis) for axis, u in enumerate(s.u))
    np.testing.assert_allclose(out, np.where(s.fluid, expected, 0), atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_subtract_gradient(shape, axis):
    s = Setting(shape, 3)
    q = s.rng.standard_normal(shape)
    u, is_open = s.u[axis].copy(), s.rng.random(s.u[axis].shape) > 0.3
    kernels.subtract_gradient(u, is_open, q, axis)
    padded = np.pad(q, [(int(a == axis),) * 2 for a in range(3)])
    expected = s.u[axis] - np.where(is_open, np.diff(padded, axis=axis), 0)
    np.testing.assert_allclose(u, expected, atol=1e-14)


def central(field, axis):
    """Difference of the neighbours over their distance; one-sided at the ends, 0 along a single layer."""
    n = field.shape[axis]
    up, down = np.minimum(np.arange(n) + 1, n - 1), np.maximum(np.arange(n) - 1, 0)
    step = np.maximum(up - down, 1).reshape([-1 if a == axis else 1 for a in range(3)])
    return (np.take(field, up, axis) - np.take(field, down, axis)) / step


@pytest.mark.parametrize("shape", SHAPES)
def test_vorticity_and_confinement(shape):
    s = Setting(shape, 4)
    curl, force = np.empty((3, *shape)), np.empty((3, *shape))
    kernels.vorticity(*s.u, curl)
    c = [0.5 * (np.moveaxis(u, a, 0)[1:] + np.moveaxis(u, a, 0)[:-1]) for a, u in enumerate(s.u)]
    c = [np.moveaxis(v, 0, a) for a, v in enumerate(c)]
    expected = [
        central(c[2], 1) - central(c[1], 2),
        central(c[0], 2) - central(c[2], 0),
        central(c[1], 0) - central(c[0], 1),
    ]
    np.testing.assert_allclose(curl, expected, atol=1e-13)

    kernels.confinement(curl, s.fluid, force)
    size = np.sqrt((curl**2).sum(0))
    gradient = []
    for axis, n in enumerate(shape):
        up, down = np.minimum(np.arange(n) + 1, n - 1), np.maximum(np.arange(n) - 1, 0)
        gradient.append(np.take(size, up, axis) - np.take(size, down, axis))
    length = np.sqrt(sum(g**2 for g in gradient))
    unit = np.where(length < 1e-9, 0, gradient / np.maximum(length, 1e-9))
    np.testing.assert_allclose(force, np.where(s.fluid, np.cross(unit, curl, axis=0), 0), atol=1e-12)


def test_rigid_rotation_brings_a_blob_back_with_second_order():
    def error(n):
        y, x = (np.arange(n) + 0.5) / n - 0.5, (np.arange(n) + 0.5) / n - 0.5
        blob = np.exp(-60 * ((y[:, None] - 0.2) ** 2 + x[None, :] ** 2))[None, None]
        # one turn in unit time, in cells per time
        u1 = np.broadcast_to(-2 * np.pi * n * x[None, None, :], (1, n + 1, n)).copy()
        u2 = np.broadcast_to(2 * np.pi * n * y[None, :, None], (1, n, n + 1)).copy()
        u0 = np.zeros((2, n, n))
        known = [np.full(u.shape, 3, np.uint8) for u in (u0, u1, u2)]
        cells, where = np.full((1, n, n), 3, np.uint8), np.ones((1, n, n), bool)
        steps, offset, field = 2 * n, np.full(3, 0.5), blob
        forward, low, high = (np.empty_like(blob) for _ in range(3))
        for _ in range(steps):
            out = np.empty_like(blob)
            kernels.advect(field, cells, where, offset, u0, u1, u2, *known, 1 / steps, forward, low, high)
            kernels.correct(
                field, forward, low, high, cells, where, offset, u0, u1, u2, *known, 1 / steps, out
            )
            field = out
        return np.abs(field - blob).mean()

    coarse, fine = error(32), error(64)
    assert fine < coarse / 3.2
