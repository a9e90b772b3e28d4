"""Objects made, used, changed and thrown away again and again, with memory watched:

    python tests/campaigns/rounds.py [--count 10000] [--seed 0]
    mpirun -n 2 python tests/campaigns/rounds.py --count 1000

A round makes one of the objects that hold memory of their own (a KSP with PC cnn under cg or dcd, on several
ranks too; consolve.solve, GridSolver, aspreconditioner, PressureSolver), solves, changes the operator (the
same shape or another one), solves again, and destroys it, now and then in the midst of an error.  Every
solution is checked.  Resident memory after half of the rounds and at the end must be the same but for
MOST_GROWTH bytes a round.  Prints the counts as JSON; ends with 1 if memory grows or a solution is wrong.
"""

import argparse
import gc
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import petsc4py

petsc4py.init(["rounds", "-options_left", "no"])

from petsc4py import PETSc  # noqa: E402

import consolve  # noqa: E402
import consolve.solvers  # noqa: E402
from consolve.base.errors import InconsistentRightHandSide, NotConverged  # noqa: E402
from consolve.pde.poisson.grid import GridOperator  # noqa: E402
from consolve.solvers.pressure import PressureSolver  # noqa: E402

MOST_GROWTH = 400
"""Bytes a round."""
SHAPES = ((20, 21), (33, 16), (7, 8, 9), (12, 12, 12), (1, 50))
COMM = PETSc.COMM_WORLD


def operator(rng: np.random.Generator, shape: tuple[int, ...]) -> GridOperator:
    """An image with a Dirichlet side, now and then of variable coefficients."""
    image = (rng.random(shape) < 0.1).astype(int)
    outside = [[1, 1] for _ in shape]
    outside[-1][0] = 2
    mobility = 10 ** rng.uniform(0, 3, shape) if rng.random() < 0.5 else None
    return GridOperator.from_cell_types(image, outside, mobility)


def side(rng: np.random.Generator, made: GridOperator) -> np.ndarray:
    """A right-hand side in the range."""
    return made.apply(np.where(made.active, rng.standard_normal(made.shape), 0.0))


def by_ksp(rng: np.random.Generator, operators: list[GridOperator]) -> list[float]:
    """A KSP over all ranks, its operator changed twice."""
    ksp = PETSc.KSP().create(COMM)
    ksp.setType(str(rng.choice(["cg", "dcd"])))
    ksp.getPC().setType("cnn")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-8)
    residuals = []
    for made in operators:
        mat = consolve.solvers.assemble_matrix(made, COMM)
        if ksp.getOperators()[0].handle and ksp.getOperators()[0].getSize() != mat.getSize():
            ksp.reset()
        ksp.setOperators(mat)
        b, x = mat.createVecs()
        first, last = b.getOwnershipRange()
        b.array_w[:] = side(rng, made).reshape(-1)[made.cells][first:last]
        ksp.solve(b, x)
        r = b.duplicate()
        mat.mult(x, r)
        r.aypx(-1.0, b)
        residuals.append(r.norm() / max(b.norm(), 1e-300))
        for thing in (b, x, r, mat):
            thing.destroy()
    ksp.destroy()
    return residuals


def residual(made: GridOperator, x: np.ndarray, b: np.ndarray) -> float:
    """Relative."""
    return float(np.linalg.norm(b - made.apply(x)) / max(np.linalg.norm(b), 1e-300))


def by_solve(rng: np.random.Generator, operators: list[GridOperator]) -> list[float]:
    """consolve.solve, and a solve that fails."""
    found = []
    for made in operators:
        b = side(rng, made)
        found.append(
            residual(made, consolve.solve(made, b, rtol=1e-8, ksp=str(rng.choice(["cg", "dcd"])))[0], b)
        )
        try:
            consolve.solve(made, b, rtol=1e-12, maxiter=1)
        except (NotConverged, InconsistentRightHandSide):
            pass
    return found


def by_grid(rng: np.random.Generator, operators: list[GridOperator]) -> list[float]:
    """GridSolver, its operator changed where the dimension is the same."""
    solver, found = consolve.GridSolver(operators[0], threads=1), []
    for made in operators:
        if made.ndim != solver.operator.ndim:
            solver = consolve.GridSolver(made, threads=1)
        solver.update(made)
        b = side(rng, made)
        found.append(residual(made, solver.solve(b, rtol=1e-8)[0], b))
    return found


def by_preconditioner(rng: np.random.Generator, operators: list[GridOperator]) -> list[float]:
    """aspreconditioner, updated where the size is the same, and applied."""
    m = consolve.aspreconditioner(operators[0], threads=1)
    for made in operators:
        if made.unknowns == m.shape[0]:
            m.update(made)
            assert np.isfinite(m @ rng.standard_normal(made.unknowns)).all()
    return []


def by_pressure(rng: np.random.Generator, operators: list[GridOperator]) -> list[float]:
    """PressureSolver."""
    solver, found = PressureSolver(["-ksp_type", str(rng.choice(["cg", "dcd"])), "-ksp_rtol", "1e-8"]), []
    for made in operators:
        b = side(rng, made)
        found.append(residual(made, solver(made, b), b))
    solver.destroy()
    return found


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    PETSc.garbage_cleanup()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return 4096 * pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    ways = [by_ksp] if COMM.size > 1 else [by_ksp, by_solve, by_grid, by_preconditioner, by_pressure]
    wrong, half = 0, 0
    for number in range(asked.count):
        rng = np.random.default_rng([asked.seed, number])
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        other = SHAPES[int(rng.integers(len(SHAPES)))]
        operators = [operator(rng, shape), operator(rng, shape), operator(rng, other)]
        found = ways[number % len(ways)](rng, operators)
        if not all(value < 2e-8 for value in found):
            wrong += 1
            if COMM.rank == 0:
                print(f"seed {asked.seed} round {number}: {ways[number % len(ways)].__name__}: {found}")
        if number + 1 == (asked.count + 1) // 2:
            half = resident()
    growth = (resident() - half) / max(asked.count // 2, 1)
    everyone = COMM.tompi4py().allgather(growth)
    if COMM.rank == 0:
        print(json.dumps({"rounds": asked.count, "wrong": wrong, "bytes a round": max(everyone)}))
    sys.exit(wrong > 0 or max(everyone) > MOST_GROWTH)


if __name__ == "__main__":
    main()
