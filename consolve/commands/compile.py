"""``consolve compile``: fill the cache of compiled kernels, several processes at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec

import click

from consolve.commands.output import print_result, progress

SHAPES = ((48, 48, 48), (160, 160))


def set_up_levels(domain: str) -> None:
    """Setup kernels alone, without those of the cycle, which all else compiles first."""
    import numba
    import numpy as np

    from consolve.learned.multilevel.cycle.layout import COEFFICIENTS, array_shape, make_layout
    from consolve.learned.multilevel.format import load_weights
    from consolve.learned.multilevel.setup.level_builder import LevelBuilder, UniformLevel
    from consolve.pde.poisson.domains import make_domain
    from consolve.pde.poisson.uniform import UniformOperator

    for shape in SHAPES:
        uniform = UniformOperator.of(make_domain(domain, shape).operator())
        level = None if uniform is None else UniformLevel.of(uniform)
        assert level is not None, f"{domain} has faces of one coefficient"
        builder = LevelBuilder(load_weights("multilevel", len(shape)), numba.get_num_threads())
        finest, second, third = make_layout(level.active.shape, True).shapes[:3]
        relax, moves = (np.zeros(array_shape(finest), np.uint32) for _ in range(2))
        faces, fixed = builder.uniform(level, np.float32(1), relax, moves, second)
        arrays = [np.zeros(array_shape(second), np.float32) for _ in COEFFICIENTS]
        theta, irregular = builder.kernels(1, faces, fixed, arrays, True)
        builder.coarse(1, faces, fixed, theta, irregular, third)


def solve_on_grids(domain: str) -> None:
    """GridSolver."""
    import numpy as np

    from consolve.api.grid_solver import GridSolver
    from consolve.pde.poisson.domains import make_domain

    for shape in SHAPES:
        GridSolver(make_domain(domain, shape).operator()).solve(np.ones(shape))


def solve_matrices(domain: str) -> None:
    """``-ksp_type dcd`` on a matrix that knows its grid, ``cg`` on one whose grid is read from it."""
    import numpy as np

    from consolve.api.solve import solve
    from consolve.pde.poisson.domains import make_domain

    for shape in SHAPES:
        operator = make_domain(domain, shape).operator()
        b = operator.remove_null_space(np.arange(float(operator.active.size)).reshape(shape))
        solve(operator, b, ksp="dcd")
        solve(operator.to_csr("all"), b.reshape(-1), ksp="cg")


JOBS = (
    ("images, by -pc_type cnn", solve_matrices, "spheres"),
    ("images, set-up", set_up_levels, "spheres"),
    ("variable coefficients", solve_matrices, "lognormal-2"),
    ("thin walls", solve_matrices, "maze"),
    ("jumps", solve_matrices, "two-phase"),
    ("closed images", solve_matrices, "closed-channels"),
    ("images, by GridSolver", solve_on_grids, "spheres"),
)
"""In the order in which they begin: the second compiles what the first needs later."""


def _seconds(number: int) -> float:
    begin = time.perf_counter()
    _, work, domain = JOBS[number]
    work(domain)
    return time.perf_counter() - begin


@click.command("compile")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Processes at a time.  [default: one a core, at most 7]"
)  # fmt: skip
def compile_kernels(jobs: int | None) -> None:
    """Compile the kernels of the solvers now, so that the first solve does not wait for it.

    They are kept in NUMBA_CACHE_DIR, the package's directories or the user's cache, and compiled anew for
    another version, Numba or processor.
    """
    from consolve.base.kernel_cache import TEMPORARY

    if TEMPORARY is not None:
        raise RuntimeError("compiled kernels cannot be kept: set NUMBA_CACHE_DIR to a directory of yours")
    numbers = [n for n, job in enumerate(JOBS) if job[1] is not solve_matrices or find_spec("petsc4py")]
    workers = min(jobs or len(os.sched_getaffinity(0)), len(numbers))
    begin = time.perf_counter()
    with (
        progress() as line,
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
    ):
        running = {pool.submit(_seconds, number): number for number in numbers}
        line.start("compiling")
        for done in as_completed(running):
            print_result(f"{JOBS[running[done]][0]}: {done.result():.1f} s")
    print_result(f"compiled in {time.perf_counter() - begin:.1f} s by {workers} processes at a time")
