"""Training: gradients, data, resume, files; needs torch."""

import hashlib
import json
import math
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from full_disk import files_up_to  # noqa: E402
from wave_training_runs import rows  # noqa: E402

from consolve.learned.multilevel.cycle.coarsest import null_vectors, pseudo_inverse  # noqa: E402
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner  # noqa: E402
from consolve.learned.multilevel.format import load_weights  # noqa: E402
from consolve.learned.multilevel.torch.network import TorchMultilevel  # noqa: E402
from consolve.learned.multilevel.torch.training import (  # noqa: E402
    Training,
    TrainingSettings,
    conjugate_gradients,
    decimals_per_iteration,
)
from consolve.learned.training import residual_kernels as torch_kernels  # noqa: E402
from consolve.learned.training.domains import random_operator, random_right_hand_side, random_shape  # noqa: E402
from consolve.learned.training.operator import operator_tensors  # noqa: E402
from consolve.learned.training.run import TrainingDiverged  # noqa: E402

SMALL = dict(steps=6, cells=300)


@pytest.mark.parametrize("shape", [(2, 5, 6), (3, 4, 5, 6), (1, 3, 1, 7)])
@pytest.mark.parametrize("colour", [torch_kernels.RED, torch_kernels.BLACK, torch_kernels.BOTH])
def test_residual_and_its_gradients(shape, colour):
    torch.manual_seed(0)
    count = 3 + len(shape) - 1
    tensors = [torch.randn(shape) for _ in range(count)]
    for axis in range(len(shape) - 1):
        tensors[3 + axis].narrow(axis + 1, shape[axis + 1] - 1, 1).zero_()
    fast = [t.clone().requires_grad_() for t in tensors]
    exact = [t.double().requires_grad_() for t in tensors]
    weight = torch.randn(shape)
    gradients = []
    for ts in (fast, exact):
        y = torch_kernels.residual(colour, ts[0], ts[1], ts[2], ts[3:])
        gradients.append((y, torch.autograd.grad(y, ts, weight.to(y.dtype))))
    torch.testing.assert_close(gradients[0][0].double(), gradients[1][0], rtol=1e-5, atol=1e-5)
    for q, (a, b) in enumerate(zip(gradients[0][1], gradients[1][1])):
        if q >= 3:  # the last layer of a face array is no face
            a, b = (g.narrow(q - 2, 0, shape[q - 2] - 1) for g in (a, b))
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_gradient_of_the_whole_network_by_finite_differences():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    op = random_operator(rng, (13, 11))
    b = torch.from_numpy(random_right_hand_side(rng, op))[None].double()
    net = TorchMultilevel(2, 1, 6).double()
    with torch.no_grad():
        for p in net.parameters():
            p += 0.2 * torch.randn_like(p)
    faces, dirichlet = operator_tensors([op])
    faces, dirichlet = [f.double() for f in faces], dirichlet.double()

    def loss():
        return decimals_per_iteration(conjugate_gradients(net.setup(faces, dirichlet), b, 2))

    loss().backward()
    checked = 0
    for p in net.parameters():
        at = (0,) * p.ndim
        step = 1e-6
        with torch.no_grad():
            p[at] += step
            high = loss()
            p[at] -= 2 * step
            low = loss()
            p[at] += step
        assert p.grad is not None
        assert float(p.grad[at]) == pytest.approx(float((high - low) / (2 * step)), rel=1e-3, abs=1e-6)
        checked += 1
    assert checked == 5 + 15


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_training_samples_are_solvable(seed, ndim):
    rng = np.random.default_rng(seed)
    shape = random_shape(rng, ndim, 600)
    assert len(shape) == ndim and min(shape) >= 8
    op = random_operator(rng, shape)
    b = random_right_hand_side(rng, op)
    assert b.dtype == np.float32 and not b[~op.active].any()
    assert np.linalg.norm(b) == pytest.approx(1, rel=1e-4)
    labels, closed = op.components
    for component in np.flatnonzero(closed):
        assert abs(b[labels == component].sum()) < 1e-4


@given(st.integers(0, 10**6))
def test_pseudo_inverse_of_the_coarsest_level(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    off = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.25), 1)
    off = off + off.T
    fixed = rng.random(n) * (rng.random(n) < 0.2)
    a = np.diag(fixed + off.sum(1)) - off
    np.testing.assert_allclose(pseudo_inverse(off, fixed), np.linalg.pinv(a, rcond=1e-10), atol=1e-6)
    u = null_vectors(off, fixed)
    assert np.abs(a @ u.T).max(initial=0) < 1e-12


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = TrainingSettings(ndim=2, **SMALL)
    whole = Training(settings, tmp_path / "a.h5").run(validate_every=3)

    def stop(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(settings, tmp_path / "b.h5").run(stop, validate_every=3)
    assert not (tmp_path / "b.h5").exists()
    resumed = Training(settings, tmp_path / "b.h5", resume=True).run(validate_every=3)
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(resumed.tensors[name], tensor)
    assert resumed.record["data_hash"] == whole.record["data_hash"]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"{x}.{y}" for x in "ab" for y in ("h5", "csv", "png", "md", "checkpoint.pt")}
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv")
    assert [row[0] for row in rows(tmp_path / "a.csv")] == ["3", "6"]


