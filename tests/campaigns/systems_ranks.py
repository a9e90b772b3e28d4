"""Program for one rank or, under mpirun, several: random systems solved by every route.

    systems_ranks.py FOLDER FIRST END     seeds FIRST..END - 1

Writes a JSON line at the beginning of each system and one of findings at its end to FOLDER/findings: by
route, what came of it and how far it is from the direct solution.
"""

import faulthandler
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import petsc4py
import scipy.sparse.linalg as sla
from mpi4py import MPI
from random_systems import Array, System, draw

petsc4py.init(["systems", "-options_left", "no"])

from petsc4py import PETSc  # noqa: E402

import consolve  # noqa: E402
import consolve.solvers  # noqa: E402
from consolve.base.errors import InconsistentRightHandSide, NotConverged  # noqa: E402
from consolve.base.scaling import scale_of  # noqa: E402

COMM = MPI.COMM_WORLD
MOST_SECONDS = 120
"""Of a system, after which its program is ended."""
MOST_ITERATIONS = 2000
WEIGHTS = Path(str(resources.files("consolve.learned") / "weights"))
Solved = tuple[Array, int]


class Refused(Exception):
    """PETSc said so."""


def by_solve(ksp: str, given: bool) -> Callable[[System], Solved]:
    def route(system: System) -> Solved:
        place = {"grid": system.shape, "cells": system.cells, "model": model(system)} if given else {}
        x, info = consolve.solve(
            system.matrix, system.b, rtol=system.rtol, ksp=ksp, maxiter=MOST_ITERATIONS, **place
        )
        return x, info.iterations

    return route


def by_grid_solver(system: System) -> Solved:
    assert system.operator is not None
    b = np.zeros(system.shape)
    b.reshape(-1)[system.cells] = system.b
    name = "multilevel" if system.model == "auto" else model(system)
    solver = consolve.GridSolver(system.operator, model=name, threads=1)
    x, facts = solver.solve(b, rtol=system.rtol, maxiter=MOST_ITERATIONS)
    return x.reshape(-1)[system.cells], facts.iterations


def by_scipy(system: System) -> Solved:
    """Conjugate gradients of SciPy, restarted where their own residual has left the true one."""
    m = consolve.aspreconditioner(
        system.matrix, grid=system.shape, cells=system.cells, model=model(system), threads=1
    )
    scale = scale_of(system.b)
    b, iterations = scale * system.b, 0
    x, diagonal = np.zeros_like(b), system.matrix.diagonal()
    alone = (np.diff(system.matrix.indptr) == 1) & (diagonal != 0)
    x[alone] = b[alone] / diagonal[alone]
    tolerance = {"rtol" if "rtol" in sla.cg.__code__.co_varnames else "tol": 0.0}
    for _ in range(4):
        r = b - system.matrix @ x
        if np.linalg.norm(r) <= system.rtol * np.linalg.norm(b):
            break
        done: list[Array] = []
        x, failed = sla.cg(
            system.matrix, b, x0=x, M=m, maxiter=MOST_ITERATIONS, callback=done.append,
            atol=system.rtol * float(np.linalg.norm(b)), **tolerance,
        )  # fmt: skip
        iterations += len(done)
        if failed or not np.isfinite(x).all():
            raise NotConverged("SciPy's cg", iterations, system.relative_residual(x / scale))
    return system.without_means(x) / scale, iterations


