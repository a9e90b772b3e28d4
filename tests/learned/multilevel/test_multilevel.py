"""The multilevel preconditioner: linear, symmetric, positive definite, equal to its torch definition,
effective."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
from hypothesis import example, given
from hypothesis import strategies as st
from packed_coefficients import unpack

from consolve.learned.multilevel.cycle.row_vectors import KEPT
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import Weights, load_weights
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import AIR, FLUID, SOLID, GridOperator
from consolve.pde.poisson.right_hand_sides import right_hand_side


def random_operator(seed, ndim, closed=False, jumps=False, most=13):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1 if ndim == 3 else 2, most, ndim))
    types = rng.choice([FLUID, SOLID, AIR], shape, p=[0.75, 0.2, 0.05]).astype(np.uint8)
    if closed:
        types[types == AIR] = SOLID
    mobility = np.exp(2 * rng.standard_normal(shape)) if jumps else None
    return GridOperator.from_cell_types(types, SOLID if closed else AIR, mobility)


def dense(preconditioner, n):
    """M as a matrix."""
    columns = np.empty((n, n))
    for q in range(n):
        preconditioner.apply(np.eye(n)[q], columns[:, q])
    return columns


def connected(operator):
    """Unknowns with a non-zero row."""
    return operator.diagonal()[operator.active] > 0


@given(
    st.integers(0, 10**6),
    st.sampled_from([2, 3]),
    st.sampled_from(["multilevel", "mg"]),
    st.booleans(),
    st.booleans(),
)
@example(seed=19893, ndim=2, name="multilevel", closed=True, jumps=True)
def test_symmetric_positive_definite_on_random_domains(seed, ndim, name, closed, jumps):
    op = random_operator(seed, ndim, closed, jumps, most=14 if ndim == 2 else 7)
    m = dense(MultilevelPreconditioner(op, load_weights(name, ndim)), op.unknowns)
    on = connected(op)
    assert not m[~on].any()
    m = m[np.ix_(on, on)]
    if m.size == 0:
        return
    assert np.abs(m - m.T).max() <= 2e-6 * np.abs(m).max()
    labels, null_components = op.components
    inside = labels[op.active][on]
    null = np.array([inside == c for c in np.flatnonzero(null_components) if (inside == c).any()]).T
    complement = np.linalg.qr(np.hstack([null, np.eye(len(m))]) if null.size else np.eye(len(m)))[0]
    basis = complement[:, null.shape[1] if null.size else 0 :]
    if basis.size:  # M >= D^-1 / 3: the smoother alone sees to that, whatever the jumps
        jacobi = 1 / op.diagonal()[op.active][on]
        symmetric = basis.T @ (0.5 * (m + m.T)) @ basis
        eigenvalues = scipy.linalg.eigh(symmetric, basis.T @ (jacobi[:, None] * basis), eigvals_only=True)
        assert eigenvalues.min() > 1 / 3


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_symmetric_by_inner_products_when_closed(seed, ndim):
    op = random_operator(seed, ndim, closed=True, most=24 if ndim == 2 else 12)
    m = MultilevelPreconditioner(op, load_weights("multilevel", ndim))
    rng = np.random.default_rng(seed)
    x, y = (op.remove_null_space(rng.standard_normal(op.shape))[op.active] for _ in range(2))
    mx, my = np.empty_like(x), np.empty_like(y)
    m.apply(x, mx)
    m.apply(y, my)
    size = np.linalg.norm(mx) * np.linalg.norm(y) + 1e-30
    assert abs(mx @ y - x @ my) <= 2e-6 * size
    if np.linalg.norm(x) > 0:
        assert mx @ x > 0


@given(st.integers(0, 10**6), st.floats(-1e3, 1e3))
def test_linear(seed, factor):
    op = random_operator(seed, 2)
    m = MultilevelPreconditioner(op, load_weights("multilevel", 2))
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, op.unknowns))
    mx, my, both = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    m.apply(x, mx)
    m.apply(y, my)
    m.apply(x + factor * y, both)
    size = np.linalg.norm(mx) + abs(factor) * np.linalg.norm(my) + 1e-30
    assert np.linalg.norm(both - mx - factor * my) <= 5e-6 * size


def perturbed(ndim, sweeps, hidden, seed):
    torch = pytest.importorskip("torch")
    from consolve.learned.multilevel.torch.network import TorchMultilevel

    torch.manual_seed(seed)
    net = TorchMultilevel(ndim, sweeps, hidden)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.3 * torch.randn_like(p)
    return net, Weights(ndim, sweeps, hidden, net.tensors())


def take_packed(levels, hierarchy):
    """Give torch's finest level the engine's coefficients, which have to be its own to within rounding."""
    torch = pytest.importorskip("torch")
    (n0, n1, n2), unit = hierarchy.layout.shapes[0], hierarchy.units[0]
    i, j, k = np.meshgrid(np.arange(n0), np.arange(n1), np.arange(n2), indexing="ij")
    at = (i + j + k) % 2, (i + (n0 > 1)) * (n1 + 2) + j + 1, k // 2 + 1
    found = {
        name: torch.from_numpy(values[at].astype(float))
        for name, values in unpack(hierarchy.array(0, "relax"), hierarchy.array(0, "moves"), unit).items()
    }
    level = levels[0]
    cells = tuple(slice(0, n) for n in (n0, n1, n2)[3 - level.diagonal.ndim + 1 :])

    def inside(tensor):
        return tensor[0][cells].reshape(n0, n1, n2)

    assert torch.equal(found["diagonal"], inside(level.diagonal))
    smoother = inside(level.smoother)
    assert (
        (found["smoother"] <= smoother * (1 + 1e-6)) & (found["smoother"] >= smoother * (1 - 2**-7))
    ).all()
    weights = [torch.zeros(n0, n1, n2)] * (3 - len(level.prolongation)) + [
        inside(p) for p in level.prolongation
    ]
    for axis, weight in enumerate(weights):
        assert (found[f"prolong{axis}"] - weight).abs().max() <= 0.501 * unit
    kept = inside(level.own) + sum(weights)
    assert (found["own"] + sum(found[f"prolong{a}"] for a in range(3)) - kept).abs().max() <= 0.501 / KEPT
    level.smoother[0][cells] = found["smoother"].reshape(level.smoother[0][cells].shape)
    level.own[0][cells] = found["own"].reshape(level.own[0][cells].shape)
    for q, tensor in enumerate(level.prolongation):
        name = f"prolong{3 - len(level.prolongation) + q}"
        tensor[0][cells] = found[name].reshape(tensor[0][cells].shape)


@pytest.mark.parametrize(
    "shape", [(5, 6), (33, 20), (7, 1), (5, 4, 6), (9, 21, 13), (3, 30, 17), (1, 9, 8), (32, 32, 32)]
)
@pytest.mark.parametrize("kind", ["image", "jumps", "closed"])
@pytest.mark.parametrize(("hidden", "sweeps"), [(0, 2), (16, 1), (16, 2), (16, 3)])
def test_engine_equals_torch_definition(shape, kind, hidden, sweeps):
    torch = pytest.importorskip("torch")
    from consolve.learned.training.operator import operator_tensors

    net, weights = perturbed(len(shape), sweeps, hidden, seed=1)
    rng = np.random.default_rng(2)
    types = rng.choice([FLUID, SOLID] if kind == "closed" else [FLUID, SOLID, AIR], shape)
    types[rng.random(shape) < 0.6] = FLUID
    mobility = np.exp(rng.standard_normal(shape)) if kind == "jumps" else None
    op = GridOperator.from_cell_types(types, SOLID, mobility)
    engine = MultilevelPreconditioner(op, weights)
    r = op.remove_null_space(rng.standard_normal(op.shape))
    z = np.empty(op.unknowns)
    engine.apply(r[op.active], z)
    faces, dirichlet = operator_tensors([op])
    faces, dirichlet = [f.double() / engine.scale for f in faces], dirichlet.double() / engine.scale
    with torch.no_grad():
        levels = net.double().setup(faces, dirichlet)
        if engine._hierarchy.layout.packed:
            take_packed(levels.levels, engine._hierarchy)
        exact = levels.apply(torch.from_numpy(r)[None])[0].numpy() / engine.scale
    error = np.abs(z - exact[op.active]).max()
    assert error <= 3e-6 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["multilevel", "mg"])
def test_shipped_weights_survive_the_way_through_torch(name):
    pytest.importorskip("torch")
    from consolve.learned.multilevel.torch.network import TorchMultilevel

    weights = load_weights(name, 2)
    again = TorchMultilevel.from_weights(weights).tensors()
    for key, tensor in weights.tensors.items():
        np.testing.assert_allclose(again[key], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 33), (13, 18, 15)])
def test_update_equals_a_fresh_setup(shape):
    weights = load_weights("multilevel", len(shape))
    first = make_domain("boxes", shape, 1).operator()
    jumps = np.exp(np.random.default_rng(0).standard_normal(shape))
    for second in (
        make_domain("spheres", shape, 2).operator(),
        GridOperator.from_cell_types(np.zeros(shape, int), AIR, jumps),
    ):
        moved = MultilevelPreconditioner(first, weights)
        z = np.empty(first.unknowns)
        moved.apply(np.ones(first.unknowns), z)
        moved.update(second)
        fresh = MultilevelPreconditioner(second, weights)
        r = np.random.default_rng(1).standard_normal(second.unknowns)
        a, b = np.empty_like(r), np.empty_like(r)
        moved.apply(r, a)
        fresh.apply(r, b)
        np.testing.assert_array_equal(a, b)
        assert moved.setups == 2


def test_threads_do_not_change_the_answer():
    op = make_domain("spheres", (36, 40, 33), 3).operator()
    weights = load_weights("multilevel", 3)
    r = np.random.default_rng(0).standard_normal(op.unknowns)
    answers = []
    for threads in (1, 2, 5):
        z = np.empty_like(r)
        MultilevelPreconditioner(op, weights, threads=threads).apply(r, z)
        answers.append(z)
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], rtol=0, atol=1e-6 * np.abs(answers[0]).max())


@pytest.mark.parametrize("exponent", [-300, -40, 40, 290])
def test_scale_of_the_right_hand_side_and_of_the_matrix(exponent):
    op = make_domain("boxes", (20, 24), 0).operator()
    weights = load_weights("multilevel", 2)
    r = np.random.default_rng(0).standard_normal(op.unknowns)
    z, scaled = np.empty_like(r), np.empty_like(r)
    m = MultilevelPreconditioner(op, weights)
    m.apply(r, z)
    m.apply(r * 2.0**exponent, scaled)
    np.testing.assert_array_equal(scaled, z * 2.0**exponent)
    if abs(exponent) < 100:
        s = 2.0**exponent
        larger = GridOperator(tuple(s * f for f in op.face_coefficient), s * op.dirichlet, op.active)
        MultilevelPreconditioner(larger, weights).apply(r, scaled)
        np.testing.assert_allclose(scaled, z / s, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_faults_in_the_residual_show(bad):
    op = make_domain("box", (12, 12)).operator()
    m = MultilevelPreconditioner(op, load_weights("multilevel", 2))
    r = np.ones(op.unknowns)
    z = np.zeros_like(r)
    r[17] = bad
    m.apply(r, z)
    assert np.isnan(z).all()
    m.apply(np.ones_like(r), z)
    assert np.isfinite(z).all()


def test_zero_and_shape_errors():
    op = make_domain("box", (12, 12)).operator()
    weights = load_weights("multilevel", 2)
    m = MultilevelPreconditioner(op, weights)
    z = np.ones(op.unknowns)
    m.apply(np.zeros(op.unknowns), z)
    assert not z.any()
    with pytest.raises(ValueError, match="must have 144 entries"):
        m.apply(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="2D grids, the operator is 3D"):
        MultilevelPreconditioner(make_domain("box", (8, 8, 8)).operator(), weights)
    with pytest.raises(ValueError, match="cells must lie in"):
        MultilevelPreconditioner(op, weights, cells=np.array([144], np.int32))


def test_any_numbering_of_the_entries():
    op = make_domain("spheres", (18, 21), 4).operator()
    weights = load_weights("multilevel", 2)
    rng = np.random.default_rng(0)
    order = rng.permutation(op.active.size).astype(np.int32)
    r = rng.standard_normal(op.active.size)
    z, expected = np.empty_like(r), np.empty(op.unknowns)
    MultilevelPreconditioner(op, weights, cells=order).apply(r, z)
    natural = np.empty(op.active.size)
    natural[order] = r
    MultilevelPreconditioner(op, weights).apply(natural[op.cells], expected)
    back = np.empty_like(natural)
    back[order] = z
    np.testing.assert_array_equal(back[op.cells], expected)
    assert not np.delete(back, op.cells).any()


def iterations(op, b, weights, rtol=1e-6):
    """Conjugate gradients in NumPy, true residual."""
    m = MultilevelPreconditioner(op, weights)

    def precondition(r):
        z = np.empty(op.unknowns)
        m.apply(r[op.active], z)
        full = np.zeros(op.shape)
        full[op.active] = z
        return op.remove_null_space(full)

    x, r = np.zeros(op.shape), b.copy()
    z = precondition(r)
    p, rz = z, np.vdot(r, z)
    for k in range(1, 100):
        q = op.apply(p)
        step = rz / np.vdot(p, q)
        x += step * p
        r -= step * q
        if np.linalg.norm(b - op.apply(x)) <= rtol * np.linalg.norm(b):
            return k
        z = precondition(r)
        rz, old = np.vdot(r, z), rz
        p = z + rz / old * p
    return 100


@pytest.mark.parametrize("shape", [(128, 128), (301, 200), (40, 40, 40), (33, 57, 48)])
@pytest.mark.parametrize("domain", ["box", "spheres", "boxes", "free-surface", "closed-spheres"])
@pytest.mark.parametrize("kind", ["noise", "divergence"])
def test_iterations_on_unseen_domains(shape, domain, kind):
    op = make_domain(domain, shape, seed=11).operator()
    b = right_hand_side(kind, op, seed=12)
    assert iterations(op, b, load_weights("multilevel", len(shape))) <= 8
    assert iterations(op, b, load_weights("mg", len(shape))) <= 9


def test_levels_are_reported():
    m = MultilevelPreconditioner(make_domain("box", (32, 48)).operator(), load_weights("mg", 2))
    assert [f.shape for f in m.levels] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert m.levels[0].unknowns == 32 * 48
    assert 0 < sum(f.bytes for f in m.levels) <= m.bytes
    assert "level 0:" in repr(m)


def test_inference_needs_no_torch_and_no_petsc():
    code = (
        "import sys, numpy as np\n"
        "from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner\n"
        "from consolve.learned.multilevel.format import load_weights\n"
        "from consolve.pde import GridOperator\n"
        "op = GridOperator.from_cell_types(np.zeros((9, 9), int), 2)\n"
        "MultilevelPreconditioner(op, load_weights('multilevel', 2)).apply(np.ones(81), np.ones(81))\n"
        "print([m for m in ('torch', 'petsc4py', 'dolfinx', 'matplotlib') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_coefficients_beyond_single_precision_are_refused_and_leave_nothing_behind():
    weights, shape = load_weights("multilevel", 2), (21, 22)
    healthy = make_domain("box", shape).operator()
    m = MultilevelPreconditioner(healthy, weights)
    mobility = np.ones(shape)
    mobility[5:9, 5:9] = 1e-42
    with pytest.raises(ValueError, match="single precision"):
        m.update(GridOperator.from_cell_types(np.zeros(shape, int), AIR, mobility))
    m.update(healthy)
    z = np.empty(healthy.unknowns)
    m.apply(np.ones(healthy.unknowns), z)
    assert np.isfinite(z).all()


@pytest.mark.parametrize("factor", [1e-40, 1e-300])
def test_coefficients_that_single_precision_loses_are_refused(factor):
    """A row without a coefficient would be left out of M: CG takes a residual there for a converged one."""
    operator = make_domain("box", (24, 32), 0).operator()
    far = np.where(np.arange(24)[:, None] > 18, factor, 1.0)
    faces = tuple(f * far for f in operator.face_coefficient)
    extreme = GridOperator(faces, operator.dirichlet * far, operator.active)
    with pytest.raises(ValueError, match="single precision"):
        MultilevelPreconditioner(extreme, load_weights("multilevel", 2))


def test_residuals_near_the_largest_number():
    operator = make_domain("box", (24, 32), 0).operator()
    sign = (-1.0) ** np.indices((24, 32)).sum(0).reshape(-1)
    network, z, z1 = MultilevelPreconditioner(operator, load_weights("multilevel", 2)), *np.empty((2, 768))
    network.apply(sign, z1)
    network.apply(2.0**1023 * sign, z)
    np.testing.assert_array_equal(z / 2.0**1023, z1)
