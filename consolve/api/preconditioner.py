"""``consolve.aspreconditioner``: the network as a SciPy LinearOperator, without PETSc."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from consolve.base.errors import ZERO_MATRIX
from consolve.base.threads import check_not_forked, checked_threads, limited_to
from consolve.learned.models import (
    Choice,
    build_distributed_model,
    build_mesh_model,
    build_model,
    build_smoother,
    check_model_name,
)
from consolve.learned.multilevel.graph.choice import needs_graph
from consolve.learned.multilevel.setup.hierarchy import LevelFacts
from consolve.pde.matrix.grid_map import GridMap
from consolve.pde.matrix.local_rows import real_csr, rows_of_csr
from consolve.pde.matrix.placement import LOOKED_FOR, LOOKED_FOR_LATTICE, Place, find_placement, given_place
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.matrix.stencil import Stencil, read_stencil
from consolve.pde.mesh.rows import MeshRows, read_points
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.null_space import ClosedComponents


class Preconditioner(LinearOperator):
    """z = M r with M ~ A^-1, linear, symmetric and positive definite; see :func:`aspreconditioner`.

    On a singular A, r and z lose their mean over each closed component (connected rows that all sum to 0), so
    that M stays symmetric and maps into the range.  Rows without couplings get z = r / a_ii.  M is negative
    definite if A is.

    Attributes
    ----------
    operator
        What the matrix was read as: a GridOperator, or a RowOperator where the grid is periodic; None for the
        points of a mesh.
    grid
        Its shape; of the grid that was laid over the points of a mesh.
    model
        Name of the network.
    threads
        Of the kernels; None: Numba's number.
    setups
        Number of times that the network was set up or updated.
    """

    def __init__(
        self,
        A: Any,
        place: Place | None,
        model: str | os.PathLike[str],
        threads: int | None,
        points: NDArray[np.floating] | None = None,
    ) -> None:
        self.model, self.threads, self.setups = check_model_name(model), checked_threads(threads), 0
        self._lock = threading.RLock()
        self._given, self._points = place, points
        self._network: Any = None
        self._smoother: Any = None
        self.operator: GridOperator | RowOperator | None = None
        self._built_as: tuple[bool, int, bool] = False, 0, False
        self._set_up(A)
        rows = A.unknowns if isinstance(A, GridOperator) else A.shape[0]
        super().__init__(np.dtype(np.float64), (rows, rows))

    def update(self, A: Any) -> None:
        """Set up for a changed matrix of the same size; memory is used again if the grid is the same."""
        size = A.unknowns if isinstance(A, GridOperator) else A.shape[0]
        if size != self.shape[0]:
            raise ValueError(
                f"the new matrix has {size} rows, the preconditioner {self.shape[0]}; make another one"
            )
        with self._lock:
            self._set_up(A)

    def _set_up(self, A: Any) -> None:
        check_not_forked()
        if isinstance(A, GridOperator):
            if A.is_zero:
                raise ValueError(ZERO_MATRIX)
            nonzeros = None
            grid = GridMap(A.shape, A.cells, "the operator")
            read: Stencil | MeshRows = Stencil(A, grid, 1, np.empty(0, np.int32), np.empty(0))
        else:
            csr = real_csr(A)
            nonzeros = csr.nnz
            read = self._read_rows(csr)
            if read.one_sided:
                _warn_of_one_sided(read)
        self._take(read, nonzeros)

    def _read_rows(self, csr: sp.csr_matrix) -> Stencil | MeshRows:
        if self._points is not None:
            return read_points(rows_of_csr(csr), self._points)
        shape, cells = self._given or _inferred(csr)
        grid = GridMap(shape, np.ascontiguousarray(cells, np.int32), "the grid that was given")
        return read_stencil(rows_of_csr(csr), grid)

    def _take(self, read: Stencil | MeshRows, nonzeros: int | None) -> None:
        self._read, self._nonzeros, self._smoother = read, nonzeros, None
        with limited_to(self.threads):
            if isinstance(read, MeshRows):
                self._set_up_mesh(read)
            else:
                self._set_up_grid(read)
        self.setups += 1

    def _set_up_mesh(self, rows: MeshRows) -> None:
        self._network, self._line = build_mesh_model(self._choice(False), rows)
        self._built_as = False, 0, False
        self.operator, self.grid = None, self._network.grid.shape
        self._unknowns = rows.matrix.rows - rows.diagonal_rows.size
        self._closed = self._network.components

    def _choice(self, on_graph: bool) -> Choice:
        return Choice(self.model, self.threads or numba.get_num_threads(), on_graph=on_graph)

    def _set_up_grid(self, read: Stencil) -> None:
        assert read.operator is not None
        self.operator, self.grid = read.operator, read.grid.shape
        self._unknowns = int(np.count_nonzero(read.operator.active))
        self._set_up_network(read.operator, np.ascontiguousarray(read.grid.cells, np.int32))
        self._smoother = build_smoother(self._choice(False), read)

    def _set_up_network(self, operator: GridOperator | RowOperator, cells: NDArray[np.int32]) -> None:
        on_graph = needs_graph(self.model, operator)
        kind = type(operator) is RowOperator, operator.ndim, on_graph
        if self._network is not None and self._built_as == kind:
            self._network.cells = cells
            self._network.update(operator)
        else:
            choice = self._choice(on_graph)
            if isinstance(operator, RowOperator):
                self._network, self._line = build_distributed_model(choice, operator, None, 0, nullcontext())
            else:
                self._network, self._line = build_model(choice, operator, cells)
            self._built_as = kind
        if not getattr(self._network, "is_symmetric", True):
            raise ValueError(
                f"model {self.model!r} is a nonlinear network, which no method of SciPy takes as a "
                "preconditioner: use -ksp_type dcd of PETSc, or model='dcdm-deep' or 'multilevel'"
            )
        closed = self._network.components
        self._closed = ClosedComponents.of(operator, cells) if isinstance(operator, GridOperator) else closed

    def _matvec(self, x: NDArray) -> NDArray[np.float64]:
        r, z = np.ascontiguousarray(x, np.float64).reshape(-1), np.zeros(x.size)
        source = self._closed.without_means(r)
        if self._network is not None and self._unknowns:
            with self._lock, limited_to(self.threads):
                if self._smoother is None:
                    self._network.apply(source, z)
                else:
                    self._smoother.apply(source, z, self._network.apply)
            z = self._closed.without_means(z)
        if self._read.sign < 0:
            np.negative(z, out=z)
        z[self._read.diagonal_rows] = self._read.diagonal_inverse * r[self._read.diagonal_rows]
        return z

    def __reduce__(self) -> tuple[Any, ...]:
        """Set up anew: compiled kernels hold addresses of this process's memory."""
        return _again, (self._read, self._nonzeros, self._given, self.model, self.threads, self._points)

    def _adjoint(self) -> Preconditioner:
        return self

    _transpose = _adjoint

    @property
    def levels(self) -> list[LevelFacts]:
        """Shape, unknowns and bytes of each level, finest first."""
        return list(self._network.levels) if self._network is not None else []

    @property
    def bytes(self) -> int:
        """Memory of all levels, and of sweeps around them."""
        held = self._network.bytes if self._network is not None else 0
        return held + (0 if self._smoother is None else self._smoother.bytes)

    def grid_complexity(self) -> float:
        """Unknowns of all levels over those of the finest."""
        return sum(level.unknowns for level in self.levels) / max(self._unknowns, 1)

    def __repr__(self) -> str:
        levels = self.levels
        total = max(sum(level.bytes for level in levels), 1)
        lines = [
            "consolve.Preconditioner",
            f"Model:               {self._line}",
            f"Rows:                {self.shape[0]}, {self._read.diagonal_rows.size} without couplings"
            + ("" if self._nonzeros is None else f", {self._nonzeros} nonzeros"),
            f"Closed components:   {len(self._closed)}",
            f"Number of Levels:    {len(levels)}",
            f"Grid Complexity:     {self.grid_complexity():6.3f}",
            f"Memory:              {self.bytes / 2**20:.2f} MiB",
            "  level               grid      unknowns       bytes",
        ]
        for number, level in enumerate(levels):
            shape = " x ".join(map(str, level.shape))
            share = f"[{100 * level.bytes / total:.2f}%]"
            lines.append(f"{number:>7} {shape:>18} {level.unknowns:>13} {level.bytes:>11} {share:>9}")
        return "\n".join(lines)


