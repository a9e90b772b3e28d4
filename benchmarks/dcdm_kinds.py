"""The published network by kind of boundary, by geometry it was not trained on, and by budget of training.

    sh benchmarks/train_dcdm.sh DIR                # hours: data sets and networks
    python benchmarks/dcdm_kinds.py DIR            # minutes: solves with those that are there
    python benchmarks/dcdm_kinds.py --report

White-noise right-hand sides on domains of the gallery, seeds 1001 and on (none of them in a training), by
the KSP ``dcd``; iterations are means over the seeds.  At 64^2: networks trained on the box with one open
side, on the closed one, under a free surface, on all of these, without and with the cell image as further
input; each solves all kinds, empty and with obstacles; and the first of them with more directions.  At 128^2:
the shipped networks.  At 32^3: the published optimiser and rate beside ours.  Writes
``benchmarks/results/dcdm_kinds.json`` and tables of ``docs/dcdm.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import dcdm_report
import dcdm_sizes
import numpy as np

from consolve.bench import result_file
from consolve.bench.measure import cpu_model

RESULTS = Path(__file__).parent / "results" / "dcdm_kinds.json"
DOCS = Path(__file__).parent.parent / "docs" / "dcdm.md"
SEEDS = 8
Row = dict[str, Any]
TABLES: dict[str, dict[str, Any]] = {
    "kinds": {
        "title": "trained on",
        "dim": 2,
        "cells": 64,
        "models": {
            "box-64": "box",
            "closed-64": "closed box",
            "surface-64": "three free surfaces",
            "all-64": "all five",
            "all-image-64": "all five, with the image",
        },
        "shipped": ("dcdm-image", "dcdm-deep"),
        "domains": ("box", "spheres", "rotor", "closed-box", "closed-spheres", "free-surface"),
    },
    "geometry": {
        "title": "network",
        "dim": 2,
        "cells": 128,
        "models": {},
        "shipped": ("dcdm", "dcdm-image", "dcdm-deep"),
        "domains": ("box", "spheres", "rotor", "boxes", "free-surface"),
    },
    "directions": {
        "title": "`-ksp_dcd_directions`",
        "dim": 2,
        "cells": 64,
        "models": {"box-64": "box"},
        "shipped": (),
        "directions": (2, 4, 8, 16, 32),
        "domains": ("box", "spheres", "rotor", "boxes"),
    },
    "budget": {
        "title": "training",
        "dim": 3,
        "cells": 32,
        "models": {"adam-32": "Adam, 1e-4, batch 10", "dcdm-3d": "Muon, 1e-3, batch 4"},
        "shipped": (),
        "domains": ("box", "spheres", "rotor", "boxes"),
    },
}
"""For each table: grid, networks by name of file with what they were trained on, and domains."""


def main() -> int:
    """Run what the command line asks for; 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="what train_dcdm.sh was given")
    parser.add_argument("--table", choices=TABLES, action="append", help="default all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"domains of each kind (default {SEEDS})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON of results")
    parser.add_argument("--no-docs", action="store_true", help="print the tables only")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    document = result_file.read(chosen.out) if chosen.out.exists() else {}
    if not chosen.report:
        if chosen.folder is None or not (chosen.folder / "models").is_dir():
            print(
                f"dcdm_kinds.py: {chosen.folder}: expected the folder that train_dcdm.sh was given",
                file=sys.stderr,
            )
            return 2
        document["machine"] = {"cpu": cpu_model(), "cores": os.cpu_count()}
        for name in chosen.table or TABLES:
            document[name] = measure(TABLES[name], chosen.folder / "models", chosen.seeds)
            result_file.write(chosen.out, document)
    for name in TABLES:
        if name in document:
            text = table(TABLES[name], document[name])
            print(text)
            if not chosen.no_docs:
                dcdm_report.write_into(DOCS, text, name)
    return 0


def measure(what: dict[str, Any], folder: Path, seeds: int) -> Row:
    """Rows of all networks and CG on all domains, and how each network was trained."""
    from consolve.learned.dcdm.format import load_dcdm_weights

    files = {name: folder / f"{name}.h5" for name in what["models"]}
    there = {name: str(path) for name, path in files.items() if path.is_file()}
    for name in files.keys() - there.keys():
        print(f"{name} is not trained yet, left out", file=sys.stderr)
    trainings = {}
    for name, path in there.items():
        weights = load_dcdm_weights(path)
        trainings[name] = {
            "digest": weights.digest,
            "command": weights.record["command"].replace(f"{folder.parent}/", ""),
            "training": json.loads(weights.record["training"]),
            "scores": json.loads(weights.record["scores"]),
        }
    chosen = argparse.Namespace(
        dim=[what["dim"]],
        cells=[what["cells"]],
        domain=what["domains"],
        solver=["cg"],
        no_plain=False,
        seed=range(1001, 1001 + seeds),
        tolerance=[1e-4, 1e-6],
        max_iterations=300,
        seconds=60,
        repeat=1,
        directions=None,
    )
    models = {name: [path] for name, path in there.items()} | {name: [name] for name in what["shipped"]}
    if "directions" not in what:
        rows = [short(row) for row in dcdm_sizes.rows(chosen, models)]
        return {"trainings": trainings, "rows": rows}
    found = []
    for chosen.directions in what["directions"]:
        chosen.no_plain = bool(found)
        for row in dcdm_sizes.rows(chosen, models):
            label = row["solver"] if row["solver"] == "cg" else str(chosen.directions)
            found.append(short(row | {"solver": label}))
    return {"trainings": {}, "rows": found}


def short(row: Row) -> Row:
    """What is kept of a solve: iterations to each tolerance that was reached."""
    kept = {key: row[key] for key in dcdm_sizes.KEY}
    return kept | {"reached": {t: found["iterations"] for t, found in row["reached"].items()}}


def table(what: dict[str, Any], found: Row) -> str:
    """Markdown: mean iterations to 1e-4 / 1e-6, networks down, domains across."""
    rows = found["rows"]
    labels = {"cg": "CG"} | what["models"] | {name: f"`{name}`" for name in what["shipped"]}
    if "directions" in what:
        labels = {"cg": "CG"} | {str(number): str(number) for number in what["directions"]}
    power = "²" if what["dim"] == 2 else "³"
    head = [what["title"], *what["domains"]]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---|" * len(what["domains"])]
    for name, label in labels.items():
        own = [row for row in rows if row["solver"] == name]
        if not own:
            continue
        training = found["trainings"].get(name)
        if training:
            scores = training["scores"]
            loss = scores.get("validation_loss", scores.get("validation_energy_left"))
            label += f" ({scores['steps']:,} steps, loss {loss:.4f})"
        cells = []
        for domain in what["domains"]:
            here = [row for row in own if row["domain"] == domain]
            cells.append(" / ".join(mean_text(here, t) for t in ("0.0001", "1e-06")))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    count = len({row["seed"] for row in rows})
    cells_text = f"{what['cells']}{power}"
    return (
        "\n".join(lines)
        + f"\n\nIterations to 1e-4 / 1e-6 at {cells_text}, means over {count} domains of each kind.\n"
    )


def mean_text(rows: list[Row], tolerance: str) -> str:
    """Mean iterations over the seeds, with how many got there if not all."""
    counts = [row["reached"][tolerance] for row in rows if tolerance in row["reached"]]
    if not counts:
        return "–"
    mean = f"{np.mean(counts):.1f}" if np.mean(counts) < 100 else f"{np.mean(counts):.0f}"
    return mean if len(counts) == len(rows) else f"{mean} ({len(counts)} of {len(rows)})"


if __name__ == "__main__":
    sys.exit(main())
