"""Training of the propagator: multi-step rollouts, which is what keeps long forecasts bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consolve.learned.training.record import digest_of
from consolve.learned.waves.format import PropagatorSettings, WaveWeights, load_wave_weights
from consolve.learned.waves.medium import medium_channels
from consolve.learned.waves.propagator import TorchPropagator
from consolve.learned.waves.record import domain_of
from consolve.learned.waves.residual import wave_residual
from consolve.learned.waves.training import WaveTraining, WaveTrainingSettings
from consolve.pde.waves.data import WaveData

VARIANCE_FLOOR = 1e-3
"""Added to the variance of a snapshot, of a run scaled to variance 1, in relative errors."""


@dataclass(frozen=True)
class PropagatorTrainingSettings(WaveTrainingSettings):
    """As `WaveTrainingSettings`, and what only the propagator has.

    Parameters
    ----------
    rollout
        Snapshots that a training sample is rolled out for; grows from 2 to this over the first half of a run,
        in whole applications of the network.
    pushforward
        In the second half of a run, half of the samples are first rolled out for up to this many snapshots
        without gradient, so that the network learns to go on from its own errors (Brandstetter, Worrall and
        Welling, 2022, arXiv:2202.03376).
    physics
        Weight of the residual of the discrete wave equation (`wave_residual`).
    distillation
        Weight of the distance to the rollout of the teacher, if there is one.
    """

    rollout: int = 9
    pushforward: int = 30
    physics: float = 0.0
    distillation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pushforward < 0:
            raise ValueError(f"pushforward must not be negative, got {self.pushforward}")
        weights = (self.physics, self.distillation)
        if self.rollout < 1 or not all(math.isfinite(w) and w >= 0 for w in weights):
            raise ValueError(
                "rollout must be at least 1, physics and distillation finite and not negative; got "
                f"{self.rollout}, {self.physics}, {self.distillation}"
            )


@dataclass(frozen=True)
class RunsInMemory:
    """Runs in memory: `u` (run, time, ny, nx) scaled to variance 1, `medium` (run, 3, ny, nx) and `speed`."""

    u: Tensor
    medium: Tensor
    speed: Tensor

    @staticmethod
    def of(data: WaveData, first: int = 0, last: int | None = None) -> RunsInMemory:
        arrays = data.read(first, last)
        u, speed = torch.from_numpy(arrays["u"]), torch.from_numpy(arrays["speed"])
        u /= u.flatten(1).std(1)[:, None, None, None] + 1e-12
        medium = medium_channels(arrays["speed"], arrays["fixed"])
        return RunsInMemory(u, torch.from_numpy(medium), speed[:, None])


def relative_errors(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root of mean square error over variance of each snapshot, (batch, time)."""
    error = (prediction - truth).square().mean((2, 3))
    relative = error / (truth.var((2, 3)) + VARIANCE_FLOOR)
    return (relative + 1e-8).sqrt()


