"""The roofline picture: bytes per second of each kernel against what memory gives.

    python benchmarks/kernels.py 3 256          measures the kernels
    python benchmarks/roofline.py               measures the triad, draws docs/roofline-*.png, prints a table
    python benchmarks/roofline.py --report      measures nothing

Reads the records of benchmarks/results/kernels.json (name, flops, bytes and ns per cell), and keeps the
triad's figures in benchmarks/results/triad.json: a = b + s c in float32 and float64, on one thread and on
all, arrays far larger than any cache; the line that is fetched before a is written is counted, as it is in
the bytes of the kernels.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from dcdm_report import write_into
from row_file import RowFile

from consolve.bench import plots, result_file
from consolve.bench.measure import cpu_model

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
ASIDE = ("half-sweep", "restriction", "prolongation")
"""Kernels that a solve on one rank does not run by themselves: drawn pale."""
Row = dict[str, Any]


def main() -> int:
    """Measure, print, draw; 1 where there are no records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--kernels", type=Path, default=RESULTS / "kernels.json", help="the records")
    parser.add_argument("--triad", type=Path, default=RESULTS / "triad.json", help="figures of the triad")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of speed.md and the pictures")
    parser.add_argument("--no-docs", action="store_true", help="print only")
    chosen = parser.parse_args()
    if not chosen.report:
        measured = measure()
        result_file.write(chosen.triad, measured)
    for path, how in ((chosen.triad, "without --report"), (chosen.kernels, "after benchmarks/kernels.py")):
        if not path.exists():
            print(f"roofline.py: there is no {path}: run this {how}", file=sys.stderr)
            return 1
    triad = result_file.read(chosen.triad)
    groups = grids(RowFile(chosen.kernels, ("kernel", "network", "domain", "dim", "cells", "threads")).rows)
    text = triad_table(triad) + "\n\n" + "\n\n".join(kernel_table(rows, triad) for rows in groups) + "\n"
    print(text)
    if not chosen.no_docs:
        for rows in groups:
            name = f"roofline-{rows[0]['dim']}d-{rows[0]['cells']}.png"
            picture(rows, triad, chosen.docs / name)
            text += f"\n![Counted bytes per second of each kernel against the triad]({name})\n"
        write_into(chosen.docs / "speed.md", text, "roofline")
    return 0


def measure() -> dict[str, Any]:
    """GB/s of the triad for both types, on one thread and on all."""
    from consolve.bench.triad import triad

    threads = len(os.sched_getaffinity(0))
    rows = [
        {"dtype": np.dtype(dtype).name, "threads": count, "gb_per_s": triad(dtype, count) / 1e9}
        for dtype in (np.float32, np.float64)
        for count in sorted({1, threads})
    ]
    return {"cpu": cpu_model(), "rows": rows}


def grids(records: Sequence[Row]) -> list[list[Row]]:
    """Records of the learned network by grid, each kernel once."""
    groups: dict[tuple, list[Row]] = {}
    for row in records:
        if row["network"] == "multilevel":
            groups.setdefault((row["dim"], row["cells"], row["domain"], row["threads"]), []).append(row)
    return [groups[key] for key in sorted(groups)]


def roof(triad: dict[str, Any], threads: int) -> float:
    """GB/s of the triad on so many threads: the faster type, the most threads measured up to these."""
    counts = [row["threads"] for row in triad["rows"] if row["threads"] <= threads] or [1]
    return max(row["gb_per_s"] for row in triad["rows"] if row["threads"] == max(counts))


def triad_table(triad: dict[str, Any]) -> str:
    """Markdown."""
    lines = [f"Triad on {triad['cpu']}:", "", "| type | threads | GB/s |", "|---|---:|---:|"]
    lines += [f"| {row['dtype']} | {row['threads']} | {row['gb_per_s']:.1f} |" for row in triad["rows"]]
    return "\n".join(lines)


def kernel_table(rows: Sequence[Row], triad: dict[str, Any]) -> str:
    """Markdown, of one grid."""
    first = rows[0]
    size = f"{first['cells']}{'²' if first['dim'] == 2 else '³'}"
    lines = [
        f"Kernels at {size}, {first['domain']}, {first['threads']} threads:",
        "",
        "| kernel | ns per cell | bytes per cell | GB/s | of the triad | flops per byte |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["bytes"]:
            rate = row["bytes"] / row["ns"]
            lines.append(
                f"| {row['kernel']} | {row['ns']:.2f} | {row['bytes']:.1f} | {rate:.1f} | "
                f"{rate / roof(triad, first['threads']):.0%} | {row['flops'] / row['bytes']:.2f} |"
            )
    return "\n".join(lines)


def picture(rows: Sequence[Row], triad: dict[str, Any], path: Path) -> None:
    """Bytes per second against flops per byte, under the triad's lines."""
    rows = [row for row in rows if row["bytes"]]
    first = rows[0]
    with plots.figure(path, width=7.6, height=4.6) as (canvas, axes):
        counts = sorted({row["threads"] for row in triad["rows"]})
        for count in counts:
            top = roof(triad, count)
            axes.axhline(top, color=plots.INK, linewidth=1.2, linestyle="-" if count == counts[-1] else ":")
            label = f"triad, {count} thread{'s' if count > 1 else ''}: {top:.0f} GB/s"
            above = 3 if count == counts[-1] else -11
            axes.annotate(label, (0.01, top), xycoords=("axes fraction", "data"), xytext=(0, above),
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
        goal = 0.6 * roof(triad, first["threads"])
        axes.axhline(goal, color=plots.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("60 %", (0.01, goal), xycoords=("axes fraction", "data"), xytext=(0, 3),
                      textcoords="offset points", fontsize=8.5, color=plots.MUTED)  # fmt: skip
        for number, row in enumerate(rows):
            colour, pale = plots.OTHERS[number % len(plots.OTHERS)], row["kernel"] in ASIDE
            marker = "os^DvP*X<>d"[number % 11]
            axes.plot(row["flops"] / row["bytes"], row["bytes"] / row["ns"], marker, color=colour, ms=7,
                      alpha=0.45 if pale else 1, label=row["kernel"], linestyle="none")  # fmt: skip
        axes.set_ylim(0, 1.15 * max(roof(triad, counts[-1]), *(row["bytes"] / row["ns"] for row in rows)))
        axes.set_xlim(0, 1.1 * max(row["flops"] / row["bytes"] for row in rows))
        axes.set_xlabel("arithmetic intensity, flops per byte")
        axes.set_ylabel("counted bytes per second, GB/s")
        size = f"{first['cells']}{'²' if first['dim'] == 2 else '³'}"
        axes.set_title(f"Kernels at {size}, {first['threads']} threads")
        plots.legend(canvas, axes)


if __name__ == "__main__":
    sys.exit(main())
