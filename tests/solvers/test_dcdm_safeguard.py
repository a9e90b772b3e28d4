"""KSP dcd over DCDM networks that are useless, hostile or overflow: it converges where CG does."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights, save_dcdm_weights  # noqa: E402
from consolve.learned.dcdm.network import build_network, network_of  # noqa: E402
from consolve.pde import GridOperator  # noqa: E402
from consolve.solvers import assemble_matrix  # noqa: E402

OPERATORS = {
    "open box": GridOperator.from_cell_types(np.zeros((30, 31), int), outside=((1, 1), (1, 2))),
    "solids": GridOperator.from_cell_types(
        (np.random.default_rng(0).random((28, 29)) < 0.2).astype(int), outside=((2, 1), (1, 1))
    ),
    "two materials": GridOperator.from_cell_types(
        np.zeros((12, 13), int),
        outside=((2, 1), (1, 1)),
        mobility=np.where(np.random.default_rng(1).random((12, 13)) < 0.3, 100.0, 1.0),
    ),
    "closed box": GridOperator.from_cell_types(np.zeros((20, 21), int)),
    "3D": GridOperator.from_cell_types(np.zeros((9, 10, 11), int), outside=((1, 2), (1, 1), (1, 1))),
}
"""Of each kind one; the iterations of CG on them are looked up once."""


def weights_of(ndim, scale, seed, **chosen):
    """A network with torch's random weights, all times ``scale``."""
    torch.manual_seed(seed)
    size = DCDMSettings(ndim, **({"width": 3} | chosen))
    tensors = build_network(size).tensors()
    return DCDMWeights(size, {k: np.float32(scale) * t for k, t in tensors.items()})


def constant(ndim):
    weights = weights_of(ndim, 0.0, 0)
    weights.tensors["last.bias"][:] = 1
    return weights


NETWORKS = {
    "random": lambda ndim: weights_of(ndim, 1.0, 0),
    "random with the image": lambda ndim: weights_of(ndim, 1.0, 1, image=True),
    "published size": lambda ndim: weights_of(ndim, 1.0, 2, width=16),
    "small": lambda ndim: weights_of(ndim, 1e-3, 3),
    "zero": lambda ndim: weights_of(ndim, 0.0, 0),
    "constant": constant,
    "overflowing": lambda ndim: weights_of(ndim, 1e25, 4),
    "nearly overflowing": lambda ndim: weights_of(ndim, 60.0, 5),
}


class Solved:
    """A solve by ``dcd`` with a network, or by ``cg`` without: iterations, reason, true relative residual."""

    def __init__(self, operator, kind, model=None, network=None, rtol=1e-8):
        mat = assemble_matrix(operator)
        ksp = PETSc.KSP().create(PETSc.COMM_SELF)
        ksp.setOperators(mat)
        ksp.setType(kind)
        ksp.getPC().setType("cnn" if model else "none")
        if model:
            ksp.getPC().getPythonContext().model = str(model)
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        ksp.setTolerances(rtol=rtol, max_it=20_000)
        b, x = mat.createVecs()
        b.array_w[:] = np.random.default_rng(5).standard_normal(operator.unknowns)
        if operator.is_singular:
            mat.getNullSpace().remove(b)
        if network is not None:
            ksp.setUp()
            ksp.getPC().getPythonContext().network.network = network
        ksp.solve(b, x)
        self.iterations, self.reason = ksp.getIterationNumber(), ksp.getConvergedReason()
        residual = b.array_r - operator.to_csr() @ x.array_r
        self.relative = np.linalg.norm(residual) / np.linalg.norm(b.array_r)
        if kind == "dcd":
            context = ksp.getPythonContext()
            self.fallbacks, self.refusals, self.trials = context.fallbacks, context.refusals, context.trials
        for thing in (ksp, mat, b, x):
            thing.destroy()


@pytest.fixture(scope="module")
def plain():
    """CG without a preconditioner on each operator."""
    return {name: Solved(operator, "cg") for name, operator in OPERATORS.items()}


def check(solved, plain):
    assert solved.reason > 0 and solved.relative < 1.1e-8
    assert solved.iterations <= 4 * plain.iterations + 20


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_converges_with_useless_weights(plain, tmp_path, operator, network):
    path = tmp_path / "w.h5"
    save_dcdm_weights(NETWORKS[network](OPERATORS[operator].ndim), path)
    check(Solved(OPERATORS[operator], "dcd", path), plain[operator])


