"""The command line: exit codes, errors of one line, documents, whole files."""

import json
import os
import signal
import subprocess
import sys
import time

import click
import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

pytest.importorskip("petsc4py")

from consolve.cli import cli, run
from consolve.commands.parameters import grid_shape
from consolve.commands.petsc import start_petsc
from consolve.pde.poisson.domains import make_domain

COMMAND = [sys.executable, "-m", "consolve"]


@pytest.fixture
def matrix(tmp_path):
    """A domain's matrix over its fluid cells, its image, a right-hand side and the solution."""
    domain = make_domain("spheres", (24, 32))
    A = domain.operator().to_csr()
    x = np.random.default_rng(0).standard_normal(A.shape[0])
    sp.save_npz(tmp_path / "A.npz", A)
    np.save(tmp_path / "mask.npy", domain.cell_type)
    np.save(tmp_path / "b.npy", A @ x)
    return tmp_path, A, x


def test_help_names_all_commands_and_is_fast():
    begin = time.perf_counter()
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=30)
    seconds = time.perf_counter() - begin
    assert done.returncode == 0 and done.stderr == ""
    for name in ("demo", "solve", "flow", "bench", "train"):
        assert name in done.stdout
    assert seconds < 3, "help has to come without loading NumPy, Numba or PETSc"


def test_help_imports_nothing_heavy():
    code = "import sys, consolve.cli; print({'numpy', 'numba', 'petsc4py', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["bench", "poisson", "--domain", "nonsense"],
        ["bench", "poisson", "--solver", "nonsense"],
        ["bench", "poisson", "--solver", "cg", "--solver", "cg"],
        ["bench", "poisson", "--cells", "0"],
        ["bench", "poisson", "--cells", "8,x"],
        ["bench", "poisson", "--dim", "3", "--cells", "8,8"],
        ["bench", "poisson", "--cells", "8", "--sizes", "8,16"],
        ["bench", "poisson", "--rtol", "0"],
        ["bench", "poisson", "--plot", "picture.txt"],
        ["bench", "flow", "nonsense"],
        ["flow", "plume"],
        ["flow", "nonsense", "--out", "never"],
        ["flow", "plume", "--out", "never", "--cells", "4"],
        ["flow", "plume", "--out", "never", "ksp_type"],
        ["solve", "A.npz", "--grid", "8,8", "--mask", "m.npy"],
        ["solve", "A.npz", "--out", "x.txt"],
        ["train", "multilevel", "--dim", "4", "--out", "w.h5"],
        ["train", "multilevel", "--dim", "2", "--out", "w.pt"],
    ],
)
def test_wrong_usage_is_2_with_one_line_that_says_why(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ") and "Traceback" not in output.err
    assert list(tmp_path.iterdir()) == []


def test_no_command_shows_help(capsys):
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "--out", "/proc/consolve-demo"],
        ["flow", "plume", "--out", "/proc/consolve-flow"],
        ["bench", "poisson", "--json", "/nonexistent/x.json"],
        ["bench", "poisson", "--plot", "/nonexistent/x.png"],
        ["solve", "A.npz", "--out", "/nonexistent/x.npy"],
        ["train", "multilevel", "--dim", "2", "--out", "/nonexistent/w.h5"],
    ],
)
def test_unwritable_output_is_found_before_the_work(words, capsys):
    begin = time.perf_counter()
    assert run(words) == 1
    assert time.perf_counter() - begin < 5
    assert "cannot" in capsys.readouterr().err


