"""Program for mpirun: the network and its solvers on small and thin grids, in poisoned memory.

    thin_shapes_ranks.py FOLDER FIRST END SEED     cases FIRST..END - 1 of a seed
    thin_shapes_ranks.py FOLDER reported           the cases of old faults

Writes one JSON line at the beginning of each case and one of findings at its end to FOLDER/findings, and M b
to FOLDER/NUMBER.npy.
"""

import faulthandler
import json
import sys
import traceback
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import petsc4py
import poison
import scipy.sparse as sp
from mpi4py import MPI

petsc4py.init(["thin", "-options_left", "no"])

from petsc4py import PETSc  # noqa: E402

import consolve.solvers  # noqa: E402
from consolve.learned.multilevel.cycle.layout import SERIAL_CELLS  # noqa: E402
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner  # noqa: E402
from consolve.learned.multilevel.format import load_weights  # noqa: E402
from consolve.learned.multilevel.ranks.preconditioner import DistributedMultilevel, UnservedGrid  # noqa: E402
from consolve.pde.matrix.row_operator import RowOperator  # noqa: E402
from consolve.pde.poisson.grid import GridOperator  # noqa: E402

COMM = MPI.COMM_WORLD
GUARDS = poison.install()
MOST_SECONDS = 200
"""Of a case, after which its program is ended."""
THIN, LONG = (1, 1, 1, 2, 3, 5), (6, 7, 8, 12, 16, 17, 24, 33, 34, 40, 66, 70, 130)
WIDE = ((1, 150, 160), (2, 12000), (12000, 2), (160, 1, 150), (150, 160, 1), (24000, 1), (2, 110, 110))
"""Large enough for several threads."""
MOST_CELLS, MOST_DENSE = 6000, 48


@dataclass(frozen=True)
class Case:
    """A system: its grid in NumPy's order, and what stands on it."""

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    faces: str = "uniform"  # or "variable"
    solids: bool = False
    fixed: str = "some"  # or "none", "all"
    layout: str = "slabs"  # or "boxes", "scattered"
    gathered: int = 8

    def __str__(self) -> str:
        flags = "".join("np"[p] for p in self.periodic)
        solids = "solids" if self.solids else "whole"
        size = "x".join(map(str, self.shape))
        return f"{size} {flags} {self.faces} {solids} fixed:{self.fixed} {self.layout} {self.gathered}"


SMALL = [
    (shape, flags)
    for dim in (2, 3)
    for shape in product(range(1, 6), repeat=dim)
    for flags in product((False, True), repeat=dim)
]
"""All shapes up to 5 cells a side, periodic along each axis or not."""
REPORTED = [
    *(Case((12, 512), (False, True), fixed="all", gathered=32768) for _ in range(5)),
    Case((70, 1, 70), (False, False, False), gathered=64),
    Case((70, 1, 70), (False, False, False), "variable", gathered=64, fixed="none"),
    Case((1, 40, 40), (False, True, False), gathered=64),
    Case((100, 1), (True, False), gathered=8),
]