def by_petsc(ksp_type: str) -> Callable[[System], Solved]:
    """KSP with PC cnn on the ranks of COMM, its options as a program leaves them."""

    def route(system: System) -> Solved:
        n = system.b.size
        cuts = np.linspace(0, n, COMM.size + 1).astype(int)
        if system.seed % 3 == 0 and COMM.size > 1:  # a rank without rows, or with few
            cuts[1:-1] = min(n, system.seed % 5)
        own = slice(cuts[COMM.rank], cuts[COMM.rank + 1])
        local = system.matrix[own]
        csr = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
        mat = PETSc.Mat().createAIJ(((local.shape[0], n),) * 2, csr=csr, comm=PETSc.COMM_WORLD)
        consolve.solvers.attach_grid(mat, system.shape, system.cells[own])
        ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
        options = PETSc.Options()
        options["pc_cnn_model"] = model(system)
        options["pc_cnn_gathered_cells"] = int(np.random.default_rng(system.seed).choice([8, 64, 32768]))
        ksp.setOperators(mat)
        ksp.setType(ksp_type)
        ksp.getPC().setType("cnn")
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        ksp.setTolerances(rtol=system.rtol, atol=1e-300, divtol=1e100, max_it=MOST_ITERATIONS)
        ksp.setFromOptions()
        right, x = mat.createVecs()
        scale = scale_of(system.b)
        right.array_w[:] = scale * system.b[own]
        try:
            ksp.solve(right, x)
            whole = np.concatenate(COMM.allgather(x.array.copy()))
            reason = ksp.getConvergedReason()
            if reason <= 0:
                relative = system.relative_residual(whole / scale)
                name = consolve.solvers.pressure.reason_name(reason)
                raise NotConverged(name, ksp.its, relative)
            return system.without_means(whole) / scale, ksp.its
        except PETSc.Error as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise Refused(str(error)) from None
        finally:
            for thing in (ksp, mat, right, x):
                thing.destroy()

    return route


def model(system: System) -> str:
    """``multilevel file``: as a file of weights, which never takes the graph."""
    dim = len(system.shape)
    return str(WEIGHTS / f"multilevel-{dim}d.h5") if system.model == "multilevel file" else system.model


def routes(system: System) -> dict[str, Callable[[System], Solved]]:
    """Those of this number of ranks."""
    petsc = {"ksp cg": by_petsc("cg"), "ksp dcd": by_petsc("dcd")}
    if COMM.size > 1:
        return petsc
    whole = system.cells.size == np.prod(system.shape) and system.seed % 4 == 0
    alone = {
        "solve cg": by_solve("cg", not whole),
        "solve dcd": by_solve("dcd", not whole),
        "SciPy": by_scipy,
    }
    if system.operator is not None:
        alone["GridSolver"] = by_grid_solver
    return alone | petsc


def outcome(system: System, route: Callable[[System], Solved], solution: Array, condition: float) -> dict:
    """What a route makes of a system."""
    try:
        x, iterations = route(system)
    except InconsistentRightHandSide as error:
        return {"kind": "inconsistent", "text": str(error)}
    except NotConverged as error:
        return {"kind": "not converged", "text": str(error), "residual": error.relative_residual}
    except (ValueError, Refused) as error:
        return {"kind": "refused", "text": str(error)}
    except Exception as error:
        return {"kind": "error", "text": f"{type(error).__name__}: {error}"}
    facts = {"kind": "solved", "iterations": iterations, "finite": bool(np.isfinite(x).all())}
    if facts["finite"]:
        facts["residual"] = system.relative_residual(x)
        facts["round off"] = system.round_off(x)
        size = float(np.abs(solution).max(initial=0)) or 1.0
        difference = float(np.linalg.norm((x - solution) / size))
        facts["distance"] = difference / max(float(np.linalg.norm(solution / size)), 1e-300)
        facts["condition"] = condition
    return facts


def findings(seed: int) -> dict:
    """All that is asked of a system."""
    system = draw(seed)
    facts: dict = {"system": str(system), "fault": system.fault, "rtol": system.rtol, "routes": {}}
    solution, condition = np.zeros_like(system.b), 1.0
    if not system.fault:
        solution, condition = system.direct()
        facts["direct"] = system.relative_residual(solution) + system.round_off(solution)
        facts["indefinite"] = system.negative_pivots
    for name, route in routes(system).items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            facts["routes"][name] = outcome(system, route, solution, condition)
        facts["routes"][name]["warned"] = any("precision" in str(w.message) for w in said)
    return facts


def main(folder: Path, first: int, end: int) -> None:
    def write(line: dict) -> None:
        if COMM.rank == 0:
            with (folder / "findings").open("a") as file:
                file.write(json.dumps(line) + "\n")

    for number in range(first, end):
        write({"begun": number})
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        try:
            facts = findings(number)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            COMM.Abort(3)
        write({"number": number, **facts})
        COMM.barrier()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
