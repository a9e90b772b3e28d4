"""Program for mpirun: hard grids on several ranks and with periodic axes; prints one JSON line of findings.

graph_ranks.py CASES    CASES is JSON: (domain, shape, periodic axes, KSP) of each
graph_ranks.py faults   what all ranks see where one fails
"""

# ruff: noqa: E402

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import petsc4py

petsc4py.init(["graph_ranks", "-options_left", "no"])
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hard_grids import closed_to_rings, hard_operator, matrix_of
from petsc4py import PETSc

import consolve.solvers  # noqa: F401  (registers the types)
from consolve.learned.multilevel.graph import choice
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents
from consolve.solvers.matrix.assembly import attach_null_space
from consolve.solvers.matrix.attached import attach_grid

COMM = PETSc.COMM_WORLD.tompi4py()


def distributed(operator, comm, layout="even"):
    """The matrix of an operator over the ranks of a PETSc communicator, with grid and null space attached."""
    csr = matrix_of(operator)
    rows, share = csr.shape[0], np.linspace(0, 1, comm.size + 1) ** (2 if layout == "uneven" else 1)
    first, last = (int(share[comm.rank + q] * rows) for q in (0, 1))
    local = csr[first:last]
    parts = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    mat = PETSc.Mat().createAIJ(((last - first, rows),) * 2, csr=parts, comm=comm)
    attach_grid(mat, operator.shape, operator.cells[first:last])
    closed = operator.closed_components(operator.cells)
    if closed:
        attach_null_space(mat, ClosedComponents(closed.group[first:last], closed.size))
    return mat, slice(first, last)


def run(operator, kind, comm, layout="even", **options):
    """Iterations, true residual, the solution on all ranks and the name of the engine of one solve."""
    mat, own = distributed(operator, comm, layout)
    noise = np.random.default_rng(3).standard_normal(operator.cells.size)
    noise = operator.closed_components(operator.cells).without_means(noise)
    b, x = mat.createVecs()
    b.array_w[:] = noise[own]
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(mat)
    ksp.setType(kind)
    ksp.getPC().setType("cnn")
    for name, value in options.items():
        setattr(ksp.getPC().getPythonContext(), name, value)
    ksp.setTolerances(rtol=1e-8, max_it=300)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.solve(b, x)
    residual = b.duplicate()
    mat.mult(x, residual)
    residual.aypx(-1.0, b)
    network = ksp.getPC().getPythonContext().network
    found = {
        "iterations": ksp.getIterationNumber(),
        "reason": ksp.getConvergedReason(),
        "residual": residual.norm() / b.norm(),
        "engine": type(getattr(network, "_first", None) or network).__name__,
        "levels": [level.unknowns for level in network.levels],
    }
    whole = np.concatenate(comm.tompi4py().allgather(x.array_r.copy()))
    for thing in (ksp, mat, b, x, residual):
        thing.destroy()
    return found, whole


def told(operator, change=lambda network, b: None):
    """Reason, or text of the error, of each rank."""
    mat, _ = distributed(operator, PETSc.COMM_WORLD)
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPC().setType("cnn")
    b, x = mat.createVecs()
    b.set(1.0)
    try:
        ksp.setUp()
        change(ksp.getPC().getPythonContext().network, b)
        ksp.solve(b, x)
        result = ksp.getConvergedReason()
    except Exception as error:
        result = str(error.__cause__ if isinstance(error, PETSc.Error) else error)
    COMM.Barrier()
    for thing in (ksp, mat, b, x):
        thing.destroy()
    return COMM.allgather(result)


def fail_in_application(network, b):
    """On the first rank only."""

    def apply(r, z):
        raise MemoryError("no room")

    if network._first is not None:
        network._first.apply = apply


def put_nan(network, b):
    """On the last rank only."""
    values = b.array
    if COMM.rank == COMM.size - 1:
        values[-1] = np.nan
    b.array = values  # on all ranks: PETSc keeps norms


def faults():
    operator = hard_operator("plates", (40, 42))
    weak = np.where(np.arange(40)[:, None] > 3, 1.0, 1e-60)
    faces = tuple(f * weak for f in operator.face_coefficient)
    tiny = GridOperator(faces, operator.inner.dirichlet, operator.active)
    findings = {
        "fine": told(operator),
        "application": told(operator, fail_in_application),
        "nan": told(operator, put_nan),
        "single precision": told(closed_to_rings(tiny, ())),
    }
    choice.GATHERED_BYTES, choice.available = 10**6, lambda: 2**30
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, _ = run(operator, "dcd", PETSc.COMM_WORLD)
    texts = [str(w.message) for w in caught]
    findings["memory"] = COMM.allgather([found["engine"], found["reason"], *texts])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        taken_over, _ = run(operator, "dcd", PETSc.COMM_WORLD, fallback="hypre")
    findings["fallback"] = COMM.allgather(
        [found["iterations"], taken_over["iterations"], taken_over["residual"]]
    )
    return findings


def main():
    if sys.argv[1] == "faults":
        findings = faults()
        if COMM.rank == 0:
            print(json.dumps(findings))
        return
    findings = {}
    for name, shape, axes, kind in json.loads(sys.argv[1]):
        operator = hard_operator(name, tuple(shape), axes)
        one, alone = run(operator, kind, PETSc.COMM_SELF)
        found = {"one": one}
        for layout in ("even", "uneven"):
            many, x = run(operator, kind, PETSc.COMM_WORLD, layout)
            many["difference"] = float(np.abs(x - alone).max() / np.abs(alone).max())
            found[layout] = many
        findings[f"{name} {shape} {axes} {kind}"] = COMM.allgather(found)
    if COMM.rank == 0:
        print(json.dumps(findings))


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
