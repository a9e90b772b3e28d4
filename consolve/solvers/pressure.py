"""Poisson systems solved by PETSc: one after the other in a simulation, or a single one."""

from __future__ import annotations

import shlex
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.base.errors import NotConverged, OptionError
from consolve.base.messages import warn
from consolve.base.scaling import scale_of
from consolve.pde.matrix.local_rows import real_csr
from consolve.pde.poisson.grid import GridOperator
from consolve.solvers.matrix.assembly import (
    assemble_matrix,
    matrix_from_csr,
)
from consolve.solvers.matrix.attached import attach_grid
from consolve.solvers.matrix.find_grid import find_grid
from consolve.solvers.petsc.versions import PETSc, innermost, is_option_used
from consolve.solvers.system_files import read_matrix, read_vector

LEAST_ATOL = 1e-300
"""What stands for an absolute tolerance of 0."""
DEFAULTS = {
    "ksp_type": "cg",
    "ksp_norm_type": "unpreconditioned",
    "ksp_rtol": "1e-6",
    "ksp_divtol": "1e100",  # a guess from before may be far larger than a flow that has come to rest
    "pc_type": "cnn",
}
"""Options that hold where none are given."""


_prefixes: set[str] = set()
_REASONS = {
    value: name
    for name, value in sorted(vars(PETSc.KSP.ConvergedReason).items())
    if name.startswith(("CONVERGED_", "DIVERGED_"))
}


@dataclass(frozen=True)
class SolveRecord:
    """Facts of one solve.

    Parameters
    ----------
    unknowns
        Rows of the matrix.
    iterations
        Of the KSP.
    assemble_s, setup_s, solve_s
        Seconds for the matrix, for KSP and PC set-up, and for the iteration; the first two are 0 where the
        operator is that of the solve before.
    reason
        Name of the ``KSPConvergedReason``.
    relative_residual
        ``|b - A x| / |b|`` in float64, recomputed from the assembled matrix.
    history
        Residual norm of each iteration, the initial one first.
    """

    unknowns: int
    iterations: int
    assemble_s: float
    setup_s: float
    solve_s: float
    reason: str
    relative_residual: float
    history: NDArray[np.float64]


def parse_options(options: Sequence[str] | str | None) -> dict[str, str | None]:
    """PETSc options as a dict, names without dash; None for a flag.

    Raises
    ------
    OptionError
        If a value stands where a name is expected.
    """
    words = shlex.split(options) if isinstance(options, str) else list(options or ())
    parsed: dict[str, str | None] = {}
    name = ""
    for word in words:
        if word[:1] == "-" and word[1:2].isalpha():
            name = word[1:]
            parsed[name] = None
        elif name and parsed[name] is None:
            parsed[name] = word
        else:
            text = " ".join(words)
            raise OptionError(f"PETSc options {text!r}: {word!r} stands where '-name' is expected")
    return parsed


def reason_name(reason: int) -> str:
    """Name of a ``KSPConvergedReason``, such as ``CONVERGED_RTOL``."""
    return _REASONS.get(int(reason), f"REASON_{int(reason)}")


def _free_prefix(prefix: str) -> str:
    free, number = prefix, 2
    while free in _prefixes:
        free = f"{prefix.rstrip('_')}{number}_"
        number += 1
    _prefixes.add(free)
    return free


def _withdraw_options(prefix: str, names: list[str]) -> None:
    database = PETSc.Options(prefix)
    for name in names:
        database.delValue(name)
    names.clear()
    _prefixes.discard(prefix)


