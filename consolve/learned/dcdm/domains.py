"""Training of the deep conjugate direction method on random domains: what its losses without a data set
share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights
from consolve.learned.dcdm.training import DCDMTraining, DCDMTrainingSettings
from consolve.learned.training.drawn import DrawnTraining

CELLS = {2: 64, 3: 24}
"""Default mean cells along an axis, by dimension."""


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


class DomainsTraining(DrawnTraining[DCDMWeights], DCDMTraining):
    """One run on random domains; see `DrawnTraining`.

    Parameters
    ----------
    network, settings, out, options
        As of `DCDMTraining`.
    """

    settings: DomainsTrainingSettings

    def __init__(
        self, network: DCDMSettings, settings: DomainsTrainingSettings, out: str | Path, **options: Any
    ):
        start = hashlib.sha256(json.dumps([network.ndim, asdict(settings)]).encode()).hexdigest()[:16]
        super().__init__(network, settings, start, out, **options)

    @property
    def domain(self) -> dict[str, Any]:
        return {"dim": self.net.settings.ndim, "domain": "random", "cells": self.settings.cells}