def case_of(number: int, seed: int) -> Case:
    """Every other case is one of SMALL, in an order that the seed tells; so 2 len(SMALL) hold them all."""
    rng = np.random.default_rng([seed, number])
    if number % 2 == 0:
        order = np.random.default_rng(seed).permutation(len(SMALL))
        shape, periodic = SMALL[order[number // 2 % len(SMALL)]]
    else:
        dim = int(rng.integers(2, 4))
        shape = WIDE[number // 40 % len(WIDE)] if number % 40 == 39 else (MOST_CELLS, MOST_CELLS)
        while number % 40 != 39 and np.prod(shape) > MOST_CELLS:
            thin = rng.random(dim) < 0.5
            thin[rng.integers(dim)] = True
            shape = tuple(int(rng.choice(THIN if t else LONG)) for t in thin)
        periodic = tuple(bool(p) for p in rng.random(len(shape)) < 0.4)
    return Case(
        shape, periodic, str(rng.choice(["uniform", "variable"])), bool(rng.random() < 0.4),
        str(rng.choice(["none", "some", "all"])), str(rng.choice(["slabs", "boxes", "scattered"])),
        int(rng.choice([1, 8, 64])),
    )  # fmt: skip


class System:
    """Coefficients on all cells of a case, and the matrix of the active ones."""

    def __init__(self, case: Case, seed: int) -> None:
        rng, shape = np.random.default_rng(seed), case.shape
        index, size = np.arange(np.prod(shape)).reshape(shape), int(np.prod(shape))
        self.active = rng.random(shape) > 0.25 if case.solids else np.ones(shape, bool)
        self.faces, coupling = [], sp.csr_matrix((size, size))
        for axis, n in enumerate(shape):
            value = 10 ** rng.uniform(-1, 1, shape) if case.faces == "variable" else 1.0
            face = value * (self.active & np.roll(self.active, -1, axis))
            if not case.periodic[axis] or n == 1:
                np.moveaxis(face, axis, 0)[-1] = 0
            self.faces.append(face)
            pair = index.reshape(-1), np.roll(index, -1, axis).reshape(-1)
            half = sp.coo_matrix((face.reshape(-1), pair), (size, size)).tocsr()
            coupling = coupling + half + half.T
        coupling.eliminate_zeros()
        share = {"none": 0.0, "some": 0.1, "all": 1.0}[case.fixed]
        value = rng.uniform(0.1, 2, shape) if case.faces == "variable" else 2.0
        self.fixed = value * (self.active & (rng.random(shape) < share))
        degree = np.asarray(coupling.sum(1)).reshape(shape)
        self.active &= degree + self.fixed > 0
        self.cells = np.flatnonzero(self.active)
        matrix = sp.diags((degree + self.fixed).reshape(-1)) - coupling
        self.matrix = matrix.tocsr()[self.cells][:, self.cells]

    def rows(self, case: Case, cells: np.ndarray) -> RowOperator:
        """The operator on some cells."""
        faces = tuple(f.reshape(-1)[cells] for f in self.faces)
        return RowOperator(
            case.shape, case.periodic, cells, faces, self.fixed.reshape(-1)[cells],
            self.active.reshape(-1)[cells],
        )  # fmt: skip


def owner_of(case: Case) -> np.ndarray:
    """Rank of each cell."""
    size = int(np.prod(case.shape))
    if case.layout == "slabs":
        return np.arange(size) * COMM.size // size
    if case.layout == "scattered":
        return np.random.default_rng(size).integers(0, COMM.size, size)
    longest = int(np.argmax(case.shape))
    at = np.indices(case.shape)[longest].reshape(-1)
    return at * COMM.size // case.shape[longest]


def spectrum(system: System, apply) -> tuple[float, float, float]:
    """Smallest and largest eigenvalue of M A on the range of A, and the asymmetry of M there."""
    values, vectors = np.linalg.eigh(system.matrix.toarray())
    kept = values > 1e-10 * values.max(initial=0)
    basis = vectors[:, kept] * np.sqrt(values[kept])
    if not kept.any():
        return 1.0, 1.0, 0.0
    m = np.array([apply(e) for e in np.eye(len(values))]).T
    product_ = basis.T @ m @ basis
    asymmetry = np.abs(product_ - product_.T).max() / np.abs(product_).max()
    found = np.linalg.eigvalsh(0.5 * (product_ + product_.T))
    return float(found[0]), float(found[-1]), float(asymmetry)


def facts_of_network(system: System, network, spread, gather) -> tuple[dict, np.ndarray]:
    """Properties of M, and M b for two b; ``spread`` takes a vector of the active cells to the local rows."""

    def apply(b):
        r = spread(b)
        z = np.full(r.size, np.nan)
        network.apply(r, z)
        return gather(z)

    rng = np.random.default_rng(1)
    n = system.cells.size
    b = system.matrix @ rng.standard_normal((n, 3))
    z = np.array([apply(column) for column in b.T])
    gram = z @ b
    scale = max(float(np.abs(gram).max()), 1e-300)
    facts = {
        "finite": bool(np.isfinite(z).all()),
        "asymmetry": float(np.abs(gram - gram.T).max() / scale) if n else 0.0,
        "positive": bool(n == 0 or not b.any() or (gram.diagonal() > 0).all()),
    }
    if 0 < n <= MOST_DENSE and facts["finite"]:
        facts["lowest"], facts["highest"], asymmetry = spectrum(system, apply)
        facts["asymmetry"] = max(facts["asymmetry"], asymmetry)
    again = np.array([apply(column) for column in b.T])
    facts["same again"] = again.tobytes() == z.tobytes()
    return facts, z


def engine(case: Case, system: System, mine: np.ndarray) -> tuple[dict, np.ndarray]:
    """The network over all ranks, and where it serves that of one process."""
    size, weights = int(np.prod(case.shape)), load_weights("multilevel", len(case.shape))
    place = np.full(size, -1)
    place[system.cells] = np.arange(system.cells.size)

    def spread(b, cells=mine):
        return np.where(place[cells] >= 0, np.append(b, 0)[place[cells]], 0.0)

    everyone = np.concatenate(COMM.allgather(mine))

    def gather(z):
        whole = np.empty(size)
        whole[everyone] = np.concatenate(COMM.allgather(z))
        return whole[system.cells]

    operator = system.rows(case, mine)
    network = DistributedMultilevel(operator, weights, COMM, 1, case.gathered)
    facts, z = facts_of_network(system, network, spread, gather)
    network.update(operator)
    rest, again = facts_of_network(system, network, spread, gather)
    facts["same again"] &= rest["same again"] and z.tobytes() == again.tobytes()
    facts["frame"] = bool(COMM.allreduce(int(poison.frame_is_zero(network)), MPI.MIN))
    facts["shared"] = sum(n > 1 for n in network.ranks)
    network.close()
    if COMM.size > 1 or any(case.periodic):
        return facts, z
    grid = GridOperator(tuple(system.faces), system.fixed, system.active)
    for threads in (1, 2) if size >= SERIAL_CELLS else (1,):
        alone = MultilevelPreconditioner(grid, weights, mine.astype(np.int32), threads)
        own, other = facts_of_network(system, alone, spread, gather)
        difference = np.abs(other - z).max(initial=0) / max(np.abs(z).max(initial=0), 1e-300)
        facts["alone"] = max(facts.get("alone", 0.0), float(np.nan_to_num(difference, nan=9)))
        own["frame"] = poison.frame_is_zero(alone)
        for name in ("finite", "positive", "same again", "frame"):
            facts[name] &= own[name]
        facts["asymmetry"] = max(facts["asymmetry"], own["asymmetry"])
    return facts, z


def solve(case: Case, system: System, mine: np.ndarray, method: str) -> dict:
    """The matrix of the active cells solved by PETSc."""
    counts = COMM.allgather(int(system.active.reshape(-1)[mine].sum()))
    cells = np.concatenate(COMM.allgather(mine[system.active.reshape(-1)[mine]]))
    place = np.empty(int(np.prod(case.shape)), int)
    place[system.cells] = np.arange(system.cells.size)
    matrix = system.matrix[place[cells]][:, place[cells]].tocsr()
    n, begin = cells.size, sum(counts[: COMM.rank])
    own = slice(begin, begin + counts[COMM.rank])
    local = matrix[own]
    csr = local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data
    mat = PETSc.Mat().createAIJ(((local.shape[0], n),) * 2, csr=csr, comm=PETSc.COMM_WORLD)
    consolve.solvers.attach_grid(mat, case.shape, cells[own])
    options = PETSc.Options()
    options["pc_cnn_gathered_cells"] = case.gathered
    ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
    ksp.setOperators(mat)
    ksp.setType(method)
    ksp.getPC().setType("cnn")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-8, max_it=80)
    ksp.setFromOptions()
    b = matrix @ np.random.default_rng(4).standard_normal(n)
    right, x = mat.createVecs()
    right.array_w[:] = b[own]
    try:
        ksp.solve(right, x)
        solution = np.concatenate(COMM.allgather(x.array))
        residual = np.linalg.norm(b - matrix @ solution) / max(np.linalg.norm(b), 1e-300)
        facts = {"reason": ksp.getConvergedReason(), "iterations": ksp.its, "residual": float(residual)}
    except PETSc.Error as error:
        facts = {"refused": str(error).strip().splitlines()[-1]}
    for thing in (ksp, mat, right, x):
        thing.destroy()
    return facts


def findings(case: Case, seed: int) -> tuple[dict, np.ndarray]:
    """All that is asked of a case."""
    GUARDS.clear()
    system = System(case, seed)
    owner = owner_of(case)
    mine = np.flatnonzero(owner == COMM.rank)
    facts: dict = {}
    z = np.empty(0)
    try:
        facts, z = engine(case, system, mine)
    except UnservedGrid as error:
        facts["refused"] = str(error)
    if system.cells.size:
        for method in ("cg", "dcd"):
            facts[method] = solve(case, system, mine, method)
    facts["guards"] = bool(COMM.allreduce(int(GUARDS.whole), MPI.MIN))
    return facts, z


def main(folder: Path, cases: list[tuple[int, Case]], seed: int) -> None:
    def write(line: dict) -> None:
        if COMM.rank == 0:
            with (folder / "findings").open("a") as file:
                file.write(json.dumps(line) + "\n")

    for number, case in cases:
        write({"begun": number, "case": str(case)})
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        try:
            facts, z = findings(case, seed + number)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            COMM.Abort(3)
        if COMM.rank == 0:
            np.save(folder / f"{number}.npy", z)
        write({"number": number, "case": str(case), **facts})
        COMM.barrier()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    if sys.argv[2] == "reported":
        main(Path(sys.argv[1]), list(enumerate(REPORTED)), 0)
    else:
        first, end, chosen = map(int, sys.argv[2:5])
        main(Path(sys.argv[1]), [(q, case_of(q, chosen)) for q in range(first, end)], chosen)
