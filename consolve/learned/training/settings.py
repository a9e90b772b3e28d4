"""What a training run is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass


class ForeignOption(TypeError):
    """An option that the chosen kind of training does not have."""


@dataclass(frozen=True)
class RunSettings:
    """What a run depends on beside the network and the data; a checkpoint resumes only with the same.

    Parameters
    ----------
    steps, batch
        Optimiser steps, and samples in each.
    rate
        Peak learning rate; it rises over 100 steps and falls as a cosine to a thousandth.
    seed
        Of initial weights and of the order of the data.
    amp
        Convolutions of the training in bfloat16 (weights, optimiser and validation stay float32).
    patience
        Validations without a better score after which a run stops; 0 means never.
    """

    steps: int = 10000
    batch: int = 8
    rate: float = 4e-3
    seed: int = 0
    amp: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}")
        if self.seed < 0 or self.patience < 0:
            raise ValueError(f"seed and patience must not be negative, got {self.seed} and {self.patience}")


@dataclass(frozen=True)
class RunProgress:
    """State of a run after a step, for callers that show it."""

    step: int
    steps: int
    smoothed_loss: float
    best: float
    seconds: float
