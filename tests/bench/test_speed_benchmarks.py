"""The benchmarks of speed: what they keep, count, print, and do when a solver cannot or a user stops them."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from consolve.base import memory
from consolve.bench.triad import ARRAYS_MOVED, triad

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MARKS = ("roofline", "scaling", "precision")


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a script of the benchmarks in this process; returns exit code, stdout, stderr and its rows."""
    page = "".join(f"<!-- {mark}: begin -->\n<!-- {mark}: end -->\n" for mark in MARKS)
    (tmp_path / "speed.md").write_text(page)

    def script(name, *words, out="--out"):
        path = tmp_path / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [name, *map(str, words), out, str(path), "--docs", str(tmp_path)])
        code = importlib.import_module(name).main()
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(path.read_text())["rows"] if path.exists() else []

    return script


def measured(solver="cg", cells=64, **changes):
    """A row as benchmarks/scaling.py keeps it."""
    return {
        "solver": solver, "dim": 3, "cells": cells, "domain": "spheres", "rhs": "noise", "rtol": 1e-6,
        "seed": 7, "cores": 2, "iterations": 4, "setup_s": 0.1, "solve_s": 0.3, "total_s": 0.4,
        "relative_residual": 1e-8, "reason": "CONVERGED_RTOL", "peak_memory_mb": 300.0,
        "baseline_memory_mb": 180.0, "unknowns": 200_000,
        "run": "one", "timeout_s": 600.0,
    } | changes  # fmt: skip


def failed(reason, **changes):
    names = ("iterations", "setup_s", "solve_s", "total_s", "relative_residual", "peak_memory_mb", "unknowns")
    return measured(reason=reason, **dict.fromkeys(names), **changes)


SMALL = ("--dim", 2, "--cells", 16, "--domain", "box", "--cores", 1, "--repeat", 2)


