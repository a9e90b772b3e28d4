"""Training on random domains, drawn as needed: what the losses without a data set share."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from consolve.learned.dcdm.format import DCDMSettings
from consolve.learned.dcdm.training import DCDMTraining, DCDMTrainingSettings
from consolve.pde.poisson.grid import GridOperator

CELLS = {2: 64, 3: 24}
"""Default mean cells along an axis, by dimension."""
VALIDATION_BATCHES = 8

Drawn = tuple[list[GridOperator], NDArray[np.float32], int]
"""Operators of one shape, a field (batch, *grid) on each, and a number that the loss may want."""


@dataclass(frozen=True)
class DomainsTrainingSettings(DCDMTrainingSettings):
    """As `DCDMTrainingSettings`, and what random domains have beside it.

    Parameters
    ----------
    cells
        Mean cells along an axis.
    """

    batch: int = 6
    cells: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 8:
            raise ValueError(f"cells must be at least 8, got {self.cells}")


class DomainsTraining(DCDMTraining):
    """One run on random domains; gradients are cut to norm 1.

    Parameters
    ----------
    network, settings, out, options
        As of `DCDMTraining`.
    """

    clip = 1.0
    settings: DomainsTrainingSettings

    def __init__(
        self, network: DCDMSettings, settings: DomainsTrainingSettings, out: str | Path, **options: Any
    ):
        start = hashlib.sha256(json.dumps([network.ndim, asdict(settings)]).encode()).hexdigest()[:16]
        self._drawn = start
        super().__init__(network, settings, start, out, **options)

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> Drawn:
        """The data of a step."""

    @abstractmethod
    def _loss_of(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> Tensor:
        """Mean loss of drawn data."""

    def _validation(self, q: int) -> Drawn:
        """Data of one of `VALIDATION_BATCHES`, the same for every seed, that training never draws."""
        return self._draw(np.random.default_rng([0, 2, q]))

    @property
    def domain(self) -> dict[str, Any]:
        return {"dim": self.net.settings.ndim, "domain": "random", "cells": self.settings.cells}

    @property
    def _identity(self) -> dict[str, Any]:
        return super()._identity | {"data_hash": "drawn"}

    def _counted(self) -> None:
        self.data_hash = self._drawn

    def _more_state(self) -> dict[str, Any]:
        return {"data_hash": self.data_hash}

    def _restore(self, state: dict[str, Any]) -> None:
        self.data_hash = state["data_hash"]

    def _loss(self, rng: np.random.Generator) -> Tensor:
        operators, field, number = self._draw(rng)
        digest = hashlib.sha256(self.data_hash.encode() + field.tobytes() + bytes([number % 256]))
        for op in operators:
            digest.update(op.dirichlet.tobytes() + op.active.tobytes())
        self._drawn = digest.hexdigest()[:16]
        size = len(operators) // self.processes
        mine = slice(self.process * size, (self.process + 1) * size)
        return self._loss_of(operators[mine], field[mine], number)

    def _validation_loss(self) -> float:
        """Mean loss of the validation batches; infinite if it is no number."""
        losses = [float(self._loss_of(*self._validation(q))) for q in range(VALIDATION_BATCHES)]
        mean = float(np.mean(losses))
        return mean if np.isfinite(mean) else float("inf")
