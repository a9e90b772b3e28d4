"""``consolve data``: files, documents, exit codes."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from consolve.base.hdf5 import import_h5py
from consolve.cli import run

COMMAND = [sys.executable, "-m", "consolve", "data", "wave", "--set", "zone", "--runs", "20"]


def make(path, *more):
    return run(
        ["data", "wave", "--set", "zone", "--vertices", "64", "--runs", "3", "--out", str(path), *more]
    )


def test_a_file_is_made_and_passes_its_check(tmp_path, capsys):
    path = tmp_path / "a.h5"
    assert make(path) == 0
    told = capsys.readouterr()
    assert "3 runs of the zone set (train)" in told.out and told.err == ""
    assert run(["data", "check", str(path), "--run", "2"]) == 0
    assert "run 2 solved again: differs by 0 of" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_documents_stand_alone_on_stdout(tmp_path, capsys):
    path = tmp_path / "a.h5"
    assert make(path, "--split", "test", "--seed", "7", "--json", "-") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["set"], made["split"], made["seed"], made["runs"], made["solved"]) == (
        "zone",
        "test",
        7,
        3,
        3,
    )
    assert run(["data", "check", str(path), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == [] and found["digest"] == made["digest"] and found["vertices"] == 64
    assert [again["difference"] for again in found["solved_again"]] == [0.0]


def test_a_damaged_file_fails_its_check(tmp_path, capsys):
    path = tmp_path / "a.h5"
    make(path)
    with import_h5py().File(path, "r+") as file:
        file["u"][1, 2, 3, 4] = np.inf
    capsys.readouterr()
    assert run(["data", "check", str(path)]) == 1
    told = capsys.readouterr()
    assert "fault: run 1: u holds NaN or Inf" in told.out and "error:" in told.err and "run 1" in told.err


def test_resume_leaves_a_whole_file_and_refuses_another(tmp_path, capsys):
    path = tmp_path / "a.h5"
    make(path)
    assert make(path, "--resume") == 0
    assert "0 runs solved" in capsys.readouterr().out
    assert make(path, "--resume", "--seed", "1") == 1
    assert "seed = 0, asked for is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--runs", "0"], 2, "--runs"),
        (["--runs", "many"], 2, "--runs"),
        (["--vertices", "100"], 2, "the nearest is 127"),
        (["--seed", "-1"], 2, "--seed"),
        (["--split", "holdout"], 2, "--split"),
        (["--set", "moon"], 2, "--set"),
        (["--solver", "abacus"], 2, "--solver"),
        (["--out", "a.txt"], 2, "ends in .h5"),
        (["--out", "/nowhere/at/all/a.h5"], 1, "there is no directory"),
        (["--json", "/nowhere/at/all/a.json"], 1, "there is no directory"),
        (["--runs", "100000000"], 1, "MB are free"),
    ],
)
def test_wrong_options_are_told_before_any_work(tmp_path, capsys, words, code, message):
    assert make(tmp_path / "a.h5", *words) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_check_of_no_such_file_or_run_fails(tmp_path, capsys):
    assert run(["data", "check", str(tmp_path / "a.h5")]) == 1
    assert "no such file" in capsys.readouterr().err
    make(tmp_path / "a.h5")
    assert run(["data", "check", str(tmp_path / "a.h5"), "--run", "3"]) == 1
    assert "there is no run 3" in capsys.readouterr().err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Digest of what the command makes when nothing stops it."""
    out = str(tmp_path_factory.mktemp("whole") / "b.h5")
    done = subprocess.run(
        [*COMMAND, "--out", out, "--json", "-"], capture_output=True, text=True, timeout=120
    )
    return json.loads(done.stdout)["digest"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_command_resumes_to_the_same_digest(tmp_path, uninterrupted, number, code):
    path, part = tmp_path / "a.h5", tmp_path / "a.h5.part"
    words = [*COMMAND, "--out", str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not part.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if path.exists():
        pytest.skip("the machine made 20 runs in 0.2 s")
    assert process.returncode == code
    if code == 130:
        assert "--resume" in errors and errors.endswith("interrupted\n")
    done = subprocess.run([*words, "--resume", "--json", "-"], capture_output=True, text=True, timeout=120)
    resumed = json.loads(done.stdout)
    assert resumed["digest"] == uninterrupted
    assert 0 < resumed["solved"] <= 20 and not part.exists()
