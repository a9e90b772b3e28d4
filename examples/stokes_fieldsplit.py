"""Start-up of creeping flow in a lid-driven cavity: unsteady Stokes equations, solved for velocity and
pressure at once, with the learned preconditioner on every block of a PETSc field split.

    python examples/stokes_fieldsplit.py
    python examples/stokes_fieldsplit.py -stokes_fieldsplit_pressure_pc_type gamg -stokes_ksp_view

On a staggered grid of n x n cells, an implicit time step is the saddle-point system ::

    [ F    G ] [u]   [ f ]        F = 1 / dt - nu Laplace   (one block for u, one for v)
    [ G^T  0 ] [p] = [ 0 ]        G = gradient

``-pc_fieldsplit_schur_precondition selfp`` makes PETSc assemble -G^T diag(F)^-1 G to stand for the Schur
complement: a Poisson operator on the pressure cells, singular, with other coefficients along the walls, good
for time steps up to about h^2 / nu.  It and the two velocity blocks are what ``-pc_type cnn`` is for.  PETSc
cuts them out of the matrix, so that no DMDA is left: the grid of each is an option.
"""

# ruff: noqa: E402

import sys

import petsc4py

petsc4py.init(sys.argv)

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc

import consolve.solvers  # noqa: F401  (registers -pc_type cnn and -ksp_type dcd)

VELOCITY = "fieldsplit_velocity_"
DEFAULTS = {
    "ksp_type": "fgmres",
    "ksp_rtol": "1e-8",
    "pc_type": "fieldsplit",
    "pc_fieldsplit_type": "schur",
    "pc_fieldsplit_schur_fact_type": "upper",
    "pc_fieldsplit_schur_precondition": "selfp",
    VELOCITY + "ksp_type": "preonly",
    VELOCITY + "pc_type": "fieldsplit",
    VELOCITY + "pc_fieldsplit_type": "additive",
    VELOCITY + "fieldsplit_u_ksp_type": "preonly",
    VELOCITY + "fieldsplit_u_pc_type": "cnn",
    VELOCITY + "fieldsplit_v_ksp_type": "preonly",
    VELOCITY + "fieldsplit_v_pc_type": "cnn",
    "fieldsplit_pressure_ksp_type": "preonly",
    "fieldsplit_pressure_pc_type": "cnn",
}


def second_difference(n: int, end: float) -> sp.dia_matrix:
    """-d2/dx2 of n points at spacing 1; ``end`` on the diagonal at both ends."""
    diagonal = np.full(n, 2.0)
    diagonal[[0, -1]] = end
    return sp.diags([-np.ones(n - 1), diagonal, -np.ones(n - 1)], [-1, 0, 1])


def assemble(n: int, dt: float, viscosity: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """The matrix of a time step, rows u (n x (n - 1)), v ((n - 1) x n), p (n x n), x fastest; and the force
    of a lid that moves with velocity 1."""
    h = 1.0 / n
    faces, centres = second_difference(n - 1, 2.0), second_difference(n, 3.0)  # a wall half a cell away: 3
    laplace_u = sp.kron(sp.eye(n), faces) + sp.kron(centres, sp.eye(n - 1))
    laplace_v = sp.kron(sp.eye(n - 1), centres) + sp.kron(faces, sp.eye(n))
    F = sp.eye(2 * n * (n - 1)) / dt + viscosity / h**2 * sp.block_diag([laplace_u, laplace_v])
    difference = sp.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n)) / h
    G = sp.vstack([sp.kron(sp.eye(n), difference), sp.kron(difference, sp.eye(n))])
    lid = np.zeros((n, n - 1))
    lid[-1] = 2 * viscosity / h**2
    zero = sp.csr_matrix((n * n, n * n))
    return sp.bmat([[F, G], [G.T, zero]], format="csr"), lid.reshape(-1)


def make_solver(n: int, A: sp.csr_matrix) -> PETSc.KSP:
    """KSP with the splits of the module's head."""
    mat = PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=PETSc.COMM_SELF)
    velocities = 2 * n * (n - 1)
    constant = mat.createVecRight()
    constant.array_w[:] = np.arange(A.shape[0]) >= velocities
    constant.normalize()
    mat.setNullSpace(PETSc.NullSpace().create(vectors=[constant], comm=PETSc.COMM_SELF))

    options = PETSc.Options("stokes_")
    grids = {
        VELOCITY + "fieldsplit_u_pc_cnn_grid": f"{n - 1},{n}",
        VELOCITY + "fieldsplit_v_pc_cnn_grid": f"{n},{n - 1}",
        "fieldsplit_pressure_pc_cnn_grid": f"{n},{n}",
    }
    for name, value in (DEFAULTS | grids).items():
        if not options.hasName(name):
            options[name] = value
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOptionsPrefix("stokes_")
    ksp.setOperators(mat)
    ksp.setFromOptions()

    def rows(count: int, first: int) -> PETSc.IS:
        return PETSc.IS().createStride(count, first, 1, comm=PETSc.COMM_SELF)

    pc = ksp.getPC()
    pc.setFieldSplitIS(("velocity", rows(velocities, 0)), ("pressure", rows(n * n, velocities)))
    pc.setUp()
    inner = pc.getFieldSplitSubKSP()[0].getPC()
    if inner.getType() == "fieldsplit":
        half = velocities // 2
        inner.setFieldSplitIS(("u", rows(half, 0)), ("v", rows(half, half)))
    return ksp


def run(n: int = 32, end: float = 0.1, viscosity: float = 1.0) -> tuple[float, float, float]:
    """Flow from rest until time ``end``.

    Returns
    -------
    The least value of the stream function (-0.1001 in the steady state, as published for creeping flow), the
    greatest divergence, and iterations per time step.
    """
    dt = 1.0 / (viscosity * n * n)
    steps = round(end / dt)
    A, lid = assemble(n, dt, viscosity)
    ksp = make_solver(n, A)
    b, x = ksp.getOperators()[0].createVecs()
    half, velocities = n * (n - 1), 2 * n * (n - 1)
    x.set(0.0)
    iterations = 0
    for _ in range(steps):
        force = b.array_w
        force[:velocities] = x.array_r[:velocities] / dt
        force[:half] += lid
        force[velocities:] = 0
        ksp.solve(b, x)
        if ksp.getConvergedReason() < 0:
            raise RuntimeError(f"not converged: {ksp.getConvergedReason()}")
        iterations += ksp.getIterationNumber()
    stream = np.cumsum(x.array_r[:half].reshape(n, n - 1), axis=0) / n
    divergence = float(np.abs(A[velocities:] @ x.array_r).max())
    ksp.destroy()
    return float(stream.min()), divergence, iterations / steps


if __name__ == "__main__":
    stream, divergence, iterations = run()
    PETSc.Sys.Print(f"least stream function {stream:.4f}, greatest divergence {divergence:.1e}")
    PETSc.Sys.Print(f"{iterations:.1f} iterations a time step")
