"""The fast direct solver of the empty box against the operator itself."""

import itertools

import numpy as np
import pytest

from consolve.bench.direct import BoxTransform
from consolve.pde import AIR, FLUID, SOLID
from consolve.pde.poisson.domains import Domain, make_domain

ENDS = [(SOLID, SOLID), (AIR, AIR), (SOLID, AIR), (AIR, SOLID)]


def box(shape, sides):
    return Domain("box", np.full(shape, FLUID, np.uint8), sides)


@pytest.mark.parametrize("sides", list(itertools.product(ENDS, repeat=2)))
@pytest.mark.parametrize("shape", [(7, 10), (8, 1)])
def test_inverts_the_operator_for_all_walls(shape, sides):
    domain = box(shape, sides)
    operator = domain.operator()
    b = operator.remove_null_space(np.random.default_rng(0).standard_normal(shape))
    x = BoxTransform(domain).solve(b)
    np.testing.assert_allclose(operator.apply(x), b, atol=1e-12 * max(shape) ** 2)


def test_inverts_the_operator_in_3d_with_threads():
    domain = box((5, 6, 7), (ENDS[2], ENDS[0], ENDS[3]))
    b = np.random.default_rng(1).standard_normal(domain.shape)
    np.testing.assert_allclose(
        domain.operator().apply(BoxTransform(domain, workers=2).solve(b)), b, atol=1e-11
    )


def test_solution_of_a_closed_box_has_zero_mean():
    domain = make_domain("closed-box", (9, 8))
    b = np.random.default_rng(2).standard_normal(domain.shape)
    x = BoxTransform(domain).solve(b - b.mean())
    assert abs(x.mean()) < 1e-14


def test_refuses_obstacles():
    with pytest.raises(ValueError, match="empty box"):
        BoxTransform(make_domain("spheres", (16, 16)))
