"""A surrogate screens a thousand places of a source; finite elements verify the best of them.

    python examples/wave_screening.py [--picture screening.png] [--dolfinx]

Behind a wall with three gaps and a slow lens lies a small target.  From where does a pulse bring it the most
energy?  Each place needs a run of its own.  (For one receiver, reciprocity would need one run in all: source
and receiver change places.  The target has 56 vertices, and its energy is asked.)

The surrogate starts where the source has ended.  Until then the pulse stays within 0.27 of its source, where
the medium is uniform here, so that one finite-element run serves all places: moved by whole vertices of its
grid, it is the run for another place, exactly.  Other media need a run of their own up to there, which is a
quarter of a run.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from consolve.base.files import whole_file
from consolve.learned.waves.propagator_inference import WavePropagator
from consolve.pde.waves.batch import run_many
from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import PixelMedium, Source, WaveProblem
from consolve.pde.waves.sampling import medium_at_vertices

VERTICES, EVERY, INTERVAL = 253, 4, 0.02
"""Finite-element grid, its vertices for one of the surrogate, time between snapshots."""
SPEED, FREQUENCY, AMPLITUDE = 0.75, 8.0, 10.0
REACH = 0.27
"""How far the pulse has come when the surrogate takes over."""
STEPS = 42
TARGET = np.s_[28:36, 53:60]
"""Vertices [y, x] of the 64 x 64 grid."""
CHUNK = 50
"""Rollouts that are held in memory at once."""


def medium() -> PixelMedium:
    """Speed 0.75; a wall of fixed cells with three gaps, and a disc of speed 0.5 behind it."""
    cells = (np.arange(VERTICES - 1) + 0.5) / (VERTICES - 1)
    x, y = cells[None, :], cells[:, None]
    speed = np.where((x - 0.82) ** 2 + (y - 0.5) ** 2 < 0.08**2, 0.5, SPEED)
    row = np.floor(63 * y)
    gap = ((row >= 12) & (row < 17)) | ((row >= 29) & (row < 34)) | ((row >= 46) & (row < 51))
    return PixelMedium(speed, (x >= 43 / 63) & (x < 45 / 63) & ~gap)


def candidates(count: int, seed: int = 0) -> NDArray[np.int64]:
    """(count, 2): different random vertices (i, j) of the finite-element grid that are `REACH` away from all
    sides and from the wall."""
    cells = VERTICES - 1
    low, high = math.ceil(REACH * cells), math.floor((1 - REACH) * cells)
    wall = math.floor((43 / 63 - REACH) * cells)
    i, j = np.meshgrid(np.arange(low, wall + 1), np.arange(low, high + 1))
    if count > i.size:
        raise ValueError(f"there are {i.size} places, {count} are asked for")
    chosen = np.random.default_rng(seed).choice(i.size, count, replace=False)
    return np.stack([i.ravel()[chosen], j.ravel()[chosen]], axis=1)


def problem(where: NDArray[np.int64], in_medium: PixelMedium) -> WaveProblem:
    """The problem of a source at a vertex (i, j)."""
    x, y = where / (VERTICES - 1)
    return WaveProblem(in_medium, Source(float(x), float(y), FREQUENCY, AMPLITUDE))


def snapshot_times(past: int = 3, steps: int = STEPS) -> NDArray[np.float64]:
    """From the end of the source on."""
    end = Source(0.5, 0.5, FREQUENCY).end
    return INTERVAL * (math.ceil(end / INTERVAL * (1 - 1e-12)) + np.arange(past + steps))


def template(past: int = 3) -> NDArray[np.float32]:
    """(past, 2 n - 1, 2 n - 1): the pulse of a source in the middle, in a uniform medium."""
    middle = (VERTICES - 1) // 2
    uniform = PixelMedium(np.full((1, 1), SPEED))
    u = LeapFrog(problem(np.array([middle, middle]), uniform), VERTICES, np.float32).run(
        snapshot_times(past, 0)
    )
    return np.pad(u, ((0, 0), (middle, middle), (middle, middle)))


def starts(pulse: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """(places, past, 64, 64): the pulse moved to each place, as a cut of the template."""
    n = VERTICES - 1
    return np.stack(
        [pulse[:, n - j : 2 * n - j + 1 : EVERY, n - i : 2 * n - i + 1 : EVERY] for i, j in places]
    )


def energy(u: NDArray) -> NDArray[np.float64]:
    """Mean of u^2 over the target and the snapshots, of each run (runs, times, 64, 64)."""
    return np.mean(np.square(u[(..., *TARGET)], dtype=np.float64), axis=(1, 2, 3))


@dataclass
class Screening:
    """What was found.

    Attributes
    ----------
    places, scores
        (count, 2) vertices and the surrogate's energies.
    best, sample
        Numbers of the places with the greatest scores, in order, and of random ones.
    verified, checked, coarse
        Energies by finite elements at these: on 253 x 253 vertices for both, on 127 x 127 for the sample.
    seconds
        Of processor time: ``start``, ``surrogate``, one ``fe`` and one ``coarse`` run.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float64]
    best: NDArray[np.int64]
    sample: NDArray[np.int64]
    verified: NDArray[np.float64]
    checked: NDArray[np.float64]
    coarse: NDArray[np.float64]
    seconds: dict[str, float]

    def correlation(self, with_coarse: bool = False) -> float:
        """Spearman's, over the sample, with finite elements."""
        found = self.coarse if with_coarse else self.scores[self.sample]
        return float(spearmanr(found, self.checked)[0])