class Adversary(torch.nn.Module):
    """Answers to a residual with what should lead astray."""

    def __init__(self, kind, seed=0):
        super().__init__()
        self.kind, self.calls = kind, 0
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x):
        r = x[:, :1]
        self.calls += 1
        noise = torch.randn(r.shape, generator=self.generator)
        if self.kind == "orthogonal":
            return noise - (noise * r).sum() / (r * r).sum() * r
        if self.kind == "nearly orthogonal":
            return noise - (0.999 * (noise * r).sum() / (r * r).sum()) * r
        if self.kind == "alternating":
            return r if self.calls % 2 else -r.flip(2)
        if self.kind == "nan at times":
            return r * (float("nan") if self.calls % 3 == 0 else 1.0)
        if self.kind == "one nan":
            result = r.clone()
            result.view(-1)[self.calls % r.numel()] = float("nan")
            return result
        if self.kind == "turncoat":  # good at first, then noise
            return r if self.calls < 30 else noise
        return {"negated": -r, "random": noise, "last cell": r * (noise == noise.max())}[self.kind]


class Function(torch.nn.Module):
    """A network of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


KINDS = (
    "negated", "random", "orthogonal", "nearly orthogonal", "alternating", "nan at times", "one nan",
    "turncoat", "last cell",
)  # fmt: skip


@pytest.fixture(scope="module")
def any_model(tmp_path_factory):
    """Weights by dimension, for networks that are put in another's place."""
    folder = tmp_path_factory.mktemp("weights")
    for ndim in (2, 3):
        save_dcdm_weights(weights_of(ndim, 1.0, 0, width=1), folder / f"{ndim}.h5")
    return {ndim: folder / f"{ndim}.h5" for ndim in (2, 3)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", ["open box", "solids", "closed box", "3D"])
def test_converges_with_adversaries(plain, any_model, operator, kind):
    chosen = OPERATORS[operator]
    check(Solved(chosen, "dcd", any_model[chosen.ndim], Adversary(kind)), plain[operator])


@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(-4, 28),
    variant=st.sampled_from([64, 128]),
    image=st.booleans(),
    share=st.floats(0, 0.4),
)
@settings(max_examples=int(os.environ.get("CONSOLVE_EXAMPLES", "15")))
@example(seed=277, exponent=0.0, variant=64, image=True, share=0.25)  # halves the residual now and then
@example(seed=52596, exponent=0.35844130654599227, variant=64, image=True, share=0.25)  # good at first
def test_random_weights_on_random_domains(tmp_path_factory, seed, exponent, variant, image, share):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(3, 20, 2))
    types = (rng.random(shape) < share).astype(int)
    types[0, 0] = 0
    operator = GridOperator.from_cell_types(types, outside=((1, 1), (2, 1)))
    if operator.is_singular:  # pockets: as PETSc sees them by their null space
        labels, closed = operator.components
        types[(labels >= 0) & closed[labels]] = 1
        if (types == 1).all():
            types[0, 0] = 0
        operator = GridOperator.from_cell_types(types, outside=((1, 1), (2, 1)))
    path = tmp_path_factory.mktemp("w") / "w.h5"
    save_dcdm_weights(weights_of(2, 10.0**exponent, seed, variant=variant, image=image), path)
    check(Solved(operator, "dcd", path), Solved(operator, "cg"))


def test_what_was_refused_is_counted(any_model):
    """NaN: each refused.  Noise: taken, until conjugate gradients are tried."""
    operator = OPERATORS["open box"]
    nan = Solved(operator, "dcd", any_model[2], Function(lambda x: x * float("nan")))
    assert nan.refusals == nan.fallbacks == nan.iterations and nan.trials == 0
    noise = Solved(operator, "dcd", any_model[2], Adversary("random"))
    assert noise.trials >= 1 and noise.refusals < noise.fallbacks < noise.iterations


def test_a_good_network_is_never_refused(any_model):
    """Jacobi's polynomial of degree 6, nonlinear on top: fewer iterations than CG, no fallback."""
    operator = OPERATORS["open box"]
    diagonal = torch.from_numpy(operator.diagonal())

    def polynomial(x):
        r = x[0, 0].double()
        z = 0.6 * r / diagonal
        for _ in range(6):
            z += 0.6 * (r - torch.from_numpy(operator.apply(z.numpy()))) / diagonal
        return (z * (1 + 0.01 * torch.tanh(100 * z))).float()[None, None]

    solved, plain = Solved(operator, "dcd", any_model[2], Function(polynomial)), Solved(operator, "cg")
    assert solved.fallbacks == 0 and 3 * solved.iterations < 2 * plain.iterations


def test_the_network_of_the_weights_is_what_is_run(any_model, tmp_path):
    """A network in another's place is a device of these tests only: the iterations are those of its file."""
    weights = weights_of(2, 1.0, 0, width=1)
    operator = OPERATORS["solids"]
    by_file = Solved(operator, "dcd", any_model[2])
    in_its_place = Solved(operator, "dcd", any_model[2], network_of(weights).requires_grad_(False))
    assert abs(by_file.iterations - in_its_place.iterations) <= 3
