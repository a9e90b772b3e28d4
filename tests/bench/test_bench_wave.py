"""Scores of wave surrogates, and finite elements at the same error."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from consolve.bench import wave
from consolve.cli import cli
from consolve.learned.waves.format import load_wave_weights
from consolve.pde.waves.data import WaveData


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A propagator set solved on 127 x 127 vertices, and a zone set on 64 x 64."""
    folder = tmp_path_factory.mktemp("waves")
    for name, vertices in (("propagator", "127"), ("zone", "64")):
        words = ["data", "wave", "--set", name, "--split", "test", "--runs", "3", "--vertices", vertices]
        result = CliRunner().invoke(cli, [*words, "--out", str(folder / f"{name}.h5")])
        assert result.exit_code == 0, result.output
    return folder


def test_relative_errors_are_root_mean_squares_over_the_standard_deviation():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((3, 8, 8))
    errors = wave.relative_errors(truth + 0.1 * truth.std((1, 2), keepdims=True), truth)
    np.testing.assert_allclose(errors, 0.1)
    assert wave.field_errors(np.zeros((1, 3, 8, 8)), truth[None] - truth.mean())[0] == pytest.approx(1.0)


def test_finite_elements_from_a_start_repeat_the_run_that_made_the_data(sets):
    with WaveData(sets / "propagator.h5") as data:
        begun = wave.starts(data, 2, 3)
        same = wave.finite_elements(wave.SCHEMES[0], begun, data.vertices, data.interval, 1)
        coarse = wave.finite_elements(wave.SCHEMES[0], begun, 64, data.interval, 1)
    assert max(same["vrmse"]["vrmse"]) < 2e-3
    assert coarse["vrmse"]["vrmse"][-1] > 0.1
    assert coarse["ms_per_step"] > 0 and coarse["setup_ms"] > 0


def test_the_coarsest_mesh_that_reaches_an_error_is_found(sets):
    with WaveData(sets / "propagator.h5") as data:
        begun = wave.starts(data, 1, 3)
        at = wave.STEPS.index(30)
        found = wave.matched(wave.SCHEMES[0], begun, data.interval, 0.1)
        index = wave.MESHES.index(found["vertices"])
        below = wave.finite_elements(wave.SCHEMES[0], begun, wave.MESHES[index - 1], data.interval, 1)
        anything = wave.matched(wave.SCHEMES[0], begun, data.interval, 100.0)
        nothing = wave.matched(wave.SCHEMES[0], begun, data.interval, 1e-9)
    assert found["matched"] and found["vrmse"]["vrmse"][at] <= 0.1 < below["vrmse"]["vrmse"][at]
    assert anything["vertices"] == wave.MESHES[0]
    assert not nothing["matched"] and nothing["vertices"] == wave.MESHES[-1]


def test_dolfinx_and_numba_have_the_same_errors_from_the_same_start(sets):
    pytest.importorskip("dolfinx")
    with WaveData(sets / "propagator.h5") as data:
        begun = wave.starts(data, 1, 3)  # of a constant medium
        ours, theirs = (
            wave.finite_elements(scheme, begun, 64, data.interval, 1)["vrmse"]["vrmse"]
            for scheme in wave.SCHEMES[:2]
        )
    np.testing.assert_allclose(ours, theirs, rtol=0.05)


def test_the_shipped_compressed_propagator_is_smaller_and_as_good_as_its_twin(sets):
    with WaveData(sets / "propagator.h5") as data:
        rows = [
            wave.score_propagator(load_wave_weights(name), data, 3, repetitions=1)
            for name in ("propagator", "propagator-dense")
        ]
    compressed, dense = rows
    assert 4 * compressed["convolution_parameters"] <= dense["convolution_parameters"]
    assert compressed["one_step_vrmse"] < 1.5 * dense["one_step_vrmse"] < 0.1
    assert compressed["rollout_vrmse"]["vrmse"][-1] < 0.4  # the data is that of a coarse mesh
    assert compressed["rollout"]["30"]["mean"] == compressed["rollout_vrmse"]["vrmse"][-1]


def test_the_command_writes_its_document_and_draws(sets, tmp_path):
    words = ["bench", "wave", "--data", str(sets / "propagator.h5"), "--runs", "2", "--no-fe"]
    more = ["--unseen", str(sets / "propagator.h5"), "--plot", str(tmp_path / "plot.png"), "--json", "-"]
    result = CliRunner().invoke(cli, words + more)
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert [row["layer"] for row in document["results"]] == ["compressed", "dense"]
    for row in document["results"]:
        assert {"model", "parameters", "bytes", "train_s", "ms_per_step", "fe_ms_per_step"} <= set(row)
        assert row["rollout_vrmse"]["steps"] == list(wave.STEPS)
        assert row["unseen"]["rollout_vrmse"] == row["rollout_vrmse"]
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_a_model_of_the_other_network_is_refused(sets):
    words = ["bench", "wave", "--data", str(sets / "zone.h5"), "--model", "propagator"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code != 0
    assert "holds a propagator, a generator is needed" in str(result.exception)


def test_leap_frog_on_the_whole_domain_repeats_a_zone_run(sets):
    with WaveData(sets / "zone.h5") as data:
        row = wave.whole_runs(data, 1, 64, 1)
    assert row["vrmse"]["mean"] < 1e-4 and row["ms_per_field"] > 0
