"""The deep conjugate direction paper's experiment: what it keeps, prints and leaves out."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("petsc4py")

from direct_solver import DirectSolver

from consolve.bench.captured import capture
from consolve.pde.flow.scenes import make_scene

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CUBE = """ply
format ascii 1.0
element vertex 8
property float x
property float y
property float z
element face 12
property list uchar int vertex_indices
end_header
0 0 0
0 0 1
0 1 0
0 1 1
1 0 0
1 0 1
1 1 0
1 1 1
3 0 1 3
3 0 3 2
3 4 6 7
3 4 7 5
3 0 4 5
3 0 5 1
3 2 3 7
3 2 7 6
3 0 2 6
3 0 6 4
3 1 5 7
3 1 7 3
"""


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a script of the benchmarks in this process; returns exit code, stdout, stderr and its document."""

    def script(name, *words):
        out = tmp_path / f"{name}.json"
        argv = [name, *map(str, words), "--out", str(out), "--docs", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", argv)
        code = importlib.import_module(name).main()
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(out.read_text()) if out.exists() else None

    (tmp_path / "dcdm-experiment.md").write_text(
        "# Head\n\n<!-- tables: begin -->\n<!-- tables: end -->\n\nMiddle\n\n<!-- sizes: begin -->\n"
        "<!-- sizes: end -->\nTail\n"
    )
    return script


def part_with(scene="body", cells=64, **rows):
    """A case of a document; each solver with iterations of its frames at 1e-4, None for one not reached."""
    results = []
    for name, counts in rows.items():
        systems = [
            {
                "frame": 5 * (number + 1),
                "setup_s": 0.5,
                "iterations": count or 500,
                "relative_residual": 1e-4 if count else 0.3,
                "reason": "CONVERGED_RTOL" if count else "DIVERGED_MAX_IT",
                "reached": {"0.0001": {"iterations": count, "solve_s": 0.01 * count}} if count else {},
            }
            for number, count in enumerate(counts)
        ]
        results.append({"solver": name, "systems": systems})
    return {
        "name": f"{scene}-2d-{cells}", "dim": 2, "cells": cells, "scene": scene, "unknowns": 4000,
        "frames": [5, 10], "tolerances": ["0.0001"], "results": results,
    }  # fmt: skip


FLOW = ("--dim", 2, "--cells", 24, "--scene", "plume", "--frames", 1, 3, "--cores", 1)


def test_two_runs_of_the_experiment_make_one_document(run, tmp_path):
    systems = ("--systems", tmp_path / "kept")
    code, out, _, document = run("dcdm", *FLOW, *systems, "--solver", "cg")
    assert code == 0 and "| cg |" in out
    code, out, err, document = run("dcdm", *FLOW, *systems, "--solver", "dpcg", "--solver", "cnn")
    assert code == 0 and "steps" not in err  # the flow did not run again
    (part,) = document["cases"]
    assert [row["solver"] for row in part["results"]] == ["cg", "dpcg", "cnn"]
    assert part["frames"] == [1, 3] and part["unknowns"] == 576
    counts = {}
    for row in part["results"]:
        assert [system["frame"] for system in row["systems"]] == [1, 3]
        for system in row["systems"]:
            assert system["relative_residual"] <= 1.01e-6
            assert system["reached"]["0.0001"]["iterations"] <= system["iterations"]
        assert "history" in row["systems"][1] and "history" not in row["systems"][0]
        counts[row["solver"]] = [system["iterations"] for system in row["systems"]]
    assert max(counts["cnn"]) < min(counts["dpcg"]) <= max(counts["dpcg"]) < min(counts["cg"])
    text = (tmp_path / "dcdm-experiment.md").read_text()
    assert out.strip() in text and text.startswith("# Head") and text.endswith("Tail\n")
    assert (tmp_path / "dcdm-convergence.png").stat().st_size > 5000
    assert (tmp_path / "dcdm-frames.png").stat().st_size > 5000


def test_other_frames_begin_a_case_anew(tmp_path):
    dcdm = importlib.import_module("dcdm")
    case, chosen = dcdm.Case(2, 16, "plume"), SimpleNamespace(tolerance=(1e-4, 1e-6))
    document = {"cases": []}
    for frames, kept in (((1, 2), 0), ((1, 2), 1), ((1, 3), 0)):
        path = tmp_path / "systems.npz"
        capture(make_scene("plume", (16, 16)), frames, DirectSolver(), path)
        part = dcdm.part_of(document, case, path, chosen)
        assert len(part["results"]) == kept and part["frames"] == list(frames)
        dcdm.keep(part, {"solver": "cg", "systems": []})
    assert len(document["cases"]) == 1


def test_networks_without_weights_are_left_out_with_a_line(run, tmp_path):
    missing = tmp_path / "none.h5"
    code, _, err, document = run("dcdm", *FLOW, "--solver", "cg", "--model", f"dcdm={missing}")
    assert code == 0 and f"dcdm is left out in 2D: no weights at '{missing}'" in err
    assert [row["solver"] for row in document["cases"][0]["results"]] == ["cg"]
    code, _, err, document = run(
        "dcdm_sizes", "--dim", 2, "--cells", 16, "--solver", "cg", "--model", f"mine={missing}", "--no-docs"
    )
    assert code == 0 and "mine is left out in 2D" in err
    assert {row["solver"] for row in document["rows"]} == {"cg"}


@pytest.mark.parametrize(
    "words",
    [("--model", "dcdm"), ("--solver", "amg"), ("--tolerance", "1e-6", "1e-4"), ("--mesh", "none.stl")],
)
def test_wrong_usage_is_said_before_any_work(run, words):
    scene = ("--scene", "body", *words) if words[0] == "--mesh" else ("--scene", "plume", *words)
    code, _, err, document = run("dcdm", "--dim", 2, "--cells", 24, *scene)
    assert code == 2 and err.startswith("dcdm.py: ") and document is None


def test_a_mesh_file_becomes_the_body(run, tmp_path):
    pytest.importorskip("meshio")
    (tmp_path / "cube.ply").write_text(CUBE)
    mesh = ("--mesh", tmp_path / "cube.ply", "--scene", "body", "--systems", tmp_path)
    code, _, _, document = run("dcdm", "--dim", 2, "--cells", 25, *mesh, "--frames", 1, "--solver", "icc",
                               "--cores", 1, "--tolerance", "1e-4")  # fmt: skip
    assert code == 0
    assert document["cases"][0]["unknowns"] == 625 - 110  # 0.19 to 0.61 up, 0.29 to 0.71 across
    assert (tmp_path / "dcdm-body-2d.png").exists()
    broken = tmp_path / "broken.ply"
    broken.write_text("ply\nnonsense")
    code, _, err, _ = run("dcdm", "--dim", 2, "--scene", "body", "--mesh", broken)
    assert code == 2 and "broken.ply" in err


def test_a_network_by_file_takes_part(run, tmp_path):
    torch = pytest.importorskip("torch")
    from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights, save_dcdm_weights
    from consolve.learned.dcdm.network import build_network

    torch.manual_seed(0)
    settings = DCDMSettings(ndim=2, width=2)
    path = tmp_path / "random.h5"
    save_dcdm_weights(DCDMWeights(settings, build_network(settings).tensors(), {}), path)
    *_, document = run("dcdm_sizes", "--dim", 2, "--cells", 16, "--domain", "box", "--solver", "cg",
                       "--model", f"mine={path}", "--max-iterations", 4)  # fmt: skip
    row = next(r for r in document["rows"] if r["solver"] == "mine")
    assert row["iterations"] == 4 and row["reason"] == "DIVERGED_MAX_IT"
    assert 1e-4 < row["relative_residual"] < 3 and "fallbacks" in row


def test_iterations_of_cg_grow_with_size_and_runs_add_up(run, tmp_path):
    words = ("--dim", 2, "--solver", "cg", "--model", f"mine={tmp_path}/none.h5")
    run("dcdm_sizes", *words, "--cells", 16)
    code, out, _, document = run("dcdm_sizes", *words, "--cells", 16, 32)
    assert code == 0 and len(document["rows"]) == 4
    for domain in ("box", "spheres"):
        counts = {
            row["cells"]: row["reached"]["0.0001"]["iterations"]
            for row in document["rows"]
            if row["domain"] == domain
        }
        assert 1.5 * counts[16] < counts[32] < 2.6 * counts[16]
        assert f"| {domain} | 16² | 32² |" in out and f"| cg | {counts[16]} / " in out
    text = (tmp_path / "dcdm-experiment.md").read_text()
    assert out.strip() in text and "Middle" in text
    assert (tmp_path / "dcdm-sizes.png").stat().st_size > 5000


def test_tables_give_means_ratios_and_what_is_missing():
    report = importlib.import_module("dcdm_report")
    parts = [
        part_with("plume", 64, cg=(200, 220), dcdm=(20, 22), dead=()),
        part_with("body", 64, cg=(210, 210), dcdm=(25, 25), lame=(30, None)),
        part_with("body", 128, cg=(420, 420), dcdm=(40,)),
    ]
    text = report.tables({"cases": parts})
    assert "| solver | plume 64 | body 64 | body 128 |" in text
    assert "| dcdm | 21 | 25 | 40 |" in text
    assert "| dcdm | 10.0 | 8.4 | 10.5 |" in text  # of cg's iterations
    assert "| dcdm | 0.500 + 0.210 | 0.500 + 0.250 | 0.500 + 0.400 |" in text
    assert "| solver | body / plume, 64 | body 128 / 64 |" in text
    assert "| dcdm | 1.19 | 1.60 |" in text
    assert "| lame |  | – |  |" in text
    assert "- lame, body 64: frame 10: DIVERGED_MAX_IT, 500 iterations, true residual 3.0e-01" in text
    assert "- dcdm, body 128: frames 5 only" in text
    assert "- dead, plume 64: no result" in text


def test_no_results_say_how_to_get_them():
    assert "python benchmarks/dcdm.py" in importlib.import_module("dcdm_report").tables({"cases": []})
    assert "dcdm_sizes.py" in importlib.import_module("dcdm_sizes").tables([])


def test_a_document_without_marks_is_left_alone(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("<!-- tables: begin -->\nno end\n")
    with pytest.raises(ValueError, match="no place for this"):
        importlib.import_module("dcdm_report").write_into(path, "text")
    assert path.read_text() == "<!-- tables: begin -->\nno end\n"


def test_the_experiments_page_has_both_places():
    text = (BENCHMARKS.parent / "docs" / "dcdm-experiment.md").read_text()
    for mark in ("tables", "sizes"):
        assert text.count(f"<!-- {mark}: begin -->") == text.count(f"<!-- {mark}: end -->") == 1


def test_the_bunny_has_no_enclosed_fluid():
    pytest.importorskip("meshio")
    pytest.importorskip("pymeshfix")
    from consolve.pde.flow.flow import Flow

    scenes = importlib.import_module("dcdm_scenes")
    for ndim, least, most in ((2, 0.05, 0.12), (3, 0.01, 0.03)):
        flow = Flow(scenes.make("body", ndim, 40, None, 2))
        assert least < flow.solid.mean() < most
        assert not flow.operator.is_singular
        assert np.unique(flow.operator.components[0][flow.operator.active]).size == 1