def test_the_data_of_a_run_are_those_that_the_shipped_weights_saw(tmp_path):
    """Drawn by (seed, step); the hash begins with the settings as the shipped files have them."""
    run = Training(TrainingSettings(ndim=2, seed=3, **SMALL), tmp_path / "w.h5")
    known = {"ndim": 2, "network": "multilevel", "sweeps": 2, "hidden": 16, "steps": 6, "batch": 2,
             "cells": 300, "rate": 0.02, "seed": 3}  # fmt: skip
    expected = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    for step in range(6):
        rng = np.random.default_rng([3, step])
        shape = random_shape(rng, 2, int(300 * float(np.exp(rng.uniform(-0.7, 0.7)))))
        operators = [random_operator(rng, shape) for _ in range(2)]
        b = np.stack([random_right_hand_side(rng, op) for op in operators])
        digest = hashlib.sha256(expected.encode() + b.tobytes())
        for op in operators:
            digest.update(op.dirichlet.tobytes() + op.active.tobytes())
        expected = digest.hexdigest()
    assert run.run().record["data_hash"] == expected


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    settings = TrainingSettings(ndim=2, **SMALL)
    whole = Training(settings, tmp_path / "a.h5").run(validate_every=2)
    run = Training(settings, tmp_path / "b.h5")
    loss = run._loss
    monkeypatch.setattr(run, "_loss", lambda rng: loss(rng) * (math.nan if run.step == 3 else 1.0))
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 4; .*b.checkpoint.pt"):
        run.run(validate_every=2)
    assert not (tmp_path / "b.h5").exists()
    resumed = Training(settings, tmp_path / "b.h5", resume=True)
    assert resumed.step == 2 and resumed.run(validate_every=2).digest == whole.digest


def test_a_full_disk_loses_nothing(tmp_path):
    """At the log, the checkpoint, the plot."""
    settings, out = TrainingSettings(ndim=2, hidden=1, network="mg", **SMALL), tmp_path / "w.h5"
    whole = Training(settings, tmp_path / "a.h5").run(validate_every=3)
    for most, kept in ((8, False), (1000, False), (20000, True)):
        then = r"go on from .*w.checkpoint.pt with --resume" if kept else "start anew"
        with (
            files_up_to(most),
            pytest.raises(OSError, match=rf"w.h5 cannot be written \(File .*, then {then}"),
        ):
            Training(settings, out).run(validate_every=3)
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
        resumed = Training(settings, out, resume=kept).run(validate_every=3)
        assert resumed.digest == whole.digest and rows(tmp_path / "w.csv") == rows(tmp_path / "a.csv")
        for path in tmp_path.glob("w.*"):
            path.unlink()


def test_rates_of_the_two_groups(tmp_path):
    """Warm-up over 20 steps, a cosine to a fiftieth; a fifth for the perceptrons."""
    run = Training(TrainingSettings(ndim=2, steps=100, rate=0.02), tmp_path / "w.h5")
    scalars, perceptrons = run.optimiser.param_groups
    assert len(scalars["params"]) == 5 and len(perceptrons["params"]) == 15
    assert (scalars["peak"], perceptrons["peak"]) == (0.02, 0.004)
    assert run._rate(0.02) == pytest.approx(0.02 / 20)
    run.step = 50
    assert run._rate(0.004) == pytest.approx(0.004 * 0.51)
    run.step = 100
    assert run._rate(0.02) == pytest.approx(0.02 / 50)
    (group,) = Training(TrainingSettings(ndim=2, network="mg"), tmp_path / "m.h5").optimiser.param_groups
    assert len(group["params"]) == 5


def test_validation_is_never_trained_on_and_the_best_weights_are_kept(tmp_path, monkeypatch):
    run = Training(TrainingSettings(ndim=2, **SMALL), tmp_path / "w.h5")
    trained, judged = (
        {hashlib.sha256(b.tobytes()).hexdigest() for _, b, _ in drawn}
        for drawn in (
            [run._draw(np.random.default_rng([0, step])) for step in range(20)],
            [run._validation(q) for q in range(8)],
        )
    )
    assert len(trained) == 20 and len(judged) == 8 and not trained & judged
    validate, seen = run._validate, []

    def third_is_best():
        seen.append(run.net.tensors())
        score, scores = validate()
        return score - (10 if len(seen) == 3 else 0), scores

    monkeypatch.setattr(run, "_validate", third_is_best)
    weights = run.run(validate_every=1)
    assert len(seen) == 6
    np.testing.assert_array_equal(weights.tensors["alpha"], seen[2]["alpha"])
    assert (weights.tensors["alpha"] != seen[5]["alpha"]).any()


