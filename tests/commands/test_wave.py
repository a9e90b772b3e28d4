"""``consolve wave``: forecasts whose errors are known, what is warned of and refused, files and cards."""

import json

import h5py
import numpy as np
import pytest

from consolve.cli import run
from consolve.commands.wave import MEDIA
from consolve.learned.waves.domain import TrainedFor
from consolve.learned.waves.forecast import start_by_finite_elements
from consolve.learned.waves.format import (
    GeneratorSettings,
    PropagatorSettings,
    WaveWeights,
    load_wave_weights,
    save_wave_weights,
)
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.generation import generate
from consolve.pde.waves.problem import ALL_MEDIA, Boundaries, Medium, Source, WaveProblem, vrmse
from consolve.pde.waves.sampling import WaveSet

DOMAIN = {
    "set": "propagator",
    "media": "constant layered inclusions smooth obstacles",
    "speed_range": [0.5, 1.0],
    "frequency_range": [5.0, 8.0],
    "boundaries": "left=absorbing right=absorbing bottom=absorbing top=absorbing",
    "interval": 0.02,
    "grid": [64, 64],
}
SETTINGS = PropagatorSettings(past=3, ahead=2, width=8, layers=2, gate_width=4, ranks=(3, 4))


def propagator(growth=0.0, **domain):
    """Random weights whose last layer is so scaled: 0 repeats the last snapshot for ever."""
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in SETTINGS.tensor_shapes().items()
    }
    tensors["wave.1.output_factor"] *= np.float32(growth)
    record = {
        "command": "made by hand",
        "domain": json.dumps(DOMAIN | domain),
        "scores": json.dumps({"one_step_vrmse": 0.5}),
    }
    return WaveWeights(SETTINGS, tensors, record)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("wave")
    save_wave_weights(propagator(), path / "still.h5")
    settings = GeneratorSettings(
        low=(0.0,), high=(1.0,), shape=(8, 8, 8), scale=1.0, harmonics=1, hidden=2, seeds=2, width=2, layers=2
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in settings.tensor_shapes().items()}
    save_wave_weights(WaveWeights(settings, tensors), path / "generator.h5")
    generate(path / "set.h5", WaveSet("propagator", "test"), 2, vertices=64)
    generate(path / "unseen.h5", WaveSet("propagator", "unseen"), 1, vertices=64)
    generate(path / "zone.h5", WaveSet("zone"), 1, vertices=64)
    return path


def predict(folder, *words, model="still.h5"):
    return run(["wave", "predict", "--model", str(folder / model), *map(str, words)])


