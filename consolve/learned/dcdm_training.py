"""Training of the networks of the deep conjugate direction method.

Here what every training of them shares, and the published one, on Ritz data; `consolve.learned.dcdm_unrolled`
trains through the iteration itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consolve.files import whole_file
from consolve.learned.dcdm import build_network, image_channels
from consolve.learned.dcdm_card import model_card
from consolve.learned.dcdm_weights import DCDMSettings, DCDMWeights, save_dcdm_weights
from consolve.learned.muon import Muon
from consolve.learned.torch_operator import TorchOperator, dot
from consolve.learned.training_record import digest_of
from consolve.learned.training_run import TrainingRun
from consolve.learned.training_settings import RunSettings
from consolve.pde.grid import GridOperator
from consolve.pde.ritz_data import RitzData

RATES = {"adam": 1e-3, "muon": 4e-3}
"""Peak learning rates that suit the optimisers."""
HELD_OUT = 0.05
"""Part of a data set, its end, that validates where no validation set is given."""
MOST_VALIDATION = 200
"""Samples that validate at most."""
MOST_MEMORY = 1 << 30
"""Bytes of right-hand sides that are held in memory; of larger sets each step reads its own."""

Direction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DCDMTrainingSettings(RunSettings):
    """As `RunSettings`, and what the deep conjugate direction method has beside it.

    Parameters
    ----------
    optimiser
        ``adam`` as published, or ``muon`` (`consolve.learned.muon`).
    loss
        ``ritz`` or ``unrolled``.
    """

    batch: int = 10
    optimiser: str = "adam"
    loss: str = "ritz"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimiser not in RATES:
            raise ValueError(f"optimiser is {self.optimiser!r}, expected one of {', '.join(RATES)}")


class DCDMTraining(TrainingRun[DCDMWeights]):
    """One run of a network of the deep conjugate direction method; see `TrainingRun`.

    Parameters
    ----------
    network
        Size of the network.
    settings
        How to train.
    data_hash
        Digest of the data.
    out
        Weights file to write.
    options
        ``device``, ``resume`` and ``command`` as of `TrainingRun`.
    """

    settings: DCDMTrainingSettings

    def __init__(
        self,
        network: DCDMSettings,
        settings: DCDMTrainingSettings,
        data_hash: str,
        out: str | Path,
        **options: Any,
    ):
        torch.manual_seed(settings.seed)
        layout = torch.channels_last if network.ndim == 2 else torch.channels_last_3d  # up to a third faster
        net = build_network(network).to(memory_format=layout)  # type: ignore[call-overload]
        super().__init__(net, settings, data_hash, out, **options)

    def _optimiser(self) -> torch.optim.Optimizer:
        if self.settings.optimiser == "muon":
            return Muon(self.net.parameters(), self.settings.rate)
        return torch.optim.Adam(self.net.parameters(), lr=self.settings.rate)

    def _weights(self, record: dict[str, str]) -> DCDMWeights:
        return DCDMWeights(self.net.settings, self.best_tensors, record, str(self.out))

    def _save(self, weights: DCDMWeights) -> None:
        save_dcdm_weights(weights, self.out)
        with whole_file(self.out.with_suffix(".md")) as part:
            part.write_text(model_card(weights))

    def _direction(self, operators: list[GridOperator]) -> Direction:
        """f(residual of norm 1) on the grids of these operators, one for each sample or one for all."""
        if not self.net.settings.image:
            return lambda r: self.net(r).float()
        images = torch.from_numpy(np.stack([image_channels(op) for op in operators])).to(self.device)
        return lambda r: self.net(torch.cat([r, images.expand(len(r), *images.shape[1:])], 1)).float()


def direction_loss(operator: TorchOperator, direction: Direction, b: Tensor) -> Tensor:
    """The published loss, (batch,): ``|b - alpha A d|^2``, ``alpha = b.d / d.A d``, ``d = f(b)``, 0 outside
    the active cells; b (batch, 1, *grid) of unit norm (Kaneda et al., ICML 2023)."""
    d = direction(b) * operator.active
    product = operator.product(d)
    alpha = dot(b, d) / dot(d, product).clamp_min(1e-30)
    return (b - alpha * product).square().flatten(1).sum(1)


class RitzTraining(DCDMTraining):
    """The published training: `direction_loss` on right-hand sides made of Ritz vectors.

    Without a validation set, the last 5 % of the right-hand sides are never trained on and validate.

    Parameters
    ----------
    data
        Set to train on; it must stay open until the run ends.
    validation
        Set to validate on, of any operator of the same dimension.

    Raises
    ------
    ValueError
        If a set does not fit the network, the sets are one, or the set is too small to be split.
    """

    loss_name = "|b - alpha A f(b)|^2"

    def __init__(
        self,
        network: DCDMSettings,
        settings: DCDMTrainingSettings,
        data: RitzData,
        out: str | Path,
        validation: RitzData | None = None,
        **options: Any,
    ):
        _check(network, data, validation)
        held_out = max(1, round(HELD_OUT * len(data))) if validation is None else 0
        self.samples = len(data) - held_out
        digests = [data.digest] if validation is None else [data.digest, validation.digest]
        super().__init__(network, settings, digest_of(*digests), out, **options)
        self._domain = {"dim": network.ndim, **_about(data)}
        if validation is None:
            self._domain["validation"] = f"the last {held_out} right-hand sides"
        else:
            self._domain |= {f"validation {name}": value for name, value in _about(validation).items()}
        self._data = data.right_hand_sides
        if self._data.dtype.itemsize * self._data.size <= MOST_MEMORY:
            self._data = self._data[()]
        self._problem = self._problem_of(data)
        self._validation_problem = self._problem if validation is None else self._problem_of(validation)
        source, first = (data, self.samples) if validation is None else (validation, 0)
        picks = np.linspace(first, len(source) - 1, min(MOST_VALIDATION, len(source) - first)).astype(int)
        self._validation = rows_of(source.right_hand_sides, picks)

    @property
    def domain(self) -> dict[str, Any]:
        return self._domain

    def _problem_of(self, data: RitzData) -> tuple[TorchOperator, Direction]:
        return TorchOperator([data.operator], self.device), self._direction([data.operator])

    def _loss(self, rng: np.random.Generator) -> Tensor:
        picks = rng.integers(0, self.samples, self.settings.batch)[self._share]
        b = torch.from_numpy(rows_of(self._data, picks)).to(self.device)[:, None]
        return direction_loss(*self._problem, b).mean()

    def _validate(self) -> tuple[float, dict[str, Any]]:
        """Chosen by the mean loss."""
        losses = [
            direction_loss(*self._validation_problem, b.to(self.device)[:, None])
            for b in torch.from_numpy(self._validation).split(self.settings.batch)
        ]
        score = float(torch.cat(losses).mean())
        return (score if np.isfinite(score) else float("inf")), {"validation_loss": round(score, 6)}


def rows_of(data: Any, picks: NDArray[np.int_]) -> NDArray[np.float32]:
    """Rows of an array, or of an HDF5 dataset, which takes no list in any order."""
    if isinstance(data, np.ndarray):
        return data[picks]
    return np.stack([data[int(i)] for i in picks])


def _about(data: RitzData) -> dict[str, Any]:
    names = ("domain", "domain_seed", "cells", "vectors", "samples", "seed")
    return {name: data.attributes[name] for name in names}


def _check(network: DCDMSettings, data: RitzData, validation: RitzData | None) -> None:
    for given in (data, validation):
        if given is not None and given.operator.ndim != network.ndim:
            raise ValueError(
                f"{given.path}: right-hand sides on {given.operator.ndim}D grids, the network is for "
                f"{network.ndim}D"
            )
    if validation is None:
        if len(data) < 2:
            raise ValueError(f"{data.path} holds a single right-hand side: none is left to validate on")
    elif validation.digest == data.digest:
        raise ValueError(
            f"{validation.path} holds what {data.path} holds: validate on another seed, or leave out "
            "--validation to hold the last 5 % out"
        )
