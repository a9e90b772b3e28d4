"""A wave forecast by the generator, made right in its zone by a finite-element submodel.

    python examples/wave_submodel.py
    python examples/wave_submodel.py --x 0.2 --y 0.3 --frequency 6.5 --inclusion-speed 0.6 --picture wave.png
    python examples/wave_submodel.py --model my-generator.h5 --structured

A Ricker source sends a wave through a square of speed 0.75 with a disc of another speed; all sides absorb.
The generator gives the wave in the corner [32/63, 1]^2, where the disc is, at once.  The submodel takes from
it what comes in through the two inner sides, and solves the wave equation in the corner with the true medium,
in DOLFINx (0.5 and later) or, with ``--structured`` or where DOLFINx is missing, on a structured grid.  Both
are compared with finite elements on the whole square.
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from consolve.learned.waves.generator_inference import WaveGenerator
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import Source, WaveProblem, vrmse
from consolve.pde.waves.sampling import DiscMedium, WaveSet
from consolve.pde.waves.zone.leapfrog import NumbaSubmodel
from consolve.pde.waves.zone.zone import Zone

matplotlib.use("Agg")
from matplotlib import pyplot

ZONE = Zone()  # the last 32 x 32 vertices of 64 x 64
TIMES = 0.34 + 0.02 * np.arange(64)
SET = WaveSet("zone")
FE_VERTICES = 253  # 63 * 4 + 1: contains the vertices of the zone


def problem_of(x: float, y: float, frequency: float, inclusion_speed: float) -> WaveProblem:
    """The problems of the generator's training set."""
    medium = DiscMedium(0.74, 0.74, 0.12, inside=inclusion_speed)
    return WaveProblem(medium, Source(x, y, frequency, SET.amplitudes[0]), SET.boundaries)


def whole_square(problem: WaveProblem) -> NDArray[np.float64]:
    """The zone's part of finite elements on the whole square, (times, 32, 32)."""
    run = LeapFrog(problem, FE_VERTICES).run(TIMES, every=FE_VERTICES // 63)
    return run[:, ZONE.bottom : ZONE.top + 1, ZONE.left : ZONE.right + 1]


def submodel_of(problem: WaveProblem, field: NDArray, structured: bool) -> Any:
    """The zone's finite elements, fed by a field (times, 32, 32) with errors."""
    if structured:
        return NumbaSubmodel(problem, ZONE, TIMES, field)
    from consolve.pde.waves.zone.finite_elements import DolfinxSubmodel

    return DolfinxSubmodel(problem, ZONE, TIMES, field)


def compare(problem: WaveProblem, field: NDArray, structured: bool) -> dict[str, Any]:
    """Fields, errors and seconds of whole square, surrogate and surrogate + submodel."""
    start = time.perf_counter()
    truth = whole_square(problem)
    whole = time.perf_counter() - start
    start = time.perf_counter()
    corrected = submodel_of(problem, field, structured).run()
    zone = time.perf_counter() - start
    fields = {"surrogate": np.asarray(field), "surrogate + submodel": corrected}
    return {
        "truth": truth,
        "fields": fields,
        "vrmse": {name: float(vrmse(u, truth)) for name, u in fields.items()},
        "seconds": {"whole square": whole, "submodel": zone},
    }


def picture(found: dict[str, Any], problem: WaveProblem, path: str) -> None:
    """Truth and both fields at the time of the strongest wave; below, VRMSE over time and both errors."""
    truth, fields = found["truth"], found["fields"]
    k = int(np.argmax(truth.var(axis=(1, 2))))
    top = abs(truth[k]).max()
    spread = max(abs(u[k] - truth[k]).max() for u in fields.values())
    extent = (ZONE.x[0], ZONE.x[-1], ZONE.y[0], ZONE.y[-1])
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 7), constrained_layout=True)

    def show(axis: Any, values: NDArray, limit: float, title: str) -> Any:
        drawn = axis.imshow(
            values,
            origin="lower",
            extent=extent,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="bilinear",
        )
        x, y = np.meshgrid(*[np.linspace(a, b, 300) for a, b in (extent[:2], extent[2:])])
        axis.contour(x, y, problem.medium.speed(x, y) != 0.75, [0.5], colors="0.3", linewidths=0.8)
        axis.set_title(title, fontsize=10)
        return drawn

    drawn = show(axes[0, 0], truth[k], top, f"finite elements, whole square, t = {TIMES[k]:.2f}")
    for column, (name, u) in enumerate(fields.items(), 1):
        show(axes[0, column], u[k], top, f"{name}: VRMSE {found['vrmse'][name]:.3f}")
        errors = show(axes[1, column], u[k] - truth[k], spread, f"error of {name}")
        scale = np.sqrt(truth.var())
        axes[1, 0].plot(TIMES, np.sqrt(((u - truth) ** 2).mean(axis=(1, 2))) / scale, label=name)
    figure.colorbar(drawn, ax=axes[0, :], shrink=0.8, label="u")
    figure.colorbar(errors, ax=axes[1, 1:], shrink=0.8, label="error")
    axes[1, 0].set(xlabel="time", ylabel="root-mean-square error / std of u", ylim=(0, None))
    axes[1, 0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="generator", help="shipped name or weights file")
    for name, value in (("x", 0.25), ("y", 0.3), ("frequency", 6.0), ("inclusion-speed", 0.55)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--structured", action="store_true", help="structured grid instead of DOLFINx")
    parser.add_argument("--picture", default="wave_submodel.png", metavar="FILE")
    options = parser.parse_args()

    parameters = options.x, options.y, options.frequency, options.inclusion_speed
    problem = problem_of(*parameters)
    generator = WaveGenerator.load(options.model)
    generator.field(parameters)  # compiles
    start = time.perf_counter()
    field = generator.field(parameters)
    seconds = time.perf_counter() - start
    structured = options.structured or find_spec("dolfinx") is None
    compare(problem, field, structured)  # compiles
    found = compare(problem, field, structured)
    found["seconds"]["surrogate"] = seconds

    kind = "structured grid" if structured else "DOLFINx"
    print(f"{'':32} {'VRMSE':>8} {'seconds':>9}")
    print(f"{'finite elements, whole square':32} {'':8} {found['seconds']['whole square']:9.4f}")
    print(f"{'surrogate':32} {found['vrmse']['surrogate']:8.4f} {seconds:9.4f}")
    total = seconds + found["seconds"]["submodel"]
    print(f"{f'surrogate + submodel, {kind}':32} {found['vrmse']['surrogate + submodel']:8.4f} {total:9.4f}")
    picture(found, problem, options.picture)
    print(f"picture: {options.picture}")
    return found


if __name__ == "__main__":
    main()
