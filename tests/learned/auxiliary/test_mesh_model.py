"""The auxiliary space method around any network: what it asks of it, and what it makes of it."""

import mesh_cases
import numpy as np
import pytest

from consolve.learned.auxiliary.mesh_model import MeshModel, is_uneven
from consolve.pde.matrix.local_rows import rows_of_csr
from consolve.pde.mesh.rows import read_mesh
from consolve.pde.poisson.grid import GridOperator


class Network:
    """z = r + constant, on all cells; counts what it is given."""

    levels, bytes = (), 0

    def __init__(self, operator, constant):
        self.operator, self.constant, self.sums = operator, constant, []

    def apply(self, r, z):
        self.sums.append(float(r.sum()))
        z[:] = self.operator.active.reshape(-1) * (r + self.constant)


def model(boundary, constant):
    matrix, points = mesh_cases.system(2, 16, boundary=boundary)
    rows = read_mesh(rows_of_csr(matrix), points)
    return MeshModel(rows, lambda operator, cells: Network(operator, constant), 1), len(points)


@pytest.mark.parametrize("boundary", ["neumann", "mixed"])
def test_a_closed_grid_sees_no_constants(boundary):
    """On a singular grid neither what the network gets nor what it gives has a mean."""
    (plain, n), (moved, _) = model(boundary, 0.0), model(boundary, 5.0)
    r = np.random.default_rng(0).standard_normal(n) + 1
    results = []
    for made in (plain, moved):
        z = np.empty(n)
        made.apply(r, z)
        results.append(z)
    if boundary == "neumann":
        np.testing.assert_allclose(*results, atol=1e-10)
        assert abs(moved.network.sums[-1]) < 1e-9 * n
    else:
        assert np.abs(results[1] - results[0]).max() > 1


def test_what_the_network_raises_comes_out():
    made, n = model("mixed", 0.0)
    made.network.apply = lambda r, z: 1 / 0
    with pytest.raises(ZeroDivisionError):
        made.apply(np.ones(n), np.empty(n))


@pytest.mark.parametrize(
    "change, expected", [("none", False), ("axis", True), ("jump", True), ("edge", False)]
)
def test_what_is_uneven(change, expected):
    """A strong axis or a jump is, the small faces at the boundary of a mesh are not."""
    operator = GridOperator.from_cell_types(np.zeros((40, 50), int), 2)
    faces = [f.copy() for f in operator.face_coefficient]
    if change == "axis":
        faces[1] *= 10
    elif change == "jump":
        faces[0][:20] *= 1e5
        faces[1][:20] *= 1e5
    elif change == "edge":
        faces[0][0, :5] *= 1e-9
    assert is_uneven(GridOperator(tuple(faces), operator.dirichlet, operator.active)) is expected
