"""Weights of the networks of the deep conjugate direction method: HDF5 files, read without torch.

Layout of a file (format version 1)
-----------------------------------
Attributes of the root: ``consolve_dcdm_format`` (int), ``network`` (``dcdm`` or ``dcdm-deep``), ``settings``
(JSON text of `DCDMSettings`), and for the record ``command``, ``seed``, ``data_hash``, ``revision``,
``domain`` and ``scores`` (JSON texts).  Datasets, float32, named as by `DCDMSettings.tensor_shapes`: a
convolution ``NAME`` has ``NAME.weight`` (out, in, 3, 3(, 3)), those per cell (out, in, 1, 1(, 1)), and most
have ``NAME.bias`` (out,).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consolve.learned.weights import file as weights_file
from consolve.learned.weights.file import WeightsError

FORMAT_VERSION = 1
_VERSION = "consolve_dcdm_format"
SHIPPED = ("dcdm", "dcdm-image", "dcdm-deep")
"""Networks in the package, in 2D and 3D."""

PUBLISHED = {64: (4, 3, 2), 128: (6, 5, 3)}
"""Of the published variants: convolutions at full resolution, coarse pairs, pairs after the upsampling."""


@dataclass(frozen=True)
class DCDMSettings:
    """Size of a network: the published one, or the deep one that reaches over any grid.

    ``dcdm``, with ``*`` a convolution of 3^ndim taps with zero padding and bias, each ``W`` another one::

        h   = W * x                                         linear, 1 to 16 channels
        h   = relu(W * h)
        h  += relu(W * relu(W * h))                         once (variant 64), twice (variant 128)
        h   = relu(W * h)
        c   = average of h over blocks of 2^ndim cells
        c  += relu(W * relu(W * c))                         3 times (64), 5 times (128)
        h  += nearest upsampling of c
        h  += relu(W * relu(W * h))                         twice (64), 3 times (128)
        d   = w . h + b                                     per cell, 16 channels to 1

    as the authors' released code builds it: 97,457 parameters of variant 64 in 3D, 152,881 of variant 128.

    ``dcdm-deep`` is linear in the residual, symmetric and positive definite, and goes through all levels of
    the grid, with the same weights on all but the finest::

        d      = E^T S E r + exp(floor) r
        E r    : h_0 = W * r                                1 to 16 channels
                 h_l += W * (g . (W * h_l))                 ``pairs`` times
                 h_(l+1) = gain (average of h_l)            until 4 cells along an axis
                 (h_0, h_1, ..., h_L)

    E^T has the weights of E: transposed convolutions in reverse order, averages spread evenly.  The factors
    ``g = 1 + o`` and ``S = exp(o / 2)`` of each cell and channel are made of the outputs o of a small network
    ``gates`` of the cell image, averaged to the level.

    Parameters
    ----------
    ndim
        2 or 3.
    network
        ``dcdm`` or ``dcdm-deep``.
    variant
        64 or 128: the published network for grids of about so many cells along an axis.
    width
        Channels; 16 as published.
    image
        Two further channels go in: the active cells, and the Dirichlet part over the mean face coefficient.
        ``dcdm`` then scales the residual to a root mean square of 1, about the size of the image; without
        them it takes it with norm 1, as published.  ``dcdm-deep`` always has them, for its gates only.
    pairs
        Of ``dcdm-deep``: convolutions in twos on each level.
    gate_width
        Of ``dcdm-deep``: hidden channels of the networks of the gates.
    """

    ndim: int
    network: str = "dcdm"
    variant: int = 64
    width: int = 16
    image: bool = False
    pairs: int = 1
    gate_width: int = 8

    def __post_init__(self) -> None:
        for name, allowed in (("ndim", (2, 3)), ("variant", tuple(PUBLISHED))):
            value = getattr(self, name)
            if not isinstance(value, int) or value not in allowed:
                raise WeightsError(f"{name} is {value!r}, expected {' or '.join(map(str, allowed))}")
        if self.network not in SHIPPED:
            raise WeightsError(f"network is {self.network!r}, expected one of {', '.join(SHIPPED)}")
        if not isinstance(self.image, bool):
            raise WeightsError(f"image is {self.image!r}, expected true or false")
        if self.network == "dcdm-deep":
            object.__setattr__(self, "image", True)
        for name in ("width", "pairs", "gate_width"):
            weights_file.check_count(name, getattr(self, name))

    @property
    def inputs(self) -> int:
        """Channels that go in."""
        return 3 if self.image else 1

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor."""
        if self.network == "dcdm-deep":
            return self._deep_shapes()
        taps, ones = (3,) * self.ndim, (1,) * self.ndim
        shapes = _convolution("first", self.width, self.inputs, taps)
        for group, count in self.groups().items():
            for k in range(count):
                shapes |= _convolution(f"{group}.{k}", self.width, self.width, taps)
        return shapes | _convolution("last", 1, self.width, ones)

    def groups(self) -> dict[str, int]:
        """Number of ``width`` to ``width`` convolutions in each part of the published network."""
        fine, coarse, after = PUBLISHED[self.variant]
        return {"fine": fine, "coarse": 2 * coarse, "after": 2 * after}

    def _deep_shapes(self) -> dict[str, tuple[int, ...]]:
        taps, ones, hidden = (3,) * self.ndim, (1,) * self.ndim, self.gate_width
        shapes: dict[str, tuple[int, ...]] = {"gain": (), "floor": ()}
        shapes |= _convolution("first", self.width, 1, taps, bias=False)
        for level in ("fine", "coarse"):
            for k in range(2 * self.pairs):
                shapes |= _convolution(f"{level}.pairs.{k}", self.width, self.width, taps, bias=False)
            shapes |= _convolution(f"{level}.gates.0", hidden, 2, taps)
            shapes |= _convolution(f"{level}.gates.2", hidden, hidden, taps)
            shapes |= _convolution(f"{level}.gates.4", (self.pairs + 1) * self.width, hidden, ones)
        return shapes


