"""``consolve wave``: forecasts of waves by a trained surrogate, and what a surrogate is."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consolve.commands.output import Document, check_files, echo, print_result, progress
from consolve.commands.parameters import Positive

if TYPE_CHECKING:
    from consolve.learned.waves.forecast import Forecast, WaveStart
    from consolve.learned.waves.format import WaveWeights

MEDIA = ("constant", "layered", "inclusions", "smooth", "obstacles", "holes", "wedges")
SUFFIXES = {"--picture": (".png", ".svg", ".pdf"), "--animation": (".gif",), "--out": (".h5",)}
SHOWN_STEPS = (1, 2, 5)
"""Steps whose error is printed, beside every tenth and the last."""


class Place(click.ParamType):
    """``X,Y`` in the unit square."""

    name = "X,Y"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Text to a pair."""
        if isinstance(value, tuple):
            return value
        try:
            x, y = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: expected two numbers, as 0.3,0.5", param, ctx)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            self.fail(f"({x:g}, {y:g}) lies outside the unit square", param, ctx)
        return x, y


@click.group()
def wave() -> None:
    """Waves in two dimensions by a trained surrogate."""


@wave.command()
@click.option(
    "--model", "name", metavar="NAME|FILE.h5", default="propagator", show_default=True,
    help="A shipped propagator (propagator, propagator-dense) or one of 'consolve train wave'.",
)  # fmt: skip
@click.option("--data", metavar="FILE.h5", help="Start from a run of this set, by 'consolve data wave'.")
@click.option("--run", type=click.IntRange(min=0), help="Which run of --data.  [default: 0]")
@click.option("--medium", type=click.Choice(MEDIA), help="Start by finite elements in such a medium.")
@click.option("--seed", type=click.IntRange(min=0), help="Of --medium and its source.  [default: 0]")
@click.option("--source", type=Place(), help="Place of the source.  [default: by the seed]")
@click.option("--frequency", type=Positive(), help="Of the source.  [default: by the seed]")
@click.option(
    "--steps", type=click.IntRange(min=1), default=42, show_default=True, help="Snapshots to forecast."
)
@click.option(
    "--compare/--no-compare", default=True, show_default=True, help="Run finite elements on, beside it."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of the surrogate.")
@click.option("--picture", metavar="F.png", help="Snapshots in a strip, with errors if compared.")
@click.option("--animation", metavar="F.gif", help="The surrogate, beside finite elements if compared.")
@click.option("--out", metavar="F.h5", help="The forecast as HDF5.")
@click.option("--json", "json_path", metavar="FILE", help="Write what was found; '-' prints it alone.")
def predict(
    name: str,
    data: str | None,
    run: int | None,
    medium: str | None,
    seed: int | None,
    source: tuple[float, float] | None,
    frequency: float | None,
    steps: int,
    compare: bool,
    threads: int,
    picture: str | None,
    animation: str | None,
    out: str | None,
    json_path: str | None,
) -> None:
    """Forecast a wave from its first snapshots.

    They come from a run of a data set, or from finite elements on 253 x 253 vertices until the source has
    ended.  Then the surrogate goes on, in steps of 0.02 time units; with --compare finite elements go on too.
    """
    of_medium = {"--seed": seed, "--source": source, "--frequency": frequency}
    if (data is None) == (medium is None):
        raise click.UsageError("give --data FILE.h5 or --medium KIND, one of them")
    foreign = {"--run": run} if data is None else of_medium
    for option, value in foreign.items():
        if value is not None:
            raise click.UsageError(f"{option} does not go with {'--medium' if data is None else '--data'}")
    for option, path in (("--picture", picture), ("--animation", animation), ("--out", out)):
        if path is not None and Path(path).suffix.lower() not in SUFFIXES[option]:
            raise click.UsageError(f"{option} {path!r}: expected a name in {' or '.join(SUFFIXES[option])}")
    output = Document(json_path)
    check_files(picture, animation, out)

    from consolve.learned.waves.forecast import forecast, save_forecast, start_from_data
    from consolve.learned.waves.format import load_wave_weights

    weights = load_wave_weights(name, "propagator")
    with progress() as line:
        line.start("first snapshots")
        if data is not None:
            from consolve.pde.waves.data import WaveData

            with WaveData(data) as found:
                start = start_from_data(found, run or 0, weights)
        else:
            start = _sampled_start(weights, str(medium), seed or 0, source, frequency)
        line.start("forecast")
        result = forecast(weights, start, steps, compare, threads)
        files = [path for path in (picture, animation, out) if path is not None]
        line.start("files")
        if picture is not None or animation is not None:
            _draw(result, picture, animation)
        if out is not None:
            save_forecast(result, weights, out, "consolve " + " ".join(sys.argv[1:]))
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    document = _document(result, weights, name, seed or 0 if data is None else None, threads, files)
    output.write(document)
    if not output.alone:
        _show(document)


def _sampled_start(
    weights: WaveWeights,
    kind: str,
    seed: int,
    place: tuple[float, float] | None,
    frequency: float | None,
) -> WaveStart:
    """A medium with the speeds that the surrogate knows; the source by the seed, where it is not given."""
    from dataclasses import replace

    from consolve.learned.waves.domain import TrainedFor
    from consolve.learned.waves.forecast import start_by_finite_elements
    from consolve.pde.waves.problem import Medium, WaveProblem, sample_source

    domain = TrainedFor.of(weights)
    medium = Medium(kind, seed, domain.speed_range)
    source = sample_source(seed, medium, domain.frequency_range)
    if place is not None:
        source = replace(source, x=place[0], y=place[1])
    if frequency is not None:
        source = replace(source, frequency=frequency)
    problem = WaveProblem(medium, source)
    domain.refuse(problem)
    return start_by_finite_elements(problem, kind, weights)


def _draw(result: Forecast, picture: str | None, animation: str | None) -> None:
    from consolve.pde.waves.picture import save_wave_animation, save_wave_strip

    start, source = result.start, result.start.problem.source
    fields = {"surrogate": result.u}
    if result.truth is not None:
        fields = {"finite elements": result.truth, "surrogate": result.u}
    if picture is not None:
        title = f"Wave, medium: {start.kind}"
        if source is not None:
            title += f", frequency {source.frequency:.2g}"
        place = None if source is None else (source.x, source.y)
        save_wave_strip(
            picture, fields, result.time, start.speed, start.fixed, errors=result.errors, title=title,
            source=place,
        )  # fmt: skip
    if animation is not None:
        save_wave_animation(animation, fields, result.time, start.speed, start.fixed, result.errors)


def _document(
    result: Forecast, weights: WaveWeights, name: str, seed: int | None, threads: int, files: list[str]
) -> dict[str, Any]:
    start, source = result.start, result.start.problem.source
    sides = dict(start.problem.boundaries.items())
    errors = None
    if result.errors is not None:
        errors = [float(e) if math.isfinite(e) else None for e in result.errors]
    return {
        "model": {
            "name": name, "layer": weights.layer, "parameters": weights.parameters, "weights": weights.digest,
        },
        "problem": {
            "medium": start.kind, "seed": seed, "boundaries": sides,
            "speed_range": [float(start.speed.min()), float(start.speed.max())],
            "fixed_vertices": int((start.fixed != 0).sum()),
            "source": None if source is None else {
                "x": source.x, "y": source.y, "frequency": source.frequency, "amplitude": source.amplitude,
            },
        },
        "start": {
            "origin": start.origin, "time": start.time, "snapshots": len(start.u),
            "interval": start.interval,
        },
        "steps": len(result.u), "vertices": list(start.speed.shape), "fe_vertices": start.vertices,
        "threads": threads, "time": [float(t) for t in result.time], "vrmse": errors,
        "milliseconds": result.milliseconds, "warnings": result.warnings, "files": files,
    }  # fmt: skip


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table

    problem, start, model = document["problem"], document["start"], document["model"]
    facts = Table(show_header=False, box=None, pad_edge=False)
    slow, fast = problem["speed_range"]
    kind = problem["medium"] + ("" if problem["seed"] is None else f", seed {problem['seed']}")
    fixed = f", {problem['fixed_vertices']} fixed vertices" if problem["fixed_vertices"] else ""
    facts.add_row("medium", f"{kind}, speeds {slow:.3g} to {fast:.3g}{fixed}")
    if problem["source"] is not None:
        s = problem["source"]
        facts.add_row(
            "source", f"({s['x']:.3g}, {s['y']:.3g}), Ricker wavelet of frequency {s['frequency']:.3g}"
        )
    facts.add_row(
        "surrogate",
        f"{model['name']}: {model['layer']}, {model['parameters']:,} parameters, weights {model['weights']}",
    )
    facts.add_row("start", f"{start['snapshots']} snapshots from t = {start['time']:.2f}, {start['origin']}")
    size = " x ".join(map(str, document["vertices"]))
    facts.add_row(
        "forecast",
        f"{document['steps']} snapshots of {size} vertices every {start['interval']:g}, to "
        f"t = {document['time'][-1]:.2f}",
    )
    print_result(facts)
    if document["vrmse"] is not None:
        print_result("", _error_table(document))
    print_result("", _cost_table(document))
    if document["vrmse"] is not None:
        print_result(
            "Coarser finite elements are faster as well; 'consolve bench wave' compares at equal error."
        )
    for path in document["files"]:
        print_result(f"written  {path}")


def _error_table(document: dict[str, Any]) -> Any:
    from rich.table import Table

    steps, start = document["steps"], document["start"]
    chosen = sorted({k for k in (*SHOWN_STEPS, *range(10, steps, 10)) if k < steps} | {steps})
    table = Table(title="VRMSE against finite elements", title_justify="left")
    for column in ("step", "time", "after start", "VRMSE"):
        table.add_column(column, justify="right")
    for k in chosen:
        error = document["vrmse"][k - 1]
        table.add_row(
            str(k), f"{document['time'][k - 1]:.2f}", f"{k * start['interval']:.2f}",
            "inf" if error is None else f"{error:.4f}",
        )  # fmt: skip
    return table


def _cost_table(document: dict[str, Any]) -> Any:
    from rich.table import Table

    ms, steps, n = document["milliseconds"], document["steps"], document["fe_vertices"]
    threads = document["threads"]
    table = Table(title="Milliseconds, the least of several", title_justify="left")
    for column in ("", "threads", "set-up", "per snapshot", f"{steps} snapshots"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "surrogate", str(threads), f"{ms['prepare']:.2f}", f"{ms['snapshot']:.3f}",
        f"{ms['snapshot'] * steps:.2f}",
    )  # fmt: skip
    if "fe_snapshot" in ms:
        table.add_row(
            f"finite elements, {n} x {n}", "1", f"{ms['fe_setup']:.2f}", f"{ms['fe_snapshot']:.3f}",
            f"{ms['fe_snapshot'] * steps:.2f}",
        )  # fmt: skip
        table.add_row("  until the start", "1", "", "", f"{ms['fe_start']:.2f}")
    return table


@wave.command()
@click.argument("model", metavar="NAME|FILE.h5")
def card(model: str) -> None:
    """Print what a surrogate is: settings, parameters, training, scores, what it is trained for.

    MODEL is a shipped name (propagator, propagator-dense, generator, generator-dense) or a file.
    """
    from consolve.learned.waves.card import model_card
    from consolve.learned.waves.format import load_wave_weights

    echo(model_card(load_wave_weights(model)), nl=False)
