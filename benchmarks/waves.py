"""The wave surrogates of three seeds, dense and compressed, beside finite elements and plain baselines.

    sh benchmarks/train_waves.sh DIR
    python benchmarks/waves.py DIR

Errors are VRMSE over test runs that no training has seen, times the least of several on one core.  Writes
``benchmarks/results/waves.json``, ``docs/waves-error.png`` and ``docs/waves-rank.png``, and
prints the tables of docs/wave.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from consolve.base.files import whole_file
from consolve.bench import result_file, wave
from consolve.learned.waves.format import load_wave_weights
from consolve.pde.waves.data import WaveData

RESULTS = Path(__file__).parent / "results" / "waves.json"
PICTURES = Path(__file__).parent.parent / "docs"
SEEDS = (0, 1, 2)
COMPRESSIONS = (1, 2, 4, 8, 16)


def over_seeds(values: list[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def seeds_of(directory: Path, kind: str) -> list[int]:
    """Seeds of which there is a model."""
    found = [seed for seed in SEEDS if (directory / f"models/{kind}-{seed}.h5").exists()]
    if not found:
        raise FileNotFoundError(f"no models/{kind}-SEED.h5 in {directory}: run train_waves.sh first")
    return found


def rows_of(part: dict, kind: str) -> list[dict]:
    """Rows of all seeds of a kind."""
    return [part["models"][f"{kind}-{s}"] for s in SEEDS if f"{kind}-{s}" in part["models"]]


def propagators(directory: Path, runs: int, fe_runs: int) -> dict:
    """Errors of each seed, and finite elements at the error of the compressed network after 30 snapshots."""
    rows: dict = {}
    with (
        WaveData(directory / "data/prop-test.h5") as test,
        WaveData(directory / "data/prop-unseen.h5") as unseen,
    ):
        for kind in ("propagator-dense", "propagator"):
            for seed in seeds_of(directory, kind):
                weights = load_wave_weights(directory / f"models/{kind}-{seed}.h5", "propagator")
                row = wave.score_propagator(weights, test, min(runs, len(test)))
                row["unseen"] = wave.score_propagator(weights, unseen, min(runs, len(unseen)), repetitions=1)
                row["two_threads_ms"] = wave.score_propagator(weights, test, 1, threads=2)["ms_per_step"]
                rows[f"{kind}-{seed}"] = row
        begun = wave.starts(test, fe_runs, 3)
        peers = {}
        same = [
            wave.score_propagator(
                load_wave_weights(directory / f"models/propagator-{s}.h5"), test, fe_runs, 1, 1
            )
            for s in seeds_of(directory, "propagator")
        ]
        for at in (10, 30):
            target = float(np.mean([r["rollout_vrmse"]["vrmse"][wave.STEPS.index(at)] for r in same]))
            found = [wave.matched(scheme, begun, test.interval, target, at) for scheme in wave.SCHEMES]
            peers[str(at)] = [{"target": target, **peer} for peer in found if peer is not None]
        coarse = wave.finite_elements(wave.SCHEMES[0], begun, 64, test.interval)
        baselines = persistence(test, runs)
    return {"models": rows, "fe": peers, "fe_64": coarse, "baselines": baselines}


def persistence(data: WaveData, runs: int) -> dict:
    """One-step errors of repeating the last snapshot and of continuing on a straight line."""
    held, straight = [], []
    for run in range(min(runs, len(data))):
        u = np.asarray(data.u[run])
        held.append(wave.relative_errors(u[2:-1], u[3:]).mean())
        straight.append(wave.relative_errors(2 * u[2:-1] - u[1:-2], u[3:]).mean())
    return {"persistence": float(np.mean(held)), "linear_extrapolation": float(np.mean(straight))}


def generators(directory: Path, runs: int) -> dict:
    """Errors of each seed, of POD with a network, of the nearest neighbour and of finite elements."""
    from wave_baselines import nearest_neighbour, pod_network

    rows: dict = {}
    with (
        WaveData(directory / "data/zone-test.h5") as test,
        WaveData(directory / "data/zone-unseen.h5") as unseen,
        WaveData(directory / "data/zone-train.h5") as train,
    ):
        runs = min(runs, len(test))
        for kind in ("generator-dense", "generator"):
            for seed in seeds_of(directory, kind):
                weights = load_wave_weights(directory / f"models/{kind}-{seed}.h5", "generator")
                row = wave.score_generator(weights, test, runs)
                row["unseen"] = wave.score_generator(weights, unseen, len(unseen), 1)["vrmse"]
                rows[f"{kind}-{seed}"] = row
        truth = test.u[:runs]
        baselines = {}
        for name, make in (("nearest neighbour", nearest_neighbour), ("POD + network", pod_network)):
            fields = np.asarray(make(train, test))[:runs]
            baselines[name] = wave.summary(wave.field_errors(fields, truth))
        peers = [wave.whole_runs(test, min(runs, 10), n) for n in (64, 127)]
    return {"models": rows, "baselines": baselines, "fe": peers}


def curve(directory: Path, runs: int) -> list[dict]:
    """Compression against error, parameters and time, by shorter trainings."""
    rows = []
    with WaveData(directory / "data/prop-test.h5") as test:
        for compression in COMPRESSIONS:
            weights = load_wave_weights(directory / f"models/curve-{compression}.h5", "propagator")
            row = wave.score_propagator(weights, test, min(runs, len(test)))
            rows.append({"compression": compression, "ranks": weights.settings.ranks, **row})
    return rows


def tables(result: dict) -> None:
    p, steps = result["propagators"], wave.STEPS

    def vrmse(row: dict, at: int) -> float:
        return row["rollout_vrmse"]["vrmse"][steps.index(at)]

    columns = ("convolutions", "bytes", "one step", "10 steps", "30 steps", "unseen, 30", "ms per snapshot")
    print("\n| propagator |", " | ".join(columns), "|")
    print("|---|---|---|---|---|---|---|---|")
    for kind in ("propagator-dense", "propagator"):
        rows = rows_of(p, kind)
        errors = [[r["one_step_vrmse"] for r in rows]]
        errors += [[vrmse(r, at) for r in rows] for at in (10, 30)]
        errors += [[vrmse(r["unseen"], 30) for r in rows]]
        print(
            f"| {rows[0]['layer']} | {rows[0]['convolution_parameters']:,} | {rows[0]['bytes']:,} |",
            " | ".join(over_seeds(e) for e in errors),
            f"| {min(r['ms_per_step'] for r in rows):.3f} |",
        )
    for at, peers in p["fe"].items():
        for peer in peers:
            v = peer["vrmse"]["vrmse"]
            print(
                f"| {peer['scheme']}, {peer['vertices']}^2, as good after {at} | | | {v[0]:.4f} | "
                f"{v[steps.index(10)]:.4f} | {v[steps.index(30)]:.4f} | | {peer['ms_per_step']:.3f} |"
            )
    print("baselines, one step:", p["baselines"])
    if "generators" in result:
        g = result["generators"]
        print("\n| generator | convolutions | bytes | VRMSE mean | median | unseen | ms per field |")
        print("|---|---|---|---|---|---|---|")
        for kind in ("generator-dense", "generator"):
            rows = rows_of(g, kind)
            all_errors = [[r["vrmse"][k] for r in rows] for k in ("mean", "median")]
            all_errors += [[r["unseen"]["mean"] for r in rows]]
            print(
                f"| {rows[0]['layer']} | {rows[0]['convolution_parameters']:,} | {rows[0]['bytes']:,} |",
                " | ".join(over_seeds(e) for e in all_errors),
                f"| {min(r['ms_per_field'] for r in rows):.2f} |",
            )
        for name, errors in g["baselines"].items():
            print(f"| {name} | | | {errors['mean']:.4f} | {errors['median']:.4f} | | |")
        for peer in g["fe"]:
            print(
                f"| {peer['scheme']}, {peer['vertices']}^2, whole domain | | | {peer['vrmse']['mean']:.4f} | "
                f"{peer['vrmse']['median']:.4f} | | {peer['ms_per_field']:.2f} |"
            )
    if "curve" in result:
        print("\n| 1/parameters | ranks | convolutions | one step | 10 steps | 30 steps | ms per snapshot |")
        print("|---|---|---|---|---|---|---|")
        for row in result["curve"]:
            ranks = ", ".join(map(str, row["ranks"])) if row["ranks"] else "dense"
            print(
                f"| {row['compression']} | {ranks} | {row['convolution_parameters']:,} | "
                f"{row['one_step_vrmse']:.4f} | {vrmse(row, 10):.4f} | {vrmse(row, 30):.4f} | "
                f"{row['ms_per_step']:.3f} |"
            )


def pictures(result: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    p = result["propagators"]
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for kind, colour in (("propagator-dense", "#d9730d"), ("propagator", "#1f6feb")):
        rows = rows_of(p, kind)
        for part, style in ((rows, "o-"), ([r["unseen"] for r in rows], "o:")):
            curves = np.array([r["rollout_vrmse"]["vrmse"] for r in part])
            label = (
                f"{rows[0]['layer']} ({min(r['ms_per_step'] for r in rows):.3f} ms)"
                if style == "o-"
                else None
            )
            axes.plot(wave.STEPS, curves.mean(0), style, color=colour, ms=4, label=label)
            axes.fill_between(wave.STEPS, curves.min(0), curves.max(0), color=colour, alpha=0.2, lw=0)
    for style, peer in zip(("s--", "^--", "v--"), p["fe"]["30"]):
        label = f"{peer['scheme']} {peer['vertices']}² ({peer['ms_per_step']:.3f} ms)"
        axes.plot(wave.STEPS, peer["vrmse"]["vrmse"], style, color="0.5", ms=4, label=label)
    axes.set(xlabel="snapshots forecast", ylabel="VRMSE", yscale="log", title="Wave propagators, three seeds")
    axes.grid(alpha=0.3, which="both")
    axes.legend(
        frameon=False,
        fontsize=8,
        title="per snapshot, one core; dotted: out of distribution",
        title_fontsize=8,
    )
    with whole_file(PICTURES / "waves-error.png") as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)
    if "curve" not in result:
        return
    rows = result["curve"]
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for at, marker in ((1, "o-"), (10, "s-"), (30, "^-")):
        errors = [r["rollout_vrmse"]["vrmse"][wave.STEPS.index(at)] for r in rows]
        axes.plot(
            [r["convolution_parameters"] for r in rows],
            errors,
            marker,
            ms=5,
            label="1 snapshot" if at == 1 else f"{at} snapshots",
        )
    for r in rows:
        place = (r["convolution_parameters"], r["rollout_vrmse"]["vrmse"][-1])
        text = f"{r['ms_per_step']:.3f} ms"
        axes.annotate(text, place, textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axes.set(xlabel="parameters of the convolutions", ylabel="VRMSE", xscale="log", yscale="log",
             title="Error against compression, 2,500 training steps each")  # fmt: skip
    sizes = [r["convolution_parameters"] for r in rows]
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.08, y=0.14)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    with whole_file(PICTURES / "waves-rank.png") as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="of train_waves.sh")
    parser.add_argument("--runs", type=int, default=100, help="test runs")
    parser.add_argument("--fe-runs", type=int, default=8, help="test runs of finite elements")
    parser.add_argument("--only", choices=["propagators", "generators", "curve"], action="append")
    chosen = parser.parse_args()
    result = result_file.read(RESULTS) if RESULTS.exists() else {}
    parts = chosen.only or ["propagators", "generators", "curve"]
    if "propagators" in parts:
        result["propagators"] = propagators(chosen.directory, chosen.runs, chosen.fe_runs)
    if "generators" in parts:
        result["generators"] = generators(chosen.directory, 2 * chosen.runs)
    if "curve" in parts:
        result["curve"] = curve(chosen.directory, chosen.runs)
    result_file.write(RESULTS, result)
    tables(result)
    pictures(result)


if __name__ == "__main__":
    main()
