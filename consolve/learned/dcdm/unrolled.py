"""Training through the iteration: self-supervised, by unrolled deep conjugate directions on random domains.

The published loss (`direction_loss`) judges a direction for right-hand sides of one distribution.  Here the
network is judged by the residual after some steps of the method, from residuals that the method itself has
left, on operators of many sizes.  No data set is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consolve.learned.dcdm.domains import DomainsTraining, DomainsTrainingSettings
from consolve.learned.dcdm.training import Direction
from consolve.learned.training.domains import random_operator, random_right_hand_side, random_shape
from consolve.learned.training.drawn import VALIDATION_BATCHES, Drawn
from consolve.learned.training.operator import TorchOperator, dot, norm
from consolve.pde.poisson.grid import GridOperator

WINDOW = 2
"""Directions that a new one is made conjugate to."""

Window = list[tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class UnrolledTrainingSettings(DomainsTrainingSettings):
    """As `DomainsTrainingSettings`, and what unrolling has beside it.

    Parameters
    ----------
    unrolled
        Steps of the method that the loss is taken over.
    warm_up
        At most so many steps go before, without gradient; how many is drawn uniformly from 0 to this.
    """

    loss: str = "unrolled"
    unrolled: int = 4
    warm_up: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unrolled < 1 or self.warm_up < 0:
            raise ValueError(
                f"unrolled must be at least 1, warm_up not negative; got {self.unrolled}, {self.warm_up}"
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


class UnrolledTraining(DomainsTraining):
    """One run by the mean of `unrolled_loss`; grids differ in size by a factor of two either way.

    Parameters
    ----------
    network, settings, out, options
        As of `DCDMTraining`.
    """

    loss_name = "decimals per iteration"
    plot_sign = -1.0
    score_name = "validation_log10_residual_per_iteration"
    settings: UnrolledTrainingSettings

    def _draw(self, rng: np.random.Generator) -> Drawn:
        """Right-hand sides of norm 1 in the ranges of their operators, and the steps before."""
        s, ndim = self.settings, self.net.settings.ndim
        shape = random_shape(rng, ndim, int((s.cells * 2 ** rng.uniform(-1, 1)) ** ndim))
        operators = [random_operator(rng, shape) for _ in range(s.batch)]
        b = np.stack([random_right_hand_side(rng, op) for op in operators])
        return operators, b, int(rng.integers(0, s.warm_up + 1))

    def _loss_of(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> Tensor:
        operator = TorchOperator(operators, self.device)
        b = torch.from_numpy(field).to(self.device)[:, None]
        return unrolled_loss(operator, self._direction(operators), b, self.settings.unrolled, number).mean()

    def _validation(self, q: int) -> Drawn:
        """With steps before spread evenly."""
        operators, b, _ = super()._validation(q)
        return operators, b, round(q * self.settings.warm_up / (VALIDATION_BATCHES - 1))