class PropagatorTraining(WaveTraining):
    """One run of the propagator; see `WaveTraining`.

    The loss is the mean over a rollout of ``|u - truth| / sqrt(var(truth) + 1e-3)``, norms being root mean
    squares: their squares gave worse forecasts at one and at many steps.  Windows are drawn from the training
    runs, turned and mirrored at random.

    Parameters
    ----------
    data, validation
        Training and validation set, of the same grid and interval.
    teacher
        Weights of a trained propagator whose rollouts the new one is drawn to as well.
    """

    loss_name = "relative error"

    def __init__(
        self,
        network: PropagatorSettings,
        settings: PropagatorTrainingSettings,
        data: WaveData,
        validation: WaveData,
        out: str | Path,
        teacher: str | Path | None = None,
        **options: Any,
    ):
        _check(network, settings, data, validation)
        digests = [data.digest, validation.digest]
        self.teacher: TorchPropagator | None = None
        if teacher is not None:
            weights = load_wave_weights(teacher, "propagator")
            _check_teacher(weights, network)
            digests.append(weights.digest)
            self.teacher = propagator_of(weights.settings, weights.tensors)
        torch.manual_seed(settings.seed)
        super().__init__(TorchPropagator(network), settings, digest_of(*digests), out, **options)
        self.settings: PropagatorTrainingSettings
        self.runs, self.validation = RunsInMemory.of(data), RunsInMemory.of(validation, last=40)
        self.interval, self.spacing = data.interval, 1 / (data.u.shape[-1] - 1)
        self._domain = domain_of(data)
        if self.teacher is not None:
            self.teacher.to(self.device)

    @property
    def domain(self) -> dict[str, Any]:
        return self._domain

    def _loss(self, rng: np.random.Generator) -> Tensor:
        s, past = self.settings, self.net.settings.past
        steps = self._rollout()
        picks = rng.integers(0, len(self.runs.u), s.batch)[self._share]
        blind = self._blind(rng, self.runs.u.shape[1] - past - steps)
        start = int(rng.integers(0, self.runs.u.shape[1] - past - blind - steps + 1))
        turns, mirror = int(rng.integers(0, 4)), bool(rng.integers(0, 2))

        def seen(field: Tensor) -> Tensor:
            field = torch.rot90(field, turns, (-2, -1))
            return (field.flip(-1) if mirror else field).to(self.device)

        window = seen(self.runs.u[picks, start : start + past + blind + steps])
        medium = seen(self.runs.medium[picks])
        given, truth = window[:, :past], window[:, past + blind :]
        if blind:
            with torch.no_grad():
                given = torch.cat([given, self.net(given, medium, blind).float()], 1)[:, -past:]
        prediction = self.net(given, medium, steps).float()
        loss = relative_errors(prediction, truth).mean()
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(given, medium, steps).float()
            loss = loss + s.distillation * relative_errors(prediction, taught).mean()
        if s.physics:
            field = torch.cat([given[:, -2:], prediction], 1)
            speed = seen(self.runs.speed[picks])
            residual = wave_residual(field, speed, medium[:, 1:2], self.interval, self.spacing)
            loss = loss + s.physics * residual.mean()
        return loss

    def _blind(self, rng: np.random.Generator, most: int) -> int:
        """Snapshots to roll out without gradient before a sample, a multiple of `ahead`."""
        s, ahead = self.settings, self.net.settings.ahead
        draw, share = bool(rng.integers(0, 2)), rng.random()
        late = 2 * self.step >= s.steps
        return int(share * (min(s.pushforward, most) // ahead + 1)) * ahead if late and draw else 0

    def _rollout(self) -> int:
        s, first = self.settings, min(2, self.settings.rollout)
        grown = first + (s.rollout - first) * min(1.0, 2 * self.step / s.steps)
        return _whole_applications(grown, self.net.settings.ahead)

    def _validate(self) -> tuple[float, dict[str, Any]]:
        """Chosen by the geometric mean of the VRMSE at one and at 30 steps."""
        past = self.net.settings.past
        steps = min(30, self.validation.u.shape[1] - past)
        u, medium = self.validation.u.to(self.device), self.validation.medium.to(self.device)
        prediction = self.net(u[:, :past], medium, steps)
        vrmse = relative_vrmse(prediction, u[:, past : past + steps]).mean(0)
        ahead = self.net.settings.ahead
        one, last = float(vrmse[:ahead].mean()), float(vrmse[-ahead:].mean())
        scores = {"one_step_vrmse": round(one, 5), f"vrmse_at_{steps}_steps": round(last, 5)}
        score = (one * last) ** 0.5
        return (score if np.isfinite(score) else float("inf")), scores


def _whole_applications(snapshots: float, ahead: int) -> int:
    return max(1, round(snapshots / ahead)) * ahead


def relative_vrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """``sqrt(mean((u - truth)^2) / var(truth))`` of each snapshot, (batch, time)."""
    return ((prediction - truth).square().mean((2, 3)) / truth.var((2, 3), unbiased=False)).sqrt()


def propagator_of(settings: PropagatorSettings, tensors: dict[str, NDArray[np.float32]]) -> TorchPropagator:
    """The torch network with these weights, without gradients."""
    net = TorchPropagator(settings)
    net.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
    return net.requires_grad_(False)


def _check(
    network: PropagatorSettings, settings: PropagatorTrainingSettings, data: WaveData, validation: WaveData
) -> None:
    for name, given in (("data", data), ("validation", validation)):
        if given.wave_set.name != "propagator":
            raise ValueError(
                f"{given.path}: the {name} set is of kind {given.wave_set.name!r}, expected 'propagator'"
            )
    if data.u.shape[1:] != validation.u.shape[1:] or data.interval != validation.interval:
        raise ValueError(
            f"{data.path} holds {data.u.shape[1:]} (time, y, x) every {data.interval}, {validation.path} "
            f"{validation.u.shape[1:]} every {validation.interval}: they must be equal"
        )
    if any(n % network.factor for n in data.u.shape[2:]):
        raise ValueError(f"the grid {data.u.shape[2:]} is not a multiple of the factor {network.factor}")
    needed = network.past + _whole_applications(settings.rollout, network.ahead)
    if data.u.shape[1] < needed:
        raise ValueError(
            f"{data.path} holds {data.u.shape[1]} snapshots a run, {needed} are needed for training"
        )


def _check_teacher(teacher: WaveWeights, network: PropagatorSettings) -> None:
    for name in ("past", "factor"):
        theirs, ours = getattr(teacher.settings, name), getattr(network, name)
        if theirs != ours:
            raise ValueError(
                f"{teacher.source}: the teacher has {name}={theirs}, the new network {name}={ours}: "
                "they must be equal"
            )
