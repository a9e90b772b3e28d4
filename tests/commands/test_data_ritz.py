"""``consolve data ritz`` and ``consolve data check``: files, documents, exit codes, interruptions."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from consolve.base.growing_file import part_path
from consolve.base.hdf5 import import_h5py
from consolve.cli import run
from consolve.pde.ritz.data import RitzData
from consolve.pde.ritz.step_log import log_path

COMMAND = [
    sys.executable, "-m", "consolve", "data", "ritz", "--cells", "26", "--vectors", "600",
    "--samples", "20000",
]  # fmt: skip


def make(path, *more):
    return run(["data", "ritz", "--cells", "9,7", "--samples", "40", "--out", str(path), *more])


def test_a_file_is_made_and_passes_its_check(tmp_path, capsys):
    path = tmp_path / "a.h5"
    assert make(path) == 0
    told = capsys.readouterr()
    assert "40 right-hand sides of box on 9 x 7 cells" in told.out and told.err == ""
    assert "63 of 63 Ritz vectors, the lowest 34 weighted by 9; basis in float64" in told.out
    with RitzData(path) as data:
        assert data.right_hand_sides.shape == (40, 7, 9)
        assert (data.operator.dirichlet[-1] == 1).all() and not data.operator.dirichlet[:-1].any()
    assert run(["data", "check", str(path)]) == 0
    assert "mean Rayleigh quotient" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_documents_stand_alone_on_stdout(tmp_path, capsys):
    path = tmp_path / "a.h5"
    words = [
        "--domain",
        "closed-spheres",
        "--dim",
        "3",
        "--vectors",
        "50",
        "--low-excess",
        "3",
        "--seed",
        "7",
    ]
    assert make(path, "--cells", "6,5,4", *words, "--json", "-") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["cells"], made["vectors"], made["low_vectors"], made["seed"]) == ([6, 5, 4], 50, 28, 7)
    assert (made["lanczos_steps_made"], made["samples_made"]) == (50, 40)
    assert run(["data", "check", str(path), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == [] and found["digest"] == made["digest"] and found["content"] == "ritz data"
    assert found["norm_error"] < 1e-6


def test_a_damaged_file_fails_its_check(tmp_path, capsys):
    path = tmp_path / "a.h5"
    make(path)
    with import_h5py().File(path, "r+") as file:
        file["right_hand_sides"][11, 2, 3] = np.inf
    capsys.readouterr()
    assert run(["data", "check", str(path)]) == 1
    told = capsys.readouterr()
    assert "fault: right-hand side 11 holds NaN or Inf" in told.out and "is not good" in told.err
    assert run(["data", "check", str(path), "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["rayleigh_quotient"] is None


def test_a_check_tells_files_apart(tmp_path, capsys):
    path = tmp_path / "a.h5"
    make(path)
    assert run(["data", "check", str(path), "--run", "0"]) == 2
    assert "--run is for wave data" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:3000])
    assert run(["data", "check", str(path)]) == 1
    assert "cannot be read as HDF5" in capsys.readouterr().err


def test_resume_leaves_a_whole_file_and_refuses_another(tmp_path, capsys):
    path = tmp_path / "a.h5"
    make(path)
    assert make(path, "--resume") == 0
    assert "0 Lanczos steps and 0 right-hand sides made" in capsys.readouterr().out
    assert make(path, "--resume", "--seed", "1") == 1
    assert "seed = 0, asked for is 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--samples", "0"], 2, "--samples"),
        (["--vectors", "64"], 2, "has rank 63, take at most 63"),
        (["--vectors", "0"], 2, "--vectors"),
        (["--seed", "-1"], 2, "--seed"),
        (["--dim", "3"], 2, "a 3D grid needs 1 or 3"),
        (["--domain", "moon"], 2, "unknown domain 'moon'"),
        (["--memory", "0"], 2, "--memory"),
        (["--memory", "0.0001"], 1, "bytes"),
        (["--cells", "400", "--memory", "0.5"], 1, "take at most"),
        (["--out", "a.txt"], 2, "ends in .h5"),
        (["--out", "/nowhere/at/all/a.h5"], 1, "there is no directory"),
        (["--json", "/nowhere/at/all/a.json"], 1, "there is no directory"),
        (["--samples", "100000000000"], 1, "MB are free"),
    ],
)
def test_wrong_options_are_told_before_any_work(tmp_path, capsys, words, code, message):
    assert make(tmp_path / "a.h5", *words) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.h5"
    done = subprocess.run([*COMMAND, "--out", str(path), "--json", "-"], capture_output=True, text=True)
    return json.loads(done.stdout)["digest"]


def has_begun(path):
    """True if the part file, or the first record of the Lanczos steps, is there."""
    if not path.exists() or not path.name.endswith(".steps.part"):
        return path.exists()
    with open(path, "rb") as file:
        file.seek(4096)
        return any(file.read(24))


@pytest.mark.parametrize(
    ("number", "code", "phase"),
    [
        (signal.SIGINT, 130, log_path),
        (signal.SIGKILL, -9, part_path),
        pytest.param(signal.SIGINT, 130, part_path, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, log_path, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_command_resumes_to_the_same_digest(tmp_path, uninterrupted, phase, number, code):
    path = tmp_path / "a.h5"
    words = [*COMMAND, "--out", str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not has_begun(phase(path)):
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if path.exists():
        pytest.skip("the machine made the set before it could be stopped")
    assert process.returncode == code and log_path(path).exists()
    if code == 130:
        assert f"--out {path} --resume\n" in errors and errors.endswith("interrupted\n")
    done = subprocess.run([*words, "--resume", "--json", "-"], capture_output=True, text=True, timeout=120)
    resumed = json.loads(done.stdout)
    assert resumed["digest"] == uninterrupted
    assert 0 < resumed["samples_made"] <= 20000
    assert (resumed["lanczos_steps_made"] == 0) == (phase is part_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
