"""Steps in time of ``M u_tt + C u_t + K u = F s(t)`` with PETSc matrices; see
:mod:`consolve.pde.waves.finite_elements` for the formulas.

M is a Vec (lumped) or a Mat (consistent), C a Vec, F a Vec.  Constrained unknowns have ``free`` = 0: their
values are 0, or given in every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from scipy.linalg import eigh_tridiagonal

PREFIX = "wave_"
Driven = tuple[NDArray[np.intp], NDArray[np.float64]]
"""Local numbers of the unknowns whose values are given, and the values."""


def mass_product(mass: Any, x: Any, out: Any) -> None:
    """out = M x."""
    if isinstance(mass, PETSc.Vec):
        out.pointwiseMult(mass, x)
    else:
        mass.mult(x, out)


def largest_eigenvalue(
    stiffness: Any, mass: Any, free: NDArray[np.float64], tolerance: float = 1e-3, iterations: int = 200
) -> float:
    """Estimate of the largest eigenvalue of M⁻¹ K on the free unknowns by the Lanczos method.

    The largest Ritz value plus the norm of its residual.  An eigenvalue lies no farther from the Ritz value
    than that norm; that it is the largest one is what the random start makes all but certain.

    Parameters
    ----------
    tolerance
        The iterations end when the residual is below this part of the Ritz value.
    """
    work, q = stiffness.createVecs()
    mask = work.duplicate()
    mask.setArray(free)
    solve = _mass_solver(mass, free)
    v = work.duplicate()
    v.setArray(np.random.default_rng(stiffness.comm.rank).uniform(-1, 1, free.size) * free)
    mass_product(mass, v, q)
    q.pointwiseMult(q, mask)
    norm = math.sqrt(v.dot(q))
    v.scale(1 / norm)
    q.scale(1 / norm)
    v_before, q_before, beta = v.duplicate(), q.duplicate(), 0.0
    v_before.set(0)
    q_before.set(0)
    diagonal: list[float] = []
    beside: list[float] = []
    for iteration in range(1, iterations + 1):
        stiffness.mult(v, work)
        work.pointwiseMult(work, mask)
        alpha = v.dot(work)
        work.axpy(-alpha, q)
        work.axpy(-beta, q_before)
        solve(work, v_before)  # v_before = M⁻¹ work
        diagonal.append(alpha)
        beta = math.sqrt(max(0.0, v_before.dot(work)))
        if iteration % 5 == 0 or iteration == iterations or beta <= 1e-12 * max(diagonal):
            top = (len(diagonal) - 1, len(diagonal) - 1)
            values, vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=top)
            ritz, residual = float(values[0]), beta * abs(float(vectors[-1, 0]))
            if residual <= tolerance * ritz:
                break
        beside.append(beta)
        v_before.scale(1 / beta)
        work.scale(1 / beta)
        v, v_before = v_before, v
        q, q_before, work = work, q, q_before
    return ritz + residual


def _mass_solver(mass: Any, free: NDArray[np.float64]) -> Any:
    """Function (b, x): x = M⁻¹ b on the free unknowns, 0 elsewhere."""
    if isinstance(mass, PETSc.Vec):
        inverse = mass.duplicate()
        inverse.setArray(free / mass.array_r)
        return lambda b, x: x.pointwiseMult(inverse, b)
    ksp = _krylov(_constrained(mass.copy(), free))
    return lambda b, x: _solved(ksp, b, x)


def _constrained(matrix: Any, free: NDArray[np.float64]) -> Any:
    """The matrix with rows and columns of constrained unknowns those of the identity."""
    first = matrix.getOwnershipRange()[0]
    matrix.zeroRowsColumns((first + np.flatnonzero(free == 0)).astype(PETSc.IntType), 1.0)
    matrix.setOption(PETSc.Mat.Option.SPD, True)
    return matrix


def _krylov(matrix: Any) -> Any:
    ksp = PETSc.KSP().create(matrix.comm)
    ksp.setOperators(matrix)
    ksp.setType("cg")
    ksp.getPC().setType("jacobi")
    ksp.setTolerances(rtol=1e-12, atol=1e-300)
    return ksp


def _solved(ksp: Any, b: Any, x: Any) -> None:
    ksp.solve(b, x)
    if ksp.getConvergedReason() < 0:
        raise RuntimeError(
            f"the linear solver of a wave step gave up with reason {ksp.getConvergedReason()} after "
            f"{ksp.getIterationNumber()} iterations and residual norm {ksp.getResidualNorm():.3g}; choose "
            f"another by petsc_options or -{PREFIX}ksp_type, -{PREFIX}pc_type"
        )


class Scheme:
    """What both ways of stepping share: the account of energy and the first state."""

    def __init__(
        self,
        stiffness: Any,
        mass: Any,
        damping: Any,
        load: Any,
        free: NDArray[np.float64],
        step: float,
        theta: float,
        options: Mapping[str, Any],
    ) -> None:
        self.stiffness, self.mass, self.free, self.step, self.theta = stiffness, mass, free, step, theta
        self.damping, self.load = damping, load
        self._right, self._work = stiffness.createVecs()
        damped, loaded = np.flatnonzero(damping.array_r * free), np.flatnonzero(load.array_r)
        self._damped, self._drag = damped, damping.array_r[damped] / (4 * step)
        self._loaded, self._push = loaded, load.array_r[loaded] / 2

    def advance(self, old: Any, now: Any, force: float, driven: Driven | None) -> tuple[float, float]:
        """u[n+1] over u[n-1] in ``old``; this rank's energy lost at absorbing sides and work of sources."""
        before = old.array_r[self._damped], old.array_r[self._loaded] if force else None
        self._advance(old, now, force, driven)
        after = old.array_r
        lost = float(np.dot(self._drag, (after[self._damped] - before[0]) ** 2))
        work = force * float(np.dot(self._push, after[self._loaded] - before[1])) if force else 0.0
        return lost, work

    def _advance(self, old: Any, now: Any, force: float, driven: Driven | None) -> None:
        raise NotImplementedError

    def state_before(self, u: Any, v: Any, force: float) -> Any:
        """u[-1] of the states (u[1] + u[-1]) / 2 = u + w and (u[1] - u[-1]) / (2 dt) = v that fulfil the
        equation at t = 0: (2 M / dt² + 2 theta K) w = F - C v - K u."""
        w, b = u.duplicate(), self._right
        w.set(0)
        self.stiffness.mult(u, b)
        b.setArray(self.free * (force * self.load.array_r - self.damping.array_r * v.array_r - b.array_r))
        if b.norm() > 0:
            if isinstance(self.mass, PETSc.Vec) and self.theta == 0:
                w.setArray(b.array_r * self.step**2 / (2 * self.mass.array_r))
            else:
                matrix = _sum(self.stiffness, 2 * self.theta, self.mass, 2 / self.step**2)
                _solved(_krylov(_constrained(matrix, self.free)), b, w)
        w.axpy(1, u)
        w.axpy(-self.step, v)
        return w

    def energy(self, old: Any, now: Any) -> tuple[float, float]:
        """E[n-1/2] of u[n-1] and u[n], and its kinetic part."""
        v, product = now.copy(), self._right
        v.axpy(-1, old)
        v.scale(1 / self.step)
        mass_product(self.mass, v, product)
        kinetic = 0.5 * v.dot(product)
        self.stiffness.mult(v, product)
        correction = (0.25 - self.theta) * self.step**2 * v.dot(product) / 2
        v.axpby(0.5, 0, now)
        v.axpy(0.5, old)
        self.stiffness.mult(v, product)
        return kinetic + 0.5 * v.dot(product) - correction, kinetic


