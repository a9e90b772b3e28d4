"""Training through the iteration: self-supervised, by unrolled deep conjugate directions on random domains.

The published loss (`direction_loss`) judges a direction for right-hand sides of one distribution.  Here the
network is judged by the residual after some steps of the method, from residuals that the method itself has
left, on operators of many sizes.  No data set is needed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consolve.learned.dcdm_training import DCDMTraining, DCDMTrainingSettings, Direction
from consolve.learned.dcdm_weights import DCDMSettings
from consolve.learned.torch_operator import TorchOperator, dot, norm
from consolve.learned.training_domains import random_operator, random_right_hand_side, random_shape
from consolve.pde.grid import GridOperator

CELLS = {2: 64, 3: 24}
"""Default mean cells along an axis, by dimension."""
WINDOW = 2
"""Directions that a new one is made conjugate to."""
VALIDATION_BATCHES = 8

Window = list[tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class UnrolledTrainingSettings(DCDMTrainingSettings):
    """As `DCDMTrainingSettings`, and what unrolling has beside it.

    Parameters
    ----------
    unrolled
        Steps of the method that the loss is taken over.
    warm_up
        At most so many steps go before, without gradient; how many is drawn uniformly from 0 to this.
    cells
        Mean cells along an axis; sizes vary by a factor of two either way.
    """

    batch: int = 6
    loss: str = "unrolled"
    unrolled: int = 4
    warm_up: int = 0
    cells: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unrolled < 1 or self.warm_up < 0 or self.cells < 8:
            raise ValueError(
                "unrolled must be at least 1, warm_up not negative, cells at least 8; got "
                f"{self.unrolled}, {self.warm_up}, {self.cells}"
            )


@dataclass
class Iteration:
    """State of the deep conjugate direction method: residuals (batch, 1, *grid) and the last directions d
    with A d and d.A d."""

    residual: Tensor
    window: Window

    def step(self, operator: TorchOperator, direction: Direction) -> None:
        """One step, differentiable::

        d = f(r / |r|);   d -= (d.A d_j)/(d_j.A d_j) d_j   for the last two d_j;   r -= (r.d)/(d.A d) A d
        """
        r = self.residual
        d = operator.remove_null_space(direction(r / norm(r)))
        d = d / d.detach().flatten(1).abs().amax(1).clamp_min(1e-30).view(-1, *[1] * (d.ndim - 1))
        d = d / norm(d)
        for last, product, curvature in self.window:
            d = d - dot(d, product) / curvature * last
        product = operator.product(d)
        curvature = dot(d, product).clamp_min(1e-12)
        self.residual = r - dot(r, d) / curvature * product
        self.window = [(d, product, curvature), *self.window][:WINDOW]

    def restarted(self, operator: TorchOperator) -> Iteration:
        """The same iteration with its residual scaled to norm 1, from which gradients are counted."""
        r = operator.remove_null_space(self.residual)
        return Iteration(r / norm(r), self.window)


def unrolled_loss(
    operator: TorchOperator, direction: Direction, b: Tensor, steps: int, before: int = 0
) -> Tensor:
    """log10(|r_K| / |r_0|) / K of each sample, (batch,): K = `steps`, after `before` without gradient.

    The floor of float32, 1e-7, bounds it.
    """
    state = Iteration(b, [])
    with torch.no_grad():
        for _ in range(before):
            state.step(operator, direction)
        state = state.restarted(operator)
    for _ in range(steps):
        state.step(operator, direction)
    return torch.log10(norm(state.residual).flatten().clamp_min(1e-7)) / steps


class UnrolledTraining(DCDMTraining):
    """One run on random domains: the mean of `unrolled_loss` over a batch, gradients cut to norm 1.

    Parameters
    ----------
    network, settings, out, options
        As of `DCDMTraining`.
    """

    loss_name = "decimals per iteration"
    plot_sign = -1.0
    clip = 1.0
    settings: UnrolledTrainingSettings

    def __init__(
        self, network: DCDMSettings, settings: UnrolledTrainingSettings, out: str | Path, **options: Any
    ):
        start = hashlib.sha256(json.dumps([network.ndim, asdict(settings)]).encode()).hexdigest()[:16]
        self._drawn = start
        super().__init__(network, settings, start, out, **options)

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

    def _batch(self, rng: np.random.Generator) -> tuple[list[GridOperator], np.ndarray]:
        """Operators of one shape and right-hand sides (batch, *grid) of norm 1 in their ranges."""
        s, ndim = self.settings, self.net.settings.ndim
        shape = random_shape(rng, ndim, int((s.cells * 2 ** rng.uniform(-1, 1)) ** ndim))
        operators = [random_operator(rng, shape) for _ in range(s.batch)]
        return operators, np.stack([random_right_hand_side(rng, op) for op in operators])

    def _loss(self, rng: np.random.Generator) -> Tensor:
        operators, b = self._batch(rng)
        before = int(rng.integers(0, self.settings.warm_up + 1))
        digest = hashlib.sha256(self.data_hash.encode() + b.tobytes() + bytes([before % 256]))
        for op in operators:
            digest.update(op.dirichlet.tobytes() + op.active.tobytes())
        self._drawn = digest.hexdigest()[:16]
        return self._loss_of(operators[self._share], b[self._share], before)

    def _loss_of(self, operators: list[GridOperator], b: np.ndarray, before: int) -> Tensor:
        operator = TorchOperator(operators, self.device)
        right = torch.from_numpy(b).to(self.device)[:, None]
        return unrolled_loss(
            operator, self._direction(operators), right, self.settings.unrolled, before
        ).mean()

    def _validate(self) -> tuple[float, dict[str, Any]]:
        """Chosen by the mean loss of eight batches, the same for every seed, that training never draws."""
        losses = []
        for q in range(VALIDATION_BATCHES):
            operators, b = self._batch(np.random.default_rng([0, 2, q]))
            before = round(q * self.settings.warm_up / (VALIDATION_BATCHES - 1))
            losses.append(float(self._loss_of(operators, b, before)))
        score = float(np.mean(losses))
        name = "validation_log10_residual_per_iteration"
        return (score if np.isfinite(score) else float("inf")), {name: round(score, 4)}
