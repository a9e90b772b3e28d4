"""The grid of a matrix that comes without one: read from its bands, or from the graph of its couplings."""

from __future__ import annotations

import math

import numpy as np

from consolve.base.errors import MatrixError
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.placement import LOOKED_FOR, LOOKED_FOR_LATTICE, find_placement
from consolve.solvers.matrix.local_matrix import as_aij, communicator
from consolve.solvers.petsc.versions import PETSc, csr_arrays

ADVICE = (
    "attach a DMDA to the KSP, give the grid by -pc_cnn_grid NX,NY[,NZ] (rows number all cells, x fastest), "
    "give a cell-type image by -pc_cnn_mask FILE (rows number its fluid cells), or call "
    "consolve.solvers.attach_grid; for a mesh, give the point of each row by PCSetCoordinates or "
    "consolve.solvers.attach_points, or use -pc_type hypre or gamg"
)


def infer_grid(mat: PETSc.Mat) -> GridMap:
    """The grid that the pattern of a matrix tells; collective.

    Two ways, in this order:

    1. Rows number all cells of a grid, x fastest: seen from the distances between coupled rows, and checked
       at every coupling.  5-, 7-, 9- and 27-point stencils, with periodic axes, identity rows and missing
       couplings.  Where several shapes fit, see ``find_bands`` for which is taken; a chain is n x 1.
    2. On one rank, any numbering: the graph of the couplings is laid on a lattice, see ``find_lattice``.
       Reflections and the order of the axes are then arbitrary, and mean nothing to the solver.

    Couplings under 1e-10 of both diagonals count as none.

    Parameters
    ----------
    mat
        A square assembled matrix of real values: AIJ, or a type that PETSc converts to AIJ.

    Raises
    ------
    MatrixError
        On all ranks, if no grid is found.
    """
    rows, columns = mat.getSize()
    if rows != columns:
        raise MatrixError(f"the matrix is {rows} x {columns}, expected a square one")
    mat, comm = as_aij(mat), communicator(mat)
    indptr, indices, values = csr_arrays(mat) if comm is None else mat.getValuesCSR()
    placement = find_placement(indptr, indices, values, mat.getOwnershipRange()[0], rows, comm)
    if placement is None:
        more = LOOKED_FOR_LATTICE if comm is None else "(other numberings are recognised on one rank only)"
        raise MatrixError(
            f"the grid of this matrix of {rows} rows is not known and cannot be read from its pattern: "
            f"{LOOKED_FOR}, {more}; {ADVICE}"
        )
    wide = comm is not None or math.prod(placement.shape) >= 2**31
    cells = placement.cells if wide else placement.cells.astype(np.int32)
    return GridMap(placement.shape, cells, "the pattern of the matrix", placement.periodic)
