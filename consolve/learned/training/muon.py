"""The optimiser of the wave surrogates: orthogonalised momentum for kernels, Adam for the rest.

K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024; the scale of a step after
J. Liu et al., *Muon is scalable for LLM training*, 2025, arXiv:2502.16982.  `torch.optim.Muon` takes matrices
only; here a kernel (out, in, k, ...) counts as the matrix (out, in k ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.999), 1e-8
LEAST_SIDE = 9
"""Matrices with a shorter side, such as one-way filters, are left to Adam."""
SCALE = 0.2
"""Root mean square of a step over the rate, about that of Adam's steps."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearly U V^T of ``matrix = U S V^T``, with singular values between about 0.7 and 1.2.

    By the quintic Newton-Schulz iteration ``X <- a X + b (X X^T) X + c (X X^T)^2 X``.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum of kernels and matrices; Adam for other parameters.

    With the gradient G, ``M <- 0.95 M + 0.05 G`` and
    ``W <- W - 0.2 rate sqrt(max(rows, columns)) orth(0.95 M + 0.05 G)``.

    Parameters
    ----------
    parameters
        Of the network.
    lr
        Rate of both.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure`, if any, computes the loss again first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.ndim > 1 and min(p.shape[0], p[0].numel()) >= LEAST_SIDE:
                    self._step_matrix(p, self.state[p], group["lr"])
                else:
                    self._step_adam(p, self.state[p], group["lr"])
        return loss

    def _step_matrix(self, p: Tensor, state: dict[str, Any], rate: float) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        direction = orthogonalised(torch.lerp(p.grad, momentum, MOMENTUM).flatten(1))
        p.add_(direction.view_as(p), alpha=-rate * SCALE * max(direction.shape) ** 0.5)

    def _step_adam(self, p: Tensor, state: dict[str, Any], rate: float) -> None:
        if not state:
            state.update(steps=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["steps"] += 1
        first, second = BETAS
        state["mean"].lerp_(p.grad, 1 - first)
        state["square"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
        mean = state["mean"] / (1 - first ** state["steps"])
        square = state["square"] / (1 - second ** state["steps"])
        p.addcdiv_(mean, square.sqrt_().add_(EPSILON), value=-rate)
