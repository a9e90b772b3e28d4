"""``consolve plugin``: what it prints, and its exit codes."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("petsc4py")

from consolve.cli import run
from consolve.plugin import check, plugin_path


def test_path_alone_goes_to_stdout(library, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["plugin", "path"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{plugin_path()}\n" and output.err == ""


def test_path_that_petsc_cannot_take(library, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "with space"))
    assert run(["plugin", "path"]) == 1
    output = capsys.readouterr()
    assert output.out == "" and "--out FILE" in output.err


def test_build_to_a_file(library, capsys, tmp_path):
    assert run(["plugin", "build", "--out", str(tmp_path / "libown.so")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/libown.so\n"
    assert (tmp_path / "libown.so").stat().st_size > 10_000


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["plugin", "build", "--out", "x.txt"], 2, "expected a name that ends in .so"),
        (["plugin", "build", "--out", "/nonexistent/libx.so"], 1, "no directory /nonexistent"),
        (["plugin", "build", "--cc", "no-such-cc"], 1, "no C compiler 'no-such-cc'"),
        (["plugin", "nonsense"], 2, "No such command"),
    ],
)
def test_failures_are_one_line(words, code, message, capsys):
    assert run(words) == code
    output = capsys.readouterr()
    assert output.out == "" and message in output.err and "Traceback" not in output.err


def test_check_tries_programs(library, capsys):
    assert run(["plugin", "check", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = ["compiler", "library", "libpython", "petsc4py", "Python program", "C program"]
    assert document["ok"] and [step["name"] for step in document["steps"]] == names
    for step in document["steps"][-2:]:
        plain, learned = (int(word) for word in step["detail"].split() if word.isdigit())
        assert 4 * learned < plain


def test_check_says_why_not(library, capsys, monkeypatch):
    monkeypatch.setattr(check, "LEARNED", ("-ksp_type", "cg", "-pc_type", "cnn", "-pc_cnn_model", "best"))
    assert run(["plugin", "check"]) == 1
    output = capsys.readouterr().out
    assert output.count("FAILED") == 2 and output.count("-pc_cnn_model 'best'") == 2


def test_check_without_a_compiler(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-cc")
    assert run(["plugin", "check"]) == 1
    assert "FAILED  library" in capsys.readouterr().out


def test_path_imports_nothing_heavy(library):
    code = "import sys; from consolve.cli import run; run(['plugin', 'path']); "
    code += "print({'numpy', 'numba', 'petsc4py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
