"""Kinds of boundary, geometry, directions and budget of the published network: trainings and tables."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("petsc4py")
pytest.importorskip("torch")

from consolve.learned.dcdm.format import load_dcdm_weights, save_dcdm_weights

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOT_PYTHON = """#!/bin/sh
shift 2
echo "$@" >> "$CALLS"
while test "$#" -gt 0; do
    if test "$1" = --out; then touch "$2"; fi
    shift
done
"""


@pytest.fixture
def kinds(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("dcdm_kinds")


def trained(folder, pattern):
    """Commands of the script of trainings, by a Python that only touches what it is to write."""
    fake, calls = folder / "python", folder / "calls"
    fake.write_text(NOT_PYTHON)
    fake.chmod(0o755)
    calls.write_text("")
    subprocess.run(
        ["sh", str(BENCHMARKS / "train_dcdm.sh"), str(folder / "out"), pattern],
        env=os.environ | {"PYTHON": str(fake), "CALLS": str(calls)}, check=True, timeout=60,
    )  # fmt: skip
    return calls.read_text().replace(f"{folder}/out/", "").splitlines()


def test_the_script_trains_what_was_asked_for_and_nothing_twice(tmp_path):
    first = trained(tmp_path, "[ab]*-64")
    made = [line.rpartition("--out ")[2] for line in first]
    models = [name for name in made if name.startswith("models")]
    assert models == [f"models/{name}.h5" for name in ("box-64", "all-64", "all-image-64")]
    # Five sets, each with its validation set, made once though three networks use them.
    assert len(made) - len(models) == 10 == len({name for name in made if name.startswith("data")})
    last = first[-1]
    assert last.count("--data") == last.count("--validation") == 5 and "--image" in last
    assert "--domain free-surface --domain-seed 2 --vectors 1500" in "\n".join(first)
    (tmp_path / "out" / "models" / "all-64.h5").rename(tmp_path / "out" / "models" / "all-64.checkpoint.pt")
    again = trained(tmp_path, "*-64")
    assert [line.rpartition("--out ")[2] for line in again] == [
        "models/closed-64.h5", "models/surface-64.h5", "models/all-64.h5",
    ]  # fmt: skip
    assert "--resume" in again[-1] and "--resume" not in again[0]


def test_every_network_of_the_tables_is_one_of_the_script(kinds):
    script = (BENCHMARKS / "train_dcdm.sh").read_text()
    for what in kinds.TABLES.values():
        assert all(f"\ntrain {name} " in script for name in what["models"])


def test_networks_by_file_and_shipped_ones_are_measured_beside_conjugate_gradients(kinds, tmp_path, capsys):
    weights = load_dcdm_weights("dcdm", 2)
    save_dcdm_weights(weights, tmp_path / "mine.h5")
    what = {
        "title": "trained on", "dim": 2, "cells": 20, "domains": ("box", "closed-box"),
        "models": {"mine": "my box", "missing": "nothing"}, "shipped": ("dcdm-deep",),
    }  # fmt: skip
    found = kinds.measure(what, tmp_path, 2)
    assert "missing is not trained yet" in capsys.readouterr().err
    assert found["trainings"]["mine"]["digest"] == weights.digest
    assert len(found["rows"]) == 3 * 2 * 2
    lines = kinds.table(what, found).splitlines()
    assert lines[0] == "| trained on | box | closed-box |"
    assert [line.split("|")[1].strip()[:6] for line in lines[2:5]] == ["CG", "my box", "`dcdm-"]
    assert "Iterations to 1e-4 / 1e-6 at 20², means over 2 domains" in lines[-1]


def test_directions_are_passed_on(kinds, tmp_path):
    save_dcdm_weights(load_dcdm_weights("dcdm", 2), tmp_path / "mine.h5")
    what = {
        "title": "directions", "dim": 2, "cells": 64, "domains": ("box",), "models": {"mine": "box"},
        "shipped": (), "directions": (1, 16),
    }  # fmt: skip
    rows = kinds.measure(what, tmp_path, 1)["rows"]
    assert [row["solver"] for row in rows] == ["cg", "1", "16"]
    cg, one, many = (row["reached"]["1e-06"] for row in rows)
    assert many < one < cg


def test_means_say_how_many_got_there(kinds):
    rows = [{"reached": {"0.0001": 10}}, {"reached": {"0.0001": 15}}, {"reached": {}}]
    assert kinds.mean_text(rows[:2], "0.0001") == "12.5"
    assert kinds.mean_text(rows, "0.0001") == "12.5 (2 of 3)"
    assert kinds.mean_text(rows, "1e-06") == "–"


def test_without_the_folder_of_trainings_it_says_what_is_expected(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "dcdm_kinds.py"), str(tmp_path / "none")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "expected the folder that train_dcdm.sh was given" in done.stderr
