"""Every example runs, and its numbers hold."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("petsc4py")

FOLDER = Path(__file__).parents[2] / "examples"


def load(name, monkeypatch):
    monkeypatch.setattr("sys.argv", [f"{name}.py"])
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_petsc_poisson_is_second_order(monkeypatch):
    example = load("petsc_poisson", monkeypatch)
    (coarse_iterations, coarse), (fine_iterations, fine) = example.solve(24), example.solve(48)
    assert max(coarse_iterations, fine_iterations) <= 12
    assert 3.5 < coarse / fine < 4.5


def test_fluid_cells_beats_plain_cg(monkeypatch):
    example = load("fluid_cells", monkeypatch)
    image = example.pipe_with_cylinders(64, 128)
    plain, learned = example.solve(image, "none"), example.solve(image, "cnn")
    assert max(plain[1], learned[1]) <= 1.01e-6
    assert learned[0] <= 10 and plain[0] > 20 * learned[0]


def test_flow_with_obstacle_stays_free_of_divergence(monkeypatch, tmp_path):
    iterations, divergence = load("flow_with_obstacle", monkeypatch).run(48, 10, tmp_path)
    assert iterations <= 10
    assert divergence < 1e-2
    assert (tmp_path / "own.png").exists() and (tmp_path / "own.xdmf").exists()


def test_scipy_cg_needs_few_iterations(monkeypatch):
    plain, learned = load("scipy_cg", monkeypatch).main(60, 80).values()
    assert max(plain[1], learned[1]) <= 1.1e-8
    assert learned[0] <= 10 and plain[0] > 20 * learned[0]


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_dolfinx_poisson_is_second_order(monkeypatch, boundary):
    pytest.importorskip("dolfinx")
    example = load("dolfinx_poisson", monkeypatch)
    (_, coarse), (iterations, fine) = example.solve(24, boundary), example.solve(48, boundary)
    assert 3.5 < coarse / fine < 4.5
    assert iterations <= 10
    jacobi, error = example.solve(48, boundary, "jacobi")
    assert jacobi > 5 * iterations and abs(error - fine) < 1e-4 * fine


def test_dolfinx_mesh_takes_few_iterations(monkeypatch):
    pytest.importorskip("dolfinx")
    example = load("dolfinx_mesh", monkeypatch)
    for degree, most in ((1, 14), (2, 18)):
        (jacobi, expected), (iterations, value) = example.poisson(degree, "jacobi"), example.poisson(degree)
        assert iterations <= most and jacobi > 15 * iterations
        assert value == pytest.approx(expected, rel=1e-6)
    assert max(example.heat(3)) <= 13
    iterations, last = example.newton()
    assert max(iterations) <= 12 and last < 1e-7


def test_mesh_scipy_does_not_grow(monkeypatch):
    example = load("mesh_scipy", monkeypatch)
    coarse, fine = example.solve(20), example.solve(80)
    assert fine["cnn"] <= min(coarse["cnn"] + 1, 11) and fine["cg"] > 20 * fine["cnn"]


def test_every_example_is_tested():
    texts = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    for path in FOLDER.glob("*.py"):
        assert f'load("{path.stem}"' in texts or f'"{path.name}"' in texts, path.name