def test_solve_finds_the_solution(matrix, capsys):
    folder, _, x = matrix
    words = ["solve", f"{folder}/A.npz", "--rhs", f"{folder}/b.npy", "--mask", f"{folder}/mask.npy"]
    words += ["--out", f"{folder}/x.npy", "--json", "-", "--plot", f"{folder}/x.png"]
    assert run([*words, "--", "-ksp_rtol", "1e-10"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["relative_residual"] <= 1.01e-10 and document["reason"] == "CONVERGED_RTOL"
    assert 1 < document["iterations"] < 30
    np.testing.assert_allclose(np.load(folder / "x.npy"), x, atol=1e-7)
    assert (folder / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("suffix", ["mtx", "petsc"])
def test_solve_writes_vectors_that_it_can_read(matrix, suffix):
    from consolve.solvers.system_files import read_vector

    folder, A, x = matrix
    scipy.io.mmwrite(folder / "A.mtx", A)
    words = ["solve", f"{folder}/A.mtx", "--rhs", f"{folder}/b.npy", "--out", f"{folder}/x.{suffix}"]
    assert run([*words, "--", "-pc_type", "icc", "-ksp_rtol", "1e-10"]) == 0
    np.testing.assert_allclose(read_vector(folder / f"x.{suffix}", x.size), x, atol=1e-6)


def test_solve_without_a_grid_reads_it_from_the_matrix_or_says_what_to_give(matrix, capsys):
    folder, _, _ = matrix
    assert run(["solve", f"{folder}/A.npz"]) == 0
    sp.save_npz(folder / "dense.npz", sp.csr_matrix(50 * np.eye(40) - np.ones((40, 40))))
    assert run(["solve", f"{folder}/dense.npz"]) == 1
    assert "-pc_cnn_grid" in capsys.readouterr().err


def test_misspelt_option_is_warned_of_in_one_line(matrix, capsys):
    folder, _, _ = matrix
    assert run(["solve", f"{folder}/A.npz", "--", "-pc_type", "icc", "-ksp_rtoll", "1e-9"]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and "-ksp_rtoll" in warning and len(warning.splitlines()) == 1


def test_not_converged_is_3_and_still_has_a_document(matrix, capsys):
    folder, _, _ = matrix
    words = [
        "solve",
        f"{folder}/A.npz",
        "--rhs",
        f"{folder}/b.npy",
        "--json",
        "-",
        "--out",
        f"{folder}/x.npy",
    ]
    assert run([*words, "--", "-pc_type", "none", "-ksp_max_it", "3"]) == 3
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert document["reason"] == "DIVERGED_MAX_IT" and document["iterations"] == 3
    assert output.err.startswith("error: DIVERGED_MAX_IT")
    assert not (folder / "x.npy").exists()


def test_unexpected_errors_are_one_line_unless_debugged(monkeypatch, capsys):
    @click.command()
    def broken():
        raise KeyError("missing")

    monkeypatch.setitem(cli.commands, "broken", broken)
    assert run(["broken"]) == 1
    assert capsys.readouterr().err.startswith("error: KeyError: 'missing'")
    with pytest.raises(KeyError):
        run(["broken"], debug=True)


@pytest.mark.parametrize(
    ("streams", "code", "told"),
    [
        ("1>&-", 0, ""),
        ("0<&- 1>&- 2>&-", 0, None),
        ("1>/dev/full", 1, "error: standard output: No space left on device\n"),
        ("2>/dev/full", 0, None),
    ],
)
def test_closed_and_full_streams(matrix, streams, code, told):
    """Nothing that is printed goes into the solution, which is written in any case."""
    folder, _, x = matrix
    words = f"solve {folder}/A.npz --rhs {folder}/b.npy --out {folder}/x.npy -- -ksp_rtol 1e-10 -foo 1"
    line = f"{sys.executable} -m consolve {words} {streams}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    if told is not None:
        assert "Traceback" not in done.stderr and done.stderr.splitlines(True)[1:] == told.splitlines(True)
    np.testing.assert_allclose(np.load(folder / "x.npy"), x, atol=1e-7)


def test_output_that_no_disk_takes_is_told():
    """Whatever prints it."""
    for words in (["--help"], ["options"], ["train", "wave", "--help"]):
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m consolve {' '.join(words)} >/dev/full"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ") and "No space left on device" in done.stderr


@pytest.mark.parametrize("wrapped", [False, True])
def test_interrupt_is_130(monkeypatch, capsys, wrapped):
    @click.command()
    def stopped():
        if not wrapped:
            raise KeyboardInterrupt
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("error code 101") from error

    monkeypatch.setitem(cli.commands, "stopped", stopped)
    assert run(["stopped"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


POISSON_KEYS = {
    "solver", "iterations", "setup_s", "solve_s", "total_s", "relative_residual", "reason", "matvecs",
    "peak_memory_mb",
}  # fmt: skip


def test_bench_poisson_document(capsys, tmp_path):
    words = ["bench", "poisson", "--cells", "40,24", "--domain", "spheres", "--cores", "1", "--rtol", "1e-6"]
    for solver in ("cg", "cnn", "fft", "bad=-pc_type nonsense"):
        words += ["--solver", solver]
    assert run([*words, "--json", "-", "--plot", str(tmp_path / "c.png")]) == 0
    document = json.loads(capsys.readouterr().out)
    problem, machine = document["problem"], document["machine"]
    assert problem["cells"] == [40, 24] and problem["dim"] == 2 and problem["rhs"] == "noise"
    assert problem["unknowns"] == make_domain("spheres", (24, 40)).operator().unknowns
    assert set(machine) == {"threads", "ranks", "cpu", "versions"} and "petsc" in machine["versions"]
    cg, cnn, fft, bad = document["results"]
    for row in (cg, cnn, fft, bad):
        assert set(row) >= POISSON_KEYS
    for row in (cg, cnn):
        assert row["reason"] == "CONVERGED_RTOL" and row["relative_residual"] <= 1.01e-6
        assert row["total_s"] == pytest.approx(row["setup_s"] + row["solve_s"])
    assert cnn["iterations"] < cg["iterations"] / 4
    assert cg["matvecs"] == cg["iterations"]
    assert fft["iterations"] is None and "empty box" in fft["reason"]
    assert bad["iterations"] is None and "nonsense" in bad["reason"]
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_bench_poisson_over_sizes(capsys, tmp_path):
    words = ["bench", "poisson", "--sizes", "16,32", "--solver", "fft", "--domain", "box", "--cores", "1"]
    assert run([*words, "--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]) == 0
    assert "fft" in capsys.readouterr().out
    runs = json.loads((tmp_path / "s.json").read_text())["runs"]
    assert [document["problem"]["unknowns"] for document in runs] == [256, 1024]
    assert all(document["results"][0]["relative_residual"] < 1e-12 for document in runs)


def test_bench_flow_document(capsys, tmp_path):
    words = ["bench", "flow", "plume-moving-body", "--cells", "24,32", "--steps", "3", "--cores", "1"]
    words += ["--solver", "cg", "--solver", "cnn", "--json", "-", "--plot", str(tmp_path / "f.png")]
    assert run(words) == 0
    cg, cnn = json.loads(capsys.readouterr().out)["results"]
    for row in (cg, cnn):
        assert len(row["iterations"]) == 3 and row["reason"] == "CONVERGED_RTOL"
        assert row["iterations_mean"] == pytest.approx(np.mean(row["iterations"]))
        assert row["divergence_max"] < 1e-2 and row["setups"] >= 2
    assert cnn["iterations_mean"] < cg["iterations_mean"] / 3
    assert (tmp_path / "f.png").exists()


def test_bench_with_no_solver_that_can_is_1():
    words = ["bench", "poisson", "--cells", "16", "--solver", "fft", "--domain", "spheres", "--cores", "1"]
    assert run(words) == 1


def test_flow_writes_frames_pictures_and_steps(tmp_path, capsys):
    out = tmp_path / "new" / "plume"
    words = ["flow", "plume", "--cells", "24,32", "--steps", "6", "--every", "3", "--pixels", "64"]
    assert run([*words, "--out", str(out), "--json", "-", "--", "-ksp_type", "dcd"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"]["steps"] == 6 and document["problem"]["cells"] == [24, 32]
    assert document["result"]["relative_residual"] <= 1.01e-6
    assert document["options"] == ["-ksp_type", "dcd"]
    for path in document["files"]:
        assert os.path.getsize(path) > 0
    frames = sorted(out.glob("plume.*.h5"))
    assert len(frames) == 2
    with h5py.File(frames[-1]) as file:
        assert file["density"].shape == (32, 24)
    assert len((out / "steps.csv").read_text().splitlines()) == 7
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_demo_compares_the_same_systems(tmp_path, capsys):
    words = ["demo", "--cells", "32,48", "--steps", "6", "--compare-every", "3", "--out", str(tmp_path / "d")]
    assert run([*words, "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    cnn, cg = document["results"]
    assert cnn["projections"] == cg["projections"] == 2
    assert cnn["iterations_mean"] < cg["iterations_mean"] / 4
    assert max(cnn["relative_residual"], cg["relative_residual"]) <= 1.01e-6
    names = {os.path.basename(path) for path in document["files"]}
    assert names == {"plume.xdmf", "plume.png", "plume.gif", "steps.csv", "convergence.png"}
    assert run(words) == 0
    assert "times fewer iterations" in capsys.readouterr().out


def test_interrupted_flow_leaves_whole_files(tmp_path):
    words = ["flow", "plume", "--cells", "48", "--steps", "100000", "--every", "1", "--pixels", "64"]
    process = subprocess.Popen(
        [*COMMAND, *words, "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300  # the first use compiles
    while len(list(tmp_path.glob("plume.*.h5"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == "" and errors.endswith("interrupted\n") and "Traceback" not in errors
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    index = (tmp_path / "plume.xdmf").read_text()
    assert index.endswith("</Xdmf>\n")
    for path in tmp_path.glob("plume.*.h5"):
        with h5py.File(path) as file:
            assert np.isfinite(file["density"][()]).all()
    assert (tmp_path / "plume.png").exists() and (tmp_path / "steps.csv").exists()


def test_interrupted_bench_ends_its_workers(tmp_path):
    words = ["bench", "poisson", "--cells", "1500", "--solver", "cg", "--cores", "2"]
    process = subprocess.Popen(
        [*COMMAND, *words, "--json", str(tmp_path / "x.json")], stderr=subprocess.PIPE, text=True
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.strip() == "interrupted"
    assert list(tmp_path.iterdir()) == []


def test_cells_are_nx_ny_nz():
    assert grid_shape((3, 4, 5), 3) == (5, 4, 3)
    assert grid_shape((7,), 2) == (7, 7)


def test_options_of_the_process_are_told_from_those_of_a_solver():
    words = ["-ksp_type", "cg", "-log_view", ":log.txt", "-pc_sor_omega", "-1.5", "-ksp_monitor"]
    assert start_petsc(words) == ["-ksp_type", "cg", "-pc_sor_omega", "-1.5", "-ksp_monitor"]


def test_an_option_that_petsc_does_not_take_is_one_line(matrix, capsys):
    folder, _, _ = matrix
    words = ["solve", str(folder / "A.npz"), "--mask", str(folder / "mask.npy"), "--", "-ksp_rtol", "abc"]
    assert run(words) == 1
    assert capsys.readouterr().err == "error: -ksp_rtol abc: Input string abc has no numeric value\n"


def test_errors_of_petsc_come_without_its_stack(monkeypatch, capsys):
    from petsc4py import PETSc

    from consolve.solvers import pressure

    def fail(*_):
        PETSc.Mat().createAIJ((3, 3), nnz=-5)

    monkeypatch.setattr(pressure, "solve_system", fail)
    assert run(["solve", "A.npz"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: PETSc: ") and "() at" not in message


def test_systems_without_rows_are_solved(tmp_path, capsys):
    sp.save_npz(tmp_path / "A.npz", sp.csr_matrix((0, 0)))
    out = tmp_path / "x.npy"
    assert run(["solve", str(tmp_path / "A.npz"), "--out", str(out)]) == 0
    assert "0 rows" in capsys.readouterr().out and np.load(out).shape == (0,)
