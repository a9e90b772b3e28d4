"""``consolve train multilevel``: from options to weights, stopped and killed, under torchrun; needs torch."""

import signal
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training_commands import TORCHRUN, command, log, outcome, process, wait_for  # noqa: E402

from consolve.learned.multilevel.format import load_weights  # noqa: E402
from consolve.learned.training.run import TrainingRun  # noqa: E402


def words(out, steps=6):
    return ["train", "multilevel", "--dim", 2, "--cells", 150, "--hidden", 4, "--out", out, "--steps", steps]


def complete(out, steps, *more):
    """A whole run in a process like those that are stopped: equal in every bit only with equal threads."""
    code, error = outcome(process(2, "none", [*words(out, steps), *more]))
    assert code == 0, error


def assert_same_runs(a, b):
    one, two = load_weights(a, 2), load_weights(b, 2)
    assert one.digest == two.digest and one.record["data_hash"] == two.record["data_hash"]
    assert log(a.with_suffix(".csv")) == log(b.with_suffix(".csv"))


def test_from_options_to_weights(tmp_path, capsys):
    out = tmp_path / "w.h5"
    more = ["--network", "mg", "--sweeps", 1, "--batch", 3, "--rate", 0.05, "--seed", 4, "--patience", 2]
    assert command(*words(out, 3), *more) == 0
    weights = load_weights(out, 2)
    assert (weights.sweeps, weights.hidden, weights.parameters) == (1, 0, 24)
    printed = capsys.readouterr().out
    assert f"{out}: 24 parameters, weights {weights.digest}\n" in printed
    assert "decimals per iteration after 3 steps" in printed
    assert {p.name for p in tmp_path.iterdir()} == {
        "w.h5", "w.csv", "w.png", "w.md", "w.checkpoint.pt",
    }  # fmt: skip


def test_patience_ends_a_run_that_gains_nothing(tmp_path, monkeypatch):
    """A rate of 1e-30 changes nothing, so no validation after the first is better."""
    run = TrainingRun.run
    monkeypatch.setattr(TrainingRun, "run", lambda self, report=None: run(self, report, validate_every=2))
    assert command(*words(tmp_path / "w.h5", 50), "--rate", 1e-30, "--patience", 2) == 0
    assert [row[0] for row in log(tmp_path / "w.csv")] == ["step", "2", "4", "6"]


def test_what_cannot_be_trained_is_told(tmp_path, capsys):
    out = tmp_path / "w.h5"
    for more, code, message in (
        (["--hidden", 5000], 1, "hidden is 5000, more than"),
        (["--resume"], 1, "nothing to resume"),
        (["--patience", 0], 2, "--patience"),
        (["--cells", 20], 2, "--cells"),
        (["--out", tmp_path / "no" / "w.h5"], 1, "there is no directory"),
    ):
        assert command(*words(out), *more) == code, more
        assert message in capsys.readouterr().err, more
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_stopped_many_times_resumes_to_the_same_end(tmp_path, number):
    rng, checkpoint = np.random.default_rng(0), tmp_path / "b.checkpoint.pt"
    for _ in range(4):
        before = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
        resume = ["--resume"] if checkpoint.exists() else []
        started = process(2, "none", [*words(tmp_path / "b.h5", 100), *resume])
        wait_for(checkpoint, started, before)
        time.sleep(rng.uniform(0, 0.5))
        started.send_signal(number)
        code, error = outcome(started)
        assert code in (0, 130 if number == signal.SIGINT else -9), error
    complete(tmp_path / "b.h5", 100, "--resume")
    complete(tmp_path / "a.h5", 100)
    assert_same_runs(tmp_path / "a.h5", tmp_path / "b.h5")


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    complete(tmp_path / "one.h5", 5)
    code, error = outcome(process(2, "none", words(tmp_path / "two.h5", 5), TORCHRUN))
    assert code == 0, error
    one, two = (np.loadtxt(tmp_path / f"{n}.csv", delimiter=",", skiprows=1) for n in ("one", "two"))
    np.testing.assert_allclose(two[:, [0, 2, 3, 4, 5]], one[:, [0, 2, 3, 4, 5]], rtol=1e-3)
    a, b = (load_weights(tmp_path / f"{n}.h5", 2) for n in ("one", "two"))
    assert a.record["data_hash"] == b.record["data_hash"]
    for name, tensor in a.tensors.items():
        np.testing.assert_allclose(b.tensors[name], tensor, atol=2e-3)
    assert {p.name for p in tmp_path.glob("two*")} == {
        p.name.replace("one", "two") for p in tmp_path.glob("one*")
    }


@pytest.mark.slow
def test_two_processes_stop_together_when_one_is_interrupted(tmp_path):
    code, error = outcome(process(2, "interrupt:1:3", words(tmp_path / "w.h5", 20000), TORCHRUN))
    assert code != 0 and "interrupted" in error, error
    assert torch.load(tmp_path / "w.checkpoint.pt", weights_only=True)["step"] == 3
    assert not (tmp_path / "w.h5").exists() and [row[0] for row in log(tmp_path / "w.csv")] == ["step", "2"]
