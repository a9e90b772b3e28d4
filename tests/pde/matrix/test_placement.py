"""Grids found from matrices alone: by bands, and by laying the graph of couplings on a lattice."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes, label

from consolve.pde import AIR, FLUID, SOLID, GridOperator
from consolve.pde.matrix.bands import find_bands
from consolve.pde.matrix.lattice import SPARSEST, find_lattice
from consolve.pde.matrix.placement import find_placement
from consolve.pde.poisson.domains import DOMAIN_NAMES, make_domain


def arrays(matrix):
    return matrix.indptr, matrix.indices, matrix.data


def shuffled(matrix, seed=0):
    order = np.random.default_rng(seed).permutation(matrix.shape[0])
    return sp.csr_matrix(matrix[order][:, order])


def box(*shape, outside=AIR):
    return GridOperator.from_cell_types(np.zeros(shape, int), outside=outside).to_csr()


def of_mask(fluid):
    return GridOperator.from_cell_types(np.where(fluid, FLUID, SOLID), outside=AIR).to_csr()


def line(n, periodic=False):
    matrix = sp.lil_matrix(
        sp.diags([np.full(n - 1, -1.0), np.full(n, 3.0), np.full(n - 1, -1.0)], [-1, 0, 1])
    )
    if periodic:
        matrix[0, n - 1] -= 1
        matrix[n - 1, 0] -= 1
    return sp.csr_matrix(matrix)


def cartesian(*lines):
    """Sum over the axes: the star stencil of a grid."""
    total = 0
    for axis in range(len(lines)):
        term = sp.identity(1)
        for other, matrix in enumerate(lines):
            term = sp.kron(term, matrix if other == axis else sp.identity(matrix.shape[0]))
        total = total + term
    return sp.csr_matrix(total)


def stencil(shape, steps):
    """A matrix with a coupling -1 for each step (and its negative) that stays on the grid."""
    index = np.arange(np.prod(shape)).reshape(shape)
    row, column = [], []
    for step in steps:
        low = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(step, shape))
        high = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(step, shape))
        row += [index[low].ravel(), index[high].ravel()]
        column += [index[high].ravel(), index[low].ravel()]
    row, column = np.concatenate(row), np.concatenate(column)
    matrix = sp.csr_matrix((-np.ones(row.size), (row, column)), (index.size,) * 2)
    return sp.csr_matrix(matrix + sp.diags(1.0 - np.asarray(matrix.sum(axis=1)).ravel()))


def box_steps(ndim):
    return [d for d in np.ndindex(*(3,) * ndim) if d > (1,) * ndim for d in [tuple(n - 1 for n in d)]]


def assert_sound(matrix, placement):
    """Cells of their own, and every significant coupling between neighbours."""
    matrix = sp.coo_matrix(matrix)
    assert placement.cells.size == matrix.shape[0] == np.unique(placement.cells).size
    cell = np.column_stack(np.unravel_index(placement.cells, placement.shape))
    diagonal = np.abs(matrix.tocsr().diagonal())
    joined = (matrix.row != matrix.col) & (np.abs(matrix.data) > 1e-10 * diagonal[matrix.row])
    step = np.abs(cell[matrix.row[joined]] - cell[matrix.col[joined]])
    for axis, wraps in enumerate(placement.periodic):
        if wraps:
            step[step[:, axis] == placement.shape[axis] - 1, axis] = 1
    assert (step.max(axis=1) == 1).all()
    assert placement.box == bool((step.sum(axis=1) > 1).any())


SHAPES = [
    (5, 6), (6, 5), (2, 2), (2, 3), (3, 2), (2, 9), (9, 2), (12, 12),
    (4, 5, 6), (6, 5, 4), (2, 2, 2), (2, 3, 2), (2, 2, 7), (7, 2, 2), (3, 3, 3),
]  # fmt: skip


class TestBands:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("outside", [SOLID, AIR])
    def test_star_stencils(self, shape, outside):
        placement, fill = find_bands(*arrays(box(*shape, outside=outside)))
        assert placement.shape == shape and fill == 1 and not placement.box and not any(placement.periodic)
        np.testing.assert_array_equal(placement.cells, np.arange(np.prod(shape)))

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_box_stencils(self, shape):
        matrix = stencil(shape, box_steps(len(shape)))
        placement, fill = find_bands(*arrays(matrix))
        assert placement.shape == shape and placement.box and fill == 1

    def test_box_stencil_without_face_couplings(self):
        """Trilinear elements on cubes: couplings along edges and space diagonals only."""
        steps = [d for d in box_steps(3) if np.abs(d).sum() > 1]
        placement, _ = find_bands(*arrays(stencil((4, 5, 6), steps)))
        assert placement.shape == (4, 5, 6) and placement.box

    @pytest.mark.parametrize("periodic", [(0, 1), (1, 0), (1, 1), (0, 0, 1), (1, 0, 1), (0, 1, 0), (1, 1, 1)])
    def test_periodic_axes(self, periodic):
        shape = (5, 7, 4)[: len(periodic)]
        matrix = cartesian(*(line(n, bool(p)) for n, p in zip(shape, periodic)))
        placement, _ = find_bands(*arrays(matrix))
        assert placement.shape == shape and placement.periodic == tuple(map(bool, periodic))
        assert_sound(matrix, placement)

    @pytest.mark.parametrize("name", DOMAIN_NAMES)
    @pytest.mark.parametrize("shape", [(24, 30), (10, 11, 12)], ids=str)
    def test_solids_as_identity_rows(self, name, shape):
        placement, _ = find_bands(*arrays(make_domain(name, shape).operator().to_csr("all")))
        assert placement.shape == shape

    def test_stored_zeros_and_round_off_are_no_couplings(self):
        matrix = box(6, 7).tolil()
        matrix[3, 40] = matrix[40, 3] = 1e-17
        matrix = sp.csr_matrix(matrix)
        matrix.data[matrix.data == 1e-17] *= [1, 0]
        assert find_bands(*arrays(matrix))[0].shape == (6, 7)

    def test_dirichlet_rows_with_their_columns_kept(self):
        matrix = box(6, 7).tolil()
        for row in range(7):
            matrix.rows[row], matrix.data[row] = [row], [1.0]
        assert find_bands(*arrays(sp.csr_matrix(matrix)))[0].shape == (6, 7)

    @pytest.mark.parametrize("rows", [1, 2, 7])
    def test_a_chain_lies_along_x(self, rows):
        assert find_bands(*arrays(line(rows)))[0].shape == (1, rows)

    def test_a_diagonal_matrix_is_a_chain_without_couplings(self):
        assert find_bands(*arrays(sp.identity(5, format="csr")))[0].shape == (1, 5)

    def test_other_numberings_have_no_bands(self):
        assert find_bands(*arrays(shuffled(box(20, 21)))) is None
        assert find_bands(*arrays(shuffled(box(8, 9, 10)))) is None

    def test_x_lines_that_run_on_are_no_grid(self):
        """The last cell of each line coupled to the first of the next: a helix."""
        matrix = sp.csr_matrix(sp.diags([-1.0, -1.0, 5.0, -1.0, -1.0], [-7, -1, 0, 1, 7], (42, 42)))
        found = find_bands(*arrays(matrix))
        assert found is None or found[0].box  # never a star stencil: its lines would be cut


class TestLattice:
    @pytest.mark.parametrize("shape", [*SHAPES, (40, 50), (12, 13, 14)], ids=str)
    def test_shuffled_grids(self, shape):
        matrix = shuffled(box(*shape))
        placement = find_lattice(*arrays(matrix))
        assert sorted(placement.shape) == sorted(shape) and not placement.box
        if matrix.shape[0] > 100:  # in small ones many rows follow their neighbours by chance
            assert placement.shape[-1] == max(shape)
        assert_sound(matrix, placement)

    @pytest.mark.parametrize("shape", [(2, 3), (5, 6), (12, 9), (3, 4, 5), (2, 2, 6), (6, 7, 8)], ids=str)
    def test_shuffled_box_stencils(self, shape):
        matrix = shuffled(stencil(shape, box_steps(len(shape))))
        placement = find_lattice(*arrays(matrix))
        assert sorted(placement.shape) == sorted(shape) and placement.box
        assert_sound(matrix, placement)

    @pytest.mark.parametrize("shape", [(5, 6), (12, 9), (3, 4, 5), (6, 7, 8)], ids=str)
    def test_shuffled_simplex_stencils(self, shape):
        """P1 elements with one diagonal in each square or cube, and no right angles."""
        steps = [d for d in np.ndindex(*(2,) * len(shape)) if any(d)]
        matrix = shuffled(stencil(shape, steps))
        placement = find_lattice(*arrays(matrix))
        assert placement.box and sorted(placement.shape) == sorted(shape)
        assert_sound(matrix, placement)

    def test_trilinear_elements_are_found_by_their_stored_entries(self):
        shape, far = (5, 6, 7), [d for d in box_steps(3) if np.abs(d).sum() > 1]
        near = stencil(shape, [d for d in box_steps(3) if np.abs(d).sum() == 1])
        zeros = sp.csr_matrix((1e-17 * near.data, near.indices, near.indptr), near.shape)
        matrix = shuffled(stencil(shape, far) + zeros)
        placement = find_lattice(*arrays(matrix))
        assert sorted(placement.shape) == sorted(shape)
        assert_sound(matrix, placement)

    @given(st.integers(0, 10**6), st.integers(2, 3), st.floats(0, 0.6), st.booleans())
    def test_random_domains_are_placed_soundly_or_not_at_all(self, seed, ndim, solid, shuffle):
        rng = np.random.default_rng(seed)
        fluid = rng.random(tuple(rng.integers(1, 9 if ndim == 2 else 6, ndim))) >= solid
        assume(fluid.any())
        matrix = of_mask(fluid)
        matrix = shuffled(matrix, seed) if shuffle else matrix
        placement = find_lattice(*arrays(matrix))
        if placement is not None:
            assert_sound(matrix, placement)

    @given(st.integers(0, 10**6))
    def test_plane_blobs_are_always_found(self, seed):
        """Overlapping discs and rectangles, holes filled."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:24, :24]
        fluid = np.zeros((24, 24), bool)
        for _ in range(rng.integers(1, 7)):
            cy, cx = rng.integers(4, 20, 2)
            ry, rx = rng.integers(1, 7, 2)
            round_ = rng.random() < 0.5
            near = ((y - cy) / (ry + 0.5)) ** 2 + ((x - cx) / (rx + 0.5)) ** 2 < 1
            fluid |= near if round_ else (abs(y - cy) <= ry) & (abs(x - cx) <= rx)
        fluid = binary_fill_holes(fluid)
        fluid = label(fluid)[0] == 1
        matrix = shuffled(of_mask(fluid), seed)
        placement = find_lattice(*arrays(matrix))
        assert placement is not None
        assert_sound(matrix, placement)

    @given(st.integers(0, 10**6))
    def test_grown_blobs_are_always_found(self, seed):
        """Cells added one by one at the rim of a blob, holes filled: thin arms included."""
        rng = np.random.default_rng(seed)
        fluid = np.zeros((14, 14), bool)
        fluid[7, 7] = True
        for _ in range(rng.integers(1, 50)):
            cell = np.argwhere(fluid)[rng.integers(np.count_nonzero(fluid))]
            cell[rng.integers(2)] += rng.choice([-1, 1])
            if 0 <= cell.min() and cell.max() < 14:
                fluid[tuple(cell)] = True
        matrix = shuffled(of_mask(binary_fill_holes(fluid)), seed)
        placement = find_lattice(*arrays(matrix))
        assert placement is not None
        assert_sound(matrix, placement)

    @pytest.mark.parametrize("name", ["spheres", "rotor", "free-surface", "pockets", "two-phase"])
    @pytest.mark.parametrize("shape", [(40, 44), (12, 13, 14)], ids=str)
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_fluid_cells_of_the_gallery(self, name, shape, shuffle):
        matrix = make_domain(name, shape).operator().to_csr()
        matrix = shuffled(matrix) if shuffle else matrix
        placement = find_lattice(*arrays(matrix))
        assert_sound(matrix, placement)
        assert np.prod(placement.shape) < 1.6 * np.prod(shape)

    def test_numbering_of_fluid_cells_keeps_its_axes(self):
        """Rows that run along x in the image run along the last axis of the grid."""
        fluid = np.ones((30, 12), bool)
        fluid[10:14, 4:8] = False
        placement = find_lattice(*arrays(of_mask(fluid)))
        assert placement.shape == (30, 12)
        np.testing.assert_array_equal(placement.cells, np.flatnonzero(fluid))

    def test_rows_without_couplings_get_cells_of_their_own(self):
        matrix = sp.block_diag([box(6, 7), sp.identity(30)], format="csr")
        placement = find_lattice(*arrays(shuffled(matrix)))
        assert_sound(shuffled(matrix), placement)
        assert placement.shape == (11, 7)

    def test_holes_are_filled_with_rows_without_couplings(self):
        fluid = np.ones((9, 9), bool)
        fluid[3:6, 3:6] = False
        matrix = shuffled(sp.block_diag([of_mask(fluid), sp.identity(9)], format="csr"))
        assert find_lattice(*arrays(matrix)).shape == (9, 9)

    def test_parts_of_several_dimensions_stand_side_by_side(self):
        matrix = shuffled(sp.block_diag([box(6, 7), box(3, 4, 5), line(9), box(2, 2)], format="csr"))
        placement = find_lattice(*arrays(matrix))
        assert len(placement.shape) == 3
        assert_sound(matrix, placement)

    def test_one_sided_dirichlet_rows(self):
        matrix = box(8, 9).tolil()
        for row in range(9):
            matrix.rows[row], matrix.data[row] = [row], [1.0]
        matrix = shuffled(sp.csr_matrix(matrix))
        assert_sound(matrix + matrix.T, find_lattice(*arrays(matrix)))

    def test_chains_and_rings(self):
        assert find_lattice(*arrays(shuffled(line(50)))).shape == (1, 50)
        assert_sound(line(8, True), find_lattice(*arrays(line(8, True))))
        assert find_lattice(*arrays(shuffled(line(7, True)))).box  # odd: no lattice without diagonals

    @pytest.mark.parametrize(
        "matrix",
        [
            sp.csr_matrix(np.full((30, 30), -1.0) + 40 * np.eye(30)),
            cartesian(line(9, True), line(11, True)),
            stencil((9, 9, 9), [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2)]),
            sp.csr_matrix(np.diag(np.full(28, 30.0)) - np.eye(28)[:, :1] - np.eye(28)[:1]),
        ],
        ids=["dense", "torus", "wide", "hub"],
    )
    def test_other_graphs_are_refused(self, matrix):
        assert find_lattice(*arrays(shuffled(matrix))) is None

    def test_grids_that_would_be_mostly_empty_are_refused(self):
        """Two long chains that cross."""
        fluid = np.zeros((160, 160), bool)
        fluid[80, :] = fluid[:, 80] = True
        matrix = shuffled(of_mask(fluid))
        assert 160 * 160 > SPARSEST * matrix.shape[0] + 4096
        assert find_lattice(*arrays(matrix)) is None


class TestPlacement:
    @given(st.integers(0, 10**6), st.integers(2, 3), st.booleans(), st.booleans())
    def test_full_grids_are_always_found(self, seed, ndim, shuffle, variable):
        rng = np.random.default_rng(seed)
        shape = tuple(int(n) for n in rng.integers(1, 8, ndim))
        mobility = 10 ** rng.uniform(-3, 3, shape) if variable else None
        operator = GridOperator.from_cell_types(np.zeros(shape, int), outside=AIR, mobility=mobility)
        matrix = shuffled(operator.to_csr(), seed) if shuffle else operator.to_csr()
        placement = find_placement(*arrays(matrix))
        assert_sound(matrix, placement)
        assert not placement.box and np.prod(placement.shape) == np.prod(shape)

    def test_couplings_that_are_not_finite_are_left_to_the_reader(self):
        matrix = box(5, 6)
        matrix.data[3] = np.nan
        assert find_placement(*arrays(matrix)).shape == (5, 6)

    def test_no_rows(self):
        assert find_bands(*arrays(sp.csr_matrix((0, 0)))) is None