def aspreconditioner(
    A: Any,
    *,
    grid: Sequence[int] | None = None,
    mask: ArrayLike | None = None,
    cells: ArrayLike | None = None,
    points: ArrayLike | None = None,
    model: str | os.PathLike[str] = "auto",
    threads: int | None = None,
) -> Preconditioner:
    """A preconditioner M ~ A^-1 for the Krylov methods of SciPy.

    Without PETSc.  5-, 7-, 9- and 27-point stencils, with periodic axes, and meshes.

    Parameters
    ----------
    A
        Symmetric matrix of a Poisson operator on a structured grid or a mesh: SciPy sparse matrix or array,
        dense array, or GridOperator.
    grid
        Shape of the grid, last axis fastest: (NY, NX) or (NZ, NY, NX).  Rows number all its cells in C order,
        or else ``cells``.
    mask
        Cell-type image (0 fluid, 1 solid, 2 air): rows number its fluid cells in C order.
    cells
        C-order cell index of each row; with ``grid``.
    points
        (n, 2) or (n, 3): the point of each row of a mesh, x, y[, z].
    model
        ``auto``, ``multilevel``, ``mg`` (the classical twin), ``dcdm-deep`` (in torch), or the path of a
        weights file of such a network.
    threads
        Of the kernels; default: Numba's number.

    Returns
    -------
    A LinearOperator with ``levels``, ``update(A)`` for a changed matrix, and a table as its ``repr``.
    Inside, M is in single precision: conjugate gradients reach any tolerance with it; methods that take M as
    exactly linear (``gmres``, ``minres``) may stall near 1e-6.

    Raises
    ------
    ValueError
        If A is no real square matrix, its grid is not found, or it is not the operator of that grid.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, consolve
    >>> from scipy.sparse.linalg import cg
    >>> line = sp.diags([-np.ones(63), 2 * np.ones(64), -np.ones(63)], [-1, 0, 1])
    >>> A = sp.csr_matrix(sp.kron(line, sp.identity(64)) + sp.kron(sp.identity(64), line))
    >>> x, failed = cg(A, np.ones(64 * 64), M=consolve.aspreconditioner(A), maxiter=10)
    >>> failed
    0
    """
    rows = A.unknowns if isinstance(A, GridOperator) else np.shape(A)[0]
    of_grid = not (grid is None and mask is None and cells is None)
    if isinstance(A, GridOperator) and (of_grid or points is not None):
        raise ValueError("a GridOperator has a grid of its own: give no grid, mask, cells or points")
    if of_grid and points is not None:
        raise ValueError("points are given with grid, mask or cells: give one")
    where = None if points is None else np.array(points)
    return Preconditioner(A, given_place(rows, grid, mask, cells), model, threads, where)


