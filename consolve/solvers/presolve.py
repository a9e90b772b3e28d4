"""What PC ``cnn`` looks at before a solve: systems that a Krylov method would report as solved, or not solve,
without a word of why."""

from __future__ import annotations

from typing import Any

import numpy as np

from consolve.base.collective import raise_together
from consolve.base.errors import InconsistentRightHandSide, OptionError
from consolve.base.messages import warn
from consolve.pde.matrix.stencil import Stencil
from consolve.pde.mesh.rows import MeshRows
from consolve.solvers.network import Network
from consolve.solvers.petsc.versions import PETSc

SYMMETRIC_METHODS = frozenset(
    "cg cr dcd fcg groppcg minres pipecg pipecg2 pipecgrr pipecr pipefcg pipelcg pipeprcg symmlq".split()
)
"""KSP types that are for symmetric matrices, and begin with a guess."""

TOLERANT_METHODS = frozenset(
    "cg stcg nash gltr fcg pipefcg fgmres pipefgmres gcr pipegcr dcd richardson".split()
)
"""KSP types whose residual stays true although single precision rounds M r."""

FLEXIBLE_METHODS = frozenset(
    "dcd fcg pipefcg fgmres pipefgmres gcr pipegcr fbcgs fbcgsr richardson preonly python".split()
)
"""KSP types that take a nonlinear preconditioner; a program's own type ``python`` is trusted to."""

FLEXIBLE_CONJUGATE_METHODS = frozenset(("dcd", "fcg", "fgmres", "gcr"))
"""KSP types for which a model that has a nonlinear form uses it: they gain by it."""


def claims_convergence(ksp: PETSc.KSP) -> bool:
    """False for a smoother, a part of a preconditioner, or the inner KSP by which Chebyshev estimates
    eigenvalues: these run a few iterations and solve nothing."""
    return ksp.getNormType() != PETSc.KSP.NormType.NONE and not _estimates_eigenvalues(ksp)


def _estimates_eigenvalues(ksp: PETSc.KSP) -> bool:
    return (ksp.getOptionsPrefix() or "").endswith("esteig_")


def warn_of_method(ksp: PETSc.KSP) -> None:
    """Warn of methods that stop early where the preconditioner rounds to single precision."""
    rtol = ksp.getTolerances()[0]
    if ksp.getType() not in TOLERANT_METHODS and rtol < 1e-6 and ksp.comm.rank == 0:
        warn(
            f"-ksp_type {ksp.getType()} takes its preconditioner as exactly linear, and -pc_type cnn is so "
            f"in single precision: at rtol {rtol:g} it may stop with a true residual of about 1e-6; use "
            "cg, fgmres or dcd"
        )


def refuse_unfit_method(ksp: PETSc.KSP, network: Network) -> None:
    """Refuse methods whose short recurrences hold for other preconditioners than this network.

    Raises
    ------
    OptionError
        On all ranks.
    """
    kind = ksp.getType()
    if network.is_symmetric or kind in FLEXIBLE_METHODS:
        return
    prefix = ksp.getOptionsPrefix() or ""
    raise OptionError(
        f"-{prefix}ksp_type {kind} needs a linear preconditioner, and the network of this -pc_type cnn "
        f"is nonlinear (bfloat16 makes any so), so that it would stall or end at a wrong solution: use "
        f"-{prefix}ksp_type dcd, fcg or fgmres, or a linear network (-{prefix}pc_cnn_model multilevel, "
        "dcdm-deep)"
    )


def start_with_boundary_values(
    ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, stencil: Stencil | MeshRows
) -> bool:
    """Let a symmetric method begin with x_i = b_i / a_ii in the rows that have a diagonal only.

    Where other rows couple to such a row (MatZeroRows) the matrix is not symmetric, and neither is PC cnn.
    These unknowns are known at once, however; with them in the initial guess the residual of their rows is 0
    and stays so, PC cnn proposes nothing there, and the method works on the other rows, among which both are
    symmetric.  Methods that PC cnn cannot tell so (those around another PC of which it is a part, or that
    know no guess, as stcg) see M A = diag(1, S A_ii) instead: a cluster of eigenvalues near 1.

    Returns
    -------
    True if the guess was zero until now, and counts as one only for this solve.
    """
    if not stencil.one_sided or ksp.getType() not in SYMMETRIC_METHODS or _estimates_eigenvalues(ksp):
        return False
    was_zero = not ksp.getInitialGuessNonzero()
    if was_zero:
        x.set(0.0)
        ksp.setInitialGuessNonzero(True)
    rows = stencil.diagonal_rows
    values = x.array_w
    values[rows] = np.where(
        stencil.diagonal_inverse == 0, values[rows], b.array_r[rows] * stencil.diagonal_inverse
    )
    return was_zero


def check_system(
    b: PETSc.Vec,
    stencil: Stencil | MeshRows,
    network: Network,
    has_null_space: bool,
    comm: Any,
) -> None:
    """Refuse right-hand sides without a solution; collective.

    Parameters
    ----------
    b
        The right-hand side.
    stencil, network
        What was read from the matrix, and the network.
    has_null_space
        A null space is attached to the matrix: then PETSc takes the right-hand side's part in it away.
    comm
        mpi4py communicator, or None: one rank.

    Raises
    ------
    InconsistentRightHandSide
        On all ranks.
    """
    largest = _largest(b, comm)
    if not np.isfinite(largest):
        return  # the KSP itself ends with DIVERGED_NANORINF
    if not has_null_space:
        network.components.check_consistent(b.array_r)
    error: Exception | None = None
    try:
        if not has_null_space:
            _check_empty_rows(b, stencil)
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


def _check_empty_rows(b: PETSc.Vec, stencil: Stencil | MeshRows) -> None:
    values = b.array_r
    empty = stencil.diagonal_rows[stencil.diagonal_inverse == 0]
    if empty.size and values[empty].any():
        row = int(empty[np.flatnonzero(values[empty])[0]])
        raise InconsistentRightHandSide(
            f"row {b.getOwnershipRange()[0] + row} of the matrix is zero and the right-hand side is "
            f"{values[row]:.6g} there, so there is no solution: set it to 0, or take the row out of the "
            "system"
        )
