"""Training of the wave surrogates on tiny sets: resume, interrupts, what is refused; needs torch."""

import json
import math
import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wave_training_runs import SMALL, rows, small_training, write_sets  # noqa: E402

from consolve.base.files import whole_file  # noqa: E402
from consolve.learned.training import run as training_run  # noqa: E402
from consolve.learned.training.muon import Muon  # noqa: E402
from consolve.learned.training.record import digest_of, interrupts_deferred  # noqa: E402
from consolve.learned.training.run import TrainingDiverged  # noqa: E402
from consolve.learned.waves.format import load_wave_weights  # noqa: E402
from consolve.learned.waves.propagator_training import PropagatorTraining  # noqa: E402
from consolve.pde.waves.data import WaveData  # noqa: E402

KINDS = [
    pytest.param(network, compressed, amp, id=f"{network}{'-compressed' * compressed}{'-amp' * amp}")
    for network in ("propagator", "generator")
    for compressed in (False, True)
    for amp in (False, True)
]


@pytest.fixture(autouse=True)
def interrupts_raise():
    """As in a terminal; a shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("waves"))


@pytest.fixture
def training(sets, tmp_path):
    return partial(small_training, sets, tmp_path)


def stop_after(step):
    def report(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(("network", "compressed", "amp"), KINDS)
def test_a_resumed_run_equals_an_uninterrupted_one(training, tmp_path, network, compressed, amp):
    kind = dict(network=network, compressed=compressed, amp=amp)
    whole = training(name="a", **kind).run(validate_every=3)
    with pytest.raises(KeyboardInterrupt):
        training(name="b", **kind).run(stop_after(4), validate_every=3)
    assert not (tmp_path / "b.h5").exists() and len(rows(tmp_path / "b.csv")) == 1
    resumed = training(name="b", resume=True, **kind).run(validate_every=3)
    assert resumed.digest == whole.digest and resumed.layer == ("compressed" if compressed else "dense")
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv")
    assert [row[0] for row in rows(tmp_path / "a.csv")] == ["3", "6", "7"]
    untimed = [{k: v for k, v in w.scores.items() if k != "training_seconds"} for w in (whole, resumed)]
    assert untimed[0] == untimed[1]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"{x}.{y}" for x in "ab" for y in ("h5", "csv", "png", "md", "checkpoint.pt")}
    assert load_wave_weights(tmp_path / "b.h5", network).digest == whole.digest


class Interrupts:
    """Raises SIGINT at the n-th call of any of a run's inner functions."""

    def __init__(self, monkeypatch, at):
        self.calls, self.at = 0, at
        run = training_run.TrainingRun
        for owner, name in (
            (run, "_judge_if_due"), (run, "_save_checkpoint"), (run, "_rate"), (run, "_score"),
            (training_run.TrainingLog, "append"), (PropagatorTraining, "_loss"),
            (PropagatorTraining, "_validate"), (Muon, "step"), (torch, "save"), (os, "replace"),
        ):  # fmt: skip
            self.wrap(monkeypatch, owner, name)

    def wrap(self, monkeypatch, owner, name):
        inner = getattr(owner, name)

        def outer(*arguments, **options):
            self.calls += 1
            if self.calls == self.at:
                signal.raise_signal(signal.SIGINT)
            return inner(*arguments, **options)

        monkeypatch.setattr(owner, name, outer)


def small_picture(log, picture, *_):
    """In place of the plot, which takes longer than the training."""
    with whole_file(picture) as part:
        part.write_bytes(log.read_bytes())