def _sum(stiffness: Any, a: float, mass: Any, b: float) -> Any:
    """a K + b M."""
    matrix = stiffness.copy()
    matrix.scale(a)
    if isinstance(mass, PETSc.Vec):
        diagonal = matrix.getDiagonal()
        diagonal.axpy(b, mass)
        matrix.setDiagonal(diagonal)
    else:
        matrix.axpy(b, mass, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    return matrix


class Diagonal(Scheme):
    """Leap-frog with lumped mass: ``u+ = S u - (1 - beta) u- + force G``, one product with a matrix a step.

    ``S = 2 - beta - w K`` with w = dt² / (M + dt C / 2) and beta = dt C / (M + dt C / 2).
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        step, free, damping = self.step, self.free, self.damping.array_r
        slowed = self.mass.array_r + step / 2 * damping
        w, keep = self.mass.duplicate(), self.mass.duplicate()
        w.setArray(free * step**2 / slowed)
        beta = step * damping / slowed
        keep.setArray(-free * (1 - beta))
        self._push_vector = w.duplicate()
        self._push_vector.pointwiseMult(w, self.load)
        matrix = self.stiffness.copy()
        matrix.scale(-1)
        matrix.diagonalScale(w, None)
        diagonal = matrix.getDiagonal()
        diagonal.setArray(diagonal.array_r + free * (2 - beta))
        matrix.setDiagonal(diagonal)
        self._matrix, self._keep = matrix, keep

    def _advance(self, old: Any, now: Any, force: float, driven: Driven | None) -> None:
        old.pointwiseMult(old, self._keep)
        self._matrix.multAdd(now, old, old)
        if force:
            old.axpy(force, self._push_vector)
        if driven is not None:
            old.array[driven[0]] = driven[1]


class Implicit(Scheme):
    """Steps that solve ``A d = F - K u - C (u - u-) / dt - A e`` for ``u+ = 2 u - u- + e + d``.

    ``A = M / dt² + C / (2 dt) + theta K``; e, on driven unknowns, leads from 2 u - u- to the given values.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        options: Mapping[str, Any] = arguments[-1]
        matrix = _sum(self.stiffness, self.theta, self.mass, 1 / self.step**2)
        diagonal = matrix.getDiagonal()
        diagonal.axpy(1 / (2 * self.step), self.damping)
        matrix.setDiagonal(diagonal)
        self._whole = matrix
        self._ksp = _krylov(_constrained(matrix.copy(), self.free))
        self._ksp.setTolerances(rtol=1e-10)
        if self.theta > 0 and matrix.comm.size == 1:
            self._ksp.setType("preonly")
            self._ksp.getPC().setType("cholesky")
        _set_options(self._ksp, options)
        self._rate = self.damping.copy()
        self._rate.scale(1 / self.step)
        self._change, self._extra = self._right.duplicate(), self._right.duplicate()
        self._mask = self._right.duplicate()
        self._mask.setArray(self.free)

    def _advance(self, old: Any, now: Any, force: float, driven: Driven | None) -> None:
        b, change, work = self._right, self._change, self._work
        change.waxpy(-1, old, now)  # u - u-
        work.pointwiseMult(self._rate, change)
        self.stiffness.multAdd(now, work, b)
        b.axpby(force, -1, self.load)
        now.copy(old)
        old.axpy(1, change)  # 2 u - u-
        if driven is not None:
            extra = self._extra
            extra.set(0)
            extra.array[driven[0]] = driven[1] - old.array_r[driven[0]]
            self._whole.mult(extra, work)
            b.axpy(-1, work)
            old.axpy(1, extra)
        b.pointwiseMult(b, self._mask)
        _solved(self._ksp, b, change)
        old.axpy(1, change)


def _set_options(ksp: Any, options: Mapping[str, Any]) -> None:
    """Take ``options`` under the prefix, and those of the command line before them."""
    known = PETSc.Options()
    ksp.setOptionsPrefix(PREFIX)
    added = [name for name in options if not known.hasName(PREFIX + name)]
    for name in added:
        known.setValue(PREFIX + name, options[name])
    try:
        ksp.setFromOptions()
    finally:
        for name in added:
            known.delValue(PREFIX + name)
