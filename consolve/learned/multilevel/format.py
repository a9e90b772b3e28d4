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

import hashlib
import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.files import whole_file
from consolve.base.hdf5 import import_h5py

FORMAT_VERSION = 1
LEVEL_CLASSES = 4
"""Finest, second, third, all others: levels of one class share their scalars."""
COARSEST = 4
"""Coarsening ends when no axis is longer; that level is solved directly."""
CELL_FEATURES, FACE_FEATURES, PROLONGATION_FEATURES = 4, 8, 7
ALPHA_MAX, OMEGA_RANGE, RANGE = 1.48, 0.3, 1.0
"""Bounds: alpha < 1.48 and exp(0.3) keep every relaxation factor under 2, so M stays positive definite."""

SHIPPED = ("multilevel", "mg")
"""Networks in the package: the learned one, and its classical twin (trained scalars only)."""


class WeightsError(ValueError):
    """A weights file that is missing, damaged, of another version, or not for this problem."""


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
        if self.ndim not in (2, 3):
            raise WeightsError(f"{self.source}: ndim is {self.ndim}, expected 2 or 3")
        expected = tensor_shapes(self.sweeps, self.hidden)
        for name, shape in expected.items():
            if name not in self.tensors:
                raise WeightsError(f"{self.source}: tensor {name!r} is missing; train or install it again")
            tensor = self.tensors[name]
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise WeightsError(
                    f"{self.source}: tensor {name!r} is {tensor.dtype}{tensor.shape}, expected float32{shape}"
                )
            if not np.isfinite(tensor).all():
                raise WeightsError(
                    f"{self.source}: tensor {name!r} holds NaN or Inf; train or install it again"
                )
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
        sha = hashlib.sha256(f"{self.ndim} {self.sweeps} {self.hidden}".encode())
        for name in sorted(self.tensors):
            sha.update(name.encode() + np.ascontiguousarray(self.tensors[name]).tobytes())
        return sha.hexdigest()[:12]


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
    if name_or_path in SHIPPED:
        path = Path(str(resources.files("consolve.learned") / "weights" / f"{name_or_path}-{ndim}d.h5"))
    else:
        path = Path(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"no weights at {str(path)!r}; give a shipped name ({', '.join(SHIPPED)}) or an HDF5 file made "
            "by 'consolve train multilevel'"
        )
    weights = _read(path)
    if weights.ndim != ndim:
        raise WeightsError(f"{path}: weights are for {weights.ndim}D grids, this one is {ndim}D")
    return weights


def _read(path: Path) -> Weights:
    attributes, tensors = read_file(path, "consolve_format", FORMAT_VERSION, "a weights file")
    network = attributes.get("network")
    if network != "multilevel":
        raise WeightsError(f"{path}: network {network!r}, expected 'multilevel'")
    missing = [key for key in ("ndim", "sweeps", "hidden") if key not in attributes]
    if missing:
        raise WeightsError(f"{path}: attribute {missing[0]!r} is missing; the file is damaged")
    numbers = {key: int(attributes[key]) for key in ("ndim", "sweeps", "hidden")}
    record = {k: str(v) for k, v in attributes.items() if k not in numbers}
    return Weights(**numbers, tensors=tensors, record=record, source=str(path))


def read_file(
    path: Path, version_name: str, version: int, kind: str
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Attributes, all but the version's, and datasets of an HDF5 file of weights.

    Parameters
    ----------
    path
        Of the file.
    version_name, version
        Attribute that tells the format's version, and the one that is read.
    kind
        What the file should be, for messages.

    Raises
    ------
    WeightsError
        If it is no HDF5, damaged, or of another format or version.
    """
    h5py = import_h5py()

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get(version_name)
            if found is None:
                raise WeightsError(f"{path}: not {kind} of consolve (no attribute {version_name!r})")
            if np.ndim(found) or found != version:
                raise WeightsError(
                    f"{path}: format version {found}, this consolve reads {version}; "
                    "train again or install a consolve that fits"
                )
            attributes = {name: value for name, value in file.attrs.items() if name != version_name}
            datasets = {name: file[name] for name in file if isinstance(file[name], h5py.Dataset)}
            return attributes, {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}
    except WeightsError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:  # HDF5's own
        raise WeightsError(f"{path}: cannot be read as HDF5 ({error}); train or install it again") from error


def save_weights(weights: Weights, path: str | os.PathLike[str]) -> None:
    """Write a weights file: whole or not at all."""
    h5py = import_h5py()

    with whole_file(path) as part, h5py.File(part, "w") as file:
        file.attrs["consolve_format"] = FORMAT_VERSION
        file.attrs["network"] = "multilevel"
        for key in ("ndim", "sweeps", "hidden"):
            file.attrs[key] = getattr(weights, key)
        for key, value in weights.record.items():
            file.attrs[key] = value
        for name, tensor in weights.tensors.items():
            file.create_dataset(name, data=tensor, track_times=False)