def screen(
    count: int = 1000, best: int = 5, sample: int = 20, model: str = "propagator", threads: int = 1
) -> Screening:
    """Score all places by the surrogate, then the best and a random sample by finite elements."""
    found, places = medium(), candidates(count)
    propagator = WavePropagator.load(model, threads)
    past = propagator.settings.past
    grid = WaveGrid.of(WaveProblem(found), VERTICES)
    speed, fixed = medium_at_vertices(grid, EVERY)
    propagator.prepare(speed, fixed).rollout(np.zeros((1, past, *speed.shape), np.float32), 1)  # compiles
    finite_elements(places[:1], found, VERTICES, past, threads)

    begin = time.process_time()
    u = starts(template(past), places)
    seconds = {"start": time.process_time() - begin}

    begin = time.process_time()
    propagator.prepare(speed, fixed)
    out = np.empty((CHUNK, STEPS, *speed.shape), np.float32)
    scores = [
        energy(propagator.rollout(part, STEPS, out[: len(part)]))
        for part in (u[k : k + CHUNK] for k in range(0, count, CHUNK))
    ]
    seconds["surrogate"] = time.process_time() - begin

    ranked = np.argsort(np.concatenate(scores))[::-1][:best]
    chosen = np.random.default_rng(1).choice(count, min(sample, count), replace=False)
    fine, seconds["fe"] = finite_elements(
        places[np.concatenate([ranked, chosen])], found, VERTICES, past, threads
    )
    coarse, seconds["coarse"] = finite_elements(places[chosen], found, VERTICES // 2 + 1, past, threads)
    return Screening(
        places, np.concatenate(scores), ranked, chosen, fine[:best], fine[best:], coarse, seconds
    )


def finite_elements(
    places: NDArray[np.int64], found: PixelMedium, vertices: int, past: int, threads: int
) -> tuple[NDArray[np.float64], float]:
    """Energies by finite elements from rest on, and the seconds of processor time of one run."""
    begin = time.process_time()
    problems = [problem(where, found) for where in places]
    times = snapshot_times(past)
    u = run_many(problems, vertices, times, np.float32, (vertices - 1) // 63, threads=threads)
    return energy(u[:, past:]), (time.process_time() - begin) / len(places)


def dolfinx_seconds(scheme: str, snapshots: int = 4) -> float:
    """Processor time of one whole run in DOLFINx, from that of its first snapshots; set-up apart."""
    from consolve.pde.waves.finite_elements import WaveModel
    from consolve.pde.waves.mesh import unit_square_mesh

    where = candidates(1)[0]
    step = INTERVAL / 4 if scheme == "newmark" else None
    model = WaveModel(problem(where, medium()), unit_square_mesh(VERTICES), scheme=scheme, step=step)
    steps = round(snapshots * INTERVAL / model.step)
    model.advance(1)
    begin = time.process_time()
    model.advance(steps)
    return (time.process_time() - begin) * snapshot_times()[-1] / (steps * model.step)


def report(result: Screening, dolfinx: bool = False) -> None:
    """Print what was found and what it cost."""
    s, count = result.seconds, len(result.places)
    print(f"{'rank':>4} {'x':>7} {'y':>7} {'surrogate':>11} {'finite elements':>16} {'ratio':>6}")
    for rank, (number, truth) in enumerate(zip(result.best, result.verified), 1):
        x, y = result.places[number] / (VERTICES - 1)
        score = result.scores[number]
        print(f"{rank:4} {x:7.3f} {y:7.3f} {score:11.3e} {truth:16.3e} {score / truth:6.2f}")
    top = result.checked.max()
    print(
        f"best verified {result.verified.max():.3e}; best of {result.sample.size} random places {top:.3e}, "
        f"their median {np.median(result.checked):.3e}"
    )
    print(
        f"rank correlation with finite elements over these {result.sample.size}: {result.correlation():.3f}\n"
    )
    screening = s["start"] + s["surrogate"]
    print("seconds of processor time")
    print(f"  {count} starts, one template and its cuts    {s['start']:10.3f}")
    print(f"  {count} rollouts of {STEPS} snapshots             {s['surrogate']:10.3f}")
    rivals = {f"finite elements, {VERTICES} x {VERTICES}, Numba": s["fe"]}
    if dolfinx:
        rivals["the same by DOLFINx, leap-frog"] = dolfinx_seconds("leap-frog")
        rivals["the same by DOLFINx, Newmark"] = dolfinx_seconds("newmark")
    for name, one in rivals.items():
        print(f"  one run: {name:37} {one:10.3f}: the screening cost {screening / one:.1f} of these")
    half, coarse = VERTICES // 2 + 1, count * s["coarse"]
    print(
        f"  all {count} places in Numba, {half} x {half} {coarse:16.3f}: "
        f"{coarse / screening:.2f} of the screening"
    )
    print(f"rank correlation on {half} x {half} vertices: {result.correlation(True):.3f}")
    if coarse < screening and result.correlation(True) >= result.correlation():
        print("On this processor the coarse finite elements in compiled loops are the better screen.")


def draw(result: Screening, path: str, model: str) -> None:
    """The places, coloured by the energy that they bring, and the wave of the best one at the target."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from consolve.pde.waves.picture import render_wave

    speed, fixed = medium_at_vertices(WaveGrid.of(WaveProblem(medium()), VERTICES), EVERY)
    propagator = WavePropagator.load(model).prepare(speed, fixed)
    best = result.places[result.best[:1]]
    given = starts(template(propagator.settings.past), best)[0]
    u = propagator.rollout(given, STEPS)
    loudest = int(np.argmax([energy(snapshot[None, None])[0] for snapshot in u]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.2, 5.3), layout="constrained", sharey=True)
    pictures = {left: np.zeros_like(u[0]), right: u[loudest]}
    rows, columns = TARGET
    corner = np.array([columns.start, rows.start]) / 63
    size = np.array([columns.stop - columns.start - 1, rows.stop - rows.start - 1]) / 63
    for axes, field in pictures.items():
        axes.imshow(render_wave(field, speed, fixed, 900), extent=(0, 1, 0, 1))
        axes.add_patch(
            plt.Rectangle(corner, *size, fill=False, ec="#1f2430", lw=1.6, ls="--", label="target")
        )
        axes.plot(*best[0] / (VERTICES - 1), "*", ms=15, color="#ffd23f", mec="#1f2430", mew=1, label="best")
        axes.set(xlabel="x")
    x, y = result.places.T / (VERTICES - 1)
    dots = left.scatter(x, y, c=result.scores / result.scores.max(), s=9, cmap="viridis", linewidths=0)
    left.set(ylabel="y", title=f"{len(x)} places, and what they bring to the target")
    right.set(title=f"the wave of the best, t = {snapshot_times()[len(given) + loudest]:.2f}")
    left.legend(loc="upper left", frameon=True, framealpha=0.9)
    figure.colorbar(dots, ax=left, label="energy, of the greatest", shrink=0.8, location="left")
    with whole_file(path) as part:
        figure.savefig(part, dpi=140)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--model", default="propagator", help="a shipped name or a file of weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", metavar="F.png")
    parser.add_argument("--dolfinx", action="store_true", help="time DOLFINx too")
    given = parser.parse_args()
    result = screen(given.places, model=given.model, threads=given.threads)
    report(result, given.dolfinx)
    if given.picture:
        draw(result, given.picture, given.model)
        print(f"\nwritten {given.picture}")
