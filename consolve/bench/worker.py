"""What runs in each benchmark process: ``main(TASK.json, RESULT.json)``.

The process first solves a tiny problem of the same kind, so that loading libraries and compiling kernels is
timed apart (``first_use_s``).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

WARM_UP_CELLS = {2: 24, 3: 12}


def main(task_path: str, result_path: str) -> int:
    """Run the task; rank 0 writes the result, a rank that fails writes why and ends all ranks."""
    task = json.loads(Path(task_path).read_text())
    rank = 0
    try:
        import petsc4py

        petsc4py.init(["consolve", *_words(task["options"])])
        from petsc4py import PETSc

        rank = PETSc.COMM_WORLD.rank
        if PETSc.COMM_WORLD.size != task["ranks"]:
            raise RuntimeError(
                f"{task['ranks']} ranks were asked for, petsc4py sees {PETSc.COMM_WORLD.size}: the mpiexec "
                "on PATH belongs to another MPI than petsc4py's"
            )
        import consolve.solvers  # noqa: F401  (registers -pc_type cnn and -ksp_type dcd)
        from consolve.bench import flow_task, poisson_task, systems_task

        run = {
            "poisson": poisson_task.poisson,
            "direct": poisson_task.direct,
            "grid": poisson_task.grid,
            "flow": flow_task.flow,
            "systems": systems_task.systems,
        }[task["task"]]
        start = time.perf_counter()
        run(_warm_up(task))
        first_use = time.perf_counter() - start
        result = run(task)
        if rank == 0:
            result["first_use_s"] = first_use
            result["versions"] = _versions()
            Path(result_path).write_text(json.dumps(result))
        return 0
    except BaseException as error:
        Path(result_path).with_name(f"error-{rank}").write_text(_one_line(error))
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # other ranks may wait for this one: mpiexec ends them


def _words(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"-{name}", value) if word]


def _warm_up(task: dict[str, Any]) -> dict[str, Any]:
    problem = task["problem"]
    small = problem | {"cells": [WARM_UP_CELLS[problem["dim"]]] * problem["dim"]}
    if "steps" in problem:
        small["steps"] = 1
    return task | {"problem": small, "repeat": 1, "history": False, "files": None}


def _one_line(error: BaseException) -> str:
    """PETSc's errors carry a stack; the innermost message is the last line of it."""
    if isinstance(error, MemoryError):
        return "out of memory"
    cause = error.__cause__ if type(error).__name__ == "Error" and error.__cause__ else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    if type(cause).__module__.startswith("petsc4py"):
        if getattr(cause, "ierr", 0) == 55:
            return "out of memory (PETSc error 55)"
        lines = [f"PETSc {lines[0]}: " + lines[-1].partition("] ")[2]] if lines else ["PETSc error"]
    return lines[0] if lines else type(cause).__name__


def _versions() -> dict[str, str]:
    import platform

    import numba
    import numpy
    import scipy
    from petsc4py import PETSc

    from consolve.base.version import __version__

    return {
        "consolve": __version__,
        "python": platform.python_version(),
        "petsc": ".".join(map(str, PETSc.Sys.getVersion())),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }
