"""Training of the multilevel network: self-supervised, by unrolled conjugate gradients on random domains.

The loss is the mean over a batch of ``log10(|r_K| / |r_0|) / K``: decimals per iteration of K steps of
conjugate gradients preconditioned by the network, on random operators and right-hand sides.  No solution is
ever needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consolve.learned.multilevel.card import model_card
from consolve.learned.multilevel.format import Weights, save_weights
from consolve.learned.multilevel.torch.network import TorchHierarchy, TorchMultilevel
from consolve.learned.training.domains import random_operator, random_right_hand_side, random_shape
from consolve.learned.training.drawn import Drawn, DrawnTraining, chained
from consolve.learned.training.operator import operator_tensors
from consolve.learned.training.settings import RunSettings
from consolve.learned.weights.file import check_count
from consolve.pde.poisson.grid import GridOperator

LEAST_CELLS = 64
_VALIDATION_STREAM = 2**31
"""Steps from here on are never trained on: validation draws from them."""
_FIRST_HASHED = ("ndim", "network", "sweeps", "hidden", "steps", "batch", "cells", "rate", "seed")
"""Settings that `data_hash` begins with, in the order of the shipped files."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(RunSettings):
    """As `RunSettings`, the network, and what only its training has.

    Parameters
    ----------
    ndim
        2 or 3.
    network
        ``multilevel``, or ``mg`` for the classical twin (scalars only, same training).
    sweeps
        Red-black sweeps before and after the coarse correction.
    hidden
        Hidden units of the perceptrons (unused by ``mg``).
    cells
        Mean number of cells of a training grid; sizes vary by a factor of two either way.  0 means 96^2 or
        28^3.
    rate
        Peak learning rate of Adam for the scalars; the perceptrons take a fifth.  It rises over 20 steps and
        falls as a cosine to a fiftieth.
    """

    ndim: int
    network: str = "multilevel"
    sweeps: int = 2
    hidden: int = 16
    steps: int = 1500
    batch: int = 2
    cells: int = 0
    rate: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ndim not in (2, 3):
            raise ValueError(f"ndim must be 2 or 3, got {self.ndim}")
        if self.network not in ("multilevel", "mg"):
            raise ValueError(f"network must be 'multilevel' or 'mg', got {self.network!r}")
        check_count("sweeps", self.sweeps)
        check_count("hidden", self.hidden)
        if self.cells and self.cells < LEAST_CELLS:
            raise ValueError(f"cells must be at least {LEAST_CELLS}, or 0 for the default, got {self.cells}")
        if self.amp:
            raise ValueError("the multilevel network has no convolutions to train in bfloat16: leave amp out")

    @property
    def mean_cells(self) -> int:
        """``cells``, or the default of the dimension."""
        return self.cells or {2: 96**2, 3: 28**3}[self.ndim]


def conjugate_gradients(hierarchy: TorchHierarchy, b: Tensor, steps: int) -> Tensor:
    """|r_k| / |b| for k = 1..steps of preconditioned conjugate gradients from zero, (steps, batch);
    differentiable."""
    view = [-1] + [1] * (b.ndim - 1)

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).flatten(1).sum(1)

    norm = dot(b, b).sqrt().clamp_min(1e-30)
    r, z = b, hierarchy.apply(b)
    p, rz, history = z, dot(r, z), []
    for k in range(steps):
        q = hierarchy.product(p)
        r = r - (rz / dot(p, q).clamp_min(1e-30)).reshape(view) * q
        history.append((dot(r, r) + 1e-30).sqrt() / norm)
        if k + 1 < steps:
            z = hierarchy.apply(r)
            rz, previous = dot(r, z), rz
            p = z + (rz / previous.clamp_min(1e-30)).reshape(view) * p
    return torch.stack(history)


def decimals_per_iteration(history: Tensor) -> Tensor:
    """Mean over the batch of log10(last residual) / iterations; floor of float32 at 1e-7."""
    return (torch.log10(history[-1].clamp_min(1e-7)) / len(history)).mean()


class Training(DrawnTraining[Weights]):
    """One run of the multilevel network; see `TrainingRun` and `DrawnTraining`.

    Parameters
    ----------
    settings
        What to train, and how.
    out
        Weights file to write.
    options
        ``device``, ``resume`` and ``command`` as of `TrainingRun`.
    """

    loss_name = "decimals per iteration"
    plot_sign = -1.0
    score_name = "validation_log10_residual_per_iteration"
    every = 100
    stream = ()
    settings: TrainingSettings

    def __init__(self, settings: TrainingSettings, out: str | os.PathLike[str], **options: Any):
        torch.manual_seed(settings.seed)
        hidden = settings.hidden if settings.network == "multilevel" else 0
        net = TorchMultilevel(settings.ndim, settings.sweeps, hidden)
        first = json.dumps({name: getattr(settings, name) for name in _FIRST_HASHED})
        super().__init__(net, settings, hashlib.sha256(first.encode()).hexdigest(), out, **options)

    def _optimiser(self) -> torch.optim.Optimizer:
        scalars = [p for name, p in self.net.named_parameters() if "net" not in name]
        perceptrons = [p for name, p in self.net.named_parameters() if "net" in name]
        rate = self.settings.rate
        groups = [{"params": scalars, "peak": rate}, {"params": perceptrons, "peak": rate / 5}]
        return torch.optim.Adam([g for g in groups if g["params"]], lr=rate)

    def _rate(self, peak: float) -> float:
        share = self.step / self.settings.steps
        return peak * (min(1.0, (self.step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))))

    @property
    def domain(self) -> dict[str, Any]:
        return {"dim": self.settings.ndim, "domain": "random", "cells": self.settings.mean_cells}

    @property
    def _identity(self) -> dict[str, Any]:
        return {"training": asdict(self.settings)}

    def _draw(self, rng: np.random.Generator) -> Drawn:
        """Right-hand sides, and how many iterations to unroll."""
        s = self.settings
        cells = s.mean_cells * float(np.exp(rng.uniform(-0.7, 0.7)))
        shape = random_shape(rng, s.ndim, int(cells))
        operators = [random_operator(rng, shape) for _ in range(s.batch)]
        b = np.stack([random_right_hand_side(rng, op) for op in operators])
        return operators, b, int(rng.integers(3, 5 if s.sweeps > 1 else 6))

    def _validation(self, q: int) -> Drawn:
        operators, b, _ = self._draw(np.random.default_rng([self.settings.seed, _VALIDATION_STREAM + q]))
        return operators, b, 4

    def _chained(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> str:
        return chained(self.data_hash, operators, field)

    def _loss_of(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> Tensor:
        hierarchy = self.net.setup(*operator_tensors(operators, self.device))
        b = torch.from_numpy(field).to(self.device)
        return decimals_per_iteration(conjugate_gradients(hierarchy, b, number))

    def _weights(self, record: dict[str, str]) -> Weights:
        s = self.settings
        return Weights(s.ndim, s.sweeps, self.net.hidden, self.best_tensors, record, str(self.out))

    def _save(self, weights: Weights) -> None:
        save_weights(weights, self.out)

    def _card(self, weights: Weights) -> str:
        return model_card(weights)
