"""``consolve.solve``: one system, or several with the same matrix, from Python arrays."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from consolve.base.errors import InconsistentRightHandSide, MatrixError, NotConverged, OptionError
from consolve.base.threads import check_not_forked
from consolve.pde.matrix.local_rows import real_csr
from consolve.pde.matrix.placement import Place, given_place
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.matrix.assembly import (
    matrix_from_csr,
)
from consolve.solvers.matrix.attached import CELLS, attach_grid, attach_points
from consolve.solvers.matrix.cell_images import read_cell_types
from consolve.solvers.matrix.find_grid import find_grid
from consolve.solvers.matrix.infer_grid import infer_grid
from consolve.solvers.matrix.local_matrix import as_aij
from consolve.solvers.petsc.versions import PETSc, csr_arrays
from consolve.solvers.pressure import LEAST_ATOL, SolveRecord, _Solver, parse_options

SINGLE_ROUND_OFF = 1e-6
"""Row sums of float32 matrices that count as 0, relative to the magnitudes of the row."""


MOST_RESTARTS = 3
"""Times that a method goes on where its own residual met the tolerance and the true one did not."""


@dataclass(frozen=True)
class SolveInfo:
    """Facts of a call of :func:`solve`.

    Parameters
    ----------
    records
        One :class:`SolveRecord` for each right-hand side.
    grid
        Shape of the grid on which the rows lie, in NumPy's order; None where they lie at ``points``, or where
        another preconditioner than ``cnn`` was chosen and no grid given.
    """

    records: tuple[SolveRecord, ...]
    grid: tuple[int, ...] | None

    @property
    def iterations(self) -> int:
        """The most that a right-hand side took."""
        return max((record.iterations for record in self.records), default=0)

    @property
    def residual(self) -> float:
        """The greatest ``|b - A x| / |b|``, recomputed in float64 from the matrix."""
        return max((record.relative_residual for record in self.records), default=0.0)

    @property
    def reason(self) -> str:
        """Name of the ``KSPConvergedReason`` of the right-hand side with the greatest residual."""
        worst = max(self.records, key=lambda record: record.relative_residual, default=None)
        return "CONVERGED_RTOL" if worst is None else worst.reason


def solve(
    A: Any,
    b: ArrayLike,
    *,
    grid: Sequence[int] | None = None,
    mask: ArrayLike | str | Path | None = None,
    cells: ArrayLike | None = None,
    points: ArrayLike | None = None,
    rtol: float = 1e-6,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: ArrayLike | None = None,
    ksp: str = "cg",
    model: str = "auto",
    callback: Callable[[NDArray[np.float64]], object] | None = None,
    options: Sequence[str] | str | None = None,
) -> tuple[NDArray[np.float64], SolveInfo]:
    """Solve A x = b until ``|b - A x| <= max(rtol |b|, atol)``, in float64, by PETSc with ``-pc_type cnn``.

    Where the rows lie on a grid is told by ``grid``, ``mask`` or ``cells``; without them it is read from the
    matrix's own pattern, see ``infer_grid``.  Rows of a mesh, such as finite elements have, need ``points``.

    Parameters
    ----------
    A
        Symmetric matrix of a Poisson operator on a structured grid or a mesh: a SciPy sparse matrix or array,
        a dense array, a PETSc matrix on one rank, or a GridOperator.  Integers and float32 are taken as they
        are; row sums of float32 matrices that are 0 to single precision count as 0.
    b
        (n,), (n, k) for k systems, or for a GridOperator the shape of its grid (then so is x, 0 where cells
        are not active).
    grid
        Shape of the grid, last axis fastest: (NY, NX) or (NZ, NY, NX).  Rows number all its cells in C order,
        or else ``cells``.
    mask
        Cell-type image (0 fluid, 1 solid, 2 air), or the path of one: rows number its fluid cells in C order.
    cells
        C-order cell index of each row; with ``grid``.
    points
        (n, 2) or (n, 3): the point of each row, x, y[, z].
    rtol, atol
        Tolerances of the residual norm.
    maxiter
        Greatest number of iterations for each right-hand side; default 10,000.
    x0
        Where to begin, of the shape of b; default 0.
    ksp
        PETSc's name of the method: ``cg``, ``dcd``, ``fcg``, ``fgmres``, ...
    model
        ``auto``, ``multilevel``, ``mg`` (the classical twin), or the path of a weights file.
    callback
        Called with the current x after each iteration, as SciPy does (1-D, one right-hand side after the
        other).
    options
        Further PETSc options, which go before the others: ``"-ksp_monitor -pc_type gamg"``.

    Returns
    -------
    x
        float64, of the shape of b.  On a singular A (rows of a connected part all sum to 0) its mean over
        each such part is 0.
    info
        :class:`SolveInfo`: ``iterations``, ``residual``, ``reason``, ``records``.

    Raises
    ------
    MatrixError
        If A is no real square matrix, its grid is not found, or it is not the operator of that grid.
    InconsistentRightHandSide
        If A is singular and b is not in its range: there is no solution.
    NotConverged
        If the true residual does not reach the tolerance; the error holds ``reason``, ``iterations`` and
        ``relative_residual``.
    ValueError
        If the shapes of A, b, x0, mask, cells and points do not fit, or b, x0 or points are not finite.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, consolve
    >>> line = sp.diags([-np.ones(63), 2 * np.ones(64), -np.ones(63)], [-1, 0, 1])
    >>> A = sp.kron(line, sp.identity(64)) + sp.kron(sp.identity(64), line)
    >>> x, info = consolve.solve(A, np.ones(64 * 64))
    >>> info.iterations < 10 and info.residual < 1e-6
    True
    """
    check_not_forked()
    system = _System.of(A)
    right = system.columns(b, "b")
    guess = None
    if x0 is not None:
        guess = system.columns(x0, "x0")
        if np.shape(x0) != np.shape(b):
            raise ValueError(f"x0 has shape {np.shape(x0)}, b {np.shape(b)}; expected the same")
    words = _option_words(ksp, model, rtol, atol, maxiter, options)
    image = read_cell_types(mask) if isinstance(mask, str | Path) else mask
    place = given_place(system.csr.shape[0], grid, image, cells)
    if points is not None and (place is not None or system.operator is not None):
        raise ValueError("points are given for rows that have a grid: give points, or grid, mask or cells")
    place = system.place if place is None and points is None else place
    if right.size == 0:
        return system.shaped(right, b), SolveInfo((), None if place is None else place[0])
    right = np.column_stack([system.closed.consistent(column) for column in right.T])
    mat, _ = matrix_from_csr(system.csr, system.closed)
    solver = _Solver(words, "solve_")
    try:
        if points is not None:
            attach_points(mat, points)
        elif place is None and parse_options(words)["pc_type"] == "cnn":
            found = infer_grid(mat)
            place = found.shape, found.cells
        if place is not None:
            attach_grid(mat, *place)
        x, records = _solve_columns(solver, mat, system, right, guess, callback)
        unused = solver.unused_options()
    except PETSc.Error as error:  # what newer petsc4py makes of our own errors
        if isinstance(error.__cause__, MatrixError | OptionError | InconsistentRightHandSide):
            raise error.__cause__ from None
        raise
    finally:
        solver.destroy()
        mat.destroy()
    if unused:
        warnings.warn(f"PETSc options not used: {' '.join(unused)}; misspelt?", stacklevel=2)
    return system.shaped(x, b), SolveInfo(records, None if place is None else place[0])


def _solve_columns(
    solver: _Solver,
    mat: PETSc.Mat,
    system: _System,
    right: NDArray[np.float64],
    guess: NDArray[np.float64] | None,
    callback: Callable[[NDArray[np.float64]], object] | None,
) -> tuple[NDArray[np.float64], tuple[SolveRecord, ...]]:
    """Solutions as the columns of an array, one set-up for all."""
    setup = solver.set_up(mat)
    if callback is not None and solver.ksp is not None:

        def monitor(ksp: PETSc.KSP, iteration: int, _: float) -> None:
            if iteration > 0:
                callback(ksp.buildSolution().array_r / solver.scale)

        solver.ksp.setMonitor(monitor)
    x, records = np.empty_like(right), []
    for number, column in enumerate(right.T):
        start = system.start(column, None if guess is None else guess[:, number])
        times = 0.0, 0.0 if number else setup
        solution, record = _solved_truly(solver, mat, system.csr, column, start, times)
        x[:, number] = system.closed.without_means(solution)
        records.append(record)
    return x, tuple(records)


def _solved_truly(
    solver: _Solver,
    mat: PETSc.Mat,
    csr: sp.csr_matrix,
    b: NDArray[np.float64],
    start: NDArray[np.float64] | None,
    times: tuple[float, float],
) -> tuple[NDArray[np.float64], SolveRecord]:
    """A solution whose true residual meets the tolerance.

    A method's own residual can leave the true one behind: at the limit of double precision, or in methods
    that take a preconditioner in single precision for exact.  Then it goes on from where it stands.
    """
    solution, record = solver.solve(mat, b, start, times)
    for _ in range(MOST_RESTARTS):
        if record.reason.startswith("DIVERGED") or not _misses(solver, csr, record, b, solution):
            break
        solution, more = solver.solve(mat, b, solution, times)
        record = replace(
            more,
            iterations=record.iterations + more.iterations,
            solve_s=record.solve_s + more.solve_s,
            history=np.concatenate((record.history, more.history[1:])),
        )
    if record.reason.startswith("DIVERGED"):
        raise NotConverged(record.reason, record.iterations, record.relative_residual)
    if _misses(solver, csr, record, b, solution):
        advice = "its residual has drifted from the true one: use ksp 'cg' or 'dcd', or a larger rtol"
        raise NotConverged(record.reason, record.iterations, record.relative_residual, advice)
    return solution, record


def _misses(
    solver: _Solver, csr: sp.csr_matrix, record: SolveRecord, b: NDArray[np.float64], x: NDArray[np.float64]
) -> bool:
    """The true residual is above the tolerance, and above what rounding of A x leaves."""
    ksp: Any = solver.ksp
    scale = solver.scale
    rtol, atol = ksp.getTolerances()[:2]
    norm = float(np.linalg.norm(scale * b))
    if not norm > 0 or ksp.getNormType() == PETSc.KSP.NormType.NONE:
        return False
    allowed = max(rtol, scale * atol / norm) * 1.0001
    if record.relative_residual <= allowed:
        return False
    size = abs(csr) @ np.abs(scale * x)
    return record.relative_residual > allowed + 4 * np.finfo(np.float64).eps * np.linalg.norm(size) / norm


@dataclass(frozen=True)
class _System:
    """A matrix as it was given, and what it says of itself: closed components, and the place of its rows."""

    csr: sp.csr_matrix
    closed: ClosedComponents
    place: Place | None = None
    operator: GridOperator | None = None

    @classmethod
    def of(cls, A: Any) -> _System:
        if isinstance(A, GridOperator):
            return cls(A.to_csr(), A.null_space, (A.shape, A.cells), A)
        if isinstance(A, PETSc.Mat):
            if A.comm.size > 1:
                raise MatrixError(
                    f"the matrix is spread over {A.comm.size} ranks; consolve.solve works on one: use a "
                    "PETSc KSP with -pc_type cnn"
                )
            place = find_grid(A) if A.query(CELLS) or A.getDM() else None
            indptr, indices, values = csr_arrays(as_aij(A))
            csr = real_csr(sp.csr_matrix((values, indices, indptr), A.getSize()))
            return cls(
                csr, ClosedComponents.of_matrix(csr), None if place is None else (place.shape, place.cells)
            )
        csr = real_csr(A)
        if getattr(A, "dtype", None) != np.float32:
            return cls(csr, ClosedComponents.of_matrix(csr))
        closed = ClosedComponents.of_matrix(csr, SINGLE_ROUND_OFF)
        rest = np.where(closed.group >= 0, np.asarray(csr.sum(axis=1)).reshape(-1), 0.0)
        if rest.any():  # within the rounding of the diagonal: A is to map constants to 0
            csr = sp.csr_matrix(csr - sp.diags(rest))
        return cls(csr, closed)

    def columns(self, values: ArrayLike, name: str) -> NDArray[np.float64]:
        """Right-hand sides or guesses as the columns of an array (rows, k)."""
        array, rows = np.asarray(values), self.csr.shape[0]
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} is {array.dtype}, expected real numbers")
        if self.operator is not None and array.shape == self.operator.shape:
            array = array.reshape(-1)[self.operator.cells]
        if array.ndim not in (1, 2) or array.shape[0] != rows:
            on_grid = "" if self.operator is None else f", or {self.operator.shape}"
            raise ValueError(f"{name} has shape {array.shape}, expected ({rows},) or ({rows}, k){on_grid}")
        columns = array.astype(np.float64).reshape(rows, -1) if rows else np.zeros((0, 0))
        if not np.isfinite(columns).all():
            row = int(np.argwhere(~np.isfinite(columns))[0][0])
            raise ValueError(f"{name} is not finite at row {row}; every entry must be finite")
        return columns

    def shaped(self, x: NDArray[np.float64], b: ArrayLike) -> NDArray[np.float64]:
        """The columns ``x`` in the shape of ``b``."""
        shape = np.shape(b)
        if self.operator is None or shape != self.operator.shape:
            return x.reshape(shape)
        image = np.zeros(shape)
        image.reshape(-1)[self.operator.cells] = x[:, 0] if x.size else 0.0
        return image

    def start(self, b: NDArray[np.float64], guess: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Where to begin: ``guess``, with what rows without couplings say of themselves.

        It keeps residuals there at 0, so that conjugate gradients see a symmetric matrix even where other
        rows couple to such Dirichlet rows.
        """
        rows, diagonal = self._decoupled
        if rows.size == 0:
            return guess
        start = np.zeros_like(b) if guess is None else guess.copy()
        start[rows] = b[rows] / diagonal
        return start

    @cached_property
    def _decoupled(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows with a nonzero diagonal entry and no other, and those entries."""
        row = np.repeat(np.arange(self.csr.shape[0]), np.diff(self.csr.indptr))
        off = (row != self.csr.indices) & (self.csr.data != 0)
        diagonal = self.csr.diagonal()
        rows = np.flatnonzero((np.bincount(row[off], minlength=diagonal.size) == 0) & (diagonal != 0))
        return rows, diagonal[rows]


def _option_words(
    ksp: str, model: str, rtol: float, atol: float, maxiter: int | None, options: Sequence[str] | str | None
) -> list[str]:
    if not (0 <= rtol < 1 and 0 <= atol < np.inf and max(rtol, atol) > 0):
        raise ValueError(f"rtol {rtol} and atol {atol}: expected 0 <= rtol < 1 and atol >= 0, not both 0")
    if maxiter is not None and maxiter < 1:
        raise ValueError(f"maxiter is {maxiter}, expected at least 1")
    words = [
        "-ksp_type",
        ksp,
        "-ksp_rtol",
        repr(float(rtol)),
        "-ksp_atol",
        repr(max(float(atol), LEAST_ATOL)),
    ]
    words += ["-ksp_max_it", str(10_000 if maxiter is None else int(maxiter)), "-pc_type", "cnn"]
    further = shlex.split(options) if isinstance(options, str) else list(options or ())
    if parse_options(further).get("pc_type", "cnn") == "cnn":
        words += ["-pc_cnn_model", model]
    return words + further
