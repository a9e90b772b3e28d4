"""Making sets of wave runs: solved in blocks, spread over MPI ranks, written by rank 0 as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from consolve.base.growing_file import part_path
from consolve.pde.waves.batch import run_many
from consolve.pde.waves.data import WaveData, settings
from consolve.pde.waves.grid import WaveGrid
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.problem import PixelMedium, WaveProblem
from consolve.pde.waves.sampling import STORED_VERTICES, SampledRun, WaveSet, medium_at_vertices
from consolve.pde.waves.writer import WaveWriter

SOLVERS = ("leap-frog", "dolfinx")
_BLOCK = 4
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
    """Arrays of the given runs, as :meth:`consolve.pde.waves.writer.WaveWriter.write` takes them.

    A run does not depend on the others of the call, nor on the number of threads.
    """
    samples = [wave_set.run(int(number)) for number in numbers]
    if solver == "dolfinx":
        fields = [_solve_dolfinx(wave_set, sample, vertices) for sample in samples]
    else:
        fields = _solve_leap_frog(wave_set, samples, vertices, threads)
    return [_arrays(wave_set, sample, u, vertices) for sample, u in zip(samples, fields)]


def _solve_leap_frog(
    wave_set: WaveSet, samples: list[SampledRun], vertices: int, threads: int | None
) -> list[NDArray[np.float64]]:
    """u of each run on the 64 x 64 vertices, at its own times out of those of all."""
    if not samples:
        return []
    firsts = [round(sample.start / wave_set.interval) for sample in samples]
    begin = min(firsts)
    times = wave_set.interval * np.arange(begin, max(firsts) + wave_set.snapshots)
    fields = run_many(
        [sample.problem for sample in samples],
        vertices,
        times,
        every=wave_set.every(vertices),
        interval=wave_set.interval,
        threads=threads,
    )
    return [u[first - begin :][: wave_set.snapshots] for first, u in zip(firsts, fields)]


def _solve_dolfinx(wave_set: WaveSet, sample: SampledRun, vertices: int) -> NDArray[np.float64]:
    """u of a run on the 64 x 64 vertices by DOLFINx: mesh, elements, mass and step are those of
    :class:`LeapFrog`."""
    from mpi4py import MPI

    from consolve.pde.waves.finite_elements import WaveModel
    from consolve.pde.waves.mesh import unit_square_mesh

    like = LeapFrog(sample.problem, vertices, interval=wave_set.interval)
    # The triangles of a square cell have one speed, that of the cell's centre.
    medium = PixelMedium(like.grid.speed, like.grid.fixed_cells, like.grid.hole)
    problem = WaveProblem(medium, sample.problem.source, sample.problem.boundaries)
    model = WaveModel(problem, unit_square_mesh(vertices, MPI.COMM_SELF), step=like.step)
    times = sample.start + wave_set.interval * np.arange(wave_set.snapshots)
    every = wave_set.every(vertices)  # interpolation leaves round-off where u = 0
    return model.run(times, STORED_VERTICES) * like.grid.free[::every, ::every]


def _load_solver(solver: str) -> None:
    """Load what the solver needs.  PETSc starts when it is loaded, and only if all ranks do so."""
    if solver != "dolfinx":
        return
    try:
        import consolve.pde.waves.finite_elements  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"the solver dolfinx needs DOLFINx ({error}); install it or take leap-frog"
        ) from error


def _arrays(wave_set: WaveSet, sample: SampledRun, u: Any, vertices: int) -> dict[str, Any]:
    source = sample.problem.source
    assert source is not None
    speed, fixed = medium_at_vertices(WaveGrid.of(sample.problem, vertices), wave_set.every(vertices))
    window = wave_set.window
    return {
        "u": u[:, window, window].astype(np.float32),
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
        Go on with the part file that an interrupted call left; a file that is whole is left as it is.
    command
        For the record in the file.
    comm
        mpi4py communicator, or None: one process.  The content does not depend on it.
    report
        Called on rank 0 with the number of runs that are done, and of all.

    Raises
    ------
    ValueError, OSError, RuntimeError
        On all ranks, the error of the first that has one: as :class:`WaveWriter` and :func:`run_many`.
    """
    if not 1 <= runs:
        raise ValueError(f"a set has at least one run, got {runs}")
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    wave_set.every(vertices)
    ranks = _Ranks(comm)
    desk = _Desk(path, wave_set, runs, vertices, solver, command, resume, report)
    try:
        ranks.gather(_load_solver, solver)
        missing = ranks.on_root(desk.open)
        threads = ranks.threads()
        size = _BLOCK * threads * ranks.size
        for first in range(0, len(missing), size):
            block = missing[first : first + size]
            mine = block[ranks.rank :: ranks.size]
            parts = ranks.gather(solve_runs, wave_set, mine, vertices, solver, threads)
            ranks.on_root(desk.write, block, parts)
        return Generated(len(missing), ranks.size, ranks.on_root(desk.finish))
    finally:
        desk.close()


