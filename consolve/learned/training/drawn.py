"""Training on random domains, drawn as needed: what the losses without a data set share."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from consolve.learned.training.run import TrainingRun, Weights
from consolve.pde.poisson.grid import GridOperator

VALIDATION_BATCHES = 8

Drawn = tuple[list[GridOperator], NDArray[np.float32], int]
"""Operators of one shape, a field (batch, *grid) on each, and a number that the loss may want."""


class DrawnTraining(TrainingRun[Weights]):
    """One run on random domains; see `TrainingRun`.

    `data_hash` begins with the settings and chains over all that was drawn.  The best weights are those with
    the least mean loss of eight batches that training never draws.  Gradients are cut to norm 1.
    """

    clip = 1.0
    score_name: str
    """Of the mean loss of the validation batches, in the record."""

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> Drawn:
        """The data of a step."""

    @abstractmethod
    def _loss_of(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> Tensor:
        """Mean loss of drawn data."""

    def _validation(self, q: int) -> Drawn:
        """Data of one of `VALIDATION_BATCHES`, the same for every seed, that training never draws."""
        return self._draw(np.random.default_rng([0, 2, q]))

    def _chained(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> str:
        """`data_hash` after a step on this data."""
        return chained(self.data_hash, operators, field, bytes([number % 256]))[:16]

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
        self._drawn = self._chained(operators, field, number)
        size = len(operators) // self.processes
        mine = slice(self.process * size, (self.process + 1) * size)
        return self._loss_of(operators[mine], field[mine], number)

    def _validate(self) -> tuple[float, dict[str, Any]]:
        losses = [float(self._loss_of(*self._validation(q))) for q in range(VALIDATION_BATCHES)]
        mean = float(np.mean(losses))
        return (mean if np.isfinite(mean) else float("inf")), {self.score_name: round(mean, 5)}


def chained(
    before: str, operators: Sequence[GridOperator], field: NDArray[np.float32], more: bytes = b""
) -> str:
    """SHA-256 of a digest and of the data that was drawn after it, in hexadecimal digits."""
    digest = hashlib.sha256(before.encode() + field.tobytes() + more)
    for op in operators:
        digest.update(op.dirichlet.tobytes() + op.active.tobytes())
    return digest.hexdigest()
