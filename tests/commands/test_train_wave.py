"""``consolve train wave``: from data to weights, stopped and killed, under torchrun; needs torch."""

import signal
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training_commands import TORCHRUN, command, log, outcome, process, wait_for  # noqa: E402

from consolve.learned.waves.format import load_wave_weights  # noqa: E402
from consolve.learned.waves.training import WaveTraining  # noqa: E402

TINY = ["--width", "12", "--layers", "2", "--batch", "2", "--rollout", "3", "--rate", "0.01"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options that name the sets, made by the command."""
    folder = tmp_path_factory.mktemp("waves")
    options = {}
    for name in ("propagator", "zone"):
        options[name] = []
        for option, split, runs in (("--data", "train", 4), ("--validation", "validation", 2)):
            path = folder / f"{name}-{split}.h5"
            made = command(
                "data",
                "wave",
                "--set",
                name,
                "--split",
                split,
                "--runs",
                runs,
                "--vertices",
                64,
                "--out",
                path,
            )
            assert made == 0
            options[name] += [option, str(path)]
    return options


@pytest.fixture
def train(data, monkeypatch):
    """Trains a propagator by the command, in this process, with a validation every two steps."""
    run = WaveTraining.run
    monkeypatch.setattr(WaveTraining, "run", lambda self, report=None: run(self, report, validate_every=2))

    def call(out, *more, steps=6):
        return command(*propagator(data, out, steps), *more)

    return call


def propagator(data, out, steps=6):
    return ["train", "wave", "--network", "propagator", *data["propagator"], "--out", str(out), *TINY,
            "--steps", str(steps)]  # fmt: skip


def test_from_data_to_weights(data, tmp_path, capsys):
    for network, kind, more in (
        ("propagator", "propagator", ["--compression", 2, "--physics", 0.1, "--amp", *TINY]),
        ("generator", "zone", ["--compression", 2, "--width", 8, "--batch", 2]),
    ):
        out = tmp_path / f"{network}.h5"
        assert (
            command("train", "wave", "--network", network, *data[kind], "--out", out, "--steps", 2, *more)
            == 0
        )
        weights = load_wave_weights(out, network)
        assert weights.layer == "compressed" and weights.scores["steps"] == 2
        assert np.isfinite([v for v in weights.scores.values()]).all()
        printed = capsys.readouterr().out
        assert weights.digest in printed and str(weights.parameters) in printed
        beside = {p.name.removeprefix(network) for p in tmp_path.glob(f"{network}*")}
        assert beside == {".h5", ".csv", ".png", ".md", ".checkpoint.pt"}


def test_a_teacher_by_the_command(train, tmp_path):
    assert train(tmp_path / "teacher.h5", steps=2) == 0
    assert train(tmp_path / "student.h5", "--teacher", tmp_path / "teacher.h5", steps=2) == 0
    hashes = {load_wave_weights(tmp_path / f"{n}.h5").record["data_hash"] for n in ("teacher", "student")}
    assert len(hashes) == 2


def test_wrong_usage_is_exit_code_2(data, tmp_path, capsys):
    out = tmp_path / "w.h5"
    zone = ["train", "wave", "--network", "generator", *data["zone"], "--out", out]
    for words, message in (
        ([*zone, "--rollout", 3], "--rollout is not an option of the generator"),
        ([*zone, "--teacher", "t.h5"], "--teacher is not an option of the generator"),
        ([*zone, "--compression", 1], "--compression"),
        ([*zone, "--steps", 0], "--steps"),
        ([*zone[:-1], tmp_path / "w.pt"], "ends in .h5"),
        ([*zone[:-1], data["zone"][1]], "--out and --data are the same file"),
        ([*zone[:-1], data["zone"][3]], "--out and --validation are the same file"),
        ([*zone[:4], *zone[6:]], "Missing option '--data'"),
    ):
        assert command(*words) == 2, words
        assert message in capsys.readouterr().err, words
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_exit_code_1(data, tmp_path, capsys):
    out = tmp_path / "w.h5"
    sets = data["propagator"]
    for words, message in (
        (["--network", "propagator", *data["zone"], "--out", out], "expected 'propagator'"),
        (["--network", "generator", *sets, "--out", out], "expected 'zone'"),
        (["--network", "propagator", *sets, "--out", tmp_path / "no" / "w.h5"], "there is no directory"),
        (["--network", "propagator", *sets, "--out", out, "--resume"], "nothing to resume"),
        (["--network", "propagator", *sets, "--out", out, "--ahead", 4], "ahead=4 must not pass past=3"),
        (["--network", "propagator", *sets, "--out", out, "--rollout", 60], "63 are needed"),
        (["--network", "propagator", *sets, "--out", out, "--compression", 1e6], "out of reach"),
        (["--network", "propagator", "--data", tmp_path / "x.h5", *sets[2:], "--out", out], "no such file"),
    ):
        assert command("train", "wave", *words) == 1, words
        error = capsys.readouterr().err
        assert message in error and "unexpected" not in error, (words, error)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_exit_code_130_and_resume_ends_as_without(data, train, tmp_path):
    torch.set_num_threads(1)
    assert train(tmp_path / "a.h5") == 0
    code, error = outcome(process(2, "interrupt:0:3", propagator(data, tmp_path / "b.h5")))
    assert code == 130 and error.strip().endswith("interrupted")
    assert torch.load(tmp_path / "b.checkpoint.pt", weights_only=True)["step"] == 3
    assert train(tmp_path / "b.h5", "--resume") == 0
    assert_same_runs(tmp_path)


def assert_same_runs(folder):
    assert load_wave_weights(folder / "a.h5").digest == load_wave_weights(folder / "b.h5").digest
    assert log(folder / "a.csv") == log(folder / "b.csv")


def stop_at_random(data, folder, rng, number, most=0.5):
    """A process that trains, stopped by a signal a while after it has written a checkpoint."""
    checkpoint = folder / "b.checkpoint.pt"
    before = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
    resume = ["--resume"] if checkpoint.exists() else []
    started = process(2, "none", [*propagator(data, folder / "b.h5", 40), *resume])
    wait_for(checkpoint, started, before)
    time.sleep(rng.uniform(0, most))
    started.send_signal(number)
    code, error = outcome(started)
    assert code in (0, 130 if number == signal.SIGINT else -9), error
    if checkpoint.exists():
        torch.load(checkpoint, weights_only=True)  # whole


def test_a_killed_run_resumes_to_the_same_end(data, train, tmp_path):
    torch.set_num_threads(1)
    stop_at_random(data, tmp_path, np.random.default_rng(1), signal.SIGKILL, 0.1)
    assert train(tmp_path / "b.h5", "--resume", steps=40) == 0
    assert train(tmp_path / "a.h5", steps=40) == 0
    assert_same_runs(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_stopped_many_times_resumes_to_the_same_end(data, train, tmp_path, number):
    torch.set_num_threads(1)
    assert train(tmp_path / "a.h5", steps=40) == 0
    rng = np.random.default_rng(0)
    for _ in range(8):
        stop_at_random(data, tmp_path, rng, number)
    assert train(tmp_path / "b.h5", "--resume", steps=40) == 0
    assert_same_runs(tmp_path)


def test_two_processes_train_as_one(data, train, tmp_path, monkeypatch):
    assert train(tmp_path / "one.h5", steps=5) == 0
    code, error = outcome(process(2, "none", propagator(data, tmp_path / "two.h5", 5), TORCHRUN))
    assert code == 0, error
    one, two = (np.loadtxt(tmp_path / f"{n}.csv", delimiter=",", skiprows=1) for n in ("one", "two"))
    np.testing.assert_allclose(two[:, [0, 2, 3, 4, 5]], one[:, [0, 2, 3, 4, 5]], rtol=2e-3)
    a, b = (load_wave_weights(tmp_path / f"{n}.h5") for n in ("one", "two"))
    assert b.scores["one_step_vrmse"] == pytest.approx(a.scores["one_step_vrmse"], rel=1e-3)
    for name, tensor in a.tensors.items():
        np.testing.assert_allclose(b.tensors[name], tensor, atol=2e-3)
    assert {p.name for p in tmp_path.glob("two*")} == {
        p.name.replace("one", "two") for p in tmp_path.glob("one*")
    }


def test_two_processes_lose_patience_together(data, tmp_path):
    """A rate of 1e-30 changes nothing, so no validation after the first is better."""
    words = [*propagator(data, tmp_path / "w.h5", 50), "--rate", "1e-30", "--patience", "2"]
    code, error = outcome(process(2, "none", words, TORCHRUN))
    assert code == 0, error
    assert [row[0] for row in log(tmp_path / "w.csv")] == ["step", "2", "4", "6"]


def test_two_processes_stop_together_when_one_is_interrupted(data, train, tmp_path):
    words = propagator(data, tmp_path / "w.h5", 20000)
    code, error = outcome(process(2, "interrupt:1:3", words, TORCHRUN))
    assert code != 0 and "interrupted" in error, error
    step = torch.load(tmp_path / "w.checkpoint.pt", weights_only=True)["step"]
    assert step == 3 and not (tmp_path / "w.h5").exists()
    assert [row[0] for row in log(tmp_path / "w.csv")] == ["step", "2"]


def test_a_failure_of_one_process_ends_both(data, tmp_path):
    code, error = outcome(process(2, "fail:1:3", propagator(data, tmp_path / "w.h5", 20000), TORCHRUN))
    assert code != 0 and "no memory left" in error, error
    assert torch.load(tmp_path / "w.checkpoint.pt", weights_only=True)["step"] == 2
