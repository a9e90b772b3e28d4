"""Program for mpirun: the cells of each rank's rows from DMDA, size, mask, index sets and coordinates.

Prints one JSON line: for each case the cells that all ranks find, or the message and whether all raise it.
Its argument is a folder with the images ``mask.npy``, ``mask.npz``, ``fortran.npy`` and ``mask.h5``.
"""

import json
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from consolve.solvers import attach_grid
from consolve.solvers.matrix import cell_images
from consolve.solvers.matrix.find_grid import find_grid

comm = MPI.COMM_WORLD
folder = Path(sys.argv[1])
cell_images.BLOCK = 17  # many blocks in small images


def empty(rows, split="even"):
    """A matrix with nothing in it; the last rank has no rows if ``split`` is "one idle"."""
    local = PETSc.DECIDE
    if split == "one idle":
        share = rows // (comm.size - 1)
        local = (
            0 if comm.rank == comm.size - 1 else share + (comm.rank == 0) * (rows - share * (comm.size - 1))
        )
    mat = PETSc.Mat().createAIJ(((local, rows), (local, rows)), nnz=1, comm=PETSc.COMM_WORLD)
    mat.assemble()
    return mat


def outcome(find):
    """What all ranks find, in the order of the rows; or the error."""
    try:
        grid = find()
        mine = (
            list(map(int, grid.shape)),
            list(grid.periodic),
            str(grid.cells.dtype),
            grid.cells.tolist(),
            None,
        )
    except Exception as error:
        mine = (None, None, None, None, f"{type(error).__name__}: {error}")
    everyone = comm.allgather(mine)
    errors = [m[4] for m in everyone]
    if any(errors):
        return {"error": errors[0], "everywhere": len(set(errors)) == 1}
    agreed = len({str(m[:3]) for m in everyone}) == 1
    cells = [cell for m in everyone for cell in m[3]]
    return {"shape": mine[0], "periodic": mine[1], "dtype": mine[2], "cells": cells, "agreed": agreed}


def dmda(sizes, **options):
    dm = PETSc.DMDA().create(sizes, dof=1, comm=PETSc.COMM_WORLD, **options)
    natural = dm.createNaturalVec()
    first, last = natural.getOwnershipRange()
    natural.setArray(np.arange(first, last, dtype=float))
    numbers = dm.createGlobalVec()  # PETSc's own word for where each row lies
    dm.naturalToGlobal(natural, numbers)
    expected = [int(n) for part in comm.allgather(numbers.array_r.tolist()) for n in part]
    return outcome(lambda: find_grid(dm.createMatrix(), dm)) | {"expected": expected}


def attached(cells, shape):
    mat = empty(len(cells))
    start, stop = mat.getOwnershipRange()
    attach_grid(mat, shape, np.asarray(cells)[start:stop])
    return outcome(lambda: find_grid(mat))


def coordinates(points, rows=None, split="even"):
    mat = empty(len(points) if rows is None else rows, split)
    start, stop = mat.getOwnershipRange()
    return outcome(lambda: find_grid(mat, coordinates=np.asarray(points)[start:stop]))


rng = np.random.default_rng(0)
x, y, z = np.array([0.0, 0.1, 0.3, 1.0]), np.array([-2.0, 0.0, 5.0]), np.array([1e3, 1e3 + 1])
lattice = np.stack(np.meshgrid(z, y, x, indexing="ij"), -1).reshape(-1, 3)[:, ::-1]
order = rng.permutation(24)
shaken = lattice[order] + 1e-9 * rng.standard_normal((24, 3))
periodic, none = PETSc.DM.BoundaryType.PERIODIC, PETSc.DM.BoundaryType.NONE
result = {
    "dmda 1d": dmda((19,)),
    "dmda 1d periodic": dmda((19,), boundary_type=(periodic,)),
    "dmda 2d": dmda((9, 7)),
    "dmda 3d": dmda((5, 4, 6)),
    "dmda periodic": dmda((9, 8, 5), boundary_type=(none, periodic, none)),
    "grid": outcome(lambda: find_grid(empty(42), grid="7,6")),
    "grid too small": outcome(lambda: find_grid(empty(42), grid="7,5")),
    "attached": attached(rng.permutation(60)[:42].tolist(), (6, 10)),
    "attached twice": attached([*range(41), 3], (6, 10)),
    "attached outside": attached([*range(41), 60], (6, 10)),
    "mask absent": outcome(lambda: find_grid(empty(3), mask=str(folder / "absent.npy"))),
    "mask of another size": outcome(lambda: find_grid(empty(3), mask=str(folder / "mask.npy"))),
    "mask with a wrong type": outcome(lambda: find_grid(empty(3), mask=str(folder / "wrong.npy"))),
    "coordinates": coordinates(shaken) | {"expected": order.tolist()},
    "coordinates with an idle rank": coordinates(shaken, split="one idle") | {"expected": order.tolist()},
    "coordinates in a plane": coordinates(lattice[:12] * [1, 1, 1]) | {"expected": list(range(12))},
    "coordinates twice": coordinates([*shaken[:23].tolist(), shaken[5].tolist()]),
    "coordinates of no lattice": coordinates(rng.random((3000, 2))),
    "too few coordinates": coordinates(shaken[:22], rows=24),
}
fluid = int(sys.argv[2])
for name in ("mask.npy", "mask.npz", "fortran.npy", "fortran.npz", "mask.h5"):
    for split in ("even", "one idle"):
        result[f"{name} {split}"] = outcome(
            lambda name=name, split=split: find_grid(empty(fluid, split), mask=str(folder / name))
        )
if comm.rank == 0:
    print("RESULT", json.dumps(result))
