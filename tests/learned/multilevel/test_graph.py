"""Multigrid on a graph: symmetry, definiteness, what is exact, splitting, widths, the choice."""

import numpy as np
import pytest
import scipy.sparse as sp
from hard_grids import closed_to_rings, hard_operator, matrix_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import load_weights
from consolve.learned.multilevel.graph import choice, coarsest, cycle_kernels, hierarchy, port_kernels
from consolve.learned.multilevel.graph.choice import difficulty, needs_graph
from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner
from consolve.learned.multilevel.graph.sample import sample_of_grid
from consolve.learned.multilevel.graph.widths import estimate_widths
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import FLUID, SOLID, GridOperator
from consolve.pde.poisson.periodic import PeriodicOperator
from consolve.pde.poisson.uniform import UniformOperator

HARD = (
    "plates",
    "channels",
    "maze",
    "baffles",
    "stretched",
    "flat",
    "lognormal",
    "bubbles",
    "closed-pockets",
)


@pytest.fixture(autouse=True)
def deep(monkeypatch):
    """Small grids have levels, too."""
    monkeypatch.setattr(coarsest, "MOST_NODES", 10)
    monkeypatch.setattr(coarsest, "MOST_TREE_NODES", 10)


def random_operator(seed):
    """Solid cells, closed faces, jumps of 1e6, stretched cells, Dirichlet parts here and there or nowhere."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 13, 2)) if seed % 2 else tuple(rng.integers(3, 7, 3))
    active = rng.random(shape) > rng.choice([0, 0.3])
    faces = []
    for axis in range(len(shape)):
        c = 10.0 ** rng.uniform(0, rng.choice([0, 3]), shape) * rng.choice([1.0, 30.0])
        c[rng.random(shape) < rng.choice([0, 0.2])] = 0
        c[~(active & np.roll(active, -1, axis))] = 0
        c[(slice(None),) * axis + (-1,)] = 0
        faces.append(c)
    dirichlet = np.where(active & (rng.random(shape) < rng.choice([0, 0.1])), 10.0 ** rng.uniform(-3, 3), 0.0)
    return GridOperator(tuple(faces), dirichlet, active)


def dense(preconditioner):
    n = preconditioner._node.size
    z, columns = np.empty(n), []
    for r in np.eye(n):
        preconditioner.apply(r, z)
        columns.append(z.copy())
    return np.array(columns).T


def iterations(operator, preconditioner, rtol=1e-6, most=60, seed=0):
    """Of flexible conjugate gradients, with white noise."""
    if isinstance(operator, PeriodicOperator):
        A, closed = matrix_of(operator), operator.closed_components(operator.cells)
    else:
        A, closed = operator.to_csr(), operator.null_space
    noise = np.random.default_rng(seed).standard_normal(operator.shape)
    r = closed.without_means(noise[operator.active])
    z, p, size = np.empty_like(r), np.zeros_like(r), np.linalg.norm(r)
    q, energy = np.zeros_like(r), 1.0
    for k in range(1, most + 1):
        preconditioner.apply(r, z)
        p = z - (z @ q) / energy * p
        q = A @ p
        energy = p @ q
        r = r - (r @ p) / energy * q
        if np.linalg.norm(r) <= rtol * size:
            return k
    return most + 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sets(st.integers(0, 2)))
def test_it_is_symmetric_and_positive_definite(seed, rings):
    """Axes that close to rings, of an odd number of cells too, among them."""
    inner = random_operator(seed)
    if not inner.unknowns:
        return
    operator = closed_to_rings(inner, [axis for axis in rings if axis < inner.ndim])
    A = matrix_of(operator).toarray()
    M = dense(GraphPreconditioner(operator))
    coupled = A.diagonal() > 0
    M, A = M[np.ix_(coupled, coupled)], A[np.ix_(coupled, coupled)]
    if not coupled.any():
        return
    # Scaled by the diagonal, so that jumps do not hide small rows.
    s = np.sqrt(A.diagonal())
    M, A = s[:, None] * M * s, A / s[:, None] / s
    values, vectors = np.linalg.eigh(A)
    range_ = vectors[:, values > 1e-10]
    M = range_.T @ M @ range_
    assert np.abs(M - M.T).max() <= 1e-9 * np.abs(M).max()
    assert np.linalg.eigvalsh((M + M.T) / 2).min() > 0


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_residual_stays_out_of_closed_components(name, ndim):
    operator = make_domain(name, (24, 20) if ndim == 2 else (9, 10, 11), 3).operator()
    assert iterations(operator, GraphPreconditioner(operator)) <= 40


@pytest.mark.parametrize("rings", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize(
    "shape", [(64, 60), (65, 47), (40, 4), (3, 70), (17, 12, 15), (4, 20, 21), (2, 17, 9)]
)
def test_rings_of_any_length_are_served(shape, rings):
    thin = ("lognormal", "bubbles", "flat") if min(shape) > 2 else ("box",)
    for name in HARD if min(shape) > 4 else thin:
        operator = hard_operator(name, shape, rings)
        preconditioner = GraphPreconditioner(operator)
        preconditioner.flexible = True
        assert iterations(operator, preconditioner) <= 24, name


def test_a_ring_has_no_beginning():
    """The same coefficients, read from another cell on."""
    operator = hard_operator("closed-lognormal", (48, 40), (0,), 1)
    counts = []
    for shift in (0, 1, 7):
        faces = tuple(np.roll(f, shift, 0) for f in operator.face_coefficient)
        rest = (np.roll(a, shift, 0).reshape(-1) for a in (operator.inner.dirichlet, operator.active))
        rolled = PeriodicOperator.of_rows((48, 40), np.arange(1920), [f.reshape(-1) for f in faces], *rest)
        counts.append(iterations(rolled, GraphPreconditioner(rolled)))
    assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize("shape", [(32, 24), (12, 8, 16)])
def test_a_uniform_grid_is_discretised_again(shape):
    """On cells twice as wide, away from the boundary, the coefficient is 2^dim / 4."""
    operator = make_domain("closed-box", shape).operator()
    level = GraphPreconditioner(operator)._hierarchy.levels[1]
    assert level.shape[3 - len(shape) :] == tuple(n // 2 for n in shape)
    edges = level.coefficient[level.coefficient > 0]
    inner = 2.0 ** len(shape) / 4
    assert np.isclose(edges, inner, rtol=0.35).all()
    assert np.isclose(np.median(edges), inner, rtol=1e-5)


def test_resistances_in_series_along_a_line():
    """Blocks of two in a line: between their middles lie half of one, the face between, half of the other."""
    rng = np.random.default_rng(1)
    faces = (np.zeros((1, 32)), np.append(rng.uniform(0.5, 1.5, 31), 0)[None])
    operator = GridOperator(faces, np.zeros((1, 32)), np.ones((1, 32), bool))
    hierarchy_ = GraphPreconditioner(operator)
    level, r = hierarchy_._hierarchy.levels[1], 1 / faces[1][0, :-1]
    starts = level.start  # emptied: order is red blocks, then black ones
    assert starts.size == 0 and level.nodes == 16
    order = np.concatenate([np.arange(0, 16, 2), np.arange(1, 16, 2)])
    A = (
        sp.csr_matrix((level.coefficient, level.neighbour, level.pointer), (16, 16)).toarray()
        * hierarchy_.scale
    )
    for i in range(1, 14):
        expected = r[2 * i] / 2 + r[2 * i + 1] + r[2 * i + 2] / 2
        u, v = np.flatnonzero(order == i)[0], np.flatnonzero(order == i + 1)[0]
        assert 1 / A[u, v] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_each_piece_of_a_block_is_an_unknown(seed):
    rng = np.random.default_rng(seed)
    types = (rng.random((20, 22)) < 0.4).astype(np.uint8)
    operator = GridOperator.from_cell_types(types, 1)
    level = GraphPreconditioner(operator)._hierarchy.levels[1]
    count = 0
    for i in range(0, 20, 2):
        for j in range(0, 22, 2):
            pieces, number = label(types[i : i + 2, j : j + 2] == FLUID)
            for piece in range(1, number + 1):
                cells = np.argwhere(pieces == piece) + (i, j)
                whole, _ = label(types == FLUID)
                count += np.count_nonzero(whole == whole[tuple(cells[0])]) > len(cells)  # leads elsewhere
    assert level.nodes == count


@pytest.mark.parametrize("name", HARD)
def test_restriction_is_the_transpose_and_constants_stay(name):
    operator = make_domain(f"closed-{name}".replace("closed-closed", "closed"), (24, 20), 3).operator()
    records = GraphPreconditioner(operator, threads=1)._hierarchy
    rng = np.random.default_rng(0)
    for fine, coarse in zip(range(len(records.levels)), range(1, len(records.levels))):
        f, c = records.levels[fine].vectors, records.levels[coarse].vectors
        X, t = rng.standard_normal(c["x"].size), rng.standard_normal(f["t"].size)
        c["x"][:], f["x"][:], f["t"][:] = X, 0, t
        args = records.records[fine], records.records[coarse]
        cycle_kernels.transfer(*args, True, 1)
        cycle_kernels.transfer(*args, False, 1)
        assert f["x"] @ t == pytest.approx(X @ c["b"], rel=1e-12)
        c["x"][:], f["x"][:] = 1, 0
        cycle_kernels.transfer(*args, True, 1)
        assert np.isin(np.round(f["x"], 12), (0, 1)).all()


def test_trees_are_solved_at_once(monkeypatch):
    monkeypatch.setattr(coarsest, "MOST_TREE_NODES", 300_000)
    operator = make_domain("maze", (60, 61), 2).operator()
    preconditioner = GraphPreconditioner(operator)
    assert len(preconditioner.levels) == 1
    M, A = dense(preconditioner), operator.to_csr().toarray()
    assert np.abs(M @ A - np.eye(len(A))).max() < 1e-5


def test_widths_are_seen_through_coefficients_that_vary():
    rng = np.random.default_rng(3)
    h = [1.2 ** np.arange(24), np.ones(30), np.full(26, 3.0)]
    k = np.exp(rng.standard_normal((24, 30, 26)))
    faces = []
    for axis in range(3):
        area = np.ones(k.shape)
        for other in range(3):
            if other != axis:
                area = area * h[other].reshape([-1 if a == other else 1 for a in range(3)])
        w = np.broadcast_to(h[axis].reshape([-1 if a == axis else 1 for a in range(3)]), k.shape)
        up_k, up_w = np.roll(k, -1, axis), np.roll(w, -1, axis)
        c = area / (w / (2 * k) + up_w / (2 * up_k))
        c[(slice(None),) * axis + (-1,)] = 0
        faces.append(c)
    widths = estimate_widths(faces)
    scale = widths[1][0]
    assert np.ptp(widths[1]) == np.ptp(widths[2]) == 0
    assert widths[2][0] / scale == pytest.approx(3, rel=0.1)
    assert widths[0][2:-2] / scale == pytest.approx(h[0][2:-2], rel=0.25)
    plain = make_domain("lognormal", (40, 50), 1).operator()
    assert all(
        np.ptp(w) == 0
        for w in estimate_widths([np.zeros((1, 1, 1)), *(f[None] for f in plain.face_coefficient)])
    )


@pytest.mark.parametrize("name", ["box", "spheres", "boxes", "rotor", "free-surface", "closed-spheres"])
def test_ordinary_domains_stay_with_the_network(name):
    for shape in ((128, 120), (48, 50, 52)):
        operator = make_domain(name, shape, 7).operator()
        assert not needs_graph("multilevel", operator)
        uniform = UniformOperator.of(operator)
        if uniform is not None:
            assert difficulty(sample_of_grid(uniform)) == difficulty(sample_of_grid(operator))


@pytest.mark.parametrize("name", [*HARD[:-1], "flat-0.1", "flat-100", "stretched-1"])
def test_hard_domains_are_seen_and_served(name, monkeypatch):
    """At most 14 iterations where the network takes more, and never more than the network."""
    monkeypatch.undo()
    for shape in ((128, 120), (32, 34, 36)):
        operator = make_domain(name, shape, 7).operator()
        assert needs_graph("auto", operator) and needs_graph("mg", operator)
        if name != "lognormal":  # single precision does not bear its jumps
            assert not needs_graph("weights.h5", operator)
        preconditioner = GraphPreconditioner(operator)
        preconditioner.flexible = True
        count = iterations(operator, preconditioner)
        assert count <= 14
        network = MultilevelPreconditioner(operator, load_weights("multilevel", len(shape)))
        assert count <= iterations(operator, network)


@pytest.mark.parametrize("rings", [(), (0, 1)])
def test_threads_change_rounding_only(rings):
    operator = hard_operator("lognormal", (201, 211), rings, 3)
    r = np.random.default_rng(0).standard_normal(operator.cells.size)
    results = []
    for threads in (1, 2):
        z = np.empty_like(r)
        GraphPreconditioner(operator, threads=threads).apply(r, z)
        results.append(z)
    assert np.abs(results[0] - results[1]).max() <= 1e-12 * np.abs(results[0]).max()


def test_a_cap_on_unknowns_merges_and_never_drops(monkeypatch):
    monkeypatch.setattr(hierarchy, "MOST_UNKNOWNS", 2)
    types = np.zeros((24, 24), np.uint8)
    types[:, 1::2] = SOLID
    types[-1] = FLUID
    operator = GridOperator.from_cell_types(types, [(1, 2), (1, 1)])
    M, A = dense(GraphPreconditioner(operator)), operator.to_csr().toarray()
    assert np.linalg.eigvalsh((M + M.T) / 2).min() > 0
    assert np.linalg.eigvals(M @ A).real.max() < 10


def test_an_update_leaves_nothing_behind():
    """After another operator of the same shape, M is to the last bit what a new one is."""
    operators = [hard_operator(name, (40, 41), axes) for name, axes in (("plates", ()), ("lognormal", (0,)))]
    kept = GraphPreconditioner(operators[0])
    for operator in operators[::-1]:
        kept.update(operator)
        r = np.random.default_rng(0).standard_normal(operator.cells.size)
        results = [np.empty_like(r), np.empty_like(r)]
        for M, z in zip((kept, GraphPreconditioner(operator)), results):
            M.flexible = True
            M.apply(r, z)
        assert np.array_equal(*results)


def test_what_cannot_be_gathered_is_said(monkeypatch):
    monkeypatch.setattr(choice, "available", lambda: 2**26)
    operator = hard_operator("lognormal", (400, 410), (0,))
    flat = [f.reshape(-1) for f in operator.face_coefficient]
    rest = operator.inner.dirichlet.reshape(-1), operator.active.reshape(-1)
    rows = RowOperator((400, 410), (True, False), np.arange(164000), tuple(flat), *rest)
    found = choice.look("auto", rows)
    assert found.is_hard and not found.on_graph and "0.1 GiB are left" in found.obstacle
    monkeypatch.setattr(choice, "available", lambda: 2**30)
    assert choice.look("auto", rows) == (True, "")
    assert difficulty(choice.sample_of_rows(rows, None)) == difficulty(choice.sample_of_grid(operator))
    order = np.random.default_rng(0).permutation(164000)  # rows in any order, some cells without
    order = order[rows.active[order]]
    mixed = RowOperator(
        (400, 410), (True, False), order, *[tuple(f[order] for f in flat)], *(a[order] for a in rest)
    )
    assert difficulty(choice.sample_of_rows(mixed, None)) == difficulty(choice.sample_of_grid(operator))


def test_bad_input_is_refused():
    operator = make_domain("plates", (20, 20)).operator()
    with pytest.raises(ValueError, match="cells must lie in"):
        GraphPreconditioner(operator, np.array([400], np.int32))
    with pytest.raises(ValueError, match="must have"):
        GraphPreconditioner(operator).apply(np.zeros(3), np.zeros(3))
    faces = tuple(f.copy() for f in operator.face_coefficient)
    faces[0][0, 0] = 1e-60
    with pytest.raises(ValueError, match="single precision"):
        GraphPreconditioner(GridOperator(faces, operator.dirichlet, operator.active))


def test_a_port_whose_energy_rounding_makes_negative_has_a_finite_resistance():
    """Of an equal Dirichlet part in every cell: what it does to differences within the unknown is 0."""
    energies = np.array([[-1e-24, 1e-24, 0.0], [1e-24, 0.3, -0.1], [0.0, -0.1, 0.3]])
    assert port_kernels._to_opposite(energies, 0, 3) == pytest.approx(0.15)