class _Desk:
    """What rank 0 does with the file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        wave_set: WaveSet,
        runs: int,
        vertices: int,
        solver: str,
        command: str,
        resume: bool,
        report: Callable[[int, int], None] | None,
    ) -> None:
        self._what = path, wave_set, runs, vertices, solver, command, resume
        self._report = report
        self._file: WaveWriter | None = None
        self._whole: str | None = None

    def open(self) -> list[int]:
        """Numbers of the runs that are missing."""
        path, wave_set, runs, vertices, solver, _, resume = self._what
        if resume and os.path.exists(path) and not part_path(path).exists():
            with WaveData(path) as data:
                data.check_settings(settings(wave_set, runs, vertices) | {"solver": solver})
                self._whole = data.digest
            return []
        self._file = WaveWriter(*self._what)
        self._tell()
        return [int(number) for number in np.flatnonzero(~self._file.done)]

    def write(self, numbers: Sequence[int], parts: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Write runs that the ranks solved in turn."""
        assert self._file is not None
        for place, number in enumerate(numbers):
            self._file.write(number, parts[place % len(parts)][place // len(parts)])
        self._tell()

    def _tell(self) -> None:
        if self._report is not None and self._file is not None:
            self._report(int(self._file.done.sum()), self._file.done.size)

    def finish(self) -> str:
        """The digest."""
        if self._whole is not None:
            return self._whole
        assert self._file is not None
        return self._file.finish()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Ranks:
    """Work on all ranks, or on one; what fails on any is raised on all."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.size: int = 1 if comm is None else comm.size
        self.rank: int = 0 if comm is None else comm.rank

    def threads(self) -> int:
        """Numba's threads, shared by the ranks of a machine; the same number on all."""
        if self._comm is None:
            return get_num_threads()
        from mpi4py import MPI

        node = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        beside = node.allreduce(get_num_threads(), MPI.MIN) // node.size
        node.Free()
        return int(self._comm.allreduce(max(1, beside), MPI.MIN))

    def on_root(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What ``work`` returns on rank 0, on all ranks."""
        if self._comm is None:
            return work(*arguments)
        outcome = _try(work, *arguments) if self.rank == 0 else None
        return _opened(self._comm.bcast(outcome, 0))

    def gather(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``work`` returns on each rank, in order, on rank 0; nothing on the others."""
        if self._comm is None:
            return [work(*arguments)]
        outcomes = self._comm.gather(_try(work, *arguments), 0) or []
        fault = next((error for _, error in outcomes if error is not None), None)
        _opened((None, self._comm.bcast(fault, 0)))
        return [value for value, _ in outcomes]


def _try(work: Callable[..., Any], *arguments: Any) -> tuple[Any, Exception | None]:
    try:
        return work(*arguments), None
    except Exception as error:
        return None, error


def _opened(outcome: tuple[Any, Exception | None]) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value
