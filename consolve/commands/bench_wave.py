"""``consolve bench wave``: surrogates against each other and against finite elements."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import click

from consolve.commands.output import Document, check_files, print_result, progress

DEFAULT_RUNS = {"propagator": 20, "zone": 50}
FE_RUNS = 10
"""Runs of finite elements; the error that they are to reach is the surrogate's on the same runs."""


@click.command("wave")
@click.option("--data", "path", metavar="FILE.h5", required=True, help="Test set, by 'consolve data wave'.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME|FILE",
    help="Repeat for several.  [default: the shipped compressed model and its dense twin]",
)  # fmt: skip
@click.option("--unseen", metavar="FILE.h5", help="A second set, out of distribution, for errors alone.")
@click.option("--runs", type=click.IntRange(min=1), help="Runs of the sets.  [default: 20, zone: 50]")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of the surrogates."
)
@click.option(
    "--fe/--no-fe", default=True, show_default=True, help="Finite elements at the error of the first model."
)
@click.option("--json", "json_path", metavar="FILE", help="Write the document; '-' prints it alone.")
@click.option("--plot", "plot_path", metavar="FILE", help="Draw errors against time (.png, .svg or .pdf).")
def bench_wave(
    path: str,
    models: tuple[str, ...],
    unseen: str | None,
    runs: int | None,
    threads: int,
    fe: bool,
    json_path: str | None,
    plot_path: str | None,
) -> None:
    """Errors and times of wave surrogates on a test set, and of finite elements at the same error.

    Finite elements and DOLFINx run on one core.  Each time is the least of several.
    """
    from consolve.bench import wave
    from consolve.learned.waves.format import load_wave_weights
    from consolve.pde.waves.data import WaveData

    document = Document(json_path)
    check_files(plot_path)
    with ExitStack() as stack, progress() as line:
        data = stack.enter_context(WaveData(path))
        other = stack.enter_context(WaveData(unseen)) if unseen else None
        kind = data.wave_set.name
        network = "propagator" if kind == "propagator" else "generator"
        names = models or (network, f"{network}-dense")
        chosen = [load_wave_weights(name, network) for name in names]
        count = min(runs or DEFAULT_RUNS[kind], len(data))
        rows: list[dict[str, Any]] = []
        for name, weights in zip(names, chosen):
            line.start(f"{name} on {count} runs")
            if kind == "propagator":
                row = wave.score_propagator(weights, data, count, threads)
            else:
                row = wave.score_generator(weights, data, count)
            row["model"] = str(name)
            if other is not None:
                row["unseen"] = _errors_alone(wave, weights, other, min(count, len(other)))
            rows.append(row)
        peers = _finite_elements(wave, data, chosen[0], count, line) if fe else []
        for row in rows:
            own = [p for p in peers if p["scheme"].startswith("leap-frog")]
            row["fe_ms_per_step"] = own[-1]["ms_per_step"] if own else None
        result = {
            "data": {"file": str(path), "set": kind, "split": data.attributes["split"], "runs": count,
                     "digest": data.digest, "unseen": unseen},
            "results": rows,
            "fe": peers,
        }  # fmt: skip
    document.write(result)
    if plot_path and kind == "propagator":
        wave_plot(result, plot_path)
    if not document.alone:
        print_result(*_tables(result))


def _errors_alone(wave: Any, weights: Any, data: Any, runs: int) -> dict[str, Any]:
    if weights.network == "generator":
        return {"vrmse": wave.score_generator(weights, data, runs, 1)["vrmse"]}
    row = wave.score_propagator(weights, data, runs, 1, 1)
    return {name: row[name] for name in ("one_step_vrmse", "rollout_vrmse", "one_step", "rollout")}


def _finite_elements(wave: Any, data: Any, weights: Any, runs: int, line: Any) -> list[dict[str, Any]]:
    if data.wave_set.name == "zone":
        line.start("finite elements on the whole domain")
        return [
            {**r, "ms_per_step": r["ms_per_field"] / data.u.shape[1]}
            for r in (wave.whole_runs(data, min(runs, FE_RUNS), n) for n in (64, 127))
        ]
    few = min(runs, FE_RUNS)
    begun = wave.starts(data, few, weights.settings.past)
    same = wave.score_propagator(weights, data, few, repetitions=1)
    target = same["rollout_vrmse"]["vrmse"][wave.STEPS.index(30)]
    peers = []
    for scheme in wave.SCHEMES:
        line.start(f"{scheme} at VRMSE {target:.3f} after 30 snapshots")
        peer = wave.matched(scheme, begun, data.interval, target)
        if peer is not None:
            peers.append(peer)
    return peers


def _tables(document: dict[str, Any]) -> list[Any]:
    from rich.table import Table

    rows, peers = document["results"], document["fe"]
    zone = document["data"]["set"] == "zone"
    table = Table(title=f"{document['data']['runs']} runs of {document['data']['file']}")
    steps = [] if zone else rows[0]["rollout_vrmse"]["steps"]
    errors = ["VRMSE", "median"] if zone else ["one step", *(f"{k} steps" for k in steps[1:])]
    columns = (
        "model",
        "layer",
        "parameters",
        "bytes",
        *errors,
        "ms per field" if zone else "ms per snapshot",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "layer") else "right")
    for row in rows:
        if zone:
            numbers = [row["vrmse"]["mean"], row["vrmse"]["median"]]
        else:
            numbers = [row["one_step_vrmse"], *row["rollout_vrmse"]["vrmse"][1:]]
        table.add_row(
            row["model"], row["layer"], f"{row['parameters']:,}", f"{row['bytes']:,}",
            *(f"{x:.4f}" for x in numbers), f"{row['ms_per_field' if zone else 'ms_per_step']:.3f}",
        )  # fmt: skip
    for peer in peers:
        v = peer["vrmse"]
        numbers = [v["mean"], v["median"]] if zone else v["vrmse"]
        note = "" if peer.get("matched", True) else " (not reached)"
        table.add_row(
            f"{peer['scheme']}, {peer['vertices']}^2{note}", "finite elements", "", "",
            *(f"{x:.4f}" for x in numbers), f"{peer['ms_per_field' if zone else 'ms_per_step']:.3f}",
        )  # fmt: skip
    return [table]


def wave_plot(document: dict[str, Any], path: str) -> None:
    """Mean VRMSE against snapshots of models, on the test set and out of distribution, and of peers."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from consolve.base.files import whole_file

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    colours = [f"C{k}" for k in range(10)]
    for colour, row in zip(colours, document["results"]):
        label = f"{row['model']} ({row['ms_per_step']:.3f} ms)"
        axes.plot(*row["rollout_vrmse"].values(), "o-", color=colour, label=label)
        if "unseen" in row:
            axes.plot(*row["unseen"]["rollout_vrmse"].values(), "o:", color=colour, alpha=0.6)
    for style, peer in zip(("s--", "^--", "v--"), document["fe"]):
        label = f"{peer['scheme']} {peer['vertices']}² ({peer['ms_per_step']:.3f} ms)"
        axes.plot(*peer["vrmse"].values(), style, color="0.5", ms=4, label=label)
    axes.set(xlabel="snapshots forecast", ylabel="VRMSE", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize=8, title="dotted: out of distribution", title_fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)
