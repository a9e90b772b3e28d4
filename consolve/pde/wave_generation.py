"""Making sets of wave runs: solved in blocks, spread over MPI ranks, written by rank 0 as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import get_num_threads

from consolve.pde.wave_batch import run_many
from consolve.pde.wave_data_writer import GrowingFile
from consolve.pde.wave_grid import WaveGrid
from consolve.pde.wave_sampling import SampledRun, WaveSet, medium_at_vertices

SOLVERS = ("leap-frog", "dolfinx")
_BLOCK = 8
"""Runs that a thread solves before they are written."""


@dataclass(frozen=True)
class Generated:
    """What :func:`generate` did: runs solved now, ranks that took part, and the digest of the file."""

    solved: int
    ranks: int
    digest: str


def solve_runs(
    wave_set: WaveSet,
    numbers: Sequence[int],
    vertices: int,
    solver: str = "leap-frog",
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """Arrays of the given runs, as :meth:`consolve.pde.wave_data_writer.GrowingFile.write` takes them.

    A run does not depend on the others of the call, nor on the number of threads.
    """
    every = wave_set.every(vertices)
    samples = [wave_set.run(int(number)) for number in numbers]
    if not samples:
        return []
    firsts = [round(s.start / wave_set.interval) for s in samples]
    begin = min(firsts)
    times = wave_set.interval * np.arange(begin, max(firsts) + wave_set.snapshots)
    problems = [s.problem for s in samples]
    fields = run_many(problems, vertices, times, every=every, interval=wave_set.interval, threads=threads)
    window = wave_set.window
    return [
        _arrays(wave_set, s, field[first - begin :][: wave_set.snapshots, window, window], vertices)
        for s, first, field in zip(samples, firsts, fields)
    ]


def _arrays(wave_set: WaveSet, sample: SampledRun, u: Any, vertices: int) -> dict[str, Any]:
    source = sample.problem.source
    assert source is not None
    speed, fixed = medium_at_vertices(WaveGrid.of(sample.problem, vertices), wave_set.every(vertices))
    window = wave_set.window
    return {
        "u": u.astype(np.float32),
        "speed": speed[window, window],
        "fixed": fixed[window, window],
        "source": [source.x, source.y, source.frequency, source.amplitude, source.radius, source.delay],
        "start": sample.start,
        "kind": np.bytes_(sample.kind.encode()),
        "medium_seed": sample.seed,
        "parameters": list(sample.parameters),
    }


def world() -> Any:
    """Communicator of all ranks under an MPI launcher; None in a process by itself.

    Raises
    ------
    RuntimeError
        If a launcher started several ranks and mpi4py is not there.
    """
    size = max(int(os.environ.get(name, "1") or 1) for name in _SIZES)
    if size == 1:
        return None
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise RuntimeError(f"{size} ranks need mpi4py ({error}); install it or start one process") from error
    if MPI.COMM_WORLD.size != size:
        raise RuntimeError(
            f"the launcher started {size} ranks, mpi4py sees {MPI.COMM_WORLD.size}: it belongs to another "
            f"MPI; use the mpirun that mpi4py was built with"
        )
    return MPI.COMM_WORLD


_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")


def generate(
    path: str | os.PathLike[str],
    wave_set: WaveSet,
    runs: int,
    vertices: int = 253,
    solver: str = "leap-frog",
    resume: bool = False,
    command: str = "",
    comm: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> Generated:
    """Make a file of wave data; collective.

    Parameters
    ----------
    path
        Of the file; it appears when whole.
    wave_set, runs
        Which runs.
    vertices
        Of the finite-element grid, 63 k + 1 a side.
    solver
        ``leap-frog`` or ``dolfinx``.
    resume
        Go on with the part file that an interrupted call left.
    command
        For the record in the file.
    comm
        mpi4py communicator, or None: one process.  The content does not depend on it.
    report
        Called on rank 0 with the number of runs that are done, and of all.

    Raises
    ------
    ValueError, OSError, RuntimeError
        On all ranks, the error of the first that has one: as :class:`GrowingFile` and :func:`run_many`.
    """
    root = comm is None or comm.rank == 0
    ranks = 1 if comm is None else comm.size
    file: GrowingFile | None = None
    try:

        def open_file() -> list[int]:
            nonlocal file
            file = GrowingFile(path, wave_set, runs, vertices, solver, command, resume)
            return np.flatnonzero(~file.done).tolist()

        missing = _of_root(comm, open_file)
        threads = _threads(comm)
        size = _BLOCK * threads
        for first in range(0, len(missing), size * ranks):

            def write(parts: list[list[tuple[int, dict[str, Any]]]]) -> None:
                assert file is not None
                for number, arrays in (pair for part in parts for pair in part):
                    file.write(number, arrays)
                if report is not None:
                    report(int(file.done.sum()), runs)

            rank = 0 if comm is None else comm.rank
            mine = missing[first + rank * size : first + (rank + 1) * size]
            parts = _gather(
                comm, lambda: list(zip(mine, solve_runs(wave_set, mine, vertices, solver, threads)))
            )
            _of_root(comm, lambda: write(parts))
        digest = _of_root(comm, lambda: file.finish())
        return Generated(len(missing), ranks, digest)
    finally:
        if root and file is not None:
            file.close()


def _threads(comm: Any) -> int:
    """Numba's threads, shared by the ranks of one machine."""
    if comm is None:
        return get_num_threads()
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    beside = node.allreduce(get_num_threads(), MPI.MIN) // node.size
    node.Free()
    return int(comm.allreduce(max(1, beside), MPI.MIN))


def _of_root(comm: Any, work: Callable[[], Any]) -> Any:
    """What rank 0's ``work`` returns, on all ranks; its exception is raised on all."""
    if comm is None:
        return work()
    outcome: tuple[Any, Exception | None] = None, None
    if comm.rank == 0:
        try:
            outcome = work(), None
        except Exception as error:
            outcome = None, error
    return _opened(comm.bcast(outcome, 0))


def _gather(comm: Any, work: Callable[[], Any]) -> list[Any]:
    """What ``work`` returns on each rank, in order, on rank 0; an exception of any is raised on all."""
    if comm is None:
        return [work()]
    outcome: tuple[Any, Exception | None]
    try:
        outcome = work(), None
    except Exception as error:
        outcome = None, error
    all_outcomes = comm.gather(outcome, 0)
    fault = None
    if comm.rank == 0:
        fault = next((error for _, error in all_outcomes if error is not None), None)
    _opened((None, comm.bcast(fault, 0)))
    return [] if all_outcomes is None else [value for value, _ in all_outcomes]


def _opened(outcome: tuple[Any, Exception | None]) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value
