"""Deflated conjugate gradients: 16 vectors for PETSc's ``-pc_type deflation``, which it cannot make itself.

With W the deflation space, CG runs on what is left of A beside W: it starts at x = W (W'A W)^-1 W'b, and
each preconditioned residual z loses W (W'A W)^-1 W'A z (Y. Saad, M. Yeung, J. Erhel, F. Guyomarc'h: A
deflated version of the conjugate gradient algorithm, SIAM Journal on Scientific Computing 21, 2000).

``boxes``
    Indicators of 16 equal boxes of the grid (4 x 4 or 4 x 2 x 2), as in subdomain deflation (R. Aubry,
    F. Mut, R. Lohner, J. R. Cebral: Deflated preconditioned conjugate gradient solvers for the
    pressure-Poisson equation, Journal of Computational Physics 227, 2008).
``ritz``
    Ritz vectors of 16 Lanczos steps that start at b, as in the code released with the deep conjugate
    direction method.  They span the Krylov space in which CG's first 16 iterations move, so that with a
    constant diagonal the method is CG with these iterations not counted.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from consolve.solvers.petsc.versions import call, handle

VECTORS = 16
BOXES = {2: (4, 4), 3: (4, 2, 2)}


def deflate(
    ksp: PETSc.KSP, kind: str, b: PETSc.Vec, shape: tuple[int, ...], cells: NDArray[np.integer]
) -> None:
    """Give the PC ``deflation`` of ``ksp`` its space; call before the set-up.

    Parameters
    ----------
    ksp
        With its matrix A and options set.
    kind
        ``boxes`` or ``ritz``.
    b
        The right-hand side, from which ``ritz`` starts.
    shape
        Of the grid.
    cells
        C-order cell index of each unknown of all ranks.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    A, _ = ksp.getOperators()
    if kind not in SPACES:
        raise ValueError(f"unknown deflation space {kind!r}; known: {', '.join(SPACES)}")
    W = SPACES[kind](A, b, shape, cells)
    call("PCDeflationSetSpace", handle(ksp.getPC()), handle(W), ctypes.c_int(0))


def box_space(A: PETSc.Mat, b: PETSc.Vec, shape: tuple[int, ...], cells: NDArray[np.integer]) -> PETSc.Mat:
    """One column for each box that holds unknowns: 1 on them."""
    number = np.zeros(len(cells), PETSc.IntType)
    for index, n, parts in zip(np.unravel_index(cells, shape), shape, BOXES[len(shape)]):
        number = number * parts + index * parts // n
    _, number = np.unique(number, return_inverse=True)
    low, high = b.getOwnershipRange()
    columns = number[low:high].astype(PETSc.IntType)
    return _tall(A, columns[:, None], np.ones((high - low, 1)), int(number.max()) + 1)


def krylov_space(A: PETSc.Mat, b: PETSc.Vec, shape: tuple[int, ...], cells: NDArray[np.integer]) -> PETSc.Mat:
    """Orthonormal basis of b, A b, A^2 b, ...: the span of the Ritz vectors of that many Lanczos steps."""
    basis: list[PETSc.Vec] = []
    new = b.copy()
    scale = 0.0
    for _ in range(min(VECTORS, b.getSize())):
        for _ in range(2 if basis else 0):
            new.maxpy([-new.dot(old) for old in basis], basis)
        size = new.norm()
        if size <= 1e-10 * scale or size == 0:
            break  # the space is invariant: it holds the solution
        new.scale(1 / size)
        basis.append(new.copy())
        A.mult(basis[-1], new)
        scale = new.norm()
    values = np.stack([v.array_r for v in basis], axis=1)
    columns = np.broadcast_to(np.arange(len(basis), dtype=PETSc.IntType), values.shape)
    W = _tall(A, columns, values, len(basis))
    for vector in (new, *basis):
        vector.destroy()
    return W


def _tall(A: PETSc.Mat, columns: NDArray[np.integer], values: NDArray[np.float64], width: int) -> PETSc.Mat:
    """A matrix of A's rows with ``width`` columns, from as many entries in each row.

    Of type AIJ even where it is full: PETSc 3.18 cannot deflate by a dense one.
    """
    rows, entries = values.shape
    offsets = np.arange(rows + 1, dtype=PETSc.IntType) * entries
    csr = (offsets, np.ascontiguousarray(columns, PETSc.IntType).ravel(), values.ravel())
    W = PETSc.Mat().createAIJ(((rows, None), (None, width)), csr=csr, comm=A.comm)
    W.assemble()
    return W


SPACES: dict[str, Callable[..., PETSc.Mat]] = {"boxes": box_space, "ritz": krylov_space}
"""Kinds that :func:`deflate` knows."""
