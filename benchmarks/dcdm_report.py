"""Tables and plots of the paper's experiment, from the document that ``dcdm.py`` keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from consolve.base.files import whole_file
from consolve.bench import plots

Part = dict[str, Any]
Row = dict[str, Any]


def tables(document: dict[str, Any]) -> str:
    """Iterations, seconds and ratios of all cases, as Markdown."""
    parts = document["cases"]
    if not parts:
        return "No results yet: run `python benchmarks/dcdm.py`.\n"
    blocks = []
    for dim in sorted({part["dim"] for part in parts}):
        chosen = [part for part in parts if part["dim"] == dim]
        blocks.append(f"### {dim}D\n\n{_frames(chosen)}")
        title = f"Iterations to {_tolerances(chosen)} of the true residual, means over the frames"
        blocks.append(_table(title, chosen, _iterations))
        blocks.append(_table(f"Seconds: set-up + solve to {_tolerances(chosen)}", chosen, _seconds))
        blocks.append(_table(f"Iterations of `cg` over those of the solver, to {_tolerances(chosen)}", chosen,
                             _gain))  # fmt: skip
        blocks.append(_remarks(chosen))
        blocks.append(_body_and_size(chosen))
    blocks.append(_machine(parts))
    return "\n\n".join(block for block in blocks if block) + "\n"


def write_into(path: Path, text: str, mark: str = "tables") -> None:
    """Put a text between the marks ``<!-- MARK: begin -->`` and ``<!-- MARK: end -->`` of a document.

    Raises
    ------
    ValueError
        If the marks are not there.
    """
    marks = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, begin, rest = path.read_text().partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{path} has no place for this: lines {marks[0]!r} and {marks[1]!r}")
    with whole_file(path) as part:
        part.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}")


def reached(row: Row, tolerance: str, key: str) -> list[float] | None:
    """What all systems of a row say of a tolerance; None if there are none, or one did not reach it."""
    systems = row["systems"]
    if not systems or any(tolerance not in system.get("reached", {}) for system in systems):
        return None
    return [system["reached"][tolerance][key] for system in systems]


def mean_iterations(part: Part, solver: str, tolerance: str) -> float | None:
    """Mean over the frames; None if not all were solved."""
    for row in part["results"]:
        if row["solver"] == solver:
            counts = reached(row, tolerance, "iterations")
            return None if counts is None else float(np.mean(counts))
    return None


def _solvers(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(row["solver"] for part in parts for row in part["results"]))


def _tolerances(parts: Sequence[Part]) -> str:
    return " / ".join(short(t) for t in parts[0]["tolerances"])


def short(tolerance: str) -> str:
    """``0.0001`` as ``1e-4``."""
    return f"{float(tolerance):.0e}".replace("e-0", "e-")


def _table(title: str, parts: Sequence[Part], cell: Callable[[Part, Row], str]) -> str:
    heads = [f"{part['scene']} {part['cells']}" for part in parts]
    lines = [f"{title}:", "", f"| solver | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in _solvers(parts):
        rows = [next((r for r in part["results"] if r["solver"] == name), None) for part in parts]
        cells = [cell(part, row) if row else "" for part, row in zip(parts, rows)]
        if any(cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 4 else ""


def _iterations(part: Part, row: Row) -> str:
    cells = []
    for tolerance in part["tolerances"]:
        counts = reached(row, tolerance, "iterations")
        cells.append(f"{np.mean(counts):.0f}" if counts else "–")
    return " / ".join(cells)


def _seconds(part: Part, row: Row) -> str:
    setups = [system["setup_s"] for system in row["systems"] if "setup_s" in system]
    if not setups:
        return "–"
    cells = []
    for tolerance in part["tolerances"]:
        seconds = reached(row, tolerance, "solve_s")
        cells.append(_three_digits(float(np.mean(seconds))) if seconds else "–")
    return f"{_three_digits(float(np.mean(setups)))} + {' / '.join(cells)}"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if value >= 0.01 else f"{value:.3f}"


def _gain(part: Part, row: Row) -> str:
    if row["solver"] == "cg":
        return ""
    cells = []
    for tolerance in part["tolerances"]:
        plain, own = (mean_iterations(part, name, tolerance) for name in ("cg", row["solver"]))
        cells.append(f"{plain / own:.1f}" if plain and own else "–")
    return " / ".join(cells)


def _remarks(parts: Sequence[Part]) -> str:
    """A line for each row that is not whole: fewer frames, tolerances not reached, no result, fallbacks."""
    lines = []
    for part in parts:
        for row in part["results"]:
            solved = [system for system in row["systems"] if "iterations" in system]
            if not solved:
                lines.append(
                    f"- {row['solver']}, {part['scene']} {part['cells']}: {row.get('reason', 'no result')}"
                )
                continue
            said = []
            if len(solved) < len(part["frames"]):
                said.append(f"frames {', '.join(str(s['frame']) for s in solved)} only")
            said += [
                f"frame {s['frame']}: {s['reason']}, {s['iterations']} iterations, true residual "
                f"{s['relative_residual']:.1e}"
                for s in solved
                if s["reason"] != "CONVERGED_RTOL"
            ]
            fallbacks, total = (sum(s.get(key, 0) for s in solved) for key in ("fallbacks", "iterations"))
            if fallbacks:
                said.append(f"{fallbacks} of {total} iterations went along the residual")
            if said:
                lines.append(f"- {row['solver']}, {part['scene']} {part['cells']}: {'; '.join(said)}")
    return "\n".join(lines)


def _body_and_size(parts: Sequence[Part]) -> str:
    """What the body, and what each doubling of N, does to iterations at the first tolerance."""
    tolerance, title = parts[0]["tolerances"][0], _tolerances(parts).split(" / ")[0]
    by_place = {(part["scene"], part["cells"]): part for part in parts}
    heads, columns = [], []
    for (scene, n), part in by_place.items():
        for other, head in (
            (("plume", n), f"{scene} / plume, {n}"),
            ((scene, n // 2), f"{scene} {n} / {n // 2}"),
        ):
            if other in by_place and other != (scene, n):
                heads.append(head)
                columns.append((part, by_place[other]))
    lines = []
    for name in _solvers(parts):
        cells = []
        for part, other in columns:
            own, base = (mean_iterations(p, name, tolerance) for p in (part, other))
            cells.append(f"{own / base:.2f}" if own and base else "–")
        if any(cell != "–" for cell in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    if not heads or not lines:
        return ""
    head = [f"Iterations to {title} against those without the body, and on half the cells a side:", ""]
    return "\n".join([*head, f"| solver | {' | '.join(heads)} |", "|---|" + "---|" * len(heads), *lines])


def _frames(parts: Sequence[Part]) -> str:
    frames = ", ".join(map(str, parts[-1]["frames"]))
    unknowns = "; ".join(f"{p['scene']} {p['cells']}: {p['unknowns']:,}" for p in parts)
    return f"Frames (time steps) {frames}. Unknowns: {unknowns}."


def _machine(parts: Sequence[Part]) -> str:
    facts = [row["machine"] for part in parts for row in part["results"] if "machine" in row]
    if not facts:
        return ""
    versions = facts[-1]["versions"]
    return f"{facts[-1]['threads']} cores of {facts[-1]['cpu']}; PETSc {versions['petsc']}."


def _with_histories(parts: Sequence[Part]) -> Iterator[Part]:
    """Of each dimension the part with a body at the largest size that most solvers have a history of."""
    for dim in sorted({part["dim"] for part in parts}):
        chosen = [part for part in parts if part["dim"] == dim and any(_histories(part))]
        if chosen:
            yield max(chosen, key=lambda p: (len(list(_histories(p))), p["scene"] == "body", p["cells"]))


def drop_histories(parts: Sequence[Part]) -> None:
    """Keep the residual histories that a picture shows, and no others."""
    shown = [id(part) for part in _with_histories(parts)]
    for part in parts:
        if id(part) not in shown:
            for row in part["results"]:
                for system in row["systems"]:
                    system.pop("history", None)


def _histories(part: Part) -> Iterator[tuple[str, Sequence[float]]]:
    for row in part["results"]:
        for system in row["systems"]:
            if "history" in system:
                yield row["solver"], system["history"]


def pictures(document: dict[str, Any], folder: Path) -> None:
    """``dcdm-convergence.png`` and ``dcdm-frames.png``: one panel a dimension."""
    parts = list(_with_histories(document["cases"]))
    if not parts:
        return
    names = _solvers(document["cases"])
    style = {name: plots.line_style(name, number) for number, name in enumerate(names)}
    with plots.figure(folder / "dcdm-convergence.png", len(parts), width=5.4) as (canvas, axes):
        for part, panel in zip(parts, np.atleast_1d(axes)):
            histories = dict(_histories(part))
            for name, history in histories.items():
                panel.semilogy([max(value, 1e-16) for value in history], **style[name])
            for tolerance in part["tolerances"]:
                plots.mark_tolerance(panel, float(tolerance))
            plots.squeeze_long_axis(panel, [len(history) for history in histories.values()])
            panel.set(xlabel="iteration", ylabel="relative residual  |b − Ax| / |b|")
            panel.set_title(f"{_title(part)}, frame {part['frames'][-1]}")
            panel.set_ylim(0.3 * float(part["tolerances"][-1]), None)
        plots.legend(canvas, np.atleast_1d(axes)[_fullest(parts)])
    with plots.figure(folder / "dcdm-frames.png", len(parts), width=4.8) as (canvas, axes):
        for part, panel in zip(parts, np.atleast_1d(axes)):
            tolerance = part["tolerances"][0]
            for row in part["results"]:
                solved = [s for s in row["systems"] if tolerance in s.get("reached", {})]
                counts = [s["reached"][tolerance]["iterations"] for s in solved]
                if counts:
                    marker = plots.MARKERS.get(row["solver"], "o")
                    frames = [s["frame"] for s in solved]
                    panel.semilogy(frames, counts, marker=marker, ms=4.5, **style[row["solver"]])
            panel.set(xlabel="frame (time step)", ylabel=f"iterations to {short(tolerance)}")
            panel.set_xticks(part["frames"])
            panel.set_title(_title(part))
        plots.legend(canvas, np.atleast_1d(axes)[_fullest(parts)])


def _fullest(parts: Sequence[Part]) -> int:
    """Number of the part with most solvers: its lines are those of the legend."""
    return max(range(len(parts)), key=lambda i: len(list(_histories(parts[i]))))


def _title(part: Part) -> str:
    scene = {"plume": "plume", "body": "plume past a body"}[part["scene"]]
    return f"{scene}, {part['cells']}{'²' if part['dim'] == 2 else '³'}"
