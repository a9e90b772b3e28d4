"""PC cnn with a network of the deep conjugate direction method: rows, signs, null spaces, refusals."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from petsc4py import PETSc
from scipy.sparse.linalg import cg

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights, save_dcdm_weights  # noqa: E402
from consolve.learned.dcdm.inference import DCDMPreconditioner  # noqa: E402
from consolve.learned.dcdm.network import build_network  # noqa: E402
from consolve.learned.weights.file import WeightsError  # noqa: E402
from consolve.pde import GridOperator  # noqa: E402
from consolve.solvers import MatrixError, OptionError, assemble_matrix, attach_grid  # noqa: E402
from consolve.solvers.petsc.device_vectors import CPU, CUDA, shared_tensors  # noqa: E402
from consolve.solvers.presolve import FLEXIBLE_METHODS  # noqa: E402

cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "matrix_cases.py")))
ROOT = Path(__file__).resolve().parents[2]


def random_weights(ndim=2, seed=0, **settings):
    torch.manual_seed(seed)
    chosen = DCDMSettings(ndim, **({"width": 4} | settings))
    return DCDMWeights(chosen, build_network(chosen).tensors())


def identity_weights(ndim=2):
    """The network f(r) = r: relu(r) and relu(-r) go through, and what the coarse path adds to them is known.

    Channels 2 and 3 are 0 at full resolution; on the coarse grid they get what 0 and 1 have.
    """
    settings = DCDMSettings(ndim, width=4)
    tensors = {k: np.zeros(s, np.float32) for k, s in settings.tensor_shapes().items()}

    def tap(name, out, in_, value=1):
        tensors[f"{name}.weight"][(out, in_, *(1,) * ndim)] = value

    tap("first", 0, 0)
    tap("first", 1, 0, -1)
    for channel in (0, 1):
        tap("fine.0", channel, channel)
        tap("fine.3", channel, channel)
        tap("coarse.0", channel + 2, channel)
        tap("coarse.1", channel + 2, channel + 2)
    tensors["last.weight"].reshape(-1)[:] = 1, -1, -1, 1
    return DCDMWeights(settings, tensors)


@pytest.fixture
def saved(tmp_path):
    def save(weights):
        path = tmp_path / f"{weights.digest}.h5"
        save_dcdm_weights(weights, path)
        return str(path)

    return save


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def raised(caught, error):
    """The error itself, or what newer PETSc versions give as the cause of theirs."""
    value = caught.value if isinstance(caught.value, error) else caught.value.__cause__
    assert isinstance(value, error)
    return str(value)


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("shape", [(9, 12), (5, 6, 7)])
def test_applies_the_network_on_the_cells_of_the_rows(problems, saved, shape, image):
    operator, weights = problems.operator(shape), random_weights(len(shape), image=image)
    mat = assemble_matrix(operator)
    ksp = problems.ksp(mat, "dcd", pc_cnn_model=saved(weights))
    r = noise(operator.unknowns)
    expected = np.empty_like(r)
    DCDMPreconditioner(operator, weights).apply(r, expected)
    np.testing.assert_allclose(problems.apply(ksp, r), expected, rtol=1e-6, atol=1e-7)
    negative = problems.ksp(problems.matrix(-operator.to_csr()), "dcd", pc_cnn_model=saved(weights))
    attach_grid(negative.getOperators()[1], operator)
    np.testing.assert_allclose(problems.apply(negative, r), -expected, rtol=1e-6, atol=1e-7)


def test_means_over_closed_components_are_removed(problems, saved):
    types = np.zeros((10, 11), int)
    types[:, 5] = 1
    operator = GridOperator.from_cell_types(types, outside=1)
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    weights = random_weights()
    ksp = problems.ksp(mat, "dcd", pc_cnn_model=saved(weights))
    group = operator.components[0].reshape(-1)[operator.cells]

    def without_means(x):
        return x - (np.bincount(group, x) / np.bincount(group))[group]

    r = noise(operator.unknowns)
    z = np.empty_like(r)
    DCDMPreconditioner(operator, weights).apply(without_means(r), z)
    np.testing.assert_allclose(problems.apply(ksp, r), without_means(z), rtol=1e-5, atol=1e-7)


def test_identity_rows_are_divided_by_their_diagonal(problems, saved):
    types = np.zeros((6, 7), int)
    types[2:4, 2:5] = 1
    operator = GridOperator.from_cell_types(types, outside=2)
    csr = operator.to_csr("all").tolil()
    solid = np.flatnonzero(types.reshape(-1))
    csr[solid, solid] = 4.0
    ksp = problems.ksp(problems.matrix(csr), "dcd", pc_cnn_grid="7,6", pc_cnn_model=saved(random_weights()))
    r = noise(42)
    z = problems.apply(ksp, r)
    np.testing.assert_array_equal(z[solid], r[solid] / 4)
    expected = np.empty(operator.unknowns)
    DCDMPreconditioner(operator, random_weights()).apply(r[operator.cells], expected)
    np.testing.assert_allclose(z[operator.cells], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_network_that_gives_back_its_input_is_no_preconditioner(problems, saved, ndim):
    """f(r) = r, through all of PC and KSP: dcd is then conjugate gradients."""
    operator = problems.operator((12,) * ndim)
    mat, b = assemble_matrix(operator), noise(operator.unknowns)
    ksp = problems.ksp(mat, "dcd", pc_cnn_model=saved(identity_weights(ndim)))
    np.testing.assert_allclose(problems.apply(ksp, b), b, rtol=0, atol=1e-6 * abs(b).max())
    plain, dcd = problems.solve(problems.ksp(mat, "cg", "none"), b), problems.solve(ksp, b)
    assert abs(plain.iterations - dcd.iterations) <= 1
    np.testing.assert_allclose(dcd.history[:10], plain.history[:10], rtol=1e-4)


@pytest.mark.parametrize("case", ["variable", "box", "periodic"])
def test_other_stencils_are_solved(problems, saved, case):
    rng = np.random.default_rng(0)
    if case == "box":
        csr, shape = cases.q1((11, 12), reaction=0.1)
    else:
        shape, periodic = (12, 13), (0,) if case == "periodic" else ()
        faces, dirichlet = cases.random_fluxes(shape, rng, periodic, span=1.0, closed=0.0)
        csr = cases.fluxes(faces, dirichlet + 0.01, periodic)
    mat, b = problems.matrix(csr), noise(csr.shape[0])
    attach_grid(mat, shape)
    ksp = problems.ksp(mat, "dcd", pc_cnn_model=saved(random_weights(image=True)))
    solved = problems.solve(ksp, b)
    assert solved.reason > 0 and np.linalg.norm(b - csr @ solved.x) < 1.01e-8 * np.linalg.norm(b)


@pytest.mark.parametrize("closed", [False, True])
def test_on_a_periodic_grid_the_same_rows_are_seen(problems, saved, closed):
    dirichlet = np.zeros((8, 9))
    dirichlet[3, 4] = 0 if closed else 1
    csr = cases.fluxes([np.ones((8, 9))] * 2, dirichlet, (0, 1))
    weights, mat = random_weights(), problems.matrix(csr)
    attach_grid(mat, (8, 9))
    ksp = problems.ksp(mat, "dcd", pc_cnn_model=saved(weights))
    r, expected = noise(72), np.empty(72)
    r -= r.mean() * closed
    DCDMPreconditioner(GridOperator.from_cell_types(np.zeros((8, 9), int)), weights).apply(r, expected)
    expected -= expected.mean() * closed
    np.testing.assert_allclose(problems.apply(ksp, r), expected, rtol=1e-5, atol=1e-6)
    components = ksp.getPC().getPythonContext().components
    assert list(components.size) == [72] * closed


def test_a_changed_matrix_keeps_the_network(problems, saved):
    weights = random_weights(image=True)
    first, second = (problems.operator((9, 10), "open", seed) for seed in (0, 1))
    mats = [problems.matrix(op.to_csr("all")) for op in (first, second)]
    ksp = problems.ksp(mats[0], "dcd", pc_cnn_grid="10,9", pc_cnn_model=saved(weights))
    ksp.setUp()
    context = ksp.getPC().getPythonContext()
    network = context.network.network
    ksp.setOperators(mats[1])
    r = noise(90)
    z = problems.apply(ksp, r)
    assert context.network.network is network and context.setups == 2
    expected = np.empty(second.unknowns)
    DCDMPreconditioner(second, weights).apply(r[second.cells], expected)
    np.testing.assert_allclose(z[second.cells], expected, rtol=1e-5, atol=1e-6)


LINEAR = ("cg", "cr", "minres", "symmlq", "gmres", "lgmres", "bcgs", "bicg", "tfqmr", "cgs", "pipecg")


@pytest.mark.parametrize("kind", LINEAR)
def test_methods_for_linear_preconditioners_are_refused(problems, saved, kind):
    operator = problems.operator((9, 10))
    ksp = problems.ksp(assemble_matrix(operator), "dcd", pc_cnn_model=saved(random_weights()))
    ksp.setNormType(PETSc.KSP.NormType.DEFAULT)
    ksp.setType(kind)
    with pytest.raises((OptionError, PETSc.Error)) as caught:
        problems.solve(ksp, noise(operator.unknowns))
    text = raised(caught, OptionError)
    prefix = ksp.getOptionsPrefix()
    assert f"-{prefix}ksp_type {kind} needs a linear preconditioner" in text
    assert f"use -{prefix}ksp_type dcd, fcg or fgmres" in text


@pytest.mark.parametrize("kind", ["cg", "gmres", "dcd"])
def test_the_deep_network_is_symmetric_and_serves_all_methods(problems, saved, kind):
    operator = problems.operator((9, 10))
    model = saved(random_weights(network="dcdm-deep"))
    ksp = problems.ksp(assemble_matrix(operator), kind, pc_cnn_model=model, ksp_rtol=1e-5)
    b = noise(operator.unknowns)
    solved = problems.solve(ksp, b)
    assert solved.reason > 0
    assert np.linalg.norm(b - operator.to_csr() @ solved.x) < 1e-4 * np.linalg.norm(b)


def test_the_deep_network_rounded_to_bfloat16_is_taken_as_nonlinear(problems, saved):
    operator = problems.operator((9, 10))
    model = saved(random_weights(network="dcdm-deep"))
    options = {"pc_cnn_model": model, "pc_cnn_precision": "bfloat16"}
    ksp = problems.ksp(assemble_matrix(operator), "dcd", **options)
    ksp.setNormType(PETSc.KSP.NormType.DEFAULT)
    ksp.setType("cg")
    with pytest.raises((OptionError, PETSc.Error)) as caught:
        problems.solve(ksp, noise(operator.unknowns))
    assert "bfloat16 makes any so" in raised(caught, OptionError)


@pytest.mark.parametrize("kind", ["dcd", "fcg", "fgmres", "gcr"])
def test_flexible_methods_are_served(problems, saved, kind):
    operator = problems.operator((9, 10))
    ksp = problems.ksp(assemble_matrix(operator), kind, pc_cnn_model=saved(identity_weights()))
    b = noise(operator.unknowns)
    solved = problems.solve(ksp, b)
    assert kind in FLEXIBLE_METHODS and solved.reason > 0
    assert np.linalg.norm(b - operator.to_csr() @ solved.x) < 1e-7 * np.linalg.norm(b)


def test_as_a_smoother_any_method_is_served(problems, saved):
    operator = problems.operator((9, 10))
    norm = {"ksp_norm_type": "none", "ksp_max_it": 3}
    ksp = problems.ksp(assemble_matrix(operator), "cg", pc_cnn_model=saved(identity_weights()), **norm)
    assert problems.solve(ksp, noise(operator.unknowns)).iterations == 3


def test_there_is_no_transpose(problems, saved):
    operator = problems.operator((9, 10))
    ksp = problems.ksp(assemble_matrix(operator), "dcd", pc_cnn_model=saved(random_weights()))
    ksp.setUp()
    r = problems.vector(noise(operator.unknowns))
    with pytest.raises((NotImplementedError, PETSc.Error)):
        ksp.getPC().applyTranspose(r, r.duplicate())


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"pc_cnn_precision": "float64"}, OptionError, "expected one of auto, float32, bfloat16"),
        ({"pc_cnn_device": "gpu"}, OptionError, "expected cpu, cuda or cuda:N"),
        ({"pc_cnn_device": "cuda:99"}, OptionError, "CUDA devices; install a torch with"),
        ({"pc_cnn_model": "mg", "pc_cnn_device": "cuda"}, OptionError, "for the networks that run in torch"),
        ({"pc_cnn_model": "auto", "pc_cnn_precision": "bfloat16"}, OptionError, "not for 'multilevel'"),
    ],
)
def test_options_that_cannot_be(problems, saved, options, error, words):
    mat = assemble_matrix(problems.operator((9, 10)))
    with pytest.raises((error, PETSc.Error)) as caught:
        problems.ksp(mat, "dcd", **({"pc_cnn_model": saved(random_weights())} | options)).setUp()
    assert words in raised(caught, error)


def test_weights_of_another_dimension_are_refused(problems, saved):
    mat = assemble_matrix(problems.operator((9, 10)))
    with pytest.raises((WeightsError, PETSc.Error)) as caught:
        problems.ksp(mat, "dcd", pc_cnn_model=saved(random_weights(3))).setUp()
    assert "weights are for 3D grids, this one is 2D" in raised(caught, WeightsError)


def test_view_shows_what_runs(problems, saved, tmp_path):
    operator, weights = problems.operator((9, 10)), random_weights()
    path = saved(weights)
    ksp = problems.ksp(assemble_matrix(operator), "dcd", pc_cnn_model=path, pc_cnn_precision="bfloat16")
    ksp.setUp()
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"), comm=PETSc.COMM_SELF)
    ksp.view(viewer)
    viewer.destroy()
    text = (tmp_path / "view").read_text()
    assert f"model {path}, {weights.parameters} parameters, weights {weights.digest}" in text
    assert "in torch, bfloat16 on cpu" in text and "memory 0.0" in text and "level 0" not in text


def test_scipy_takes_symmetric_networks_only(saved):
    import consolve

    operator = GridOperator.from_cell_types(np.zeros((9, 10), int), 2)
    with pytest.raises(ValueError, match="is a nonlinear network, which no method of SciPy takes"):
        consolve.aspreconditioner(operator, model=saved(random_weights()))
    M = consolve.aspreconditioner(operator, model=saved(random_weights(network="dcdm-deep")))
    x, info = cg(operator.to_csr(), b := noise(operator.unknowns), M=M, atol=1e-6 * np.linalg.norm(b))
    assert info == 0 and np.linalg.norm(b - operator.to_csr() @ x) < 1e-5 * np.linalg.norm(b)
    M.update(operator)
    assert M.setups == 2 and "parameters, weights" in repr(M)


def test_vectors_are_shared_by_dlpack(problems):
    """The way of vectors on a GPU, with vectors of the host."""
    source, target = problems.vector(noise(80)), problems.vector(np.zeros(80))
    assert shared_tensors(source, target, CUDA) is None
    tensors = shared_tensors(source, target, CPU)
    assert tensors is not None and tensors[0].data_ptr() == source.array_r.ctypes.data
    state = target.stateGet()
    operator, weights = GridOperator.from_cell_types(np.zeros((8, 10), int), 2), random_weights()
    tensors = shared_tensors(source, target, CPU)
    DCDMPreconditioner(operator, weights).apply_tensors(*tensors)
    expected = np.empty(80)
    DCDMPreconditioner(operator, weights).apply(source.array_r, expected)
    np.testing.assert_array_equal(target.array_r, expected)
    assert target.stateGet() > state  # PETSc forgets norms that it kept


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Blocker())
import numpy as np
from petsc4py import PETSc
from consolve.pde import GridOperator
from consolve.solvers import assemble_matrix
operator = GridOperator.from_cell_types(np.zeros((8, 9), int), 2)
mat = assemble_matrix(operator)
b, x = mat.createVecs()
b.set(1.0)
for model in ("mg", sys.argv[1]):
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPC().setType("cnn")
    ksp.getPC().getPythonContext().model = model
    try:
        ksp.solve(b, x)
        print("REASON", ksp.getConvergedReason(), flush=True)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, PETSc.Error) else error
        print("ERROR", type(cause).__name__, cause, flush=True)
    ksp.destroy()
"""


