"""Surrogates alone and with a finite-element submodel of their zone, over the runs of a zone set.

    consolve data wave --set zone --split train --runs 1500 --out train.h5
    consolve data wave --set zone --split test --runs 200 --out test.h5
    python benchmarks/wave_submodel.py --data test.h5 --train train.h5

Every surrogate's field feeds the same submodel, and so does the truth itself, which shows what the submodel
adds.  With ``--train`` nearest neighbour and POD with a network come too.  Finite elements on the whole
square are timed beside.  Errors are VRMSE on the zone over all snapshots, times in the table the least of
several.  Writes benchmarks/results/wave_submodel.json and prints the table.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from wave_baselines import Baseline, nearest_neighbour, pod_network

from consolve.bench import result_file
from consolve.bench.measure import cpu_model
from consolve.bench.wave import field_errors, least_ms, summary, whole_runs
from consolve.learned.waves.generator_inference import ExtrapolationWarning, WaveGenerator
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.problem import vrmse
from consolve.pde.waves.zone.feed import WAYS
from consolve.pde.waves.zone.leapfrog import NumbaSubmodel

RESULT = Path(__file__).parent / "results" / "wave_submodel.json"
FE_RUNS = 5
"""Runs of finite elements on the whole square."""


def surrogates(options: argparse.Namespace, test: WaveData, runs: int) -> Iterator[dict[str, Any]]:
    """Name, fields of the first `runs` runs, size and times of each surrogate."""
    for name in options.model:
        generator = WaveGenerator.load(name)
        one = test.parameters[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the unseen set lies outside
            fields = generator.field(test.parameters[:runs], extrapolate=True)
            ms = least_ms(lambda generator=generator, one=one: generator.field(one, extrapolate=True), 15)
        weights = generator.weights
        yield {
            "name": f"{weights.layer} generator" if name == weights.source else name,
            "fields": fields,
            "weights": weights.digest,
            "numbers": weights.parameters,
            "convolution_parameters": weights.convolution_parameters,
            "train_s": weights.scores.get("training_seconds"),
            "field_ms": ms,
        }
    if options.train is not None:
        with WaveData(options.train) as train:
            yield _row(nearest_neighbour(train, test, options.train_runs), runs)
            yield _row(
                pod_network(
                    train,
                    test,
                    options.modes,
                    options.pod_seconds,
                    seed=options.seed,
                    runs=options.train_runs,
                ),
                runs,
            )
    yield {"name": "truth", "fields": test.u[:runs], "field_ms": None}


def _row(baseline: Baseline, runs: int) -> dict[str, Any]:
    return {
        "name": baseline.name,
        "fields": baseline.fields[:runs],
        "numbers": baseline.numbers,
        "train_s": baseline.train_s,
        "field_ms": baseline.field_ms,
    }


def feed_options(options: argparse.Namespace) -> dict[str, Any]:
    given = {"boundary": options.boundary, "refinement": options.refinement}
    return given if options.fit_refinement is None else given | {"fit_refinement": options.fit_refinement}


def correct(data: WaveData, run: int, field: NDArray, options: argparse.Namespace) -> tuple[NDArray, float]:
    """The submodel's field (time, y, x), and its seconds, set-up included."""
    kind: Any = NumbaSubmodel
    if options.dolfinx:
        from consolve.pde.waves.zone.finite_elements import DolfinxSubmodel

        kind = DolfinxSubmodel
    corners = (data.x[0], data.y[0], data.x[-1], data.y[-1])
    problem, times = data.problem(run), data.start[run] + data.time
    start = time.perf_counter()
    found = kind(problem, corners, times, field, **feed_options(options)).run()
    return found, time.perf_counter() - start


def spread(errors: NDArray) -> dict[str, float]:
    low, high = np.percentile(errors, (10, 90))
    return summary(errors) | {"percentile_10": float(low), "percentile_90": float(high)}


