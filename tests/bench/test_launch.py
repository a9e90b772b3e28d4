"""Worker processes: failures, time and memory limits become a reason, and nothing is left running."""

import os
import tempfile
import time

import pytest

from consolve.bench.launch import WorkerError, run_worker

PROBLEM = {"dim": 2, "cells": [24, 24], "domain": "box", "seed": 0, "rhs": "noise", "rtol": 1e-6}


OPTIONS = {"ksp_type": "cg", "ksp_norm_type": "unpreconditioned", "ksp_rtol": "1e-6", "pc_type": "jacobi"}
TASK = {"task": "poisson", "problem": PROBLEM, "options": OPTIONS, "ranks": 1, "threads": 1, "repeat": 1}


def task(**changes):
    return TASK | {"history": False} | changes


def processes_with(word):
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"{entry.path}/cmdline") as file:
                    if word in file.read():
                        found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_result_of_one_rank():
    result = run_worker(task(history=True))
    assert result["reason"] == "CONVERGED_RTOL"
    assert 0 < result["relative_residual"] <= 1.01e-6
    assert result["peak_memory_mb"] >= result["baseline_memory_mb"] > 10
    assert len(result["history"]["residual"]) == result["iterations"] + 1
    assert result["history"]["seconds"] == sorted(result["history"]["seconds"])


def test_memory_of_assembling_is_not_the_solvers():
    import numpy as np

    from consolve.bench.measure import give_back_freed, resident_mb

    give_back_freed()
    before = resident_mb()
    small = [np.ones(4096) for _ in range(3000)]  # 94 MiB, too small for pages of their own
    last = np.ones(16)  # holds the top of the heap
    assert resident_mb() - before > 60
    del small
    give_back_freed()
    assert resident_mb() - before < 30 and last[0] == 1


def test_two_ranks_agree_with_one():
    one, two = run_worker(task()), run_worker(task(ranks=2), ranks=2)
    assert abs(two["iterations"] - one["iterations"]) <= 1
    assert two["relative_residual"] <= 1.01e-6
    assert two["unknowns"] == one["unknowns"] == 24 * 24


def test_unknown_type_of_petsc_is_named():
    with pytest.raises(WorkerError, match="no_such_type"):
        run_worker(task(options={"pc_type": "no_such_type"}))


def test_timeout_ends_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # its name tells these workers from others
    start = time.monotonic()
    with pytest.raises(WorkerError, match="timeout"):
        run_worker(task(ranks=2, problem=PROBLEM | {"cells": [1500, 1500]}), ranks=2, timeout=1.0)
    assert time.monotonic() - start < 20
    time.sleep(0.2)
    assert not processes_with(str(tmp_path))


def test_memory_limit_becomes_a_reason():
    with pytest.raises(WorkerError, match="out of memory: over 20 MiB"):
        run_worker(task(problem=PROBLEM | {"cells": [1500, 1500]}), memory_limit_mb=20)


def test_missing_mpiexec_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(WorkerError, match="mpiexec"):
        run_worker(task(ranks=2), ranks=2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_modules_of_the_working_directory_are_not_run(ranks, tmp_path, monkeypatch):
    for name in ("numpy", "json", "petsc4py"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of the working directory')\n")
    monkeypatch.chdir(tmp_path)
    assert run_worker(task(ranks=ranks), ranks=ranks)["reason"] == "CONVERGED_RTOL"
