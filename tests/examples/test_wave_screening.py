"""The example in which a surrogate screens places of a source."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from consolve.learned.waves.format import PropagatorSettings, WaveWeights, save_wave_weights
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import vrmse

PATH = Path(__file__).parents[2] / "examples" / "wave_screening.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_wave_screening", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_cut_template_is_the_run_of_each_place(example):
    places = np.array([[69, 69], [103, 69], [69, 183], [103, 183], [88, 131]])
    u = example.starts(example.template(), places)
    found = example.medium()
    for where, start in zip(places, u):
        model = LeapFrog(example.problem(where, found), 253, np.float32)
        truth = model.run(example.snapshot_times(3, 0), 4)
        assert vrmse(start, truth) < 1e-4


def test_places_differ_and_keep_away_from_sides_and_wall(example):
    places = example.candidates(1000)
    assert len(np.unique(places, axis=0)) == 1000
    assert places.min() >= 0.27 * 252 and places[:, 1].max() <= 0.73 * 252
    assert places[:, 0].max() <= (43 / 63 - 0.27) * 252
    with pytest.raises(ValueError, match="asked for"):
        example.candidates(100_000)


def test_energy_is_asked_at_the_target_alone(example):
    u = np.zeros((2, 3, 64, 64))
    u[0, :, 28:36, 53:60] = 2.0
    u[1, :, :28] = 5.0
    assert example.energy(u).tolist() == [4.0, 0.0]


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_weights_that_move_nothing_score_nothing(example, tmp_path, capsys, monkeypatch):
    settings = PropagatorSettings(width=8, layers=2, gate_width=4)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in settings.tensor_shapes().items()}
    save_wave_weights(WaveWeights(settings, tensors), tmp_path / "still.h5")
    monkeypatch.setattr(example, "STEPS", 36)
    result = example.screen(7, best=2, sample=4, model=str(tmp_path / "still.h5"))
    assert np.allclose(result.scores, 0, atol=1e-10), "a still wave never reaches the target"
    assert result.verified.shape == (2,) and (result.verified > 1e-5).all()
    assert np.allclose(result.coarse, result.checked, rtol=0.5) and min(result.seconds.values()) > 0
    example.report(result)
    assert "rank correlation" in capsys.readouterr().out


def test_the_shipped_surrogate_ranks_places_as_finite_elements_do(example, tmp_path):
    result = example.screen(120, best=3, sample=40)
    assert result.correlation() > 0.8
    assert result.correlation(True) > 0.95
    assert result.correlation() == pytest.approx(
        spearmanr(result.scores[result.sample], result.checked)[0], abs=1e-12
    )
    assert np.median(result.verified) > np.median(result.checked)
    example.draw(result, tmp_path / "screening.png", "propagator")
    assert (tmp_path / "screening.png").stat().st_size > 10_000
