"""Weights of the networks: HDF5 files, read without torch.

Layout of a file (format version 1)
-----------------------------------
Attributes of the root: ``consolve_format`` (int), ``network`` (``multilevel``), ``ndim``, ``sweeps``,
``hidden``, and for the record ``command``, ``seed``, ``data_hash``, ``revision``, ``scores`` (JSON text).
Datasets, float32:

=====================  ============================  ====================================================
alpha                  (LEVEL_CLASSES, sweeps, 2)    relaxation factor of each half-sweep, red then black
gamma                  (LEVEL_CLASSES,)              coarse face coefficient / sum of the fine ones
theta                  (LEVEL_CLASSES,)              coarse Dirichlet part / sum of the fine ones
linear                 (LEVEL_CLASSES,)              prolongation weight of an outward coarse neighbour
drop                   (LEVEL_CLASSES,)              loss of the own weight per Dirichlet share
cell_*, face_*,        w1 (hidden, features),        the three perceptrons; absent when ``hidden`` is 0
prolongation_*         e (LEVEL_CLASSES, hidden),
                       w2 (hidden, hidden),
                       b2 (hidden,),
                       v (outputs, hidden)
=====================  ============================  ====================================================
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consolve.learned.weights import file as weights_file
from consolve.learned.weights.file import WeightsError

FORMAT_VERSION = 1
_NUMBERS = ("ndim", "sweeps", "hidden")
LEVEL_CLASSES = 4
"""Finest, second, third, all others: levels of one class share their scalars."""
COARSEST = 4
"""Coarsening ends when no axis is longer; that level is solved directly."""
CELL_FEATURES, FACE_FEATURES, PROLONGATION_FEATURES = 4, 8, 7
ALPHA_MAX, OMEGA_RANGE, RANGE = 1.48, 0.3, 1.0
"""Bounds: alpha < 1.48 and exp(0.3) keep every relaxation factor under 2, so M stays positive definite."""

SHIPPED = ("multilevel", "mg")
"""Networks in the package: the learned one, and its classical twin (trained scalars only)."""


@dataclass(frozen=True)
class Weights:
    """Weights of a multilevel network.

    Parameters
    ----------
    ndim
        2 or 3.
    sweeps
        Red-black sweeps before and after the coarse correction.
    hidden
        Hidden units of the perceptrons; 0 for the classical twin.
    tensors
        float32 arrays by name, as in the file.
    record
        How they came about: ``command``, ``seed``, ``data_hash``, ``revision``, ``scores``.
    source
        Where they were read from, for messages.
    """

    ndim: int
    sweeps: int
    hidden: int
    tensors: dict[str, NDArray[np.float32]]
    record: dict[str, str] = field(default_factory=dict)
    source: str = "memory"

    def __post_init__(self) -> None:
        if self.ndim not in (2, 3) or not isinstance(self.ndim, int):
            raise WeightsError(f"{self.source}: ndim is {self.ndim!r}, expected 2 or 3")
        try:
            weights_file.check_count("sweeps", self.sweeps)
            weights_file.check_count("hidden", self.hidden, 0)
        except WeightsError as error:
            raise WeightsError(f"{self.source}: {error}") from None
        expected = tensor_shapes(self.sweeps, self.hidden)
        weights_file.check_tensors(self.source, expected, self.tensors, others=True)
        alpha = self.tensors["alpha"]
        if not ((alpha > 0) & (alpha <= ALPHA_MAX)).all():
            raise WeightsError(f"{self.source}: tensor 'alpha' must lie in (0, {ALPHA_MAX}]")
        for name in ("gamma", "theta", "linear"):
            if not (self.tensors[name] > 0).all():
                raise WeightsError(f"{self.source}: tensor {name!r} must be positive")

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(t.size for t in self.tensors.values())

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over the tensors."""
        return weights_file.digest(f"{self.ndim} {self.sweeps} {self.hidden}", self.tensors)


def tensor_shapes(sweeps: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a multilevel network."""
    shapes: dict[str, tuple[int, ...]] = {"alpha": (LEVEL_CLASSES, sweeps, 2)}
    shapes |= {name: (LEVEL_CLASSES,) for name in ("gamma", "theta", "linear", "drop")}
    if hidden:
        nets = (
            ("cell", CELL_FEATURES, 3),
            ("face", FACE_FEATURES, 1),
            ("prolongation", PROLONGATION_FEATURES, 1),
        )
        for name, features, outputs in nets:
            shapes |= {
                f"{name}_w1": (hidden, features),
                f"{name}_e": (LEVEL_CLASSES, hidden),
                f"{name}_w2": (hidden, hidden),
                f"{name}_b2": (hidden,),
                f"{name}_v": (outputs, hidden),
            }
    return shapes


def load_weights(name_or_path: str | os.PathLike[str], ndim: int) -> Weights:
    """Weights by name (``multilevel``, ``mg``) or from an HDF5 file.

    Raises
    ------
    WeightsError
        If the file is missing, is no HDF5, has another format version, lacks a tensor or has an ill-shaped or
        non-finite one, or is for another dimension.
    """
    shipped = {name: weights_file.folder() / f"{name}-{ndim}d.h5" for name in SHIPPED}
    weights = _read(weights_file.path_of(name_or_path, shipped, "consolve train multilevel"))
    if weights.ndim != ndim:
        raise WeightsError(f"{weights.source}: weights are for {weights.ndim}D grids, this one is {ndim}D")
    return weights


def _read(path: Path) -> Weights:
    content = weights_file.read(path)
    content.check_version("consolve_format", FORMAT_VERSION, "a weights file")
    attributes = content.attributes
    network = attributes.get("network")
    if network != "multilevel":
        raise WeightsError(f"{path}: network {network!r}, expected 'multilevel'")
    missing = [key for key in _NUMBERS if key not in attributes]
    if missing:
        raise WeightsError(f"{path}: attribute {missing[0]!r} is missing; the file is damaged")
    numbers = {key: attributes[key] for key in _NUMBERS}
    record = {k: str(v) for k, v in attributes.items() if k not in numbers}
    weights = Weights(**numbers, tensors=content.tensors, record=record, source=str(path))
    content.check_unchanged()
    return weights


def save_weights(weights: Weights, path: str | os.PathLike[str]) -> None:
    """Write a weights file: whole or not at all."""
    numbers = {key: getattr(weights, key) for key in _NUMBERS}
    attributes = {"consolve_format": FORMAT_VERSION, "network": "multilevel", **numbers, **weights.record}
    weights_file.save(path, attributes, weights.tensors)
