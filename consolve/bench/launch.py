"""Run a benchmark task in a fresh process, or one per rank under ``mpiexec``, within time and memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consolve.base.memory import MIB, available
from consolve.bench.measure import session_resident_mb

POLL_S, MEMORY_POLL_S = 0.05, 0.5
SHARE_OF_AVAILABLE = 0.9
OF_ANOTHER_LAUNCH = (
    "OMPI_APP_CTX", "OMPI_COMM_WORLD", "OMPI_UNIVERSE", "OMPI_MCA_ess", "OMPI_MCA_orte_", "OMPI_MCA_pmix",
    "ORTE_", "PMIX_", "PMI_", "HYDI_",
)  # fmt: skip
"""Beginnings of variables that Open MPI and MPICH set in the processes they start."""


_PACKAGES = Path(__file__).parents[2]
_WORKER = """
import sys
sys.path[:] = [path for path in sys.path if path]  # the working directory may hold a numpy.py
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from consolve.bench.worker import main
sys.exit(main(*sys.argv[2:]))
"""
"""``python -m consolve.bench.worker`` would search the working directory first; ``-P`` is of Python 3.11."""


class WorkerError(RuntimeError):
    """A benchmark process that gave no result; the text is the reason for the table."""


def run_worker(
    task: dict[str, Any],
    *,
    ranks: int = 1,
    threads: int = 1,
    timeout: float | None = None,
    memory_limit_mb: float | None = None,
    while_waiting: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The result of ``task`` from :mod:`consolve.bench.worker`.

    Parameters
    ----------
    task
        What the worker is to do, as JSON types.
    ranks, threads
        MPI ranks, and threads of each.
    timeout
        Seconds until the processes are ended.
    memory_limit_mb
        Resident memory of all ranks together at which they are ended; default 0.9 of what is available.
    while_waiting
        Called about every 50 ms, for progress displays.

    Raises
    ------
    WorkerError
        If it failed, ran out of time or memory, or crashed.
    """
    limit = memory_limit_mb or SHARE_OF_AVAILABLE * available() / MIB
    with tempfile.TemporaryDirectory(prefix="consolve-bench-") as folder:
        task_path, result_path = Path(folder, "task.json"), Path(folder, "result.json")
        task_path.write_text(json.dumps(task))
        command = [sys.executable, "-c", _WORKER, str(_PACKAGES), str(task_path), str(result_path)]
        if ranks > 1:
            command = [_mpiexec(), "-n", str(ranks), *command]
        log_path = Path(folder, "log")
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(ranks, threads),
                start_new_session=True,
            )
            try:
                _wait(process, timeout, limit, while_waiting)
            finally:
                _end(process)
        if process.returncode == 0 and result_path.is_file():
            return json.loads(result_path.read_text())
        raise WorkerError(_reason(process.returncode, result_path, log_path))


def _wait(
    process: subprocess.Popen, timeout: float | None, limit_mb: float, while_waiting: Callable[[], None]
) -> None:
    start = next_memory = time.monotonic()
    while process.poll() is None:
        now = time.monotonic()
        if timeout is not None and now - start > timeout:
            raise WorkerError(f"timeout: not done after {timeout:g} s")
        if now >= next_memory:
            next_memory = now + MEMORY_POLL_S
            if session_resident_mb(process.pid) > limit_mb:
                raise WorkerError(f"out of memory: over {limit_mb:.0f} MiB")
        while_waiting()
        time.sleep(POLL_S)


def _end(process: subprocess.Popen) -> None:
    """End the whole session; ranks of some MPIs are in process groups of their own."""
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    process.wait()


def _mpiexec() -> str:
    found = shutil.which("mpiexec") or shutil.which("mpirun")
    if found is None:
        raise WorkerError("several ranks need mpiexec, which is not on PATH; install it or give --cores 1")
    return found


def _environment(ranks: int, threads: int) -> dict[str, str]:
    # What a launcher left for this process would make the workers take themselves for its ranks.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(OF_ANOTHER_LAUNCH)}
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    # Threads and ranks that spin while they wait cost many times their work on a machine that does other
    # work too: all yield, and ranks are not pinned.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if ranks > 1:
        # As variables, since the switches of mpiexec differ between MPIs.
        environment |= {
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "OMPI_MCA_hwloc_base_binding_policy": "none",
            "OMPI_MCA_mpi_yield_when_idle": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            "PRTE_MCA_hwloc_default_binding_policy": "none",
        }
        if os.geteuid() == 0:
            environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return environment


def _reason(returncode: int, result_path: Path, log_path: Path) -> str:
    errors = sorted(result_path.parent.glob("error-*"))
    if errors:
        return errors[0].read_text().strip()
    log = log_path.read_text(errors="replace").strip().splitlines()
    if returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed, most likely out of memory"
    last = next((line for line in reversed(log) if line.strip(" -")), "no output")
    return f"crashed with exit code {returncode}: {last}"