def test_an_interrupt_anywhere_changes_nothing(training, tmp_path, monkeypatch):
    """SIGINT at every place in turn where a step, a validation, the log or the checkpoint begins."""
    monkeypatch.setattr(training_run, "plot_log", small_picture)
    whole = training(name="a", steps=3).run(validate_every=2)
    at, interrupted = 0, 0
    while True:
        at += 1
        with pytest.MonkeyPatch.context() as monkeypatch:
            interrupts = Interrupts(monkeypatch, at)
            run = training(name="b", steps=3)
            try:
                run.run(validate_every=2)
                assert interrupts.calls < at
                break
            except KeyboardInterrupt:
                interrupted += 1
        resumed = training(name="b", steps=3, resume=True).run(validate_every=2)
        assert resumed.digest == whole.digest, at
        assert rows(tmp_path / "b.csv") == rows(tmp_path / "a.csv"), at
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], at
        for name in ("b.h5", "b.checkpoint.pt", "b.csv"):
            (tmp_path / name).unlink()
    assert interrupted > 20


def test_an_interrupt_in_a_deferring_block_comes_at_its_end():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_deferred() as caught:
            with interrupts_deferred():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            signal.raise_signal(signal.SIGINT)
            done.append("outer")
            assert len(caught) == 2
    assert done == ["inner", "outer"]
    with interrupts_deferred() as caught:
        pass
    assert caught == []


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("network", ["propagator", "generator"])
def test_the_score_on_the_training_set_falls(training, network):
    run = training(network, steps=60, rate=0.1 if network == "generator" else 0.02)
    if network == "generator":
        run.validation = run.data
    else:
        run.validation = run.runs
    untrained, _ = run._score()
    run.run(validate_every=60)
    assert run.best < 0.95 * untrained


def test_the_best_weights_are_kept_not_the_last(training, monkeypatch):
    run, seen = training(steps=6), []
    scores = iter([3.0, 1.0, 2.0])

    def validate():
        seen.append(run.net.tensors())
        return next(scores), {"vrmse": len(seen)}

    monkeypatch.setattr(run, "_validate", validate)
    weights = run.run(validate_every=2)
    for name, tensor in seen[1].items():
        assert np.array_equal(weights.tensors[name], tensor)
    assert weights.scores["vrmse"] == 2 and weights.scores["steps"] == 6


def test_patience_stops_a_run_that_gains_nothing(training, monkeypatch, tmp_path):
    scores = iter([3.0, 2.0, 2.5, 2.0, 2.0, 2.0])
    run = training(steps=100, patience=3)
    monkeypatch.setattr(run, "_validate", lambda: (next(scores), {}))
    run.run(validate_every=2)
    assert run.step == 10 and len(rows(tmp_path / "w.csv")) == 5
    again = training(steps=100, patience=3, resume=True)
    again.run(validate_every=2)
    assert again.step == 10  # the patience is kept over a resume


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(training, tmp_path, monkeypatch):
    run = training(steps=9)
    loss = run._loss

    def spoiled(rng):
        return loss(rng) * (math.nan if run.step == 5 else 1.0)

    monkeypatch.setattr(run, "_loss", spoiled)
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 6; .*w.checkpoint.pt.*lower --rate"):
        run.run(validate_every=2)
    assert not (tmp_path / "w.h5").exists() and [r[0] for r in rows(tmp_path / "w.csv")] == ["2", "4"]
    assert all(np.isfinite(t).all() for t in run.net.tensors().values())
    resumed = training(steps=9, resume=True)
    assert resumed.step == 4
    assert resumed.run(validate_every=2).digest == training(steps=9, name="a").run(validate_every=2).digest


def test_a_gradient_that_is_not_finite_ends_the_run(training, monkeypatch):
    run = training(steps=9)
    loss = run._loss
    monkeypatch.setattr(run, "_loss", lambda rng: loss(rng) + (run.net.gate[2].bias[0] * 0).sqrt())
    with pytest.raises(TrainingDiverged, match="at step 1"):
        run.run()
    assert all(np.isfinite(t).all() for t in run.net.tensors().values())


def test_validations_that_are_never_finite_end_the_run(training, tmp_path, monkeypatch):
    run = training(steps=4)
    monkeypatch.setattr(run, "_validate", lambda: (math.inf, {}))
    with pytest.raises(TrainingDiverged, match="no validation up to step 4 was finite"):
        run.run(validate_every=2)
    assert not (tmp_path / "w.h5").exists()