def judge(row: dict[str, Any], data: WaveData, runs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Errors alone and with the submodel over the runs."""
    fields = row.pop("fields")
    alone, corrected, seconds = field_errors(fields, data.u[:runs]), np.empty(runs), np.empty(runs)
    correct(data, 0, fields[0], options)  # compiles
    for run in range(runs):
        found, seconds[run] = correct(data, run, fields[run], options)
        corrected[run] = vrmse(found, data.u[run])
    row |= {
        "alone": spread(alone),
        "with_submodel": spread(corrected),
        "submodel_s": {"median": float(np.median(seconds)), "least": float(seconds.min())},
    }
    if alone.all():
        ratios = alone / corrected
        row["ratio"] = spread(ratios) | {"of_means": float(alone.mean() / corrected.mean())}
        row["runs_improved"] = int((ratios > 1).sum())
    return row


def table(result: dict[str, Any]) -> None:
    of = "mean (median, std)"
    print(f"\n| | alone: {of} | with submodel: {of} | ratio of means | ms a field | submodel, ms |")
    print("|---|---|---|---|---|---|")
    for row in result["surrogates"]:
        errors = [
            f"{e['mean']:.4f} ({e['median']:.4f}, {e['std']:.4f})"
            for e in (row["alone"], row["with_submodel"])
        ]
        ratio = f"{row['ratio']['of_means']:.2f}" if "ratio" in row else ""
        ms = "" if row["field_ms"] is None else f"{row['field_ms']:.2f}"
        least = 1e3 * row["submodel_s"]["least"]
        print(f"| {row['name']} | {errors[0]} | {errors[1]} | {ratio} | {ms} | {least:.0f} |")
    for row in result["finite_elements"]:
        e = row["vrmse"]
        name = f"{row['scheme']}, {row['vertices']}², whole square"
        error = f"{e['mean']:.4f} ({e['median']:.4f}, {e['std']:.4f})"
        print(f"| {name} | {error} | | | {row['ms_per_field']:.2f} | |")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, metavar="FILE", help="zone set: test or unseen")
    parser.add_argument("--train", metavar="FILE", help="training set, for the baselines")
    parser.add_argument("--train-runs", type=int, metavar="N", help="of the training set; default: all")
    parser.add_argument("--runs", type=int, metavar="N", help="of the test set; default: all")
    parser.add_argument("--model", action="append", help="shipped name or weights file; may be repeated")
    parser.add_argument("--modes", type=int, default=150, help="of POD")
    parser.add_argument("--pod-seconds", type=float, default=40, help="of the training after POD")
    parser.add_argument("--seed", type=int, default=0, help="of the training after POD")
    parser.add_argument("--boundary", choices=WAYS, default="fit", help="how the submodel is fed")
    parser.add_argument("--refinement", type=int, default=4, help="cells for one between samples")
    parser.add_argument("--fit-refinement", type=int, help="the same for the fit; default: equal")
    parser.add_argument("--dolfinx", action="store_true", help="DOLFINx instead of the structured grid")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    options.model = options.model or ["generator"]
    with WaveData(options.data) as data:
        if data.wave_set.name != "zone":
            parser.error(f"{data.path} holds the {data.wave_set.name} set, the zone set is needed here")
        runs = len(data) if options.runs is None else min(options.runs, len(data))
        if runs < 1:
            parser.error(f"--runs must be at least 1, got {options.runs}")
        rows = []
        for row in surrogates(options, data, runs):
            rows.append(judge(row, data, runs, options))
            print(
                f"{rows[-1]['name']:20} alone {rows[-1]['alone']['mean']:.4f}, "
                f"with submodel {rows[-1]['with_submodel']['mean']:.4f}",
                flush=True,
            )
        meshes = sorted({64, 127, data.vertices})
        result = {
            "machine": {"cpu": cpu_model()},
            "data": {"split": data.wave_set.split, "digest": data.digest, "runs": runs},
            "submodel": feed_options(options) | {"kind": "DOLFINx" if options.dolfinx else "structured"},
            "surrogates": rows,
            "finite_elements": [whole_runs(data, min(runs, FE_RUNS), n) for n in meshes],
        }
    result_file.write(options.out, result)
    table(result)
    return result


if __name__ == "__main__":
    main()