class _Solver:
    """A KSP with options under a prefix of its own; what the database has under it already, goes first."""

    def __init__(self, options: Sequence[str] | str | None, prefix: str) -> None:
        given = parse_options(options)
        chosen = DEFAULTS | given
        self._given = given
        self.prefix = _free_prefix(prefix)
        self._names: list[str] = []
        database = PETSc.Options(self.prefix)
        for name, value in chosen.items():
            if not database.hasName(name):
                database.setValue(name, value)
                self._names.append(name)
        self.ksp: PETSc.KSP | None = None
        self.scale = 1.0
        self._withdraw = weakref.finalize(self, _withdraw_options, self.prefix, self._names)
        self._withdraw.atexit = False

    def set_up(self, mat: PETSc.Mat) -> float:
        """Set the matrix; returns the seconds that KSP and PC took."""
        start = time.perf_counter()
        if self.ksp is None:
            self.ksp = PETSc.KSP().create(mat.comm)
            self.ksp.setOptionsPrefix(self.prefix)
            self.ksp.setOperators(mat)
            self.ksp.setConvergenceHistory(reset=True)
            self._read_options(self.ksp)
        else:
            if self.ksp.getOperators()[0].getSize() != mat.getSize():
                self.ksp.reset()
            self.ksp.setOperators(mat)
        self.ksp.setUp()
        self.ksp.setUpOnBlocks()
        return time.perf_counter() - start

    def _read_options(self, ksp: PETSc.KSP) -> None:
        try:
            ksp.setFromOptions()
        except PETSc.Error as error:
            if error.__cause__ is not None:  # what newer petsc4py makes of our own errors
                raise
            text = innermost(error).replace(f"-{self.prefix}", "-")
            said = set(text.replace(".", " ").split()) | set(text.split())
            wrong = [f"-{name} {value}" for name, value in self._given.items() if value in said]
            raise OptionError(f"{', '.join(wrong) or 'PETSc options'}: {text}") from error

    def solve(
        self, mat: PETSc.Mat, b: NDArray, guess: NDArray | None, times: tuple[float, float]
    ) -> tuple[NDArray, SolveRecord]:
        """Solve for one right-hand side; ``times`` are the seconds of assembly and set-up."""
        ksp = self.ksp
        if ksp is None:
            raise RuntimeError("solve is called before set_up")
        rhs, x, residual = mat.createVecLeft(), mat.createVecRight(), mat.createVecLeft()
        self.scale = scale = scale_of(b)
        rhs.array_w[:] = scale * b
        if guess is not None:
            x.array_w[:] = scale * guess
        ksp.setInitialGuessNonzero(guess is not None)
        atol = ksp.getTolerances()[1]
        if scale != 1 and atol > LEAST_ATOL:
            ksp.setTolerances(atol=scale * atol)
        start = time.perf_counter()
        try:
            ksp.solve(rhs, x)
        finally:
            ksp.setTolerances(atol=atol)
        seconds = time.perf_counter() - start
        mat.mult(x, residual)
        residual.aypx(-1.0, rhs)
        norm = rhs.norm()
        with np.errstate(over="ignore"):
            solution = x.array_r / scale
        finite = bool(np.isfinite(solution).all())
        record = SolveRecord(
            unknowns=mat.getSize()[0],
            iterations=ksp.getIterationNumber(),
            assemble_s=times[0],
            setup_s=times[1],
            solve_s=seconds,
            reason=reason_name(ksp.getConvergedReason()) if finite else "DIVERGED_NANORINF",
            relative_residual=residual.norm() / norm if norm > 0 else residual.norm(),
            history=np.array(ksp.getConvergenceHistory()) / scale,
        )
        for vector in (rhs, x, residual):
            vector.destroy()  # petsc4py only marks what goes out of scope, some versions until the end
        return solution, record

    def unused_options(self) -> list[str]:
        """Options that no part of PETSc has asked for: misspelt, or of a type that is not in use."""
        return [f"-{name}" for name in self._given if not is_option_used(self.prefix + name)]

    def destroy(self) -> None:
        if self.ksp is not None:
            self.ksp.destroy()
            self.ksp = None
        self._withdraw()


class PressureSolver:
    """The pressure solve of a flow by PETSc: ``solver(operator, rhs)`` is the p with A p = rhs.

    The matrix over the active cells is assembled, and the preconditioner set up, when ``operator`` is
    another object than in the call before.  On a singular operator the mean of p over each closed component
    is 0.

    Parameters
    ----------
    options
        PETSc options as a list (``["-ksp_type", "dcd"]``) or one string, without prefix.  Default:
        ``-ksp_type cg -ksp_norm_type unpreconditioned -ksp_rtol 1e-6 -pc_type cnn``.
    prefix
        Under which they are put in PETSc's database, so that ``-pressure_ksp_monitor`` on the command line
        works; a number is added to a prefix that another solver uses.
    warm_start
        Begin with the pressure of the call before.

    Attributes
    ----------
    records
        One :class:`SolveRecord` for each call, failed ones included.

    Raises
    ------
    NotConverged
        In a call, if the KSP diverges.
    InconsistentRightHandSide
        In a call, if the operator is singular and ``rhs`` is not in its range.
    """

    def __init__(
        self,
        options: Sequence[str] | str | None = None,
        prefix: str = "pressure_",
        warm_start: bool = False,
    ) -> None:
        self._solver = _Solver(options, prefix)
        self.warm_start = warm_start
        self.records: list[SolveRecord] = []
        self._operator: GridOperator | None = None
        self._mat: PETSc.Mat | None = None
        self._pressure: NDArray[np.float64] | None = None

    @property
    def prefix(self) -> str:
        """Prefix of the options."""
        return self._solver.prefix

    @property
    def ksp(self) -> PETSc.KSP | None:
        """The KSP; None before the first call."""
        return self._solver.ksp

    def __call__(self, operator: GridOperator, rhs: NDArray) -> NDArray[np.float64]:
        """Solve A p = rhs; both on all cells, shape of the grid, float64; p is 0 at inactive cells."""
        if rhs.shape != operator.shape:
            raise ValueError(f"rhs has shape {rhs.shape}, the grid {operator.shape}")
        b = np.ascontiguousarray(rhs, np.float64).reshape(-1)[operator.cells]
        if not np.isfinite(b).all():
            cell = operator.cells[np.flatnonzero(~np.isfinite(b))[0]]
            where = tuple(int(i) for i in np.unravel_index(cell, operator.shape))
            raise ValueError(f"rhs is {rhs[where]} at cell {where}; every entry must be finite")
        pressure = np.zeros(operator.shape)
        if operator.unknowns == 0 or operator.is_zero:
            operator.null_space.check_consistent(b)
            return pressure
        times = self._set_up(operator)
        b = operator.null_space.consistent(b)
        guess = None
        if self.warm_start and self._pressure is not None and self._pressure.shape == operator.shape:
            guess = self._pressure.reshape(-1)[operator.cells]
        x, record = self._solver.solve(self._mat, b, guess, times)
        self.records.append(record)
        if len(self.records) == 1:
            self._warn_of_unused_options()
        if record.reason.startswith("DIVERGED"):
            raise NotConverged(record.reason, record.iterations, record.relative_residual)
        pressure.reshape(-1)[operator.cells] = operator.null_space.without_means(x)
        self._pressure = pressure
        return pressure.copy()

    def _set_up(self, operator: GridOperator) -> tuple[float, float]:
        if operator is self._operator:
            return 0.0, 0.0
        start = time.perf_counter()
        self._operator = None
        mat = assemble_matrix(operator)
        assembled = time.perf_counter() - start
        setup = self._solver.set_up(mat)
        if self._mat is not None:
            self._mat.destroy()
        self._mat, self._operator = mat, operator
        return assembled, setup

    def _warn_of_unused_options(self) -> None:
        unused = self._solver.unused_options()
        if unused:
            warn(f"PETSc options not used: {' '.join(unused)}; misspelt?")

    def destroy(self) -> None:
        """Free the KSP and take the options out of PETSc's database."""
        self._solver.destroy()
        if self._mat is not None:
            self._mat.destroy()
        self._operator = self._mat = None


