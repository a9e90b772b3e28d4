"""Training of the networks of the deep conjugate direction method.

Here what every training of them shares, and the published one, on Ritz data; `consolve.learned.dcdm.unrolled`
trains through the iteration itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consolve.learned.dcdm.card import model_card
from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights, save_dcdm_weights
from consolve.learned.dcdm.network import build_network, image_channels
from consolve.learned.training.muon import Muon
from consolve.learned.training.operator import TorchOperator, dot
from consolve.learned.training.record import digest_of
from consolve.learned.training.run import TrainingRun
from consolve.learned.training.settings import RunSettings
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.ritz.data import RitzData

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
        ``adam`` as published, or ``muon`` (`consolve.learned.training.muon`).
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

    def _card(self, weights: DCDMWeights) -> str:
        return model_card(weights)

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


@dataclass(frozen=True)
class _Source:
    """Right-hand sides on one operator by their numbers, the first `count` of them to be used."""

    read: Callable[[NDArray[np.int_]], NDArray[np.float32]]
    count: int
    operator: TorchOperator
    direction: Direction


class RitzTraining(DCDMTraining):
    """The published training: `direction_loss` on right-hand sides made of Ritz vectors.

    Every batch is of one of the training sets, drawn by their numbers of right-hand sides.  Without a
    validation set, the last 5 % of each training set are never trained on and validate.

    Parameters
    ----------
    data
        Sets to train on, of one or of several operators; they must stay open until the run ends.
    validation
        Sets to validate on, of any operators of the same dimension.

    Raises
    ------
    ValueError
        If a set does not fit the network, two sets are one, or a set is too small to be split.
    """

    loss_name = "|b - alpha A f(b)|^2"

    def __init__(
        self,
        network: DCDMSettings,
        settings: DCDMTrainingSettings,
        data: Sequence[RitzData],
        out: str | Path,
        validation: Sequence[RitzData] = (),
        **options: Any,
    ):
        _check(network, data, validation)
        super().__init__(
            network, settings, digest_of(*(given.digest for given in (*data, *validation))), out, **options
        )
        held_out = [0 if validation else max(1, round(HELD_OUT * len(given))) for given in data]
        counts = [len(given) - last for given, last in zip(data, held_out)]
        self._domain = {"dim": network.ndim, **_about(data)}
        if validation:
            self._domain |= {f"validation {name}": value for name, value in _about(validation).items()}
        else:
            kept = " and ".join(map(str, held_out))
            self._domain["validation"] = f"the last {kept} right-hand sides"
        small = sum(given.right_hand_sides.nbytes for given in data) <= MOST_MEMORY
        self._sets = [
            self._source(given, given.read(np.arange(len(given))) if small else None, count)
            for given, count in zip(data, counts)
        ]
        self._shares = np.array(counts) / sum(counts)
        firsts = [0] * len(validation) if validation else counts
        sources = validation or data
        most = max(1, MOST_VALIDATION // len(sources))
        self._validation = []
        for given, first in zip(sources, firsts):
            picks = np.linspace(first, len(given) - 1, min(most, len(given) - first)).astype(int)
            self._validation.append(self._source(given, given.read(picks), picks.size))

    @property
    def domain(self) -> dict[str, Any]:
        return self._domain

    def _source(self, data: RitzData, held: NDArray[np.float32] | None, count: int) -> _Source:
        operators = [data.operator]
        read = data.read if held is None else held.__getitem__
        return _Source(read, count, TorchOperator(operators, self.device), self._direction(operators))

    def _loss(self, rng: np.random.Generator) -> Tensor:
        number = int(rng.choice(len(self._sets), p=self._shares)) if len(self._sets) > 1 else 0
        source = self._sets[number]
        picks = rng.integers(0, source.count, self.settings.batch)[self._share]
        b = torch.from_numpy(source.read(picks)).to(self.device)[:, None]
        return direction_loss(source.operator, source.direction, b).mean()

    def _validate(self) -> tuple[float, dict[str, Any]]:
        """Chosen by the mean over the sets of their mean losses."""
        means = []
        for source in self._validation:
            losses = [
                direction_loss(source.operator, source.direction, b.to(self.device)[:, None])
                for b in torch.from_numpy(source.read(np.arange(source.count))).split(self.settings.batch)
            ]
            means.append(float(torch.cat(losses).mean()))
        score = float(np.mean(means))
        scores: dict[str, Any] = {"validation_loss": round(score, 6)}
        if len(means) > 1:
            scores["validation_losses"] = [round(mean, 6) for mean in means]
        return (score if np.isfinite(score) else float("inf")), scores


def _about(sets: Sequence[RitzData]) -> dict[str, Any]:
    """What the sets are, for the record; of several sets each value is a list."""
    names = ("domain", "domain_seed", "cells", "vectors", "samples", "seed")
    found = {name: [data.attributes[name] for data in sets] for name in names}
    return {name: values if len(sets) > 1 else values[0] for name, values in found.items()}


def _check(network: DCDMSettings, data: Sequence[RitzData], validation: Sequence[RitzData]) -> None:
    if not data:
        raise ValueError("no set of right-hand sides to train on; expected at least one")
    seen: dict[str, RitzData] = {}
    for given in (*data, *validation):
        if given.operator.ndim != network.ndim:
            raise ValueError(
                f"{given.path}: right-hand sides on {given.operator.ndim}D grids, the network is for "
                f"{network.ndim}D"
            )
        other = seen.setdefault(given.digest, given)
        if other is not given:
            advice = (
                "validate on another seed, or leave out --validation to hold the last 5 % out"
                if given in validation and other in data
                else "give each set once"
            )
            raise ValueError(f"{given.path} holds what {other.path} holds: {advice}")
    for given in data if not validation else ():
        if len(given) < 2:
            raise ValueError(f"{given.path} holds a single right-hand side: none is left to validate on")