def test_a_checkpoint_of_another_run_is_refused(training, tmp_path):
    training().run()
    for changes, what in (
        ({"rate": 2e-2}, "training rate is 0.01, asked for is 0.02"),
        ({"seed": 1}, "training seed is 0, asked for is 1"),
        ({"size": replace(SMALL, width=7)}, "network width is 10, asked for is 7"),
        ({"compressed": True}, r"network ranks is None, asked for is \(7, 12, 7\)"),
        ({"teacher": tmp_path / "w.h5"}, "data_hash is"),
    ):
        with pytest.raises(ValueError, match=f"of another run: its {what}.* start anew without --resume"):
            training(resume=True, **changes)
    with pytest.raises(ValueError, match="of another run"):
        training("generator", resume=True)
    with pytest.raises(ValueError, match="nothing to resume: .*none.checkpoint.pt"):
        training(name="none", resume=True)
    before = (tmp_path / "w.checkpoint.pt").read_bytes()
    for content in (b"", b"no checkpoint", before[: len(before) // 2]):
        (tmp_path / "w.checkpoint.pt").write_bytes(content)
        with pytest.raises(ValueError, match="not a readable checkpoint"):
            training(resume=True)
    torch.save([1, 2], tmp_path / "w.checkpoint.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this version"):
        training(resume=True)


def test_a_new_run_replaces_the_log_of_an_old_one_when_it_has_something_to_say(training, tmp_path):
    training(steps=4).run(validate_every=2)
    old = rows(tmp_path / "w.csv", timed=True)
    with pytest.raises(KeyboardInterrupt):
        training(seed=1, steps=4).run(stop_after(1), validate_every=2)
    assert rows(tmp_path / "w.csv", timed=True) == old
    training(seed=1, steps=4, resume=True).run(validate_every=2)
    assert [row[0] for row in rows(tmp_path / "w.csv")] == ["2", "4"] and rows(
        tmp_path / "w.csv", True
    ) != old


def test_a_log_ahead_of_its_checkpoint_is_cut(training, tmp_path):
    """As a kill between the two leaves it, or in the middle of a row."""
    with pytest.raises(KeyboardInterrupt):
        training().run(stop_after(4), validate_every=2)
    with open(tmp_path / "w.csv", "a") as file:
        file.write("6,1.0,1,1,1,1\r\n7,1.0,1")
    training(resume=True).run(validate_every=2)
    assert [row[0] for row in rows(tmp_path / "w.csv")] == ["2", "4", "6", "7"]
    training(name="a").run(validate_every=2)
    assert rows(tmp_path / "w.csv") == rows(tmp_path / "a.csv")


def test_record_card_and_plot(training, tmp_path, sets):
    weights = training(compressed=True).run(validate_every=3)
    card = (tmp_path / "w.md").read_text()
    assert card.startswith("# propagator, compressed\n")
    with WaveData(sets["propagator", "train"]) as data, WaveData(sets["propagator", "validation"]) as other:
        assert weights.record["data_hash"] == digest_of(data.digest, other.digest)
        domain = json.loads(weights.record["domain"])
        assert domain["grid"] == [64, 64] and domain["interval"] == data.interval == 0.02
        assert domain["speed_range"] == [0.5, 1.0] and domain["set"] == "propagator"
    for line in (
        f"| weights | {weights.digest} |",
        f"| data | {weights.record['data_hash']} |",
        "| command | `consolve train wave` |",
        "| network: width | 10 |",
        "| training: rollout | 4 |",
        f"| validation: one_step_vrmse | {weights.scores['one_step_vrmse']} |",
    ):
        assert line in card
    assert f"| parameters | {weights.parameters:,} ({4 * weights.parameters:,} bytes) |" in card
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    assert weights.scores["steps"] == 7 and weights.scores["training_seconds"] > 0
