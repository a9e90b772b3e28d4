"""What the wave surrogates are trained by: losses, teacher, residual, data and options; needs torch."""

import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wave_training_runs import SHORT, SMALL, small_training, write_sets  # noqa: E402

from consolve.base.hdf5 import import_h5py  # noqa: E402
from consolve.learned.training.settings import ForeignOption  # noqa: E402
from consolve.learned.waves.format import load_wave_weights  # noqa: E402
from consolve.learned.waves.generator_training import GeneratorTraining, generator_settings  # noqa: E402
from consolve.learned.waves.propagator_training import (  # noqa: E402
    PropagatorTraining,
    PropagatorTrainingSettings,
    relative_errors,
    relative_vrmse,
)
from consolve.learned.waves.record import check_apart  # noqa: E402
from consolve.learned.waves.runs import wave_training as training_of  # noqa: E402
from consolve.learned.waves.training import WaveTrainingSettings  # noqa: E402
from consolve.learned.weights.file import WeightsError  # noqa: E402
from consolve.pde.waves.data import WaveData, WaveDataError  # noqa: E402


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("waves"))


@pytest.fixture
def training(sets, tmp_path):
    return partial(small_training, sets, tmp_path)


def test_a_student_is_drawn_to_its_teacher(training, tmp_path):
    training(name="teacher", steps=2).run()
    teacher = load_wave_weights(tmp_path / "teacher.h5")
    alone, taught = training(steps=4), training(steps=4, teacher=tmp_path / "teacher.h5")
    rng = np.random.default_rng
    assert float(taught._loss(rng(0))) > float(alone._loss(rng(0)))
    taught.net.load_state_dict({name: torch.from_numpy(t) for name, t in teacher.tensors.items()})
    alone.net.load_state_dict(taught.net.state_dict())
    # A student that is its teacher has nothing to learn from it (but the floor in the root).
    assert float(taught._loss(rng(0))) == pytest.approx(float(alone._loss(rng(0))) + 1e-4, rel=1e-4)
    assert not any(p.requires_grad for p in taught.teacher.parameters())
    assert taught.data_hash != alone.data_hash
    for size, what in ((replace(SMALL, past=2), "past=3, .*past=2"), (replace(SMALL, factor=4), "factor=8")):
        with pytest.raises(ValueError, match=f"the teacher has {what}.*must be equal"):
            training(size=size, teacher=tmp_path / "teacher.h5")
    with pytest.raises(WeightsError, match="no weights at"):
        training(teacher=tmp_path / "none.h5")


def test_the_residual_of_the_wave_equation_is_weighed(training):
    plain, some, more = (training(steps=4, physics=p) for p in (0.0, 0.5, 1.0))
    losses = [float(run._loss(np.random.default_rng(0)).detach()) for run in (plain, some, more)]
    assert losses[1] > losses[0] and losses[2] - losses[0] == pytest.approx(
        2 * (losses[1] - losses[0]), rel=1e-3
    )
    some.run(validate_every=2)


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("rollout", [1, 2, 5, 9])
def test_rollouts_grow_to_their_length_in_whole_applications(training, ahead, rollout):
    run = training(size=replace(SMALL, ahead=ahead), rollout=rollout, steps=40)
    lengths = []
    for run.step in range(40):
        lengths.append(run._rollout())
    assert lengths == sorted(lengths) and all(n % ahead == 0 and n > 0 for n in lengths)
    assert lengths[0] == (ahead if ahead > 1 else min(2, rollout))
    assert abs(lengths[20] - rollout) < ahead and lengths[20:] == [lengths[20]] * 20


def test_the_longest_rollout_that_the_data_holds_is_trained(training):
    training(size=replace(SMALL, ahead=3), rollout=42, steps=2).run()
    with pytest.raises(ValueError, match="holds 45 snapshots a run, 48 are needed"):
        training(size=replace(SMALL, ahead=3), rollout=44)


def test_errors_of_snapshots_are_relative():
    truth = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert relative_errors(truth, truth).max() < 2e-4
    off = relative_errors(truth + 0.1, truth)
    torch.testing.assert_close(off, 0.1 / (truth.var((2, 3)) + 1e-3).sqrt(), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        relative_vrmse(truth + 0.1, truth), 0.1 / truth.flatten(2).std(2, unbiased=False)
    )