@dataclass(frozen=True)
class SystemSolution:
    """Result of :func:`solve_system`.

    Parameters
    ----------
    x
        Solution, one entry for each row.
    record
        Facts of the solve.
    """

    x: NDArray[np.float64]
    record: SolveRecord


def solve_system(
    matrix: str | Path | sp.spmatrix,
    rhs: str | Path | NDArray | None = None,
    grid: str | None = None,
    mask: str | Path | None = None,
    options: Sequence[str] | str | None = None,
    seed: int = 0,
) -> SystemSolution:
    """Solve one system A x = b of a file, by PETSc.

    Parameters
    ----------
    matrix
        A SciPy matrix, or the path of one: PETSc binary, MatrixMarket or ``scipy.sparse.save_npz``.
    rhs
        b, or its path (PETSc binary, MatrixMarket, ``.npy``, ``.npz``).  Default: b = A y with y white noise
        of ``seed``.
    grid
        ``"NX,NY[,NZ]"``: rows number all cells of this grid, x fastest; the fastest index comes first.
    mask
        Path of a cell-type image (``.npy``, ``.npz``, ``.h5``) whose fluid cells the rows number.
    options
        PETSc options without prefix; defaults as for :class:`PressureSolver`.

    Raises
    ------
    SystemFileError
        If a file is missing, damaged or does not fit.
    MatrixError
        If the matrix is not finite, or unfit for ``-pc_type cnn`` where that is used.
    InconsistentRightHandSide
        If the matrix is singular (connected rows whose sums are all 0) and b is not in its range.
    NotConverged
        If the KSP diverges.
    """
    csr = real_csr(read_matrix(matrix) if isinstance(matrix, str | Path) else matrix)
    rows = csr.shape[0]
    if rhs is None:
        b = csr @ np.random.default_rng(seed).standard_normal(rows)
    elif isinstance(rhs, str | Path):
        b = read_vector(rhs, rows)
    else:
        b = np.asarray(rhs, np.float64).reshape(-1)
        if b.size != rows:
            raise ValueError(f"rhs has {b.size} entries, the matrix {rows} rows")
        if not np.isfinite(b).all():
            row = int(np.flatnonzero(~np.isfinite(b))[0])
            raise ValueError(f"rhs is {b[row]} at row {row}; every entry must be finite")
    mat, closed = matrix_from_csr(csr)
    if grid or mask:
        place = find_grid(mat, None, grid, mask)
        attach_grid(mat, place.shape, place.cells)
    b = closed.consistent(b)
    solver = _Solver(options, "system_")
    try:
        setup = solver.set_up(mat)
        x, record = solver.solve(mat, b, None, (0.0, setup))
        unused = solver.unused_options()
    finally:
        solver.destroy()
    if unused:
        warn(f"PETSc options not used: {' '.join(unused)}; misspelt?")
    if record.reason.startswith("DIVERGED"):
        raise NotConverged(record.reason, record.iterations, record.relative_residual)
    return SystemSolution(closed.without_means(x), record)
