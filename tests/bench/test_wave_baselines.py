"""Baselines of the generator, and the benchmark that feeds them to a submodel."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from consolve.bench.wave import field_errors
from consolve.learned.waves.format import GeneratorSettings, WaveWeights, save_wave_weights
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.generation import generate
from consolve.pde.waves.sampling import STORED_VERTICES, WaveSet

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RUNS = 12


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zone")
    for split, runs in (("train", RUNS), ("test", 2)):
        generate(folder / f"{split}.h5", WaveSet("zone", split), runs, STORED_VERTICES)
    with WaveData(folder / "train.h5") as train, WaveData(folder / "test.h5") as test:
        yield train, test


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_the_nearest_neighbour_of_a_training_run_is_itself(module, sets):
    train, test = sets
    baselines = module("wave_baselines")
    np.testing.assert_array_equal(np.asarray(baselines.nearest_neighbour(train, train)), train.u[:])
    found = baselines.nearest_neighbour(train, test)
    places = (train.parameters[:, None] - test.parameters) / train.parameters.std(0)[None]
    nearest = np.linalg.norm(places, axis=-1).argmin(0)
    np.testing.assert_array_equal(found.fields, np.stack([train.u[n] for n in nearest]))
    assert found.numbers == train.u[:].size and found.field_ms > 0


def test_modes_are_orthonormal_and_their_error_is_what_the_singular_values_say(module):
    modes_of = module("wave_baselines").modes_of
    rng = np.random.default_rng(0)
    u = (rng.standard_normal((20, 9000)) * 0.7 ** np.arange(20)[:, None] + 3).astype(np.float32)
    mean, basis, coefficients = modes_of(u, 6)
    assert np.abs(basis @ basis.T - np.eye(6)).max() < 1e-4
    left = np.linalg.norm(coefficients @ basis + mean - u)
    values = np.linalg.svd(u.astype(np.float64) - u.mean(0, dtype=np.float64), compute_uv=False)
    assert left == pytest.approx(np.linalg.norm(values[6:]), rel=1e-3)
    assert len(modes_of(u, 100)[1]) == 19  # the mean takes one direction


def test_pod_with_a_network_learns_its_training_runs(module, sets):
    pytest.importorskip("torch")
    train, test = sets
    pod_network = module("wave_baselines").pod_network
    known = pod_network(train, train, modes=RUNS, steps=300)
    assert field_errors(known.fields, train.u[:]).max() < 0.1
    crude = pod_network(train, train, modes=2, steps=30)
    assert field_errors(crude.fields, train.u[:]).mean() > 0.3  # two modes are not enough
    again = pod_network(train, train, modes=2, steps=30)
    np.testing.assert_array_equal(crude.fields, again.fields)
    other = pod_network(train, test, steps=10, runs=5)
    assert other.fields.shape == test.u.shape and np.isfinite(other.fields).all()


def test_the_benchmark_judges_every_surrogate(module, sets, tmp_path, capsys):
    pytest.importorskip("torch")
    train, test = sets
    settings = GeneratorSettings(
        (0.1, 0.1, 5, 0.5), (0.4, 0.4, 7, 1), hidden=4, seeds=2, width=2, layers=2, ranks=(1, 1)
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in settings.tensor_shapes().items()}
    save_wave_weights(WaveWeights(settings, tensors), tmp_path / "zero.h5")
    words = ["--data", test.path, "--train", train.path, "--model", tmp_path / "zero.h5", "--runs", 1]
    words += [
        "--pod-seconds",
        0.1,
        "--boundary",
        "impedance",
        "--refinement",
        1,
        "--out",
        tmp_path / "r.json",
    ]
    module("wave_submodel").main([str(word) for word in words])
    result = json.loads((tmp_path / "r.json").read_text())
    rows = {row["name"]: row for row in result["surrogates"]}
    assert list(rows) == ["compressed generator", "nearest neighbour", "POD + network", "truth"]
    assert rows["compressed generator"]["alone"]["mean"] == pytest.approx(1, abs=0.01)  # u = 0
    neighbour = field_errors(module("wave_baselines").nearest_neighbour(train, test), test.u[:])[0]
    assert rows["nearest neighbour"]["alone"]["mean"] == pytest.approx(neighbour)
    assert rows["truth"]["alone"]["mean"] == 0 < rows["truth"]["with_submodel"]["mean"] < 0.1
    assert result["data"]["runs"] == 1 and "| truth |" in capsys.readouterr().out