def test_record_and_card(tmp_path):
    weights = Training(TrainingSettings(ndim=2, seed=3, **SMALL), tmp_path / "w.h5", command="a b").run()
    card = (tmp_path / "w.md").read_text()
    assert card.startswith("# multilevel, 2D\n")
    for line in (
        f"| weights | {weights.digest} |",
        "| command | `a b` |",
        f"| data | {weights.record['data_hash']} |",
        "| training: steps | 6 |",
        "| trained for: cells | 300 |",
    ):
        assert line in card
    assert set(load_weights(tmp_path / "w.h5", 2).record) >= set(weights.record) == {
        "command", "training", "seed", "data_hash", "revision", "domain", "scores",
    }  # fmt: skip
    assert json.loads(weights.record["domain"]) == {"dim": 2, "domain": "random", "cells": 300}
    assert weights.record["seed"] == "3" and len(weights.record["data_hash"]) == 64


def test_an_interrupt_within_a_step_changes_nothing(tmp_path, monkeypatch):
    settings = TrainingSettings(ndim=2, **SMALL)
    whole = Training(settings, tmp_path / "a.h5").run(validate_every=3)
    interrupted = Training(settings, tmp_path / "b.h5")
    step, calls = interrupted.optimiser.step, []

    def step_with_interrupt():
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        step()

    monkeypatch.setattr(interrupted.optimiser, "step", step_with_interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(validate_every=3)
    resumed = Training(settings, tmp_path / "b.h5", resume=True).run(validate_every=3)
    assert resumed.digest == whole.digest
    assert resumed.record["data_hash"] == whole.record["data_hash"]


@pytest.mark.parametrize("network", ["multilevel", "mg"])
def test_weights_of_a_run_serve_the_engine(tmp_path, network):
    settings = TrainingSettings(ndim=3, network=network, sweeps=1, hidden=4, **SMALL)
    Training(settings, tmp_path / "w.h5", command="consolve train multilevel").run(validate_every=3)
    weights = load_weights(tmp_path / "w.h5", 3)
    assert weights.sweeps == 1 and weights.hidden == (4 if network == "multilevel" else 0)
    assert json.loads(weights.record["scores"])["steps"] == 6
    op = random_operator(np.random.default_rng(5), (9, 10, 8))
    z = np.empty(op.unknowns)
    MultilevelPreconditioner(op, weights).apply(np.ones(op.unknowns), z)
    assert np.isfinite(z).all() and z.any()


def test_training_improves_the_validation_loss(tmp_path):
    settings = TrainingSettings(ndim=2, network="mg", sweeps=1, steps=60, cells=600, rate=0.05)
    run = Training(settings, tmp_path / "w.h5")
    untrained, _ = run._score()
    run.run(validate_every=60)
    assert run.best < untrained - 0.05


def test_bad_settings_and_checkpoints(tmp_path):
    with pytest.raises(ValueError, match="ndim must be 2 or 3, got 4"):
        TrainingSettings(ndim=4)
    with pytest.raises(ValueError, match="network must be"):
        TrainingSettings(ndim=2, network="unet")
    for bad, message in (
        (dict(steps=0), "steps must be at least 1"),
        (dict(sweeps=0), "sweeps must be an integer of at least 1"),
        (dict(hidden=5000), "hidden is 5000, more than"),
        (dict(cells=-300), "cells must be at least 64, or 0"),
        (dict(amp=True), "no convolutions to train in bfloat16"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingSettings(ndim=2, **bad)
    with pytest.raises(ValueError, match="nothing to resume"):
        Training(TrainingSettings(ndim=2), tmp_path / "w.h5", resume=True)
    with pytest.raises(ValueError, match="cannot write to"):
        Training(TrainingSettings(ndim=2), tmp_path / "none" / "w.h5")
    Training(TrainingSettings(ndim=2, **SMALL), tmp_path / "w.h5").run()
    with pytest.raises(ValueError, match="resume with the same settings"):
        Training(TrainingSettings(ndim=2, steps=7, cells=300), tmp_path / "w.h5", resume=True)
    torch.save({"version": 1, "settings": {"ndim": 2}}, tmp_path / "w.checkpoint.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this version; start anew"):
        Training(TrainingSettings(ndim=2, **SMALL), tmp_path / "w.h5", resume=True)
    (tmp_path / "w.checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        Training(TrainingSettings(ndim=2, **SMALL), tmp_path / "w.h5", resume=True)