def _convolution(
    name: str, outputs: int, inputs: int, taps: tuple[int, ...], bias: bool = True
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs, *taps)}
    return shapes | {f"{name}.bias": (outputs,)} if bias else shapes


@dataclass(frozen=True)
class DCDMWeights:
    """A network's settings and tensors.

    Parameters
    ----------
    settings
        Its size.
    tensors
        float32 arrays by name, as in the file.
    record
        How they came about: ``command``, ``seed``, ``data_hash``, ``revision``, ``domain``, ``scores``.
    source
        Where they were read from, for messages.

    Raises
    ------
    WeightsError
        For a tensor that is missing, unknown, ill-shaped, not float32, or not finite.
    """

    settings: DCDMSettings
    tensors: dict[str, NDArray[np.float32]]
    record: dict[str, str] = field(default_factory=dict)
    source: str = "memory"

    def __post_init__(self) -> None:
        weights_file.check_tensors(self.source, self.settings.tensor_shapes(), self.tensors)

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.settings.ndim

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(t.size for t in self.tensors.values())

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over settings and tensors."""
        return weights_file.digest(json.dumps(asdict(self.settings)), self.tensors)


def is_dcdm_file(path: str | os.PathLike[str]) -> bool:
    """True for a readable HDF5 file of this format, of whatever version."""
    try:
        return _VERSION in weights_file.read(Path(path), tensors=False).attributes
    except WeightsError:
        return False


def load_dcdm_weights(name_or_path: str | os.PathLike[str], ndim: int | None = None) -> DCDMWeights:
    """Weights by name (``dcdm``, ``dcdm-image``, ``dcdm-deep``) or from an HDF5 file.

    Parameters
    ----------
    name_or_path
        Of the network.
    ndim
        2 or 3; None, for files only: as the file says.

    Raises
    ------
    WeightsError
        If the file is missing, is no HDF5, has another format version, lacks a tensor or has an ill-shaped or
        non-finite one, or is for another dimension.
    """
    shipped = {name: weights_file.folder() / f"{name}-{ndim}d.h5" for name in SHIPPED}
    weights = _read(weights_file.path_of(name_or_path, shipped, "consolve train dcdm"))
    if ndim is not None and weights.ndim != ndim:
        raise WeightsError(f"{weights.source}: weights are for {weights.ndim}D grids, this one is {ndim}D")
    return weights


def _read(path: Path) -> DCDMWeights:
    content = weights_file.read(path)
    content.check_version(_VERSION, FORMAT_VERSION, "a weights file of the DCDM networks")
    settings = content.settings(DCDMSettings, ("ndim", "network"))
    record = {k: str(v) for k, v in content.attributes.items() if k != "network"}
    weights = DCDMWeights(settings, content.tensors, record, str(path))
    content.check_unchanged()
    return weights


def save_dcdm_weights(weights: DCDMWeights, path: str | os.PathLike[str]) -> None:
    """Write a weights file: whole or not at all."""
    settings = {"network": weights.settings.network, "settings": json.dumps(asdict(weights.settings))}
    weights_file.save(path, {_VERSION: FORMAT_VERSION, **settings, **weights.record}, weights.tensors)