def test_runs_are_scaled_to_one_variance_and_the_loss_is_that_of_the_formula(training, sets):
    run = training(rollout=2, batch=2)
    np.testing.assert_allclose(run.runs.u.flatten(1).std(1), 1, rtol=1e-5)
    rng = np.random.default_rng(4)
    picks = rng.integers(0, 5, 2)
    assert run._blind(rng, 40) == 0  # not in the first half of a run
    start = int(rng.integers(0, 45 - 5 + 1))
    turns, mirror = int(rng.integers(0, 4)), bool(rng.integers(0, 2))

    def seen(a):
        a = np.rot90(a, turns, (-2, -1))
        return torch.from_numpy(np.ascontiguousarray(a[..., ::-1] if mirror else a))

    with WaveData(sets["propagator", "train"]) as data:
        u = np.stack([data.u[int(p)] / data.u[int(p)].std(ddof=1) for p in picks])
    window = seen(u[:, start : start + 5])
    medium = seen(run.runs.medium.numpy()[picks])
    expected = relative_errors(run.net(window[:, :3], medium, 2), window[:, 3:]).mean()
    assert float(run._loss(np.random.default_rng(4)).detach()) == pytest.approx(float(expected), rel=1e-5)


def test_in_the_second_half_of_a_run_samples_begin_at_forecasts(training, monkeypatch):
    run = training(rollout=2, steps=10, pushforward=6)
    run.step = 5
    lengths = [run._blind(np.random.default_rng(n), 40) for n in range(200)]
    assert set(lengths) == {0, 2, 4, 6} and 70 < lengths.count(0) < 170
    assert {run._blind(np.random.default_rng(n), 3) for n in range(200)} == {0, 2}  # what the data leaves
    run.step = 4
    assert {run._blind(np.random.default_rng(n), 40) for n in range(200)} == {0}
    calls, net = [], run.net.forward

    def forward(u, medium, steps):
        calls.append((u, steps, torch.is_grad_enabled()))
        return net(u, medium, steps)

    monkeypatch.setattr(run.net, "forward", forward)
    monkeypatch.setattr(run, "_blind", lambda rng, most: 4)
    run.step = 5
    run._loss(np.random.default_rng(0))
    (first, blind, taped), (given, steps, taught) = calls
    assert (blind, taped, steps, taught) == (4, False, 2, True)
    # Four snapshots later, of which the network has seen none.
    assert given.shape == first.shape and not given.requires_grad
    again = net(first, run_medium(run, 0), 4)
    torch.testing.assert_close(given, again[:, -3:].detach())


