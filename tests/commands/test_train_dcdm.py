"""``consolve train dcdm``: from data to weights, stopped and killed, under torchrun; needs torch."""

import functools
import signal
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dcdm_training_runs import write_sets  # noqa: E402
from training_commands import TORCHRUN, command, log, outcome, process, wait_for  # noqa: E402

from consolve.learned.dcdm.format import load_dcdm_weights  # noqa: E402
from consolve.learned.training.run import TrainingRun  # noqa: E402

RITZ_AND_SLOWLY_UNROLLED = ["ritz", pytest.param("unrolled", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("ritz"))


@pytest.fixture
def train(sets, monkeypatch):
    """Trains by the command, in this process, with a validation every two steps."""
    run = TrainingRun.run
    monkeypatch.setattr(TrainingRun, "run", lambda self, report=None: run(self, report, validate_every=2))
    return lambda loss, out, *more, steps=6: command(*words(sets, loss, out, steps), *more)


def words(sets, loss, out, steps=6):
    kind = {
        "ritz": ["--data", sets["2d"], "--batch", 4],
        "unrolled": ["--loss", "unrolled", "--dim", 2, "--cells", 10, "--batch", 2, "--unrolled", 2,
                     "--warm-up", 2],
    }[loss]  # fmt: skip
    return ["train", "dcdm", *kind, "--out", out, "--steps", steps]


def test_from_data_to_weights(sets, tmp_path, capsys):
    out = tmp_path / "box.h5"
    made = ["data", "ritz", "--dim", 3, "--cells", "8,8,9", "--vectors", 20, "--samples", 25]
    assert command(*made, "--out", tmp_path / "data.h5") == 0
    more = ["--variant", 128, "--image", "--amp", "--optimiser", "muon", "--patience", 3]
    assert command("train", "dcdm", "--data", tmp_path / "data.h5", "--out", out, "--steps", 2, *more) == 0
    weights = load_dcdm_weights(out)
    assert weights.ndim == 3 and weights.settings.variant == 128 and weights.settings.image
    printed = capsys.readouterr().out
    assert weights.digest in printed and str(weights.parameters) in printed
    assert weights.parameters == 152881 + 2 * 27 * 16  # two further input channels
    beside = {p.name.removeprefix("box") for p in tmp_path.glob("box*")}
    assert beside == {".h5", ".csv", ".png", ".md", ".checkpoint.pt"}


def test_without_data(train, tmp_path):
    out = tmp_path / "w.h5"
    assert train("unrolled", out, "--network", "dcdm", steps=2) == 0
    weights = load_dcdm_weights(out)
    assert weights.settings.network == "dcdm" and weights.record["seed"] == "0"
    deep = ["train", "dcdm", "--loss", "energy", "--network", "dcdm-deep", "--dim", 2, "--cells", 10]
    assert command(*deep, "--batch", 2, "--steps", 2, "--out", tmp_path / "deep.h5") == 0
    assert load_dcdm_weights(tmp_path / "deep.h5").settings.network == "dcdm-deep"


def test_wrong_usage_is_exit_code_2(sets, tmp_path, capsys):
    out = tmp_path / "w.h5"
    ritz, unrolled = words(sets, "ritz", out), words(sets, "unrolled", out)
    for line, message in (
        ([*ritz, "--unrolled", 3], "--unrolled is not an option of --loss ritz"),
        ([*ritz, "--cells", 64], "--cells is not an option of --loss ritz"),
        ([*unrolled, "--data", sets["2d"]], "--data is not an option of --loss unrolled"),
        (["train", "dcdm", "--out", out], "--loss ritz needs --data"),
        (["train", "dcdm", "--loss", "unrolled", "--out", out], "--loss unrolled needs --dim"),
        ([*ritz, "--variant", 96], "--variant"),
        ([*ritz, "--optimiser", "sgd"], "--optimiser"),
        ([*ritz, "--out", tmp_path / "w.pt"], "ends in .h5"),
        ([*ritz, "--out", sets["2d"]], "--out and --data are the same file"),
        ([*ritz, "--validation", out], "--out and --validation are the same file"),
    ):
        assert command(*line) == 2, line
        assert message in capsys.readouterr().err, line
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_exit_code_1(sets, tmp_path, capsys):
    out = tmp_path / "w.h5"
    broken, other = tmp_path / "broken.h5", tmp_path / "other.h5"
    broken.write_bytes(sets["2d"].read_bytes()[:5000])
    other.write_text("no HDF5")
    ritz = words(sets, "ritz", out)
    for line, message in (
        ([*ritz, "--dim", 3], "right-hand sides on 2D grids, the network is for 3D"),
        ([*ritz, "--validation", sets["3d"]], "right-hand sides on 3D grids, the network is for 2D"),
        ([*ritz, "--data", broken], "broken.h5: cannot be read as HDF5"),
        ([*ritz, "--data", other], "other.h5: cannot be read as HDF5"),
        ([*ritz, "--data", tmp_path / "none.h5"], "there is no such file"),
        ([*ritz, "--out", tmp_path / "no" / "w.h5"], "there is no directory"),
        ([*ritz, "--resume"], "nothing to resume"),
    ):
        assert command(*line) == 1, line
        error = capsys.readouterr().err
        assert message in error and "unexpected" not in error, (line, error)
    assert {p.name for p in tmp_path.iterdir()} == {"broken.h5", "other.h5"}


def test_weights_are_no_data(train, sets, tmp_path, capsys):
    assert train("ritz", tmp_path / "w.h5", steps=2) == 0
    capsys.readouterr()
    assert train("ritz", tmp_path / "v.h5", "--data", tmp_path / "w.h5") == 1
    assert "not of Ritz data" in capsys.readouterr().err


def complete(sets, loss, out, steps, *more):
    """A whole run in a process like those that are stopped: equal in every bit only with equal threads."""
    code, error = outcome(process(2, "none", [*words(sets, loss, out, steps), *more]))
    assert code == 0, error


STEPS = 12


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    """Weights of runs that nothing stopped, by their loss; the log is beside them."""

    @functools.cache
    def made(loss, steps=STEPS):
        out = tmp_path_factory.mktemp("whole") / f"{loss}.h5"
        complete(sets, loss, out, steps)
        return out

    return made


def assert_same_runs(a, b):
    assert load_dcdm_weights(a).digest == load_dcdm_weights(b).digest
    assert log(a.with_suffix(".csv")) == log(b.with_suffix(".csv"))


@pytest.mark.slow  # test_train_wave.py has the same of another network
@pytest.mark.parametrize("loss", ["ritz", "unrolled"])
def test_an_interrupt_is_exit_code_130_and_resume_ends_as_without(sets, whole, tmp_path, loss):
    code, error = outcome(process(2, "interrupt:0:3", words(sets, loss, tmp_path / "b.h5", STEPS)))
    assert code == 130 and error.strip().endswith("interrupted")
    assert torch.load(tmp_path / "b.checkpoint.pt", weights_only=True)["step"] == 3
    complete(sets, loss, tmp_path / "b.h5", STEPS, "--resume")
    assert_same_runs(whole(loss), tmp_path / "b.h5")


def stop_at_random(sets, loss, folder, rng, number, most, steps=STEPS):
    """A process that trains, stopped by a signal a while after it has written a checkpoint."""
    checkpoint = folder / "b.checkpoint.pt"
    before = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
    resume = ["--resume"] if checkpoint.exists() else []
    started = process(2, "none", [*words(sets, loss, folder / "b.h5", steps), *resume])
    wait_for(checkpoint, started, before)
    time.sleep(rng.uniform(0, most))
    started.send_signal(number)
    code, error = outcome(started)
    assert code in (0, 130 if number == signal.SIGINT else -9), error
    if checkpoint.exists():
        torch.load(checkpoint, weights_only=True)  # whole


@pytest.mark.slow  # test_train_wave.py has the same of another network
@pytest.mark.parametrize("loss", ["ritz", "unrolled"])
def test_a_killed_run_resumes_to_the_same_end(sets, whole, tmp_path, loss):
    stop_at_random(sets, loss, tmp_path, np.random.default_rng(1), signal.SIGKILL, 0.1)
    complete(sets, loss, tmp_path / "b.h5", STEPS, "--resume")
    assert_same_runs(whole(loss), tmp_path / "b.h5")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("loss", ["ritz", "unrolled"])
def test_a_run_stopped_many_times_resumes_to_the_same_end(sets, whole, tmp_path, loss, number):
    rng = np.random.default_rng(0)
    for _ in range(8):
        stop_at_random(sets, loss, tmp_path, rng, number, 0.5, 40)
    complete(sets, loss, tmp_path / "b.h5", 40, "--resume")
    assert_same_runs(whole(loss, 40), tmp_path / "b.h5")


@pytest.mark.parametrize("loss", RITZ_AND_SLOWLY_UNROLLED)
def test_two_processes_train_as_one(sets, train, tmp_path, loss):
    assert train(loss, tmp_path / "one.h5", steps=5) == 0
    code, error = outcome(process(2, "none", words(sets, loss, tmp_path / "two.h5", 5), TORCHRUN))
    assert code == 0, error
    one, two = (np.loadtxt(tmp_path / f"{n}.csv", delimiter=",", skiprows=1) for n in ("one", "two"))
    np.testing.assert_allclose(two[:, [0, 2, 3, 4, 5]], one[:, [0, 2, 3, 4, 5]], rtol=2e-3, atol=2e-4)
    a, b = (load_dcdm_weights(tmp_path / f"{n}.h5") for n in ("one", "two"))
    assert a.record["data_hash"] == b.record["data_hash"]
    for name, tensor in a.tensors.items():
        np.testing.assert_allclose(b.tensors[name], tensor, atol=2e-3)


@pytest.mark.slow  # test_train_wave.py has the same of another network
def test_two_processes_stop_together_when_one_is_interrupted(sets, tmp_path):
    line = words(sets, "unrolled", tmp_path / "w.h5", 20000)
    code, error = outcome(process(2, "interrupt:1:3", line, TORCHRUN))
    assert code != 0 and "interrupted" in error, error
    assert torch.load(tmp_path / "w.checkpoint.pt", weights_only=True)["step"] == 3
    assert not (tmp_path / "w.h5").exists() and [row[0] for row in log(tmp_path / "w.csv")] == ["step", "2"]
