"""What a generator of wave fields has to be compared with: nearest neighbour, POD with a network."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.pde.waves.data import WaveData

HARMONICS, HIDDEN, BATCH, RATE = 2, 256, 128, 2e-3
SECONDS = 40.0
_CHUNK = 4096


@dataclass(frozen=True)
class Baseline:
    """Fields of a test set by a baseline; ``numpy.asarray`` gives the fields.

    Attributes
    ----------
    name
        For tables.
    fields
        (runs, time, y, x) float32.
    numbers
        Values that have to be stored.
    train_s
        Seconds of set-up and training.
    field_ms
        Milliseconds for one field, the least of some repetitions.
    """

    name: str
    fields: NDArray[np.float32]
    numbers: int
    train_s: float
    field_ms: float

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return np.array(self.fields, dtype) if copy else np.asarray(self.fields, dtype)


def _least_ms(work: Any, repetitions: int = 15) -> float:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def nearest_neighbour(train: WaveData, test: WaveData, runs: int | None = None) -> Baseline:
    """The field of the training run whose parameters, over their standard deviations, are nearest.

    Parameters
    ----------
    train, test
        Zone sets.
    runs
        Training runs that are used; default: all.
    """
    start = time.perf_counter()
    known = np.asarray(train.parameters)[:runs]
    scale = known.std(0)
    seconds = time.perf_counter() - start

    def nearest(parameters: NDArray) -> int:
        return int(np.argmin(np.square((known - parameters) / scale).sum(1)))

    fields = np.stack([train.u[nearest(p)] for p in test.parameters])
    ms = _least_ms(lambda: train.u[nearest(test.parameters[0])])
    return Baseline("nearest neighbour", fields, len(known) * train.u[0].size, seconds, ms)


def modes_of(fields: NDArray[np.float32], modes: int) -> tuple[NDArray, NDArray, NDArray]:
    """Mean (values,), leading POD modes (modes, values), orthonormal, and coefficients (runs, modes).

    By the eigenvectors of the runs' inner products (method of snapshots: Sirovich, 1987).
    """
    mean = fields.mean(0)
    gram = np.zeros((len(fields), len(fields)))
    for at in range(0, fields.shape[1], _CHUNK):
        part = fields[:, at : at + _CHUNK] - mean[at : at + _CHUNK]
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    first = np.argsort(values)[::-1][:modes]
    first = first[values[first] > 1e-7 * values.max()]  # the rest is round-off of float32
    size = np.sqrt(values[first])
    weights = (vectors[:, first] / size).astype(np.float32)
    basis = weights.T @ fields - np.outer(weights.sum(0), mean)
    return mean, basis, (vectors[:, first] * size).astype(np.float32)


def pod_network(
    train: WaveData,
    test: WaveData,
    modes: int = 150,
    seconds: float = SECONDS,
    steps: int | None = None,
    seed: int = 0,
    runs: int | None = None,
) -> Baseline:
    """Proper orthogonal decomposition, and a network from the parameters to the coefficients of the modes.

    The network sees what the generator's encoder sees, parameters and two harmonics of each, and has three
    hidden layers of 256; it learns the coefficients by mean squares, which are those of the fields.

    Parameters
    ----------
    train, test
        Zone sets.
    modes
        At most; fewer where the training set has fewer.
    seconds
        Of the network's training.
    steps
        Steps of the training instead of `seconds`.
    seed
        Of the network and the batches.
    runs
        Training runs that are used; default: all.
    """
    import torch

    start = time.perf_counter()
    u = train.u[:] if runs is None else train.u[:runs]
    mean, basis, coefficients = modes_of(u.reshape(len(u), -1), modes)
    shape = u.shape[1:]
    known = np.asarray(train.parameters)[: len(u)]
    del u
    low, high = known.min(0), known.max(0)

    def features(parameters: NDArray) -> torch.Tensor:
        p = 2 * (np.atleast_2d(parameters) - low) / (high - low) - 1
        waves = [f(math.pi / 2 * k * p) for k in range(1, HARMONICS + 1) for f in (np.sin, np.cos)]
        return torch.from_numpy(np.concatenate([p, *waves], 1).astype(np.float32))

    scale = float(coefficients.std())
    inputs, targets = features(known), torch.from_numpy(coefficients / scale)
    torch.manual_seed(seed)
    sizes = (inputs.shape[1], HIDDEN, HIDDEN, HIDDEN, targets.shape[1])
    layers: list[torch.nn.Module] = []
    for in_, out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(in_, out), torch.nn.GELU()]
    net = torch.nn.Sequential(*layers[:-1])
    _train(net, inputs, targets, seconds, steps, np.random.default_rng(seed))
    trained = time.perf_counter() - start

    def fields(parameters: NDArray) -> NDArray[np.float32]:
        with torch.no_grad():
            found = scale * net(features(parameters)).numpy()
        return (found @ basis + mean).reshape(-1, *shape)

    numbers = basis.size + mean.size + sum(p.numel() for p in net.parameters())
    ms = _least_ms(lambda: fields(test.parameters[0]))
    return Baseline("POD + network", fields(test.parameters), numbers, trained, ms)


def _train(net: Any, inputs: Any, targets: Any, seconds: float, steps: int | None, rng: Any) -> None:
    """Adam with a rate that falls to 0 by a cosine, over the steps or the seconds."""
    import torch

    optimiser = torch.optim.Adam(net.parameters(), RATE)
    start, step, order = time.perf_counter(), 0, np.empty(0, np.int64)
    while True:
        done = step / steps if steps is not None else (time.perf_counter() - start) / seconds
        if done >= 1:
            return
        if not order.size:
            order = rng.permutation(len(inputs))
        picks, order = order[:BATCH], order[BATCH:]
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * done)) / 2
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(net(inputs[picks]), targets[picks]).backward()
        optimiser.step()
        step += 1
