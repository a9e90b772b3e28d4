"""Compiled kernels where Numba has no directory to write to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import consolve

PROGRAM = """
import os
from consolve.base.arrays import zeros
assert zeros(1 << 21).sum() == 0
print(os.environ.get("NUMBA_CACHE_DIR", ""))
print(os.path.isdir(os.environ.get("NUMBA_CACHE_DIR", "")))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package whose __pycache__ directories cannot be made, for any user."""
    folder = tmp_path_factory.mktemp("package")
    copy = folder / "consolve"
    shutil.copytree(
        Path(consolve.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.h5")
    )
    for directory in (copy, *(p for p in copy.rglob("*") if p.is_dir())):
        (directory / "__pycache__").touch()
    return folder


def run_in(package, **environment):
    given = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    given |= {"PYTHONPATH": str(package), "HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=given, capture_output=True, text=True, timeout=120, cwd=package
    )
    return done.stdout.split(), done.stderr, done.returncode


def test_kernels_run_without_a_lasting_cache_and_one_warning_names_the_remedy(package, tmp_path):
    out, err, code = run_in(package, NUMBA_CACHE_DIR="/dev/null/x", TMPDIR=str(tmp_path))
    assert code == 0, err
    assert err.count("RuntimeWarning") == 1 and "set NUMBA_CACHE_DIR to a directory" in err
    assert out[0].startswith(str(tmp_path)) and out[1] == "True"
    assert not list(tmp_path.iterdir()), "the temporary cache outlives its process"


def test_second_rank_does_not_warn_again(package, tmp_path):
    _, err, code = run_in(package, TMPDIR=str(tmp_path), OMPI_COMM_WORLD_RANK="1")
    assert code == 0 and err == ""


def test_cache_of_the_user_is_used_without_a_word(package, tmp_path):
    out, err, code = run_in(package, XDG_CACHE_HOME=str(tmp_path))
    assert (out, err, code) == (["False"], "", 0)
    assert list((tmp_path / "numba").rglob("*.nbi"))


def test_directory_that_the_user_names_is_kept(package, tmp_path):
    out, err, code = run_in(package, NUMBA_CACHE_DIR=str(tmp_path / "mine"))
    assert (out[0], err, code) == (str(tmp_path / "mine"), "", 0)
    assert list((tmp_path / "mine").rglob("*.nbi"))


def test_no_directory_at_all_is_an_error_that_says_what_to_set(monkeypatch):
    from consolve.base import kernel_cache

    def none_is_usable(**arguments):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(kernel_cache, "_is_writable", lambda folder: False)
    monkeypatch.setattr(kernel_cache, "_numba_finds_a_place", lambda: False)
    monkeypatch.setattr("tempfile.mkdtemp", none_is_usable)
    with pytest.raises(RuntimeError, match="no place for compiled kernels.*set NUMBA_CACHE_DIR"):
        kernel_cache.prepare()
