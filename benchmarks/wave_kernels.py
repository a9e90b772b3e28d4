"""Milliseconds of a propagator's layers and steps: dense and compressed, in torch and in our Numba kernels.

    python benchmarks/wave_kernels.py [RANK]        default: 80

The network has the default settings, on 64 x 64 points.  A layer is a middle one (width -> width channels on
16 x 16 points); a step is one application of all layers in a rollout, which makes `ahead` snapshots; step()
is one call from Python, and waves are a batch, per wave.  Torch runs in inference mode with channels last;
"factored" applies the one-way filters as a 1 x 1, a depthwise and a 1 x 1 convolution.  Each time is the
least of many short runs; run it on an idle machine.  In brackets: 10^9 multiply-adds per second.  Needs
torch.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # no library spins while another works

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import nn

from consolve.learned.separable.convolution_kernels import Convolution, dense_image
from consolve.learned.separable.kernels import CompressedConvolution, compressed_image
from consolve.learned.separable.layers import SeparableConv2d, flops_of
from consolve.learned.waves.format import PropagatorSettings
from consolve.learned.waves.propagator import TorchPropagator
from consolve.learned.waves.propagator_inference import WavePropagator

POINTS, SEED, SECONDS, REPEATS, STEPS, WAVES = 64, 7, 3.0, 5, 2, 4


def least(function: Callable[..., Any], *arguments: Any, calls: int = 1) -> float:
    """Milliseconds of one of `calls` calls: the least of the runs in a few seconds, after a first one."""
    function(*arguments)
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times) / calls


@njit
def _repeat_dense(arguments, repeats):
    for _ in range(repeats):
        dense_image(*arguments)


@njit
def _repeat_compressed(arguments, repeats):
    for _ in range(repeats):
        compressed_image(*arguments)


def _repeat_torch(layer: nn.Module, x: torch.Tensor) -> None:
    with torch.inference_mode():
        for _ in range(REPEATS):
            layer(x)


def layer_rows(rank: int, threads: int) -> list[tuple[str, float, float]]:
    """(name, milliseconds, multiply-adds) of the middle layer by each engine."""
    s = PropagatorSettings()
    side, width = POINTS // s.factor, s.width
    compressed = SeparableConv2d(
        width, width, 3, padding=1, bias=False, rank=rank, method="depthwise"
    ).requires_grad_(False)
    dense = compressed.to_dense().requires_grad_(False)
    x = torch.randn(1, width, side, side).to(memory_format=torch.channels_last)
    image = np.ascontiguousarray(x[0].permute(1, 2, 0).numpy())
    dense_work, compressed_work = flops_of(dense, x.shape), flops_of(compressed, x.shape)
    ours = Convolution(dense.weight.numpy())
    ours_compressed = CompressedConvolution(
        compressed.output_factor.numpy(), compressed.input_factor.numpy(),
        [f.numpy() for f in compressed.filters],
    )  # fmt: skip
    dense, compressed = (layer.to(memory_format=torch.channels_last) for layer in (dense, compressed))
    return [
        ("torch dense", least(_repeat_torch, dense, x, calls=REPEATS), dense_work),
        ("torch factored", least(_repeat_torch, compressed, x, calls=REPEATS), compressed_work),
        (
            "numba dense",
            least(_repeat_dense, (*ours.arguments(image), threads), REPEATS, calls=REPEATS),
            dense_work,
        ),
        (
            "numba compressed",
            least(_repeat_compressed, ours_compressed.arguments(image, threads), REPEATS, calls=REPEATS),
            compressed_work,
        ),
    ]


class _LayerByLayer(nn.Module):
    """The propagator's step with its compressed layers applied factor by factor."""

    def __init__(self, net: TorchPropagator):
        super().__init__()
        self.net = net

    def forward(self, u: torch.Tensor, gates: list[torch.Tensor]) -> torch.Tensor:
        f, layers = self.net.settings.factor, self.net.wave
        h = layers[0](nn.functional.pixel_unshuffle(u, f)) * gates[0]
        for layer, gate in zip(list(layers)[1:-1], gates[1:]):
            h = h + layer(h) * gate
        return u[:, -1:] + nn.functional.pixel_shuffle(layers[-1](h), f)


def _roll(step: nn.Module, u: torch.Tensor, gates: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        for _ in range(STEPS):
            u = torch.cat([u, step(u, gates)], 1)[:, -u.shape[1] :]


def step_rows(ranks: tuple[int, ...] | None, threads: int) -> list[tuple[str, float, float]]:
    """(name, milliseconds, multiply-adds) of a step of a rollout by torch and by our kernels."""
    torch.manual_seed(SEED)
    net = TorchPropagator(PropagatorSettings(ranks=ranks)).requires_grad_(False)
    s = net.settings
    speed = np.random.default_rng(SEED).uniform(0.5, 1, (POINTS, POINTS))
    u = np.random.default_rng(SEED).standard_normal((s.past, POINTS, POINTS)).astype(np.float32)
    model = WavePropagator.from_tensors(s, net.tensors(), threads).prepare(speed)
    snapshots = STEPS * s.ahead
    out = np.empty((snapshots, POINTS, POINTS), np.float32)
    side = POINTS // s.factor
    work = sum(
        flops_of(layer, (1, in_, side, side)) for layer, (_, in_, _, _) in zip(net.wave, s.kernel_shapes())
    )
    for layer in net.wave:
        if ranks is not None:
            layer.method = "depthwise"
    net = net.to(memory_format=torch.channels_last)
    gates = [
        torch.randn(1, s.width, side, side).to(memory_format=torch.channels_last) for _ in range(s.layers - 1)
    ]
    waves = np.repeat(u[None], WAVES, axis=0)
    forecasts = np.empty((WAVES, *out.shape), np.float32)
    kind = "dense" if ranks is None else "compressed"
    torch_kind = "dense" if ranks is None else "factored"
    return [
        (
            f"torch {torch_kind}",
            least(_roll, _LayerByLayer(net), torch.from_numpy(u)[None], gates, calls=STEPS),
            work,
        ),
        (f"numba {kind}", least(model.rollout, u, snapshots, out, calls=STEPS), work),
        (f"numba {kind}, step()", least(model.step, u), work),
        (
            f"numba {kind}, {WAVES} waves",
            least(model.rollout, waves, snapshots, forecasts, calls=STEPS * WAVES),
            work,
        ),
    ]


def main() -> None:
    rank = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    s = PropagatorSettings()
    print(f"rank {rank}, {s.ahead} snapshots a step; milliseconds (G multiply-adds per second)\n")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"{threads} thread{'s' if threads > 1 else ''}")
        for what, rows in (
            ("layer", layer_rows(rank, threads)),
            ("step", step_rows(None, threads) + step_rows((rank,) * s.layers, threads)),
        ):
            for name, milliseconds, work in rows:
                print(f"  {what:6s}{name:30s}{milliseconds:9.4f}  ({work / milliseconds / 1e6:6.1f})")


if __name__ == "__main__":
    main()
