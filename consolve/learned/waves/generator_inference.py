"""The generator without torch: the field of a wave in a zone from the parameters of source and medium."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consolve.learned.separable.convolution_kernels import Convolution
from consolve.learned.separable.kernels import CompressedConvolution
from consolve.learned.waves.domain import ExtrapolationWarning
from consolve.learned.waves.format import GeneratorSettings, WaveWeights, load_wave_weights
from consolve.learned.waves.generator_kernels import add, gelu, shuffle, upsample
from consolve.pde.waves.sampling import PARAMETER_NAMES

MARGIN = 0.02
"""Part of a range that a parameter may pass it by: ranges are those of a training set's random draws."""
CHUNK = 16
"""Fields that pass the encoder together: its weights are read once for all."""


class WaveGenerator:
    """A trained generator.

    The formula is in `consolve.learned.waves.format.GeneratorSettings`; all numbers are float32.  An object
    may serve several callers at a time.

    Parameters
    ----------
    weights
        `WaveWeights` of a generator; or settings and tensors, see `from_tensors`.
    threads
        That share a field, or the fields of a batch.
    parameter_names
        For messages; default: those of the zone set where the generator takes four parameters.

    Raises
    ------
    ValueError
        Weights of another network, a number of threads that is not positive, names that do not fit.
    """

    def __init__(self, weights: WaveWeights, threads: int = 1, parameter_names: tuple[str, ...] = ()):
        if not isinstance(weights.settings, GeneratorSettings):
            raise ValueError(f"{weights.source}: holds a {weights.network}, a generator is needed here")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be a positive integer, got {threads!r}")
        self.weights, self.settings, self.threads = weights, weights.settings, threads
        self.parameter_names = _names(len(self.settings.low), tuple(parameter_names))
        self._low, self._high = np.array(self.settings.low), np.array(self.settings.high)
        self._encoder = [self._linear(layer) for layer in range(3)]
        self._decoder = [self._convolution(layer) for layer in range(self.settings.layers)]

    @classmethod
    def from_tensors(
        cls, settings: GeneratorSettings, tensors: Mapping[str, NDArray[np.float32]], threads: int = 1
    ) -> WaveGenerator:
        """From arrays named as by `GeneratorSettings.tensor_shapes`; a fault is a `WeightsError`."""
        return cls(WaveWeights(settings, dict(tensors)), threads)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], threads: int = 1) -> WaveGenerator:
        """From a weights file or a shipped name; a fault is a `WeightsError`."""
        return cls(load_wave_weights(name_or_path, "generator"), threads)

    def _linear(self, layer: int) -> Convolution:
        """A dense layer as a convolution of one tap over a row of samples; the last gives channels last."""
        weight, bias = (self.weights.tensors[f"encoder.{layer}.{part}"] for part in ("weight", "bias"))
        if layer == 2:
            order = np.arange(len(bias)).reshape(self.settings.seeds, -1).T.ravel()
            weight, bias = weight[order], bias[order]
        return Convolution(weight[:, :, None, None], bias)

    def _convolution(self, layer: int) -> Convolution | CompressedConvolution:
        tensors, name = self.weights.tensors, f"decoder.{layer}"
        if self.settings.ranks is None:
            return Convolution(tensors[f"{name}.weight"])
        filters = [tensors[f"{name}.filter_{axis}"] for axis in ("z", "y", "x")]
        return CompressedConvolution(
            tensors[f"{name}.output_factor"], tensors[f"{name}.input_factor"], filters
        )

    def field(
        self,
        parameters: ArrayLike,
        extrapolate: bool = False,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """The field of a set of parameters, or the fields of several.

        Parameters
        ----------
        parameters
            (number,) or (n, number), in the order of :attr:`parameter_names`.
        extrapolate
            Warn of parameters outside the training set's ranges (by more than `MARGIN` of a range) with an
            `ExtrapolationWarning` instead of refusing them.
        out
            Where to write; float32, contiguous, of the shape that is returned.

        Returns
        -------
        (time, y, x) or (n, time, y, x) float32, in units of the training set.

        Raises
        ------
        ValueError
            A wrong number of parameters, NaN or Inf, a parameter outside its range, `out` that does not fit.
        RuntimeError
            If the field overflows, with parameters far outside.
        """
        p = self._checked(parameters, extrapolate)
        shape = (*p.shape[:-1], *self.settings.shape)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out: expected contiguous float32{shape}, got {out.dtype}{out.shape}")
        samples, fields = p.reshape(-1, p.shape[-1]), out.reshape(-1, *self.settings.shape)
        if self.threads == 1 or len(samples) < self.threads:
            self._fields(samples, fields, self.threads)
        else:
            parts = np.array_split(np.arange(len(samples)), self.threads)
            with ThreadPoolExecutor(self.threads) as pool:
                jobs = [
                    pool.submit(self._fields, samples[part], fields[part[0] : part[-1] + 1]) for part in parts
                ]
                for job in jobs:
                    job.result()
        if extrapolate and not np.isfinite(out).all():
            raise RuntimeError("the field overflows: the parameters are too far outside of their ranges")
        return out

    __call__ = field

    def _checked(self, parameters: ArrayLike, extrapolate: bool) -> NDArray[np.float64]:
        try:
            p = np.asarray(parameters, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters: expected numbers, got {parameters!r}") from error
        names = self.parameter_names
        if p.ndim not in (1, 2) or p.shape[-1] != len(names):
            raise ValueError(
                f"parameters: expected shape ({len(names)},) or (n, {len(names)}) for {', '.join(names)}, "
                f"got {p.shape}"
            )
        if not np.isfinite(p).all():
            raise ValueError(f"{names[int(np.argwhere(~np.isfinite(p))[0][-1])]}: NaN or Inf; give a number")
        margin = MARGIN * (self._high - self._low)
        outside = (p < self._low - margin) | (p > self._high + margin)
        if outside.any():
            place = tuple(np.argwhere(outside)[0])
            which = place[-1]
            message = (
                f"{names[which]} = {p[place]:g} lies outside [{self._low[which]:g}, {self._high[which]:g}], "
                "the range of the generator's training set"
            )
            if not extrapolate:
                raise ValueError(f"{message}; extrapolate=True gives a field all the same, at your risk")
            warnings.warn(f"{message}: errors may be of any size", ExtrapolationWarning, stacklevel=3)
        return p

    def _features(self, parameters: NDArray[np.float64]) -> NDArray[np.float32]:
        p = 2 * (parameters - self._low) / (self._high - self._low) - 1
        waves = [
            f(np.pi / 2 * k * p) for k in range(1, self.settings.harmonics + 1) for f in (np.sin, np.cos)
        ]
        return np.concatenate([p, *waves], axis=1).astype(np.float32)

    def _fields(self, parameters: NDArray[np.float64], out: NDArray[np.float32], threads: int = 1) -> None:
        """Fills out (n, time, y, x)."""
        for start in range(0, len(parameters), CHUNK):
            h = self._features(parameters[start : start + CHUNK])[None]
            h = gelu(self._encoder[1](gelu(self._encoder[0](h))))
            for sample, field in zip(self._encoder[2](h)[0], out[start:]):
                self._decode(sample.reshape(*self.settings.coarsest, self.settings.seeds), field, threads)

    def _decode(self, seeds: NDArray[np.float32], out: NDArray[np.float32], threads: int) -> None:
        h = self._decoder[0](upsample(seeds), threads)
        for convolution in self._decoder[1:-1]:
            add(convolution(gelu(h), threads), h)
        h = self._decoder[-1](gelu(h), threads)
        shuffle(h, self.settings.factor, np.float32(self.settings.scale), out)


def _names(number: int, given: tuple[str, ...]) -> tuple[str, ...]:
    if given:
        if len(given) != number:
            raise ValueError(f"parameter_names: {given} came, expected {number} names")
        return given
    known = number == len(PARAMETER_NAMES)
    return PARAMETER_NAMES if known else tuple(f"parameter {k}" for k in range(number))
