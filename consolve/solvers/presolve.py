"""What PC ``cnn`` looks at before a solve: systems that a Krylov method would report as solved, or not solve,
without a word of why."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from consolve.solvers.collective import raise_together
from consolve.solvers.errors import InconsistentRightHandSide, MatrixError
from consolve.solvers.network import Network
from consolve.solvers.petsc import PETSc
from consolve.solvers.stencil import Stencil

SYMMETRIC_METHODS = frozenset(
    (
        "cg",
        "fcg",
        "groppcg",
        "pipecg",
        "pipecgrr",
        "pipefcg",
        "pipelcg",
        "pipeprcg",
        "minres",
        "symmlq",
        "chebyshev",
    )
)
"""KSP types that are for symmetric matrices; ``dcd`` copes with one-sided Dirichlet rows."""

TOLERANT_METHODS = frozenset(
    ("cg", "fcg", "pipefcg", "fgmres", "pipefgmres", "gcr", "pipegcr", "dcd", "richardson")
)
"""KSP types whose residual stays true although single precision rounds M r."""


def claims_convergence(ksp: PETSc.KSP) -> bool:
    """False for a smoother, a part of a preconditioner, or the inner KSP by which Chebyshev estimates
    eigenvalues: these run a few iterations and solve nothing."""
    prefix = ksp.getOptionsPrefix() or ""
    return ksp.getNormType() != PETSc.KSP.NormType.NONE and not prefix.endswith("esteig_")


def warn_of_method(ksp: PETSc.KSP) -> None:
    """Warn of methods that stop early where the preconditioner rounds to single precision."""
    rtol = ksp.getTolerances()[0]
    if ksp.getType() not in TOLERANT_METHODS and rtol < 1e-6 and ksp.comm.rank == 0:
        warnings.warn(
            f"-ksp_type {ksp.getType()} takes its preconditioner as exactly linear, and -pc_type cnn is so "
            f"in single precision: at rtol {rtol:g} it may stop with a true residual of about 1e-6; use "
            "cg, fgmres or dcd",
            stacklevel=3,
        )


def check_system(
    ksp: PETSc.KSP,
    b: PETSc.Vec,
    x: PETSc.Vec,
    stencil: Stencil,
    network: Network,
    has_null_space: bool,
    comm: Any,
) -> None:
    """Refuse right-hand sides without a solution, and symmetric methods for one-sided matrices; collective.

    Parameters
    ----------
    ksp, b, x
        The solve that begins.
    stencil, network
        What was read from the matrix, and the network.
    has_null_space
        A null space is attached to the matrix: then PETSc takes the right-hand side's part in it away.
    comm
        mpi4py communicator, or None: one rank.

    Raises
    ------
    InconsistentRightHandSide, MatrixError
        On all ranks.
    """
    largest = _largest(b, comm)
    if not np.isfinite(largest):
        return  # the KSP itself ends with DIVERGED_NANORINF
    if not has_null_space and network.components is not None:
        network.components.check_consistent(b.array_r)
    error: Exception | None = None
    try:
        _check_diagonal_rows(ksp, b, x, stencil, has_null_space, largest)
    except ValueError as fault:
        error = fault
    raise_together(comm, error)


def _largest(b: PETSc.Vec, comm: Any) -> float:
    """max |b| over all ranks; Inf if b holds any NaN or Inf."""
    values = b.array_r
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))  # NaN if there is any
    largest = largest if np.isfinite(largest) else np.inf
    if comm is None:
        return largest
    from mpi4py import MPI

    return float(comm.allreduce(largest, MPI.MAX))


def _check_diagonal_rows(
    ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, stencil: Stencil, has_null_space: bool, largest: float
) -> None:
    rows, inverse, values = stencil.diagonal_rows, stencil.diagonal_inverse, b.array_r
    first = b.getOwnershipRange()[0]
    empty = rows[inverse == 0]
    if empty.size and values[empty].any() and not has_null_space:
        row = int(empty[np.flatnonzero(values[empty])[0]])
        raise InconsistentRightHandSide(
            f"row {first + row} of the matrix is zero and the right-hand side is {values[row]:.6g} there, so "
            "there is no solution: set it to 0, or take the row out of the system"
        )
    if stencil.one_sided and ksp.getType() in SYMMETRIC_METHODS:
        start = x.array_r[rows] if ksp.getInitialGuessNonzero() else 0.0
        wrong = np.abs(values[rows] * inverse - start) > 1e-12 * largest * np.abs(inverse)
        if wrong.any():
            row, method = first + int(rows[np.flatnonzero(wrong)[0]]), ksp.getType()
            raise MatrixError(
                f"other rows couple to row {row}, which has a diagonal only (MatZeroRows): the matrix is not "
                f"symmetric, as -ksp_type {method} needs it; use MatZeroRowsColumns, begin with an initial "
                "guess that holds the boundary values, or use -ksp_type fgmres"
            )