def test_torch_is_needed_for_these_networks_only(saved):
    command = [sys.executable, "-c", WITHOUT_TORCH, saved(random_weights())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[0] == "REASON 2", done.stdout + done.stderr
    assert lines[1].startswith("ERROR OptionError -pc_cnn_model") and "torch is blocked" in lines[1]
    assert "pip install 'consolve[train]'" in lines[1] and "-pc_cnn_model multilevel" in lines[1]


def test_torch_is_not_imported_for_other_models(problems):
    program = WITHOUT_TORCH.replace("sys.meta_path.insert(0, Blocker())", "")
    program = program.replace('("mg", sys.argv[1])', '("auto", "mg")') + "print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["REASON 2", "REASON 2", "False"], done.stdout + done.stderr


def test_refused_matrices_stay_refused(problems, saved):
    csr = problems.operator((9, 10)).to_csr().tolil()
    csr[3, 50] = csr[50, 3] = -1.0
    mat = problems.matrix(csr)
    attach_grid(mat, problems.operator((9, 10)))
    with pytest.raises((MatrixError, PETSc.Error)) as caught:
        problems.ksp(mat, "dcd", pc_cnn_model=saved(random_weights())).setUp()
    assert "PC cnn cannot use this matrix" in raised(caught, MatrixError)
