"""Commands whose output nobody reads, or can be written nowhere."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

RUN = "import sys; from consolve.cli import main; main(sys.argv[1:])"


@pytest.fixture
def matrix(tmp_path):
    line = sp.diags([-np.ones(11), 2 * np.ones(12), -np.ones(11)], [-1, 0, 1])
    path = tmp_path / "A.mtx"
    scipy.io.mmwrite(path, sp.kron(line, sp.identity(12)) + sp.kron(sp.identity(12), line))
    return path


def run(words, redirection):
    """Exit code of the command itself and its stderr, its output as the shell's ``redirection`` says."""
    command = f'"$0" -c "$1" {" ".join(words)} {redirection}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, sys.executable, RUN], capture_output=True, text=True
    )


@pytest.mark.parametrize("words", [("options",), ("solve", "{matrix}", "--out", "{out}"), ("--help",)])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_closed_streams(words, closed, matrix, tmp_path):
    out = tmp_path / "x.npy"
    done = run([word.format(matrix=matrix, out=out) for word in words], closed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if "solve" in words:
        assert np.load(out).shape == (144,)


@pytest.mark.parametrize("words", [("options",), ("solve", "{matrix}"), ("solve", "{matrix}", "--json", "-")])
def test_reader_that_has_gone(words, matrix):
    done = run([word.format(matrix=matrix) for word in words], "| true")
    assert done.stderr == "" and done.returncode in (0, 1)


@pytest.mark.parametrize("words", [("options",), ("solve", "{matrix}"), ("solve", "{matrix}", "--json", "-")])
def test_full_device(words, matrix):
    done = run([word.format(matrix=matrix) for word in words], "> /dev/full")
    assert done.returncode == 1 and done.stderr == "error: standard output: No space left on device\n"