def _inferred(csr: sp.csr_matrix) -> Place:
    placement = find_placement(csr.indptr, csr.indices, csr.data)
    if placement is None:
        raise ValueError(
            f"the grid of this matrix of {csr.shape[0]} rows cannot be read from its pattern: {LOOKED_FOR}, "
            f"{LOOKED_FOR_LATTICE}; give grid=(NY, NX) or (NZ, NY, NX), the image mask= whose fluid cells "
            "the rows number, grid= and cells=, the cell of each row, or points=, the points of a mesh's rows"
        )
    return placement.shape, placement.cells


def _again(
    read: Stencil | MeshRows,
    nonzeros: int | None,
    given: Place | None,
    model: str,
    threads: int | None,
    points: NDArray[np.floating] | None,
) -> Preconditioner:
    """What `Preconditioner.__reduce__` describes."""
    new = Preconditioner.__new__(Preconditioner)
    new.model, new.threads, new.setups = model, threads, 0
    new._lock, new._given, new._network, new._built_as = threading.RLock(), given, None, (False, 0, False)
    new._points = points
    new._take(read, nonzeros)
    rows = read.matrix.rows if isinstance(read, MeshRows) else read.grid.cells.size
    LinearOperator.__init__(new, np.dtype(np.float64), (rows, rows))
    return new


def _warn_of_one_sided(read: Stencil | MeshRows) -> None:
    row = int(read.diagonal_rows[0])
    warnings.warn(
        f"the matrix is not symmetric: row {row}, and maybe others, has no couplings, but other rows couple "
        "to it (a boundary row whose column was kept); conjugate gradients are right only from x0 with "
        "x0[row] = b[row] / A[row, row] in these rows, or after their columns were eliminated",
        stacklevel=5,
    )
