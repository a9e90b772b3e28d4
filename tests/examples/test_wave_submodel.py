"""The example of the generator with a finite-element submodel."""

import importlib.util
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from consolve.learned.waves.format import GeneratorSettings, WaveWeights, save_wave_weights

pytest.importorskip("matplotlib")

PATH = Path(__file__).parents[2] / "examples" / "wave_submodel.py"
SHIPPED = Path(str(resources.files("consolve.learned") / "weights" / "wave-generator.h5"))


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_wave_submodel", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noisy(truth, part=0.2, seed=0):
    """Errors that follow no wave equation: noise of a few samples' width, of a part of the field's std."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(truth.shape)
    for axis in range(3):
        noise = (np.roll(noise, 1, axis) + noise + np.roll(noise, -1, axis)) / 3
    return truth + part * truth.std() * noise / noise.std()


@pytest.mark.parametrize("structured", [True, False])
def test_the_submodel_leaves_out_errors_that_are_no_waves(example, structured, tmp_path):
    if not structured:
        pytest.importorskip("dolfinx")
    problem = example.problem_of(0.25, 0.3, 6.0, 0.55)
    found = example.compare(problem, noisy(example.whole_square(problem)), structured)
    alone, corrected = found["vrmse"].values()
    assert alone == pytest.approx(0.2, rel=1e-3)
    assert corrected < alone / 3
    example.picture(found, problem, tmp_path / "wave.png")
    assert (tmp_path / "wave.png").stat().st_size > 20_000


def test_any_generator_file_is_taken(example, monkeypatch, tmp_path, capsys):
    settings = GeneratorSettings(
        (0.1, 0.1, 5, 0.5), (0.4, 0.4, 7, 1), 0.1, hidden=4, seeds=2, width=2, layers=2
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in settings.tensor_shapes().items()}
    save_wave_weights(WaveWeights(settings, tensors), tmp_path / "zero.h5")
    monkeypatch.setattr("sys.argv", [str(PATH), "--model", str(tmp_path / "zero.h5"), "--structured",
                                     "--picture", str(tmp_path / "wave.png")])  # fmt: skip
    found = example.main()
    assert found["vrmse"]["surrogate"] == pytest.approx(1, abs=1e-2)  # of u = 0
    assert np.abs(found["fields"]["surrogate + submodel"]).max() < 1e-6  # nothing comes in
    assert (tmp_path / "wave.png").exists()
    assert "surrogate + submodel, structured grid" in capsys.readouterr().out


@pytest.mark.skipif(not SHIPPED.exists(), reason="the generator is not installed")
def test_the_submodel_halves_the_error_of_the_shipped_generator(example):
    problem = example.problem_of(0.25, 0.3, 6.0, 0.55)
    field = example.WaveGenerator.load("generator").field((0.25, 0.3, 6.0, 0.55))
    alone, corrected = example.compare(problem, field, True)["vrmse"].values()
    assert alone < 0.2 and corrected < alone / 2