def run_medium(run, seed):
    """The medium of the sample that `_loss` draws with this seed."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, 5, 2)
    steps, past = run._rollout(), 3
    rng.integers(0, 45 - past - 4 - steps + 1)
    turns, mirror = int(rng.integers(0, 4)), bool(rng.integers(0, 2))
    medium = torch.rot90(run.runs.medium[picks], turns, (-2, -1))
    return medium.flip(-1) if mirror else medium


def test_wrong_data_is_told(sets, tmp_path, monkeypatch):
    propagator, zone = (WaveData(sets[name, "train"]) for name in ("propagator", "zone"))
    short, out = PropagatorTrainingSettings(**SHORT), tmp_path / "w.h5"
    with propagator, zone:
        with pytest.raises(
            ValueError, match="zone-train.h5: the data set is of kind 'zone', expected 'propag"
        ):
            PropagatorTraining(SMALL, short, zone, propagator, out)
        with pytest.raises(ValueError, match="the validation set is of kind 'zone'"):
            PropagatorTraining(SMALL, short, propagator, zone, out)
        with pytest.raises(ValueError, match=r"the grid \(64, 64\) is not a multiple of the factor 5"):
            PropagatorTraining(replace(SMALL, factor=5), short, propagator, propagator, out)
        size, plain = generator_settings(zone), WaveTrainingSettings(**SHORT)
        with pytest.raises(ValueError, match="the data set is of kind 'propagator', expected 'zone'"):
            GeneratorTraining(size, plain, propagator, zone, out)
        with pytest.raises(ValueError, match=r"fields of \(64, 32, 32\) .* the network makes \(32, 32, 32\)"):
            GeneratorTraining(replace(size, shape=(32, 32, 32)), plain, zone, zone, out)
        with pytest.raises(ValueError, match="cannot write to"):
            PropagatorTraining(SMALL, short, propagator, propagator, tmp_path / "none" / "w.h5")
        with pytest.raises(ValueError, match="finds no CUDA device; use --device cpu"):
            monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
            PropagatorTraining(SMALL, short, propagator, propagator, out, device="cuda")

        class Coarser:  # every other vertex
            path, wave_set, interval, digest = "coarse.h5", propagator.wave_set, propagator.interval, "0"
            u = propagator.u[:, :, ::2, ::2]

        with pytest.raises(
            ValueError, match=r"\(45, 64, 64\) .* coarse.h5 \(45, 32, 32\) every 0.02: they must"
        ):
            PropagatorTraining(SMALL, short, propagator, Coarser, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "bad", "message"),
    [
        (WaveTrainingSettings, {"steps": 0}, "steps must be at least 1, got 0"),
        (WaveTrainingSettings, {"batch": 0}, "batch must be at least 1"),
        (WaveTrainingSettings, {"rate": 0.0}, "rate must lie in"),
        (WaveTrainingSettings, {"rate": math.nan}, "rate must lie in"),
        (WaveTrainingSettings, {"seed": -1}, "must not be negative"),
        (PropagatorTrainingSettings, {"rollout": 0}, "rollout must be at least 1"),
        (PropagatorTrainingSettings, {"physics": math.nan}, "finite"),
        (PropagatorTrainingSettings, {"pushforward": -1}, "pushforward must not be negative"),
        (PropagatorTrainingSettings, {"distillation": -1.0}, "not negative"),
    ],
)
def test_bad_settings(settings, bad, message):
    with pytest.raises(ValueError, match=message):
        settings(**bad)


def test_runs_that_were_changed_are_not_trained_on(sets, tmp_path):
    for network, name in (("propagator", "propagator"), ("generator", "zone")):
        for split, run in (("train", 4), ("validation", 1)):
            copy = tmp_path / f"{name}-{split}.h5"
            copy.write_bytes(sets[name, split].read_bytes())
            with import_h5py().File(copy, "r+") as file:
                file["u"][run, 3] *= 2
            with pytest.raises(WaveDataError, match=f"{copy.name}: run {run}: the content does not fit"):
                small_training({**sets, (name, split): copy}, tmp_path, network)


def test_options_reach_the_settings_they_belong_to(sets, tmp_path):
    def make(network, **chosen):
        kind = {"propagator": "propagator", "generator": "zone"}[network]
        compression, teacher = chosen.pop("compression", None), chosen.pop("teacher", None)
        data = [str(sets[kind, split]) for split in ("train", "validation")]
        return training_of(
            network, *data, str(tmp_path / "w.h5"), compression, teacher, "cpu", False, "", **chosen
        )

    run = make("propagator", width=16, ahead=1, steps=5, rollout=3, seed=4, amp=True, compression=3.0)
    assert (run.net.settings.width, run.net.settings.ahead, run.settings.rollout) == (16, 1, 3)
    assert (run.settings.steps, run.settings.seed, run.settings.amp) == (5, 4, True)
    dense = make("propagator", width=16, ahead=1)
    counts = [
        sum(p.numel() for n, p in r.net.named_parameters() if n.startswith("wave.")) for r in (run, dense)
    ]
    assert 3 <= counts[1] / counts[0] < 3.6
    run = make("generator", width=4, batch=2)
    assert run.net.settings.width == 4 and run.net.settings.shape == (64, 32, 32)
    with WaveData(sets["zone", "train"]) as data:
        assert run.net.settings.low == tuple(data.parameters.min(0))
        assert run.net.settings.scale == pytest.approx(float(data.u[:].std()), rel=1e-5)
    for foreign in ("rollout", "physics", "ahead"):
        with pytest.raises(ForeignOption, match=f"--{foreign} is not an option of the generator"):
            make("generator", **{foreign: 2})
    with pytest.raises(ForeignOption, match="--teacher is not an option of the generator"):
        make("generator", teacher="t.h5")
    with pytest.raises(ValueError, match=re.escape("compression 1e+06 is out of reach")):
        make("propagator", compression=1e6)


def test_a_validation_set_that_shares_runs_with_the_training_set_is_refused(sets):
    with WaveData(sets["propagator", "train"]) as data, WaveData(sets["propagator", "validation"]) as other:
        check_apart(data, other)
        with pytest.raises(ValueError, match="they share runs"):
            check_apart(data, data)