def test_errors_and_output_are_those_of_the_data(folder, tmp_path, capsys):
    out = tmp_path / "forecast.h5"
    assert predict(folder, "--data", folder / "set.h5", "--run", 1, "--out", out, "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    with WaveData(folder / "set.h5") as data:
        u, start, speed, fixed, source = (np.asarray(a[1]) for a in
            (data.u, data.start, data.speed, data.fixed, data.source))  # fmt: skip
    expected = vrmse(np.broadcast_to(u[2], u[3:].shape), u[3:], axis=(1, 2))
    assert document["vrmse"] == pytest.approx(expected, rel=1e-5)
    assert document["steps"] == 42 and document["vertices"] == [64, 64] and document["warnings"] == []
    assert document["milliseconds"].keys() == {"prepare", "snapshot", "fe_setup", "fe_start", "fe_snapshot"}
    assert min(document["milliseconds"].values()) > 0
    with h5py.File(out) as file:
        assert np.array_equal(file["u"][()], np.broadcast_to(u[2], u[3:].shape))
        assert np.array_equal(file["given"][()], u[:3])
        assert np.allclose(file["truth"][()], u[3:], atol=1e-6)
        assert np.allclose(file["time"][()], start + 0.02 * np.arange(3, 45), atol=1e-12)
        assert np.array_equal(file["speed"][()], speed) and np.array_equal(file["fixed"][()], fixed)
        assert np.allclose(file["vrmse"][()], expected, rtol=1e-5)
        assert np.array_equal(file.attrs["source"], source)
        assert file.attrs["model_digest"] == load_wave_weights(folder / "still.h5").digest
        assert file.attrs["start"] == start and file.attrs["medium"] == "layered"


def test_a_start_by_finite_elements_is_what_the_data_set_stores(folder):
    weights = propagator()
    problem = WaveSet("propagator", "test").run(0).problem
    generate(folder / "fine.h5", WaveSet("propagator", "test"), 1, vertices=253)
    start = start_by_finite_elements(problem, "constant", weights)
    with WaveData(folder / "fine.h5") as data:
        assert np.array_equal(start.u, data.u[0, :3]) and start.time == data.start[0]
        assert np.array_equal(start.speed, data.speed[0]) and np.array_equal(start.fixed, data.fixed[0])


def test_a_medium_by_name_with_pictures_and_a_table(folder, tmp_path, capsys):
    names = [tmp_path / n for n in ("a.png", "a.gif", "a.h5", "a.json")]
    words = ["--medium", "obstacles", "--seed", 3, "--frequency", 6, "--source", "0.4,0.6", "--steps", 3]
    files = ["--picture", names[0], "--animation", names[1], "--out", names[2], "--json", names[3]]
    assert predict(folder, *words, *files) == 0
    output = capsys.readouterr()
    assert "VRMSE" in output.out and "finite elements, 253 x 253" in output.out and output.err == ""
    document = json.loads(names[3].read_text())
    assert document["problem"]["source"]["frequency"] == 6 and document["problem"]["source"]["x"] == 0.4
    assert document["start"]["time"] == pytest.approx(0.4) and document["problem"]["fixed_vertices"] > 0
    assert sorted(tmp_path.iterdir()) == sorted(names)


def test_without_comparison_finite_elements_do_not_go_on(folder, tmp_path, capsys):
    out, picture = tmp_path / "a.h5", tmp_path / "a.png"
    words = ["--data", folder / "set.h5", "--no-compare", "--steps", 2, "--out", out, "--picture", picture]
    assert predict(folder, *words) == 0
    assert "VRMSE" not in capsys.readouterr().out
    with h5py.File(out) as file:
        assert "truth" not in file and "vrmse" not in file and file["u"].shape == (2, 64, 64)


def test_problems_unlike_the_training_are_warned_of(folder, capsys, tmp_path):
    assert predict(folder, "--data", folder / "unseen.h5", "--steps", 1, "--no-compare") == 0
    error = capsys.readouterr().err
    assert "wedges" in error and "frequency" in error and error.count("warning:") == 2
    save_wave_weights(propagator(speed_range=[0.9, 1.0]), tmp_path / "fast.h5")
    words = ["--data", folder / "set.h5", "--steps", 1, "--no-compare", "--run", 1]
    assert predict(tmp_path, *words, model="fast.h5") == 0
    assert "outside what the surrogate is trained for, 0.9 to 1" in capsys.readouterr().err


def test_a_forecast_that_grows_is_warned_of_and_one_that_overflows_is_an_error(folder, tmp_path, capsys):
    save_wave_weights(propagator(growth=1.0), tmp_path / "wild.h5")
    words = ["--data", folder / "set.h5", "--no-compare"]
    assert predict(tmp_path, *words, "--steps", 4, model="wild.h5") == 0
    assert "do not trust it" in capsys.readouterr().err
    assert predict(tmp_path, *words, "--steps", 400, "--out", tmp_path / "a.h5", model="wild.h5") == 1
    assert "overflows at step" in capsys.readouterr().err
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--data", "set.h5", "--run", "2"], 1, "holds runs 0 to 1, asked for is 2"),
        (["--data", "zone.h5"], 1, "zone set holds a part of the square"),
        (["--data", "none.h5"], 1, "no such file"),
        (["--medium", "holes"], 1, "holes"),
        (["--medium", "constant", "--model", "generator.h5"], 1, "holds a generator"),
        (["--medium", "constant", "--model", "none.h5"], 1, "no weights at"),
        (["--medium", "constant", "--out", "none/a.h5"], 1, "no directory"),
        (["--medium", "constant", "--steps", "0"], 2, "--steps"),
        (["--medium", "constant", "--threads", "0"], 2, "--threads"),
        (["--medium", "constant", "--source", "0.5"], 2, "two numbers"),
        (["--medium", "constant", "--source", "2,0"], 2, "outside the unit square"),
        (["--medium", "constant", "--frequency", "-1"], 2, "--frequency"),
        (["--medium", "constant", "--run", "1"], 2, "--run does not go with --medium"),
        (["--data", "set.h5", "--seed", "1"], 2, "--seed does not go with --data"),
        (["--data", "set.h5", "--medium", "constant"], 2, "one of them"),
        ([], 2, "one of them"),
        (["--medium", "constant", "--picture", "a.gif"], 2, ".png"),
        (["--medium", "constant", "--animation", "a.png"], 2, ".gif"),
        (["--medium", "constant", "--out", "a.npz"], 2, ".h5"),
    ],
)
def test_bad_input_is_one_line_that_says_why(folder, words, code, message, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert run(["wave", "predict", "--model", "still.h5", *words]) == code
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and message in output.err and output.out == ""
    assert "unexpected" not in output.err and sorted(folder.iterdir()) == before


def test_other_boundaries_are_refused():
    domain = TrainedFor.of(propagator())
    medium, source = Medium("constant", 0, (0.5, 1.0)), Source(0.5, 0.5, 6.0)
    domain.refuse(WaveProblem(medium, source))
    with pytest.raises(ValueError, match="top=free"):
        domain.refuse(WaveProblem(medium, source, Boundaries(top="free")))
    assert domain.warnings(WaveProblem(medium, source), np.full((4, 4), 0.5)) == []


def test_weights_without_record_say_so():
    weights = WaveWeights(SETTINGS, propagator().tensors)
    domain, problem = TrainedFor.of(weights), WaveProblem(Medium("constant", 0, (0.5, 1.0)))
    assert domain.vertices == 64 and domain.speed_range == (0.5, 1.0)
    assert domain.warnings(problem, np.ones((4, 4))) == ["the weights do not say what they were trained for"]
    with pytest.raises(ValueError, match="damaged"):
        TrainedFor.of(WaveWeights(SETTINGS, weights.tensors, {"domain": '{"grid": 3}'}))


def test_the_kinds_of_media_are_those_there_are():
    assert MEDIA == ALL_MEDIA


@pytest.mark.parametrize("model", ["still.h5", "generator.h5"])
def test_a_card_says_what_the_file_holds(folder, model, capsys):
    assert run(["wave", "card", str(folder / model)]) == 0
    card = capsys.readouterr().out
    weights = load_wave_weights(folder / model)
    assert card.startswith(f"# {weights.network}, {weights.layer}\n")
    assert weights.digest in card and f"| parameters | {weights.parameters:,} " in card
    if model == "still.h5":
        assert "| validation: one_step_vrmse | 0.5 |" in card and "| trained for: grid | [64, 64] |" in card
        assert "| network: ranks | (3, 4) |" in card and "`made by hand`" in card


def test_a_card_of_nothing_is_an_error(capsys, tmp_path):
    assert run(["wave", "card", str(tmp_path / "none.h5")]) == 1
    assert "no weights at" in capsys.readouterr().err
