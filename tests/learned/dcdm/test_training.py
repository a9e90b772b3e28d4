"""Training of the deep conjugate direction method on tiny sets: resume, what is refused; needs torch."""

import errno
import json
import math
import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dcdm_training_runs import KINDS, small_training, write_sets  # noqa: E402
from wave_training_runs import rows  # noqa: E402

from consolve.learned.dcdm import training as dcdm_training_module  # noqa: E402
from consolve.learned.dcdm.format import load_dcdm_weights  # noqa: E402
from consolve.learned.training.muon import Muon  # noqa: E402
from consolve.learned.training.record import digest_of  # noqa: E402
from consolve.learned.training.run import TrainingDiverged  # noqa: E402
from consolve.learned.training.settings import ForeignOption  # noqa: E402
from consolve.pde.ritz.data import RitzData, RitzDataError  # noqa: E402


@pytest.fixture(autouse=True)
def interrupts_raise():
    """As in a terminal; a shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("ritz"))


@pytest.fixture
def training(sets, tmp_path):
    return partial(small_training, sets, tmp_path)


@pytest.fixture
def trained(training):
    """Weights of a whole run."""

    def train(every=3, **options):
        with training(**options) as run:
            return run.run(validate_every=every)

    return train


def stop_after(step):
    def report(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_uninterrupted_one(training, trained, tmp_path, kind):
    whole = trained(kind=kind, name="a")
    with pytest.raises(KeyboardInterrupt), training(kind, "b") as run:
        run.run(stop_after(4), validate_every=3)
    assert not (tmp_path / "b.h5").exists() and len(rows(tmp_path / "b.csv")) == 1
    resumed = trained(kind=kind, name="b", resume=True)
    assert resumed.digest == whole.digest
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv")
    assert [row[0] for row in rows(tmp_path / "a.csv")] == ["3", "6", "7"]
    assert resumed.record["data_hash"] == whole.record["data_hash"]
    scores = [json.loads(w.record["scores"]) for w in (whole, resumed)]
    assert [s | {"training_seconds": 0} for s in scores] == [scores[0] | {"training_seconds": 0}] * 2
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"{x}.{y}" for x in "ab" for y in ("h5", "csv", "png", "md", "checkpoint.pt")}
    assert load_dcdm_weights(tmp_path / "b.h5").digest == whole.digest


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_fixes_everything(trained, kind):
    first, again, other = (trained(kind=kind, seed=s, name=n) for s, n in ((3, "a"), (3, "b"), (4, "c")))
    assert first.digest == again.digest != other.digest
    if kind in ("unrolled", "energy"):
        assert first.record["data_hash"] == again.record["data_hash"] != other.record["data_hash"]
    else:
        assert first.record["data_hash"] == other.record["data_hash"]


DEEP = dict(network="dcdm-deep", image=True, width=8, batch=4, cells=12, optimiser="muon", rate=1e-2)


@pytest.mark.parametrize(
    ("optimiser", "changes"),
    [("muon", dict(steps=150)), ("adam", dict(steps=120, data="few"))],
    ids=["muon", "adam"],
)
def test_trained_directions_are_better_than_none(training, optimiser, changes):
    """A direction that is good for nothing gives 1, one that is far too long gives more.

    The vectors of the data have any sign, and so differ between processors: the bound is that of many seeds.
    """
    with training(optimiser=optimiser, rate=1e-2, width=16, **changes) as run:
        assert run._score()[0] > 1
        run.run(validate_every=30)
        assert run.best < 0.92


@pytest.mark.parametrize(("kind", "least"), [("unrolled", 0.003), ("energy", 0.015)])
def test_the_validation_loss_falls(training, kind, least):
    with training(kind, **DEEP | dict(steps=20)) as run:
        untrained, _ = run._score()
        run.run(validate_every=20)
        assert run.best < untrained - least


def test_the_last_right_hand_sides_are_held_out(training, trained, sets):
    drawn = set()
    with training(batch=20) as run, RitzData(sets["2d"]) as data:
        (source,) = run._validation
        np.testing.assert_array_equal(source.read(np.arange(source.count)), data.right_hand_sides[95:])
        assert run.domain["validation"] == "the last 5 right-hand sides"
        read = run._sets[0].read

        def watched(picks):
            drawn.update(int(i) for i in picks)
            return read(picks)

        run._sets = [replace(run._sets[0], read=watched)]
        with torch.no_grad():
            for seed in range(100):
                run._loss(np.random.default_rng(seed))
    assert drawn == set(range(95))


def test_a_validation_set_leaves_all_to_train_on(training, sets):
    with training(validation=[str(sets["spheres"])]) as run, RitzData(sets["spheres"]) as other:
        (source,) = run._validation
        np.testing.assert_array_equal(source.read(np.arange(source.count)), other.right_hand_sides[()])
        assert run._sets[0].count == 100
        assert run.domain["validation domain"] == "spheres" and run.domain["domain"] == "box"
        weights = run.run(validate_every=3)
        with RitzData(sets["2d"]) as data:
            assert weights.record["data_hash"] == digest_of(data.digest, other.digest)


def test_several_sets_share_the_batches_by_their_numbers(training, sets, monkeypatch):
    """Of 100 and 30 right-hand sides on two operators of two shapes; the last 5 and 2 are held out."""
    with training(data=("2d", "spheres"), kind="image") as run:
        drawn = []
        original = dcdm_training_module.direction_loss

        def watched(operator, direction, b):
            drawn.append(tuple(b.shape[2:]))
            return original(operator, direction, b)

        monkeypatch.setattr(dcdm_training_module, "direction_loss", watched)
        with torch.no_grad():
            for seed in range(400):
                run._loss(np.random.default_rng(seed))
        share = drawn.count((16, 16)) / len(drawn)
        assert set(drawn) == {(12, 9), (16, 16)}
        expected = 28 / (95 + 28)
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / 400)
        assert [source.count for source in run._validation] == [5, 2]
        weights = run.run(validate_every=3)
    domain, scores = (json.loads(weights.record[key]) for key in ("domain", "scores"))
    assert domain["domain"] == ["box", "spheres"]
    assert domain["validation"] == "the last 5 and 2 right-hand sides"
    assert scores["validation_loss"] == pytest.approx(np.mean(scores["validation_losses"]), abs=2e-6)
    with RitzData(sets["2d"]) as one, RitzData(sets["spheres"]) as two:
        assert weights.record["data_hash"] == digest_of(one.digest, two.digest)


def test_several_sets_resume_to_the_same_end(training, trained):
    data = ("2d", "spheres")
    whole = trained(data=data, kind="image", name="a")
    with pytest.raises(KeyboardInterrupt), training("image", "b", data) as run:
        run.run(stop_after(4), validate_every=3)
    assert trained(data=data, kind="image", name="b", resume=True).digest == whole.digest


def test_large_sets_are_read_step_by_step_to_the_same_end(trained, sets, monkeypatch):
    whole = trained(name="a")
    monkeypatch.setattr(dcdm_training_module, "MOST_MEMORY", 100)
    assert trained(name="b").digest == whole.digest


def write_into(path, number):
    """Change a right-hand side as another process would."""
    with RitzData(path) as data:
        size = data.right_hand_sides[0].nbytes
        place = data._file["right_hand_sides"].id.get_offset() + number * size
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(np.full(size // 4, 1e6, np.float32).tobytes())


@pytest.mark.parametrize("most", [1 << 30, 100], ids=["held", "read step by step"])
def test_right_hand_sides_that_were_changed_are_not_trained_on(
    training, trained, tmp_path, sets, monkeypatch, most
):
    monkeypatch.setattr(dcdm_training_module, "MOST_MEMORY", most)
    whole = trained(name="a")
    copy = {"2d": tmp_path / "copy.h5"}
    copy["2d"].write_bytes(sets["2d"].read_bytes())
    message = "copy.h5: right-hand sides 0 to 99: the content does not fit its digest, the file was changed"

    def spoil(progress):
        if progress.step == 4:
            write_into(copy["2d"], 50)

    with small_training(copy, tmp_path, name="b") as run:
        if most == 100:  # of a small set memory holds what was checked
            with pytest.raises(RitzDataError, match=message):
                run.run(spoil, validate_every=3)
        else:
            assert run.run(spoil, validate_every=3).digest == whole.digest
    with pytest.raises(RitzDataError, match=message), small_training(copy, tmp_path, resume=True, name="b"):
        pass


def test_three_dimensions_by_the_data(trained, sets):
    weights = trained(data="3d", variant=128)
    assert weights.ndim == 3 and weights.settings.variant == 128


def test_settings_of_the_optimisers(training):
    for optimiser, kind, rate in (("adam", torch.optim.Adam, 1e-3), ("muon", Muon, 4e-3)):
        with training(optimiser=optimiser) as run:
            assert isinstance(run.optimiser, kind) and run.settings.rate == rate
    with pytest.raises(ValueError, match="optimiser is 'sgd', expected one of adam, muon"):
        with training(optimiser="sgd"):
            pass


def test_gradients_of_unrolled_trainings_are_cut_to_norm_one(training, monkeypatch):
    with training("unrolled") as run:
        loss, norms = run._loss, []
        monkeypatch.setattr(run, "_loss", lambda rng: 1e4 * loss(rng))
        step = run.optimiser.step

        def watched():
            norms.append(float(sum(p.grad.square().sum() for p in run.net.parameters()).sqrt()))
            step()

        monkeypatch.setattr(run.optimiser, "step", watched)
        run.run(validate_every=3)
    assert norms == pytest.approx([1.0] * 7, rel=1e-3)


@pytest.mark.parametrize("kind", ["ritz", "unrolled"])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    training, trained, tmp_path, monkeypatch, kind
):
    with training(kind) as run:
        loss = run._loss
        monkeypatch.setattr(run, "_loss", lambda rng: loss(rng) * (math.nan if run.step == 5 else 1.0))
        message = r"the loss is nan at step 6; .*w.checkpoint.pt.*lower --rate"
        with pytest.raises(TrainingDiverged, match=message):
            run.run(validate_every=2)
    assert not (tmp_path / "w.h5").exists() and [r[0] for r in rows(tmp_path / "w.csv")] == ["2", "4"]
    with training(kind, resume=True) as resumed:
        assert resumed.step == 4
        assert resumed.run(validate_every=2).digest == trained(2, kind=kind, name="a").digest


class FullDisk:
    """Writing fails with ENOSPC from the n-th file on, after half of its content."""

    def __init__(self, monkeypatch, at):
        self.files, self.at, replace = 0, at, os.replace

        def failing(source, target):
            self.files += 1
            if self.files >= self.at:
                with open(source, "r+b") as file:
                    file.truncate(os.path.getsize(source) // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)


def test_a_full_disk_loses_nothing(training, trained, tmp_path):
    """At every file in turn: three checkpoints, weights, card, plot."""
    whole = trained(name="a")
    for at in range(1, 7):
        with pytest.MonkeyPatch.context() as monkeypatch:
            FullDisk(monkeypatch, at)
            then = "start anew" if at == 1 else r"go on from .*w.checkpoint.pt with --resume"
            message = rf"w.h5 cannot be written \(No space left on device\): make room, then {then}"
            with pytest.raises(OSError, match=message), training() as run:
                run.run(validate_every=3)
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], at
        assert trained(resume=at > 1).digest == whole.digest
        assert rows(tmp_path / "w.csv") == rows(tmp_path / "a.csv"), at
        for path in tmp_path.glob("w.*"):
            path.unlink()


def test_a_row_of_the_log_cut_by_a_full_disk_is_written_again(training, trained, tmp_path, monkeypatch):
    trained(name="a")
    with training() as run:
        append = run._log.append

        def failing(first, step, *numbers):
            append(first, step, *numbers)
            if step == 6:
                with open(tmp_path / "w.csv", "r+b") as file:
                    file.truncate(os.path.getsize(file.fileno()) - 9)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(run._log, "append", failing)
        with pytest.raises(OSError, match="step 6 of .*No space left on device"):
            run.run(validate_every=3)
    trained(resume=True)
    assert rows(tmp_path / "w.csv") == rows(tmp_path / "a.csv")


def test_a_checkpoint_of_another_run_is_refused(training, trained, tmp_path, sets):
    trained()
    for changes, what in (
        ({"rate": 2e-3}, "training rate is 0.001, asked for is 0.002"),
        ({"width": 5}, "network width is 4, asked for is 5"),
        ({"variant": 128}, "network variant is 64, asked for is 128"),
        ({"image": True}, "network image is False, asked for is True"),
        ({"optimiser": "muon", "rate": 1e-3}, "training optimiser is 'adam', asked for is 'muon'"),
        ({"data": "other"}, "data_hash is"),
        ({"data": "3d"}, "data_hash is .*; its network ndim is 2, asked for is 3"),
        ({"validation": [str(sets["other"])]}, "data_hash is"),
    ):
        with pytest.raises(ValueError, match=f"of another run: its {what}.* start anew without --resume"):
            with training(resume=True, **changes):
                pass
    with pytest.raises(ValueError, match="training loss is 'ritz', asked for is 'unrolled'"):
        with training("unrolled", resume=True):
            pass
    trained(kind="unrolled", name="u")
    with pytest.raises(ValueError, match="training warm_up is 2, asked for is 3"):
        with training("unrolled", "u", resume=True, warm_up=3):
            pass
    (tmp_path / "w.checkpoint.pt").write_bytes((tmp_path / "w.checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable checkpoint"), training(resume=True):
        pass


def test_sets_that_do_not_fit_are_refused(training, sets, tmp_path):
    for options, message in (
        (dict(data="3d", dim=2), "right-hand sides on 3D grids, the network is for 2D"),
        (dict(validation=[str(sets["3d"])]), "right-hand sides on 3D grids, the network is for 2D"),
        (dict(validation=[str(sets["2d"])]), "holds what .*2d.h5 holds: validate on another seed"),
        (dict(data=("2d", "other", "2d")), "holds what .*2d.h5 holds: give each set once"),
        (dict(data=("2d", "3d")), "right-hand sides on 3D grids, the network is for 2D"),
        (dict(variant=96), "variant is 96"),
        (dict(batch=0), "batch must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message), training(**options):
            pass
    damaged = tmp_path / "damaged.h5"
    for content, message in (
        (sets["2d"].read_bytes()[:5000], "damaged.h5: cannot be read as HDF5"),
        (b"no HDF5", "damaged.h5: cannot be read as HDF5"),
    ):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=message), training(validation=[str(damaged)]):
            pass
    assert not list(tmp_path.glob("w*"))


def test_options_of_the_other_loss_are_refused(training):
    for kind, changes, message in (
        ("ritz", {"unrolled": 3}, "--unrolled is not an option of --loss ritz"),
        ("ritz", {"warm_up": 3}, "--warm-up is not an option of --loss ritz"),
        ("unrolled", {"validation": ["x.h5"]}, "--validation is not an option of --loss unrolled"),
        ("unrolled", {"dim": None}, "--loss unrolled needs --dim"),
        ("energy", {"warm_up": 1}, "--warm-up is not an option of --loss energy"),
        ("energy", {"dim": None}, "--loss energy needs --dim"),
    ):
        with pytest.raises(ForeignOption, match=message), training(kind, **changes):
            pass


def test_samples_of_an_unrolled_training_vary_by_a_factor_of_two(training):
    with training("unrolled", cells=32) as run:
        sizes = []
        for k in range(60):
            operators, b, _ = run._draw(np.random.default_rng(k))
            assert {op.shape for op in operators} == {b.shape[1:]} and len(b) == 2
            sizes.append(math.prod(b.shape[1:]) ** 0.5)
    assert 14 < min(sizes) < 18 and 56 < max(sizes) < 70
    assert np.exp(np.log(sizes).mean()) == pytest.approx(32, rel=0.15)


def test_record_card_and_plot(training, trained, tmp_path, sets):
    weights = trained()
    card = (tmp_path / "w.md").read_text()
    assert card.startswith("# dcdm, 2D\n")
    domain = json.loads(weights.record["domain"])
    assert domain["dim"] == 2 and domain["cells"] == [9, 12] and domain["domain"] == "box"
    scores = json.loads(weights.record["scores"])
    for line in (
        f"| weights | {weights.digest} |",
        f"| parameters | {weights.parameters:,} ({4 * weights.parameters:,} bytes) |",
        f"| data | {weights.record['data_hash']} |",
        "| command | `consolve train dcdm` |",
        "| training: loss | ritz |",
        f"| validation: validation_loss | {scores['validation_loss']} |",
    ):
        assert line in card
    assert scores["steps"] == 7 and scores["training_seconds"] > 0
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    unrolled = trained(kind="unrolled", name="u")
    assert json.loads(unrolled.record["domain"]) == {"dim": 2, "domain": "random", "cells": 10}
    assert json.loads(unrolled.record["training"])["warm_up"] == 2
