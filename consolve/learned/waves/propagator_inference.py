"""The propagator without torch: wave forecasts in compiled steps."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

from consolve.learned.separable.convolution_kernels import Convolution
from consolve.learned.waves.domain import ExtrapolationWarning, TrainedFor
from consolve.learned.waves.format import PropagatorSettings, WaveWeights, load_wave_weights
from consolve.learned.waves.layout import GridLayout, PackedLayers
from consolve.learned.waves.medium import medium_channels
from consolve.learned.waves.step_kernels import rollout, rollout_share

GROWTH, MOST_GROWTH = 10.0, 1e12
"""Largest value at the end of a rollout over that at its start from which it is warned of, as no wave without
a source does that, and from which it is an error."""
_NO_COUNTERS = np.zeros(0, np.int64)


def unshuffle(images: NDArray, factor: int) -> NDArray:
    """Space to depth: (c, ny, nx) to (ny/f, nx/f, c f^2), channel ``c f^2 + f dy + dx``."""
    c, ny, nx = images.shape
    blocks = images.reshape(c, ny // factor, factor, nx // factor, factor)
    return blocks.transpose(1, 3, 0, 2, 4).reshape(ny // factor, nx // factor, c * factor**2)


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return (0.5 * x * (1 + erf(x * np.float32(np.sqrt(0.5))))).astype(np.float32)


class WavePropagator:
    """A trained propagator: from the last snapshots of a wave in a medium to the next ones.

    The formula is in `consolve.learned.waves.format.PropagatorSettings`; all numbers are float32.  `prepare`
    computes the gates of a medium once, then `step` and `rollout` may be called any number of times.  An
    object serves one caller at a time.

    Parameters
    ----------
    weights
        `WaveWeights` of a propagator; or settings and tensors, see `from_tensors`.
    threads
        That share a rollout of one wave, or the waves of a batch.

    Raises
    ------
    consolve.learned.multilevel.format.WeightsError
        Weights of another network.
    ValueError
        The number of threads is not positive.
    """

    def __init__(self, weights: WaveWeights, threads: int = 1):
        if not isinstance(weights.settings, PropagatorSettings):
            raise ValueError(f"{weights.source}: holds a {weights.network}, a propagator is needed here")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be a positive integer, got {threads!r}")
        self.weights, self.settings, self.threads = weights, weights.settings, threads
        self._packed = PackedLayers(weights.settings, weights.tensors)
        self._gate_layers = [
            Convolution(weights.tensors[f"gate.{layer}.weight"], weights.tensors[f"gate.{layer}.bias"])
            for layer in range(3)
        ]
        self._layout: GridLayout | None = None
        self._trained_for = TrainedFor.of(weights) if "domain" in weights.record else None

    @classmethod
    def from_tensors(
        cls, settings: PropagatorSettings, tensors: Mapping[str, NDArray[np.float32]], threads: int = 1
    ) -> WavePropagator:
        """From arrays named as by `PropagatorSettings.tensor_shapes`; a fault is a `WeightsError`."""
        return cls(WaveWeights(settings, dict(tensors)), threads)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], threads: int = 1) -> WavePropagator:
        """From a weights file or a shipped name."""
        return cls(load_wave_weights(name_or_path, "propagator"), threads)

    def prepare(self, speed: ArrayLike, fixed: ArrayLike | None = None) -> WavePropagator:
        """Compute the gates of a medium.

        Speeds outside of those that the weights were trained on, as in other units, are warned of by an
        `ExtrapolationWarning`.

        Parameters
        ----------
        speed
            (ny, nx) wave speed at the vertices, positive; the sides must be multiples of the factor.
        fixed
            (ny, nx) mask of the vertices at which u = 0; None for none.

        Returns
        -------
        This object.

        Raises
        ------
        ValueError
            A wrong shape, a speed that is not positive and finite.
        """
        c = np.asarray(speed)
        f = self.settings.factor
        if c.ndim != 2 or 0 in c.shape or c.shape[0] % f or c.shape[1] % f:
            raise ValueError(
                f"speed: expected (ny, nx), multiples of {f} (space to depth of this propagator), "
                f"got {c.shape}; resample the medium"
            )
        if not (np.isrealobj(c) and np.isfinite(c).all() and (c > 0).all()):
            raise ValueError(
                "speed must be positive and finite everywhere; mark obstacles in `fixed` instead"
            )
        outside = self._trained_for.speeds_outside(c) if self._trained_for is not None else ""
        if outside:
            warnings.warn(f"{outside}: errors may be of any size", ExtrapolationWarning, stacklevel=2)
        mask = np.zeros(c.shape, bool) if fixed is None else np.asarray(fixed)
        if mask.shape != c.shape:
            raise ValueError(f"fixed: expected the shape of the speed {c.shape}, got {mask.shape}")
        if self._layout is None or self._layout.shape != c.shape:
            self._layout = GridLayout(self._packed, *c.shape)
            self._states, self._scratch = self._layout.states(1), self._layout.scratch(self.threads)
        h = unshuffle(medium_channels(c, mask != 0), f)
        for layer in self._gate_layers[:-1]:
            h = _gelu(layer(h))
        free = unshuffle((mask == 0)[None].astype(np.float32), f)
        self._gates = self._layout.framed_gates(self._gate_layers[-1](h), free)
        return self

    def step(self, u: ArrayLike) -> NDArray[np.float32]:
        """The next `ahead` snapshots of the last `past` ones: (past, ny, nx) to (ahead, ny, nx).

        With a leading batch axis as in `rollout`.
        """
        return self.rollout(u, self.settings.ahead)

    def rollout(
        self, u: ArrayLike, steps: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The `steps` snapshots after the given ones.

        Parameters
        ----------
        u
            The last snapshots, the newest last: (past, ny, nx), or (batch, past, ny, nx) for many waves in
            the same medium.
        steps
            Snapshots to compute, in intervals of the training data.
        out
            Where to write them; float32, contiguous, of the shape that is returned.

        Returns
        -------
        (steps, ny, nx) or (batch, steps, ny, nx).

        Warns
        -----
        ExtrapolationWarning
            If it grows by more than `GROWTH`.

        Raises
        ------
        RuntimeError
            `prepare` was not called; or the rollout overflows, or grows by more than `MOST_GROWTH`.
        ValueError
            Wrong shape, dtype or number of steps.
        """
        if self._layout is None:
            raise RuntimeError("no medium yet: call prepare(speed, fixed) before step or rollout")
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
            raise ValueError(f"steps must be a positive integer, got {steps!r}")
        u = np.asarray(u)
        snapshots = (self.settings.past, *self._layout.shape)
        if u.ndim not in (3, 4) or u.shape[-3:] != snapshots:
            raise ValueError(
                f"u: expected the last snapshots {snapshots} of the prepared medium, or a batch of them, "
                f"got {u.shape}"
            )
        if not np.issubdtype(u.dtype, np.floating):
            raise ValueError(
                f"u: expected floating-point numbers, got {u.dtype}; convert with astype(float32)"
            )
        u = np.ascontiguousarray(u, np.float32)
        shape = (*u.shape[:-3], int(steps), *self._layout.shape)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out: expected contiguous float32{shape}, got {out.dtype}{out.shape}")
        if u.ndim == 4 and len(self._states) < self.threads:
            self._states = self._layout.states(self.threads)
        arguments = (
            u.reshape(-1, *snapshots), self._layout.sizes, self._layout.table, self._layout.offsets,
            self._packed.weights, self._gates, self._states, self._scratch, out.reshape(-1, *shape[-3:]),
        )  # fmt: skip
        if self.threads == 1:
            rollout_share(0, 1, False, *arguments, _NO_COUNTERS, _NO_COUNTERS)
        else:
            rollout(*arguments, self.threads)
        self._check_growth(u.reshape(-1, *snapshots), out.reshape(-1, *shape[-3:]))
        return out

    def _check_growth(self, given: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        """What grows without bound shows at the end of a rollout, which is quick to see."""
        size, last = _largest(given), _largest(found[:, -1])
        for wave in np.flatnonzero(np.isfinite(size) & ~(last <= GROWTH * size)):
            limit = MOST_GROWTH * size[wave] if size[wave] > 0 else np.finfo(np.float32).max
            beyond = ~(_largest(found[wave]) <= limit)
            if beyond.any():
                raise RuntimeError(
                    f"the forecast overflows at step {int(np.argmax(beyond)) + 1}, where it is over "
                    f"{MOST_GROWTH:g} times its start: these weights are not stable for this problem (is the "
                    "medium in the units of the training set?); take fewer steps or other weights"
                )
            if size[wave] > 0:
                warnings.warn(
                    f"the forecast grows to {last[wave] / size[wave]:.3g} times its start, which a wave "
                    "without a source does not: do not trust it",
                    ExtrapolationWarning,
                    stacklevel=3,
                )


def _largest(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """max |u| of each image or group of images; NaN if there is one."""
    return np.array([np.maximum(image.max(), -image.min()) for image in images], np.float32)
