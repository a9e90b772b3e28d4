"""The gallery: every name, any shape, both boundaries."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from consolve.pde.poisson.domains import DOMAIN_NAMES, make_domain
from consolve.pde.poisson.grid import AIR, FLUID, SOLID

ALL_NAMES = [*DOMAIN_NAMES, *(f"closed-{name}" for name in DOMAIN_NAMES)]

EXPECTED_SUMS = {
    "box": 1466698956,
    "spheres": 562388374,
    "boxes": 2895504911,
    "plates": 1041392701,
    "channels": 2074304281,
    "maze": 3055957828,
    "rotor": 1761998970,
    "free-surface": 3464505949,
    "porous": 3194388388,
    "pockets": 2224486674,
    "two-phase": 1466698956,
    "bubbles": 1466698956,
    "lognormal": 1466698956,
    "flat": 1466698956,
    "stretched": 562388374,
    "baffles": 1466698956,
}
shapes = st.lists(st.integers(3, 24), min_size=2, max_size=3).map(tuple)


@given(st.sampled_from(ALL_NAMES), shapes, st.integers(0, 10**6))
def test_any_shape_makes_a_sound_domain(name, shape, seed):
    domain = make_domain(name, shape, seed)
    assert domain.name == name and domain.shape == shape
    assert domain.cell_type.dtype == np.uint8 and domain.cell_type.flags.c_contiguous
    assert (domain.cell_type == FLUID).any()
    _, closed = domain.operator().components
    if "pockets" in name:
        assert closed.any() and closed.all() == name.startswith("closed-")
    elif name.startswith("closed-"):
        assert closed.tolist() == [True]
    else:
        assert not closed.any()

    again = make_domain(name, shape, seed)
    assert np.array_equal(domain.cell_type, again.cell_type) and domain.outside == again.outside
    if domain.mobility is not None:
        assert np.array_equal(domain.mobility, again.mobility)


@pytest.mark.parametrize("name", DOMAIN_NAMES)
def test_boundaries(name):
    for shape in ((20, 17), (11, 9, 10)):
        open_one, closed_one = make_domain(name, shape, 1), make_domain(f"closed-{name}", shape, 1)
        upper = SOLID if name == "free-surface" else AIR
        assert open_one.outside == ((SOLID, upper), *[(SOLID, SOLID)] * (len(shape) - 1))
        assert closed_one.outside == ((SOLID, SOLID),) * len(shape)
        assert not (closed_one.cell_type == AIR).any()
        assert (open_one.cell_type == AIR).any() == (name == "free-surface")


@pytest.mark.parametrize("name", [n for n in DOMAIN_NAMES if n not in ("box", "flat")])
def test_the_seed_matters(name):
    def image(seed):
        domain = make_domain(name, (40, 36), seed)
        if domain.closed is not None:
            return domain.closed[0]
        return domain.cell_type if domain.mobility is None else domain.mobility

    assert not np.array_equal(image(1), image(2))


@pytest.mark.parametrize("name", ["spheres", "boxes", "rotor", "free-surface", "pockets", "two-phase"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_features_scale_with_the_grid(name, ndim):
    coarse, fine = (make_domain(name, (n,) * ndim, 5) for n in (24, 72))
    if name == "two-phase":
        coarse_type, fine_type = coarse.mobility < 1, fine.mobility < 1
    else:
        coarse_type, fine_type = coarse.cell_type, fine.cell_type
    middle = fine_type[(slice(1, None, 3),) * ndim]
    assert np.mean(middle != coarse_type) < (0.12 if name == "pockets" else 0.06)


@pytest.mark.parametrize("name", ["channels", "maze"])
@pytest.mark.parametrize("shape", [(21, 30), (22, 31), (9, 12, 11)])
def test_passages_are_one_cell_wide(name, shape):
    fluid = make_domain(name, shape, 3).cell_type == FLUID
    square = np.ones(fluid.shape, bool)
    for axes in ((0, 1), (0, len(shape) - 1)):
        size = [2 if a in axes else 1 for a in range(len(shape))]
        square = ndimage.minimum_filter(fluid.astype(np.uint8), size=size)
        assert not square[(slice(1, None),) * len(shape)].any()


@pytest.mark.parametrize("shape", [(21, 30), (22, 31), (9, 12, 11), (3, 3)])
def test_a_maze_is_a_tree_with_one_exit(shape):
    domain = make_domain("maze", shape, 7)
    op = domain.operator()
    faces = sum(int(np.count_nonzero(f)) for f in op.face_coefficient)
    assert faces == op.unknowns - 1
    assert op.dirichlet.sum() == 1


def test_plates_are_thin_and_leave_most_of_the_box():
    solid = make_domain("plates", (200, 200), 0).cell_type == SOLID
    assert 0.02 < solid.mean() < 0.15
    assert ndimage.distance_transform_cdt(solid).max() < 12


def test_porous_blocks_thirty_percent():
    for shape in ((80, 90), (25, 26, 27)):
        assert (make_domain("porous", shape, 2).cell_type == SOLID).mean() == pytest.approx(0.3, abs=0.03)


def test_two_phase_has_the_contrast_asked_for():
    assert np.unique(make_domain("two-phase", (30, 30), 0).mobility).tolist() == [1e-3, 1]
    assert np.unique(make_domain("two-phase", (30, 30), 0, contrast=10).mobility).tolist() == [0.1, 1]


def test_numbers_in_names():
    def spread(name, axis):
        widths = make_domain(name, (64, 64)).widths[axis]
        return widths.max() / widths.min()

    assert spread("stretched", 1) == spread("stretched-2", 0) == pytest.approx(34, rel=0.05)
    assert spread("stretched-1", 1) == 1
    assert make_domain("flat-100", (8, 9)).widths[0][0] == 0.01
    assert np.unique(make_domain("bubbles", (30, 30)).mobility).tolist() == [1e-3, 1]
    assert np.unique(make_domain("bubbles-100", (30, 30)).mobility).tolist() == [1, 100]
    logs = [np.log(make_domain(f"lognormal{s}", (30, 30)).mobility).std() for s in ("", "-1")]
    assert logs == pytest.approx([3, 1])


def test_flat_and_stretched_cells_have_the_coefficients_of_finite_volumes():
    flat = make_domain("flat-4", (6, 7, 8)).operator()
    assert flat.face_coefficient[0][0, 0, 0] == 4 and flat.face_coefficient[1][0, 0, 0] == 0.25
    assert flat.dirichlet[-1, 0, 0] == 4
    domain = make_domain("closed-stretched", (20, 24), 1)
    op, (h, w) = domain.operator(), domain.widths
    x, y = np.cumsum(h) - h / 2, np.cumsum(w) - w / 2
    field = np.where(op.active, 2.0 * x[:, None] - y, 0)  # constant flow: flux = area times slope
    inner = op.active.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(op.active, shift, axis)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert np.abs(op.apply(field)[inner]).max() < 1e-12


def test_baffles_have_a_hole_each():
    domain = make_domain("baffles", (64, 60), 2)
    walls = domain.closed[0].any(1)
    assert walls.sum() == 7 and not domain.closed[1].any()
    assert ((~domain.closed[0][walls]).sum(1) == 5).all()


def test_images_stay_the_same_over_versions():
    # A changed image changes every published figure: change these sums only together with those.
    sums = {n: zlib.crc32(make_domain(n, (33, 30), 4).cell_type.tobytes()) for n in DOMAIN_NAMES}
    assert sums == EXPECTED_SUMS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sphere", (8, 8)), "unknown domain 'sphere'; known: box, spheres"),
        (("closed-closed-box", (8, 8)), "unknown domain"),
        (("box", (8,)), "2 or 3 axes"),
        (("box", (8, 8.5)), "whole number"),
        (("box", (8, 0)), "at least 1"),
        (("maze", (8, 2)), "at least 3 cells"),
        (("two-phase", (8, 8), 0, 0.0), "contrast must be positive"),
        (("flat-0", (8, 8)), "unknown domain 'flat-0'.*positive number"),
        (("flat-much", (8, 8)), "unknown domain 'flat-much'"),
        (("box-2", (8, 8)), "unknown domain 'box-2'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_domain(*arguments)