def test_scaling_measures_once_and_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    words = (*SMALL, "--solver", "cg", "--solver", "fft")
    code, out, _, rows = run("scaling", *words)
    assert code == 0 and [row["solver"] for row in rows] == ["cg", "fft"]
    assert all(row["relative_residual"] < 1.01e-6 and row["repeats"] == 2 for row in rows)
    assert rows[0]["unknowns"] == 256 and rows[1]["reason"] == "DIRECT"
    assert "| 16² | fft | 0 |" in out and out.strip() in (tmp_path / "speed.md").read_text()
    for name in ("time", "iterations", "setup", "memory"):
        assert (tmp_path / f"speed-{name}.png").stat().st_size > 5000

    def nothing(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(importlib.import_module("scaling"), "run_poisson", nothing)
    assert run("scaling", *words)[3] == rows
    with pytest.raises(AssertionError, match="measured again"):
        run("scaling", *words, "--again")


def test_scaling_keeps_what_is_done_at_ctrl_c(run, monkeypatch):
    scaling = importlib.import_module("scaling")
    measure, done = scaling.measure, []

    def stopped(problem, solver, conditions):
        if done:
            raise KeyboardInterrupt
        done.append(solver)
        return measure(problem, solver, conditions)

    monkeypatch.setattr(scaling, "measure", stopped)
    code, out, err, rows = run("scaling", *SMALL, "--solver", "cg", "--solver", "icc")
    assert code == 130 and [row["solver"] for row in rows] == ["cg"]
    assert "interrupted: what is done is in" in err and "| 16² | cg |" in out


def test_scaling_says_why_a_grid_does_not_fit(run, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda swap=False: 1 << 26)
    _, out, _, (row,) = run("scaling", "--dim", 3, "--cells", 320, "--domain", "box", "--solver", "cg")
    assert row["total_s"] is None
    assert "| 320³ | cg | out of memory: a system of 320 x 320 x 320 cells needs at least" in out


def test_scaling_does_not_begin_what_ran_out_of_time_on_a_smaller_grid(tmp_path):
    scaling = importlib.import_module("scaling")
    found = scaling.RowFile(tmp_path / "rows.json", scaling.KEY)
    found.put(failed("timeout: not done after 600 s", cells=64))
    place = {name: measured(cells=128)[name] for name in scaling.KEY}
    assert (
        scaling.hopeless(found, place, 600.0)["reason"] == "timeout: not begun, since it was over 600 s at 64"
    )
    assert scaling.hopeless(found, place, 900.0) is None
    assert scaling.hopeless(found, place | {"solver": "icc"}, 600.0) is None
    assert scaling.hopeless(found, place | {"cells": 32}, 600.0) is None


def test_scaling_tables_have_ratios_shares_and_reasons():
    rows = [
        measured("dcd"), measured("hypre", total_s=4.0, setup_s=1.0, run="two"), measured("cg", total_s=50.0),
        failed("timeout: not done after 600 s", solver="gamg"),
        measured("mg", relative_residual=3e-5, reason="DIVERGED_MAX_IT"),
    ]  # fmt: skip
    text = importlib.import_module("scaling_report").tables(rows)
    # ns per unknown 0.4 s / 200,000; share 0.1 / 0.4; 8 decimals in 4 iterations.
    assert "| 64³ | dcd | 4 | 2.00 | 0.1 | 0.3 | 2,000.0 | 25% | 1.0e-08 | 300 | 120 | 10* | 125 |" in text
    assert "| 64³ | hypre | 4 | 2.00 | 1 | 0.3 | 20,000.0 | 25% | 1.0e-08 | 300 | 120 | 1.00 | 12* |" in text
    assert "| 64³ | gamg | timeout: not done after 600 s |" in text
    assert "| 3.0e-05 (DIVERGED_MAX_IT) |" in text
    assert "asterisk" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_bytes_of_the_passes_are_those_that_the_kernels_document():
    from consolve.learned.multilevel.cycle import cycle_kernels

    kernels = importlib.import_module("kernels")
    down, up = (documented(cycle_kernels.__doc__, name) for name in ("down", "up"))
    packed, variable = kernels.Work(3, True, 2), kernels.Work(3, False, 2)
    assert (packed.down(False)[1], variable.down(False)[1]) == down
    assert (packed.up(False)[1], variable.up(False)[1]) == up


def documented(text, name):
    """The two numbers at the end of the line of a pass in the table of a docstring."""
    line = next(line for line in text.splitlines() if line.startswith(name + " "))
    return tuple(int(number) for number in re.findall(r"\d+", line)[-2:])


def test_flops_of_a_half_sweep():
    kernels = importlib.import_module("kernels")
    # Per cell of the colour: six additions, alpha omega / d, and two multiplications with an addition each.
    assert kernels.Work(3, True, 2).half_sweep()[0] == (6 + 1 + 4) / 2
    assert kernels.Work(3, False, 2).half_sweep()[0] == (12 + 1 + 4) / 2


@pytest.mark.parametrize("dim, cells", [(2, 40), (3, 20)])
def test_every_kernel_of_the_finest_level_is_timed(dim, cells):
    from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
    from consolve.learned.multilevel.format import load_weights
    from consolve.pde.poisson.domains import make_domain

    kernels = importlib.import_module("kernels")
    operator = make_domain("spheres", (cells,) * dim, 7).operator()
    m = MultilevelPreconditioner(operator, load_weights("mg", dim))
    r = np.random.default_rng(1).standard_normal(operator.unknowns)
    before, after = np.empty_like(r), np.empty_like(r)
    m.apply(r, before)
    rows = kernels.fine_kernels(m, operator)
    m.apply(r, after)
    np.testing.assert_array_equal(after, before)  # timing leaves the preconditioner as it was
    assert {"pass down", "pass up", "cycle", "iteration in grid space"} <= {row.kernel for row in rows}
    assert all(row.ns > 0 and row.bytes > 0 and row.flops > 0 for row in rows)
    stages = kernels.setup_stages(m, operator)
    assert sum(stages.values()) - stages["set-up"] <= stages["set-up"]


def test_triad_moves_its_arrays():
    assert ARRAYS_MOVED == 4
    for dtype in (np.float32, np.float64):
        assert 1e8 < triad(dtype, 1, repetitions=3, array_bytes=1 << 20) < 1e13


def test_roofline_compares_with_the_triad_of_as_many_threads(run, tmp_path):
    record = {"network": "multilevel", "domain": "spheres", "dim": 3, "cells": 256, "threads": 2}
    kernels = [
        record | {"kernel": "pass down", "flops": 30.0, "bytes": 20.0, "ns": 1.0},
        record | {"kernel": "pass up", "flops": 10.0, "bytes": 20.0, "ns": 0.5, "network": "mg"},
    ]
    (tmp_path / "kernels.json").write_text(json.dumps({"rows": kernels}))
    speeds = [
        {"dtype": "float32", "threads": 1, "gb_per_s": 30.0},
        {"dtype": "float32", "threads": 2, "gb_per_s": 40.0},
    ]
    (tmp_path / "roofline.json").write_text(json.dumps({"cpu": "a CPU", "rows": speeds}))
    code, out, _, _ = run("roofline", "--report", "--kernels", tmp_path / "kernels.json", out="--triad")
    assert code == 0
    assert "| pass down | 1.00 | 20.0 | 20.0 | 50% | 1.50 |" in out and "pass up" not in out
    assert (tmp_path / "roofline-3d-256.png").stat().st_size > 5000


def test_roofline_without_records_says_what_to_run(run, tmp_path):
    code, _, err, _ = run("roofline", "--report", "--kernels", tmp_path / "none.json", out="--triad")
    assert code == 1 and "run this without --report" in err


def precise(rtol, iterations, residual, reason="CONVERGED_RTOL", floor=1e-13):
    return {
        "solver": "cnn", "dim": 2, "cells": 64, "domain": "box", "rhs": "smooth", "seed": 7, "rtol": rtol,
        "iterations": iterations, "true_residual": residual, "reason": reason, "floor": floor,
    }  # fmt: skip


def test_precision_names_what_breaks_first():
    precision = importlib.import_module("precision")
    held = [precise(1e-4, 4, 5e-5), precise(1e-8, 8, 9e-9)]
    assert precision.breaks(held) == "holds down to 1e-8"
    assert precision.breaks([*held, precise(1e-12, 12, 8e-12)]).startswith(
        "at 1e-12 claimed, but the true residual is 8.0e-12"
    )
    assert precision.breaks([*held, precise(1e-14, 99, 9e-14, "DIVERGED_MAX_IT")]) == (
        "at 1e-14 DIVERGED_MAX_IT, under the floor of float64"
    )
    assert "from 1e-10 on slower, 3.00 iterations" in precision.breaks([*held, precise(1e-10, 30, 9e-11)])
    assert "| 1e-14 | 9, 9.0e-14 (CONVERGED_RTOL) |" in precision.tables([precise(1e-14, 9, 9e-14)])


def test_precision_measures_down_to_the_floor_of_float64(run):
    words = ("--dim", 2, "--cells", 24, "--solver", "icc", "--rtol", 1e-6, 1e-13, 1e-17)
    code, out, _, rows = run("precision", *words)
    assert code == 0 and len(rows) == 9
    assert {(row["domain"], row["rhs"]) for row in rows} == {
        ("spheres", "noise"), ("box", "noise"), ("box", "smooth")
    }  # fmt: skip
    for row in rows:
        held = row["reason"] == "CONVERGED_RTOL" and row["true_residual"] <= 1.01 * row["rtol"]
        assert held == (row["rtol"] > row["floor"])
        assert row["iterations"] > 0 and "history" not in row
    assert out.count("under the floor of float64") == 3


def test_page_has_all_places():
    text = (BENCHMARKS.parent / "docs" / "speed.md").read_text()
    for mark in MARKS:
        assert text.count(f"<!-- {mark}: begin -->") == text.count(f"<!-- {mark}: end -->") == 1
