"""What is available, what is needed, and the refusal before anything is allocated."""

import math
import resource
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from consolve.base import memory
from consolve.base.memory import GIB, MIB, NotEnoughMemory, available, require
from consolve.bench.poisson import Conditions, PoissonProblem, run_poisson, system_bytes
from consolve.bench.roster import SOLVERS
from consolve.cli import run
from consolve.commands.parameters import BYTES_PER_CELL_OF_FLOW
from consolve.pde.flow.flow import Flow
from consolve.pde.flow.scenes import make_scene
from consolve.pde.poisson import domains
from consolve.pde.poisson.domains import DOMAIN_NAMES, make_domain
from consolve.pde.poisson.grid import GridOperator, operator_bytes


def peak_of(work):
    work()  # compiles, fills caches
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_error_names_the_bytes_needed_and_available(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda swap=False: 3 * GIB)
    with pytest.raises(
        NotEnoughMemory, match=r"^a test needs at least 4,294,967,296 bytes \(4.00 GiB\).*3.00"
    ):
        require(4 * GIB, "a test")
    require(3 * GIB, "a test")


def test_available_is_no_more_than_the_machine_has():
    total = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]) * 1024
    assert 0 < available() <= available(swap=True)
    assert available() <= total


@pytest.fixture
def groups(tmp_path):
    """Makes a control group's files, and says what is left by them."""

    def make(line, folder, **files):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / folder / name.replace("memory_", "memory.")).write_text(f"{text}\n")
        (tmp_path / "process").write_text(line + "\n")
        return memory._of_control_groups(tmp_path, tmp_path / "process")

    return make


def test_limit_of_a_control_group_counts_less_its_use_without_droppable_files(groups):
    files = {"memory_max": 900, "memory_current": 500, "memory_stat": "anon 300\ninactive_file 120"}
    assert groups("0::/a/b", "a/b", **files) == [520]


def test_limit_of_a_parent_group_counts_too(groups):
    groups("0::/a/b", "a/b", memory_max="max", memory_current=10, memory_stat="inactive_file 0")
    assert groups("0::/a/b", "a", memory_max=100, memory_current=30, memory_stat="inactive_file 0") == [70]


def test_control_groups_of_version_1_in_a_container_stand_at_the_root(groups):
    files = {
        "memory_limit_in_bytes": 800,
        "memory_usage_in_bytes": 500,
        "memory_stat": "total_inactive_file 1",
    }
    assert groups("4:memory:/of/the/host", "memory", **files) == [301]


def test_limit_of_the_address_space_counts():
    code = "from consolve.base.memory import *; print(available()); require(2 * GIB, 'a test')"
    limit = (1 << 30, 1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )  # fmt: skip
    assert int(done.stdout) < 1 << 30
    assert "NotEnoughMemory: a test needs" in done.stderr


@pytest.mark.parametrize("shape", [(256, 256), (48, 48, 48)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_of_an_operator_are_what_it_takes(shape, dtype):
    image = np.zeros(shape, np.uint8)
    needed = operator_bytes(shape, dtype)
    assert needed <= peak_of(lambda: GridOperator.from_cell_types(image, dtype=dtype)) < 1.2 * needed


@pytest.mark.parametrize("name", DOMAIN_NAMES)
def test_bytes_of_a_domain_are_at_most_what_it_takes(name):
    shape = (256, 256)
    needed = domains._BYTES.get(name, 6) * math.prod(shape)
    assert needed <= peak_of(lambda: make_domain(name, shape)) < 3 * needed


def test_bytes_of_a_flow_are_at_most_what_it_takes():
    shape = (96, 96)

    def step():
        Flow(make_scene("plume", shape)).step(lambda operator, rhs: np.zeros_like(rhs))

    needed = BYTES_PER_CELL_OF_FLOW * math.prod(shape)
    assert needed <= peak_of(step) < 2 * needed


def test_too_large_a_grid_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda swap=False: 100 * MIB)
    for work in (
        lambda: make_domain("spheres", (5000, 5000)),
        lambda: GridOperator.from_cell_types(np.broadcast_to(np.uint8(0), (2500, 2500))),
    ):
        with pytest.raises(NotEnoughMemory, match=r"of \d+ x \d+ cells needs at least .* smaller grid"):
            peak = peak_of(work)
            pytest.fail(f"nothing was refused, {peak} bytes were taken")


def test_bench_refuses_a_system_that_no_solver_can_hold(capsys):
    assert run(["bench", "poisson", "--dim", "3", "--cells", "20000", "--solver", "cg"]) == 1
    assert "a system of 20000 x 20000 x 20000 cells needs at least" in capsys.readouterr().err


def test_bench_leaves_out_only_the_solvers_whose_system_does_not_fit(monkeypatch):
    problem = PoissonProblem(2, (2000, 2000))
    direct, cg = SOLVERS["fft"], SOLVERS["cg"]
    least = system_bytes(problem, direct, 2)
    assert least < system_bytes(problem, cg, 1) < system_bytes(problem, cg, 2)
    monkeypatch.setattr(memory, "available", lambda swap=False: least + 1)
    monkeypatch.setattr("consolve.bench.poisson.run_worker", lambda *a, **k: {"versions": {}, "unknowns": 1})
    rows = run_poisson(problem, [direct, cg], Conditions(cores=2))["results"]
    assert rows[0]["reason"] == ""
    assert rows[1]["reason"].startswith(
        "out of memory: its system, without the solver's own memory, on 2 ranks"
    )
    assert rows[1]["total_s"] is None


def test_flow_too_large_for_memory_is_said_in_one_line(capsys, tmp_path):
    words = ["flow", "plume", "--dim", "3", "--cells", "5000", "--steps", "1", "--out", str(tmp_path / "o")]
    assert run(words) == 1
    assert "a flow on 5000 x 5000 x 5000 cells needs at least" in capsys.readouterr().err


@pytest.mark.parametrize("head, factor", [(b"\x00\x12\x7b\x50", 1), (b"%%MatrixMarket", 4)])
def test_solve_refuses_a_file_larger_than_memory(monkeypatch, capsys, tmp_path, head, factor):
    path = tmp_path / "A"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(GIB * factor)  # sparse: takes no disk
    monkeypatch.setattr(memory, "available", lambda swap=False: GIB - 1)
    assert run(["solve", str(path)]) == 1
    said = capsys.readouterr().err
    assert f"the matrix of {path} needs at least 1,073,741,824 bytes (1.00 GiB)" in said


def test_more_cores_than_there_are_is_warned_of(monkeypatch):
    import os

    from consolve.commands.bench import _conditions

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    with pytest.warns(RuntimeWarning, match="--cores 2, but this process may use 1"):
        _conditions(2, 1, 1.0, None)
