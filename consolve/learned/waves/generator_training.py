"""Training of the generator on the zone set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consolve.learned.training.record import digest_of
from consolve.learned.waves.format import GeneratorSettings
from consolve.learned.waves.generator import TorchGenerator
from consolve.learned.waves.record import domain_of
from consolve.learned.waves.training import WaveTraining, WaveTrainingSettings
from consolve.pde.waves.data import WaveData


class GeneratorTraining(WaveTraining):
    """One run of the generator; see `WaveTraining`.  The loss is the mean VRMSE of the fields of a batch.

    Parameters
    ----------
    data, validation
        Training and validation set of the zone.
    """

    loss_name = "VRMSE"

    def __init__(
        self,
        network: GeneratorSettings,
        settings: WaveTrainingSettings,
        data: WaveData,
        validation: WaveData,
        out: str | Path,
        **options: Any,
    ):
        for name, given in (("data", data), ("validation", validation)):
            _check_zone(given, name)
            if given.u.shape[1:] != network.shape:
                raise ValueError(
                    f"{given.path}: fields of {given.u.shape[1:]} (time, y, x), "
                    f"the network makes {network.shape}"
                )
        torch.manual_seed(settings.seed)
        digests = digest_of(data.digest, validation.digest)
        super().__init__(TorchGenerator(network), settings, digests, out, **options)
        self.data, self.validation = _fields(data), _fields(validation)
        self._domain = domain_of(data)

    @property
    def domain(self) -> dict[str, Any]:
        return self._domain

    def _loss(self, rng: np.random.Generator) -> Tensor:
        parameters, fields = self.data
        picks = rng.integers(0, len(fields), self.settings.batch)[self._share]
        prediction = self.net(parameters[picks].to(self.device)).float()
        return field_vrmse(prediction, fields[picks].to(self.device)).mean()

    def _validate(self) -> tuple[float, dict[str, Any]]:
        parameters, fields = self.validation
        errors = [
            field_vrmse(self.net(p.to(self.device)), u.to(self.device))
            for p, u in zip(parameters.split(25), fields.split(25))
        ]
        score = float(torch.cat(errors).mean())
        return (score if np.isfinite(score) else float("inf")), {"vrmse": round(score, 5)}


def field_vrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """``sqrt(mean((u - truth)^2) / var(truth))`` of each field over time, y and x, (batch,)."""
    error = (prediction - truth).flatten(1).square().mean(1)
    return (error / truth.flatten(1).var(1, unbiased=False)).sqrt()


def generator_settings(data: WaveData, **sizes: Any) -> GeneratorSettings:
    """Settings whose parameter ranges, field shape and scale are those of a training set."""
    _check_zone(data, "data")
    low, high = data.parameters.min(0), data.parameters.max(0)
    scale = float(data.read(last=100)["u"].std())
    return GeneratorSettings(
        low=tuple(float(v) for v in low), high=tuple(float(v) for v in high), scale=scale,
        shape=tuple(int(n) for n in data.u.shape[1:]), **sizes,
    )  # fmt: skip


def _check_zone(data: WaveData, name: str) -> None:
    if data.wave_set.name != "zone":
        raise ValueError(f"{data.path}: the {name} set is of kind {data.wave_set.name!r}, expected 'zone'")


def _fields(data: WaveData) -> tuple[Tensor, Tensor]:
    arrays = data.read()
    return torch.from_numpy(arrays["parameters"].astype(np.float32)), torch.from_numpy(arrays["u"])
