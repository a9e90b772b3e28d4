"""Program for mpirun: the distributed network against that of one process; prints one JSON line of findings.

distributed_ranks.py same       z = M r on many domains and row layouts, against MultilevelPreconditioner
distributed_ranks.py periodic   conjugate gradients on periodic grids, and symmetry
distributed_ranks.py traffic    messages and bytes of one application, counted and foretold
distributed_ranks.py faults     NaN on one rank; coefficients beyond single precision on one rank
"""

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from mpi4py import MPI

from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import load_weights
from consolve.learned.multilevel.ranks.preconditioner import DistributedMultilevel, UnservedGrid
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.domains import make_domain

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from traffic import cost_of_application

COMM = MPI.COMM_WORLD


def part(cells, layout):
    """Cells of this rank's rows."""
    size, rank = COMM.size, COMM.rank
    if layout == "last only":
        return cells if rank == size - 1 else cells[:0]
    if layout == "scattered":
        return cells[np.random.default_rng(0).integers(0, size, cells.size) == rank]
    share = np.linspace(0, 1, size + 1) if layout == "slabs" else np.linspace(0, 1, size + 1) ** 2
    return cells[int(share[rank] * cells.size) : int(share[rank + 1] * cells.size)]


def box_part(shape):
    """Cells of this rank's box, as a DMDA numbers its rows."""
    count = COMM.size if COMM.size in (1, 2, 3, 5, 7) else COMM.size // 2
    grid = (COMM.size // count, count)
    p, q = divmod(COMM.rank, grid[1])
    cut = [[n * k // m for k in range(m + 1)] for n, m in zip(shape[-2:], grid)]
    index = np.arange(np.prod(shape)).reshape(shape)
    return index[..., cut[0][p] : cut[0][p + 1], cut[1][q] : cut[1][q + 1]].reshape(-1)


def row_operator(operator, cells, periodic=None):
    faces = tuple(f.reshape(-1)[cells] for f in operator.face_coefficient)
    flags = periodic or (False,) * operator.ndim
    rows = operator.dirichlet.reshape(-1)[cells], operator.active.reshape(-1)[cells]
    return RowOperator(operator.shape, flags, cells.astype(np.int64), faces, *rows)


def same():
    """Largest difference of z, relative to max |z|, and disagreements of levels and components, by case."""
    found = {}
    cases = [
        ((40, 64), "spheres", 64), ((37, 53), "closed-spheres", 64), ((24, 20, 28), "two-phase", 256),
        ((17, 9, 21), "closed-boxes", 64), ((33, 32, 18), "free-surface", 1024), ((1, 12, 40), "box", 16),
    ]  # fmt: skip
    for shape, name, gathered in cases:
        operator = make_domain(name, shape, 3).operator()
        weights = load_weights("multilevel", operator.ndim)
        size = int(np.prod(shape))
        r = np.random.default_rng(1).standard_normal(size)
        alone = MultilevelPreconditioner(operator, weights, np.arange(size, dtype=np.int32), threads=1)
        z = np.empty(size)
        alone.apply(r, z)
        closed = int(operator.components[1].sum())
        for layout in ("slabs", "uneven", "scattered", "last only", "boxes", "active"):
            cells = part(operator.cells if layout == "active" else np.arange(size), layout)
            if layout in ("boxes", "active"):
                cells = box_part(shape) if layout == "boxes" else part(operator.cells, "slabs")
            network = DistributedMultilevel(row_operator(operator, cells), weights, COMM, 1, gathered)
            for _ in range(2):  # a second setup must leave nothing behind
                own = np.full(cells.size, np.nan)
                network.apply(r[cells], own)
                difference = np.abs(own - z[cells]).max(initial=0) / np.abs(z).max()
                network.update(row_operator(operator, cells))
            alike = [(a.shape, a.unknowns) for a in network.levels] == [
                (a.shape, a.unknowns) for a in alone.levels
            ]
            number = operator.components[0].reshape(-1)[cells]
            expected = np.append(operator.components[1], False)[number]
            components = network.components
            group = components.group if components else np.full(cells.size, -1)
            groups = bool(((group >= 0) == expected).all()) and len(components) == closed
            found[f"{shape} {name} {layout}"] = {
                "difference": COMM.allreduce(float(np.nan_to_num(difference, nan=9)), MPI.MAX),
                "alike": bool(COMM.allreduce(int(alike and groups), MPI.MIN)),
                "shared": sum(n > 1 for n in network.ranks),
            }
            network.close()
    return found


def periodic_problem(shape, periodic, dirichlet):
    """Matrix, face coefficients, Dirichlet part and active cells, with holes in larger grids."""
    rng, size = np.random.default_rng(2), int(np.prod(shape))
    active = np.ones(shape, bool)
    for _ in range(3 if min(shape) > 4 else 0):
        low = [rng.integers(0, n - 2) for n in shape]
        active[tuple(slice(q, q + max(1, n // 6)) for q, n in zip(low, shape))] = False
    index, faces = np.arange(size).reshape(shape), []
    matrix = sp.csr_matrix((size, size))
    for axis, n in enumerate(shape):
        face = (active & np.roll(active, -1, axis)).astype(float) * (1 + axis)
        if not periodic[axis]:
            np.moveaxis(face, axis, 0)[-1] = 0
        if n == 1:
            face[:] = 0
        faces.append(face.reshape(-1))
        pair = index.reshape(-1), np.roll(index, -1, axis).reshape(-1)
        coupling = sp.coo_matrix((face.reshape(-1), pair), (size, size)).tocsr()
        matrix = matrix - coupling - coupling.T
    fixed = np.where(active.reshape(-1) & (index.reshape(-1) < shape[-1]), 2.0 * dirichlet, 0.0)
    diagonal = fixed - np.asarray(matrix.sum(1)).reshape(-1)
    return (sp.diags(diagonal) + matrix).tocsr(), tuple(faces), fixed, diagonal > 0


def periodic():
    """Iterations of conjugate gradients to 1e-8, true residual and asymmetry of M, by case."""
    found = {}
    cases = [
        ((64, 64), (1, 1)), ((64, 48), (0, 1)), ((48, 37), (1, 0)), ((100, 60), (1, 1)), ((9, 9), (1, 1)),
        ((2, 64), (1, 0)), ((1, 64), (1, 1)), ((24, 32, 16), (0, 1, 0)), ((17, 16, 32), (0, 0, 1)),
        ((32, 32, 32), (1, 1, 1)), ((3, 8, 8), (1, 1, 1)),
    ]  # fmt: skip
    for (shape, flags), dirichlet in product(cases, (False, True)):
        matrix, faces, fixed, active = periodic_problem(shape, flags, dirichlet)
        size = fixed.size
        cells = part(np.arange(size), "slabs")
        rows = tuple(f[cells] for f in faces), fixed[cells], active[cells]
        operator = RowOperator(shape, tuple(map(bool, flags)), cells, *rows)
        weights = load_weights("multilevel", len(shape))
        network = DistributedMultilevel(operator, weights, COMM, 1, 64)

        def apply(r, cells=cells, network=network):
            z = np.empty(cells.size)
            network.apply(r[cells], z)
            return np.concatenate(COMM.allgather(z))

        rng = np.random.default_rng(0)
        b = matrix @ rng.standard_normal(size)
        iterations, x = conjugate_gradients(matrix, b, apply)
        u, v = rng.standard_normal((2, size))
        left, right = u @ apply(v), v @ apply(u)
        found[f"{shape} {flags} {dirichlet}"] = {
            "iterations": iterations,
            "residual": float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)),
            "asymmetry": abs(left - right) / np.sqrt(abs((u @ apply(u)) * (v @ apply(v)))),
        }
        network.close()
    nothing = RowOperator((4, 129, 129), (False, True, False), *[np.empty(0, np.int64)], *_empty(3))
    try:
        DistributedMultilevel(nothing, load_weights("multilevel", 3), COMM, 1)
        found["odd"] = "served"
    except UnservedGrid as error:
        found["odd"] = str(error)
    return found


def _empty(ndim):
    return (np.empty(0),) * ndim, np.empty(0), np.empty(0, bool)


def conjugate_gradients(matrix, b, apply, rtol=1e-8, most=60):
    x, r = np.zeros_like(b), b.copy()
    z = apply(r)
    p, rz, target, iteration = z.copy(), r @ z, rtol * np.linalg.norm(b), 0
    while iteration < most:
        iteration += 1
        q = matrix @ p
        alpha = rz / (p @ q)
        x, r = x + alpha * p, r - alpha * q
        if np.linalg.norm(r) < target:
            break
        z = apply(r)
        rz, old = r @ z, rz
        p = z + rz / old * p
    return iteration, x


def traffic():
    """Messages and bytes of one application over all ranks: counted as sent, and foretold as received."""
    found = {}
    cases = [((64, 64), (False, False)), ((32, 48, 40), (False,) * 3), ((32, 32), (True, False))]
    for (shape, flags), gathered in product(cases, (64, 512)):
        _, faces, fixed, active = periodic_problem(shape, flags, True)
        cells = box_part(shape)
        rows = tuple(f[cells] for f in faces), fixed[cells], active[cells]
        network = DistributedMultilevel(
            RowOperator(shape, flags, cells, *rows), load_weights("multilevel", len(shape)), COMM, 1, gathered
        )
        moved = network.rows_moved
        sent = network.traffic
        before = sent.messages, sent.bytes
        network.apply(np.ones(cells.size), np.empty(cells.size))
        counted = np.array([sent.messages - before[0], sent.bytes - before[1]])
        cost = cost_of_application(network.plan)
        found[f"{shape} {flags} {gathered}"] = {
            "counted": COMM.allreduce(counted).tolist(),
            "foretold": [int(cost.messages.sum()), 4 * int(cost.values.sum())],
            "moved": int(COMM.allreduce(moved)),
        }
        network.close()
    return found


def faults():
    """What all ranks see of a fault on the last one."""
    last = COMM.rank == COMM.size - 1
    operator = make_domain("box", (24, 32), 0).operator()
    cells = part(np.arange(24 * 32), "slabs")
    rows = row_operator(operator, cells)
    network = DistributedMultilevel(rows, load_weights("multilevel", 2), COMM, 1, 64)
    found = {}
    for name, value in (("nan", np.nan), ("inf", np.inf), ("zero", 0.0), ("large", 1e308), ("tiny", 1e-310)):
        r, z = np.full(cells.size, 0.0 if name == "zero" else 1.0), np.zeros(cells.size)
        if name in ("large", "tiny"):
            r[:] = value * (-1.0) ** (cells % 32 + cells // 32)
        elif last:
            r[-1] = value
        network.apply(r, z)
        kinds = "nan" if np.isnan(z).all() else "finite" if np.isfinite(z).all() else "mixed"
        found[name] = COMM.allgather(kinds)
    network.close()
    for factor in (1e-40, 1e-300):
        far = np.where(cells > 600, factor, 1.0)  # the last quarter, which the last rank has
        faces = tuple(f * far for f in rows.face_coefficient)
        extreme = RowOperator(rows.shape, rows.periodic, cells, faces, rows.dirichlet * far, rows.active)
        try:
            DistributedMultilevel(extreme, load_weights("multilevel", 2), COMM, 1, 64)
            message = "no error"
        except ValueError as error:
            message = str(error)
        found[f"extreme {factor}"] = COMM.allgather(message)
    return found


if __name__ == "__main__":
    result = {"same": same, "periodic": periodic, "traffic": traffic, "faults": faults}[sys.argv[1]]()
    if COMM.rank == 0:
        print(json.dumps(result))
