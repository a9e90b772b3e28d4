"""Weights of the wave surrogates: settings and tensors in HDF5 files, read without torch.

Layout of a file (format version 1)
-----------------------------------
Attributes of the root: ``consolve_wave_format`` (int), ``network`` (``propagator`` or ``generator``),
``settings`` (JSON text of `PropagatorSettings` or `GeneratorSettings`), for the record ``command``,
``seed``, ``data_hash``, ``revision``, ``scores`` (JSON text) and ``domain`` (JSON text: the training set).
Datasets, float32, named as by `PropagatorSettings.tensor_shapes` and `GeneratorSettings.tensor_shapes`.

A convolution ``NAME`` is either dense, ``NAME.weight`` (out, in, (k_t,) k_y, k_x), or compressed: a sum of R
products of one-way filters, ``NAME.output_factor`` A (out, R), ``NAME.input_factor`` B (R, in) and
``NAME.filter_<axis>`` (R, k), with the kernel ``sum_r A[o, r] B[r, i] (T[r, t]) V[r, y] H[r, x]``.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.learned.weights import file as weights_file
from consolve.learned.weights.file import Shapes, WeightsError

FORMAT_VERSION = 1
_VERSION = "consolve_wave_format"
SHIPPED = ("propagator", "propagator-dense", "generator", "generator-dense")
"""Surrogates by name: the compressed ones, in the package, and their dense twins, in a checkout."""
TWINS = ("propagator-dense", "generator-dense")


def convolution_shapes(
    name: str, out_channels: int, in_channels: int, kernel: tuple[int, ...], rank: int | None
) -> Shapes:
    """Names and shapes of the tensors of one convolution without bias; `rank` None means dense."""
    if rank is None:
        return {f"{name}.weight": (out_channels, in_channels, *kernel)}
    shapes: Shapes = {
        f"{name}.output_factor": (out_channels, rank),
        f"{name}.input_factor": (rank, in_channels),
    }
    for axis, taps in zip(("z", "y", "x")[3 - len(kernel) :], kernel):
        shapes[f"{name}.filter_{axis}"] = (rank, taps)
    return shapes


def _check_counts(settings: Any, names: tuple[str, ...]) -> None:
    for name in names:
        weights_file.check_count(name, getattr(settings, name))
    weights_file.check_count("layers", settings.layers, 2)


def _check_ranks(ranks: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
    if len(ranks) != len(shapes):
        raise WeightsError(f"ranks {ranks} came, expected one for each of {len(shapes)} convolutions")
    for rank, shape in zip(ranks, shapes):
        most = math.prod(shape) // max(shape)
        if not isinstance(rank, int) or not 1 <= rank <= most:
            raise WeightsError(f"rank {rank!r} for a kernel {shape}: expected 1 to {most}")


@dataclass(frozen=True)
class PropagatorSettings:
    """Size of a propagator: the last snapshots and the medium to the next snapshots.

    With m the medium's channels, f the `factor`, L the `layers`, and * a 3 x 3 convolution with zero padding
    and without bias::

        g_0 .. g_(L-2) = gates(unshuffle(m, f))                 once per medium
        h   = g_0 . (W_0 * unshuffle(u[n-past+1 .. n], f))
        h  += g_l . (W_l * h),   l = 1 .. L-2
        u[n+k] = u[n] + free . shuffle(W_(L-1) * h, f)[k],   k = 1 .. ahead

    which is linear in u; ``free`` is 0 at fixed vertices and 1 elsewhere.  ``unshuffle`` is space to depth:
    channel ``c f^2 + f dy + dx`` at (y, x) holds point (f y + dy, f x + dx) of channel c.

    Parameters
    ----------
    past, ahead
        Snapshots that go in, and that come out, of one application.
    factor
        Of space to depth; the sides of a grid must be multiples of it.
    width, layers
        Channels of the hidden layers, and wave convolutions, at least 2.
    gate_width
        Channels of the network of the gates.
    ranks
        Rank of each of the `layers` wave convolutions; None for dense ones.
    """

    past: int = 3
    ahead: int = 3
    factor: int = 4
    width: int = 96
    layers: int = 4
    gate_width: int = 32
    ranks: tuple[int, ...] | None = None

    network = "propagator"
    medium_channels = 3

    def __post_init__(self) -> None:
        if self.ranks is not None:
            object.__setattr__(self, "ranks", tuple(self.ranks))
        _check_counts(self, ("past", "ahead", "factor", "width", "gate_width"))
        if self.ahead > self.past:
            raise WeightsError(f"ahead={self.ahead} must not pass past={self.past}")
        if self.ranks is not None:
            _check_ranks(self.ranks, self.kernel_shapes())

    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """(out, in, 3, 3) of each wave convolution."""
        points = self.factor**2
        channels = [self.past * points, *[self.width] * (self.layers - 1), self.ahead * points]
        return [(o, i, 3, 3) for i, o in itertools.pairwise(channels)]

    def tensor_shapes(self) -> Shapes:
        """Name and shape of every tensor: ``wave.l``, the convolutions, and ``gate.0`` to ``gate.2``."""
        shapes: Shapes = {}
        for layer, (out, in_, *kernel) in enumerate(self.kernel_shapes()):
            rank = None if self.ranks is None else self.ranks[layer]
            shapes |= convolution_shapes(f"wave.{layer}", out, in_, tuple(kernel), rank)
        g = self.gate_width
        return shapes | {
            "gate.0.weight": (g, self.medium_channels * self.factor**2, 3, 3),
            "gate.0.bias": (g,),
            "gate.1.weight": (g, g, 3, 3),
            "gate.1.bias": (g,),
            "gate.2.weight": ((self.layers - 1) * self.width, g, 1, 1),
            "gate.2.bias": ((self.layers - 1) * self.width,),
        }


@dataclass(frozen=True)
class GeneratorSettings:
    """Size of a generator: parameters of source and medium to the space-time field on a zone.

    With p the parameters scaled to [-1, 1], and * a 3 x 3 x 3 convolution over (time, y, x) with zero padding
    and without bias::

        e = (p, sin(k pi/2 p), cos(k pi/2 p)),   k = 1 .. harmonics
        h = E_2 gelu(E_1 gelu(E_0 e + b_0) + b_1) + b_2     (seeds, time/2f, y/2f, x/2f)
        h = W_0 * upsample(h)                               trilinear, twice in each direction
        h += W_l * gelu(h),   l = 1 .. layers-2
        u = scale shuffle(W_(layers-1) * gelu(h), f)

    ``shuffle`` is depth to space by the factor f in time, y and x.

    Parameters
    ----------
    low, high
        Ranges of the parameters in the training set.
    scale
        Standard deviation of the training set's fields.
    shape
        (time, y, x) of a field, each a multiple of twice the factor.
    harmonics, hidden, seeds
        Of the encoder: harmonics of each parameter, hidden units, channels that it gives.
    width, layers
        Of the decoder: channels, and convolutions, at least 2.
    factor
        Of depth to space.
    ranks
        Rank of each convolution of the decoder; None for dense ones.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    scale: float = 1.0
    shape: tuple[int, ...] = (64, 32, 32)
    harmonics: int = 2
    hidden: int = 256
    seeds: int = 32
    width: int = 64
    layers: int = 4
    factor: int = 4
    ranks: tuple[int, ...] | None = None

    network = "generator"

    def __post_init__(self) -> None:
        for name in ("low", "high", "shape", "ranks"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_counts(self, ("harmonics", "hidden", "seeds", "width", "factor"))
        ordered = all(-math.inf < a < b < math.inf for a, b in zip(self.low, self.high))
        if not self.low or len(self.low) != len(self.high) or not ordered:
            raise WeightsError(f"each parameter needs low < high, got low={self.low}, high={self.high}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise WeightsError(f"scale must be positive, got {self.scale}")
        if len(self.shape) != 3 or any(n < 1 or n % (2 * self.factor) for n in self.shape):
            raise WeightsError(f"shape {self.shape}: expected three multiples of {2 * self.factor}")
        if self.ranks is not None:
            _check_ranks(self.ranks, self.kernel_shapes())

    @property
    def features(self) -> int:
        """Numbers that the encoder sees."""
        return len(self.low) * (1 + 2 * self.harmonics)

    @property
    def coarsest(self) -> tuple[int, ...]:
        """(time, y, x) of the encoder's output."""
        return tuple(n // (2 * self.factor) for n in self.shape)

    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """(out, in, 3, 3, 3) of each convolution of the decoder."""
        channels = [self.seeds, *[self.width] * (self.layers - 1), self.factor**3]
        return [(o, i, 3, 3, 3) for i, o in itertools.pairwise(channels)]

    def tensor_shapes(self) -> Shapes:
        """Name and shape of every tensor: ``encoder.0`` to ``encoder.2``, and ``decoder.l``."""
        units = (self.features, self.hidden, self.hidden, self.seeds * math.prod(self.coarsest))
        shapes: Shapes = {}
        for layer, (in_, out) in enumerate(itertools.pairwise(units)):
            shapes |= {f"encoder.{layer}.weight": (out, in_), f"encoder.{layer}.bias": (out,)}
        for layer, (out, in_, *kernel) in enumerate(self.kernel_shapes()):
            rank = None if self.ranks is None else self.ranks[layer]
            shapes |= convolution_shapes(f"decoder.{layer}", out, in_, tuple(kernel), rank)
        return shapes


SETTINGS: dict[str, Any] = {"propagator": PropagatorSettings, "generator": GeneratorSettings}


@dataclass(frozen=True)
class WaveWeights:
    """Weights of one surrogate.

    Parameters
    ----------
    settings
        `PropagatorSettings` or `GeneratorSettings`.
    tensors
        float32 arrays by name, as in the file.
    record
        How they came about: ``command``, ``seed``, ``data_hash``, ``revision``, ``scores``, ``domain``.
    source
        Where they were read from, for messages.
    """

    settings: Any
    tensors: dict[str, NDArray[np.float32]]
    record: dict[str, str] = field(default_factory=dict)
    source: str = "memory"

    def __post_init__(self) -> None:
        weights_file.check_tensors(self.source, self.settings.tensor_shapes(), self.tensors)

    @property
    def network(self) -> str:
        return self.settings.network

    @property
    def layer(self) -> str:
        """``dense``, or ``compressed`` where the convolutions are sums of one-way filters."""
        return "dense" if self.settings.ranks is None else "compressed"

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(t.size for t in self.tensors.values())

    @property
    def convolution_parameters(self) -> int:
        """Values in the convolutions that compression concerns (of the propagator: not the gates')."""
        return sum(t.size for name, t in self.tensors.items() if name.startswith(("wave.", "decoder.")))

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 over settings and tensors."""
        return weights_file.digest(json.dumps([self.network, asdict(self.settings)]), self.tensors)

    @property
    def scores(self) -> dict[str, Any]:
        return json.loads(self.record.get("scores", "{}"))


def load_wave_weights(name_or_path: str | os.PathLike[str], network: str | None = None) -> WaveWeights:
    """Weights by name, one of `SHIPPED`, or from an HDF5 file.

    Parameters
    ----------
    network
        What is expected: ``propagator`` or ``generator``; None for either.

    Raises
    ------
    WeightsError
        If the file is missing, is no HDF5, has another format version, lacks a tensor or has an ill-shaped or
        non-finite one, or holds the other network.
    """
    shipped = {name: _place(name) for name in SHIPPED}
    if name_or_path in TWINS and not shipped[str(name_or_path)].is_file():
        raise WeightsError(
            f"the dense twin {name_or_path!r} is not installed with the package, it exists for comparison "
            f"only: give the path of {shipped[str(name_or_path)].name}, in the folder benchmarks/weights of "
            "the repository; 'consolve train wave' without --compression makes another"
        )
    path = weights_file.path_of(name_or_path, shipped, "consolve train wave")
    weights = _read(path)
    if network is not None and weights.network != network:
        raise WeightsError(f"{path}: holds a {weights.network}, a {network} is needed here")
    return weights


def _place(name: str) -> Path:
    """Of a shipped file; dense twins stand in a checkout only."""
    folder = weights_file.folder()
    return (folder.parents[2] / "benchmarks" / "weights" if name in TWINS else folder) / f"wave-{name}.h5"


def _read(path: Path) -> WaveWeights:
    content = weights_file.read(path)
    content.check_version(_VERSION, FORMAT_VERSION, "a wave surrogate")
    network = content.attributes.pop("network", "")
    if network not in SETTINGS:
        raise WeightsError(f"{path}: network {network!r}, expected one of {', '.join(SETTINGS)}")
    kind = SETTINGS[network]
    settings = content.settings(kind, tuple(f.name for f in fields(kind)))
    record = {key: str(value) for key, value in content.attributes.items()}
    weights = WaveWeights(settings, content.tensors, record, str(path))
    content.check_unchanged()
    return weights


def save_wave_weights(weights: WaveWeights, path: str | os.PathLike[str]) -> None:
    """Write a weights file: whole or not at all."""
    settings = {"network": weights.network, "settings": json.dumps(asdict(weights.settings))}
    weights_file.save(path, {_VERSION: FORMAT_VERSION, **settings, **weights.record}, weights.tensors)
