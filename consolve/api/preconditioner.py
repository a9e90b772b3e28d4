"""``consolve.aspreconditioner``: the network as a SciPy LinearOperator, without PETSc."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from consolve.learned.dcdm.format import SHIPPED, is_dcdm_file, load_dcdm_weights
from consolve.learned.multilevel.engine.preconditioner import MultilevelPreconditioner
from consolve.learned.multilevel.format import load_weights
from consolve.learned.multilevel.graph.choice import needs_graph
from consolve.learned.multilevel.graph.preconditioner import GraphPreconditioner
from consolve.learned.multilevel.ranks.preconditioner import DistributedMultilevel
from consolve.learned.multilevel.setup.hierarchy import LevelFacts
from consolve.pde.matrix.csr_reader import OffStencil, ReadMatrix, read_csr, real_csr
from consolve.pde.matrix.placement import LOOKED_FOR, LOOKED_FOR_LATTICE, Place, find_placement, given_place
from consolve.pde.matrix.row_operator import RowOperator
from consolve.pde.poisson.grid import GridOperator


class Preconditioner(LinearOperator):
    """z = M r with M ~ A^-1, linear, symmetric and positive definite; see :func:`aspreconditioner`.

    On a singular A, r and z lose their mean over each closed component (connected rows that all sum to 0), so
    that M stays symmetric and maps into the range.  Rows without couplings get z = r / a_ii.  M is negative
    definite if A is.

    Attributes
    ----------
    operator
        What the matrix was read as: a GridOperator, or a RowOperator where the grid is periodic.
    grid
        Its shape.
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
        model: str,
        threads: int | None,
    ) -> None:
        self.model, self.threads, self.setups = model, _checked_threads(threads), 0
        self._given = place
        self._network: Any = None
        self._fits = 0, False
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
        self._set_up(A)

    def _set_up(self, A: Any) -> None:
        if isinstance(A, GridOperator):
            place: Place = A.shape, A.cells
            nonzeros = None
            read = ReadMatrix(A, 1, np.empty(0, np.intp), np.empty(0))
        else:
            csr = real_csr(A)
            place = self._given or _inferred(csr)
            nonzeros = csr.nnz
            try:
                read = read_csr(csr, *place)
            except OffStencil as error:
                read = _read_with_petsc(csr, *place, error)
        shape, cells = place
        self.operator, self.grid, self._read, self._nonzeros = read.operator, shape, read, nonzeros
        self._unknowns = int(np.count_nonzero(read.operator.active))
        with self._limited():
            self._set_up_network(read.operator, np.ascontiguousarray(cells, np.int32))
        self.setups += 1

    def _set_up_network(self, operator: GridOperator | RowOperator, cells: NDArray[np.int32]) -> None:
        network, threads = self._network, self.threads or numba.get_num_threads()
        on_graph = isinstance(operator, GridOperator) and needs_graph(self.model, operator)
        fits = network is not None and self._fits == (operator.ndim, on_graph)
        self._fits = operator.ndim, on_graph
        name = "multilevel" if self.model == "auto" else self.model
        if isinstance(operator, RowOperator):
            if _is_dcdm(name):
                raise ValueError(f"model {name!r} is not for periodic grids here: use 'multilevel'")
            if isinstance(network, DistributedMultilevel) and fits:
                network.update(operator)
            else:
                network = DistributedMultilevel(operator, load_weights(name, operator.ndim), None, threads)
            self._set_groups(network.group)
        else:
            if network is not None and not isinstance(network, DistributedMultilevel) and fits:
                network.cells = cells
                network.update(operator)
            elif on_graph:
                network = GraphPreconditioner(operator, cells, threads)
            elif _is_dcdm(name):
                network = _dcdm(name, operator, cells, threads)
            else:
                weights = load_weights(name, operator.ndim)
                network = MultilevelPreconditioner(operator, weights, cells, threads)
            labels, closed = operator.components
            number = np.append(np.where(closed, np.cumsum(closed) - 1, -1), -1)
            self._set_groups(number[labels.reshape(-1)[cells]])
        self._network = network

    def _matvec(self, x: NDArray) -> NDArray[np.float64]:
        r, z = np.ascontiguousarray(x, np.float64).reshape(-1), np.zeros(x.size)
        source = self._without_means(r)
        if self._network is not None and self._unknowns:
            with self._limited():
                self._network.apply(source, z)
            z = self._without_means(z)
        if self._read.sign < 0:
            np.negative(z, out=z)
        z[self._read.diagonal_rows] = self._read.diagonal_inverse * r[self._read.diagonal_rows]
        return z

    def _adjoint(self) -> Preconditioner:
        return self

    _transpose = _adjoint

    def _without_means(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._group_size.size == 0:
            return x
        mean = np.bincount(self._group, x, minlength=self._group_size.size) / self._group_size
        mean[0] = 0.0
        return x - mean[self._group]

    def _set_groups(self, group: NDArray[np.integer] | None) -> None:
        """Number the closed components from 1; rows of none are in group 0."""
        self._group = np.zeros(0, np.intp) if group is None else np.asarray(group, np.intp) + 1
        size = np.bincount(self._group) if self._group.any() else np.empty(0, np.intp)
        self._group_size = np.maximum(size, 1)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        before = numba.get_num_threads()
        numba.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            numba.set_num_threads(before)

    @property
    def levels(self) -> list[LevelFacts]:
        """Shape, unknowns and bytes of each level, finest first."""
        return list(self._network.levels) if self._network is not None else []

    @property
    def bytes(self) -> int:
        """Memory of all levels."""
        return self._network.bytes if self._network is not None else 0

    def grid_complexity(self) -> float:
        """Unknowns of all levels over those of the finest."""
        return sum(level.unknowns for level in self.levels) / max(self._unknowns, 1)

    def __repr__(self) -> str:
        levels, weights = self.levels, getattr(self._network, "weights", None)
        total = max(sum(level.bytes for level in levels), 1)
        name = "multilevel" if self.model == "auto" else self.model
        on_graph = ", on a graph" if isinstance(self._network, GraphPreconditioner) else ""
        lines = [
            "consolve.Preconditioner",
            f"Model:               {name}, {weights.parameters} parameters, weights {weights.digest}"
            if weights is not None
            else f"Model:               {name}{on_graph}",
            f"Rows:                {self.shape[0]}, {self._read.diagonal_rows.size} without couplings"
            + ("" if self._nonzeros is None else f", {self._nonzeros} nonzeros"),
            f"Closed components:   {max(self._group_size.size - 1, 0)}",
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
    model: str = "auto",
    threads: int | None = None,
) -> Preconditioner:
    """A preconditioner M ~ A^-1 for the Krylov methods of SciPy.

    Without PETSc for 5- and 7-point stencils; box stencils (9 and 27 points) are read with the help of
    petsc4py, if it is there.

    Parameters
    ----------
    A
        Symmetric matrix of a Poisson operator on a structured grid: SciPy sparse matrix or array, dense
        array, or GridOperator.
    grid
        Shape of the grid, last axis fastest: (NY, NX) or (NZ, NY, NX).  Rows number all its cells in C order,
        or else ``cells``.
    mask
        Cell-type image (0 fluid, 1 solid, 2 air): rows number its fluid cells in C order.
    cells
        C-order cell index of each row; with ``grid``.
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
    if isinstance(A, GridOperator) and not (grid is None and mask is None and cells is None):
        raise ValueError("a GridOperator has a grid of its own: give no grid, mask or cells")
    return Preconditioner(A, given_place(rows, grid, mask, cells), model, threads)


def _inferred(csr: sp.csr_matrix) -> Place:
    placement = find_placement(csr.indptr, csr.indices, csr.data)
    if placement is None:
        raise ValueError(
            f"the grid of this matrix of {csr.shape[0]} rows cannot be read from its pattern: {LOOKED_FOR}, "
            f"{LOOKED_FOR_LATTICE}; give grid=(NY, NX) or (NZ, NY, NX), the image mask= whose fluid cells "
            "the rows number, or grid= and cells=, the cell of each row"
        )
    return placement.shape, placement.cells


def _read_with_petsc(
    csr: sp.csr_matrix, shape: tuple[int, ...], cells: NDArray[np.integer], error: OffStencil
) -> ReadMatrix:
    """Box stencils and periodic grids."""
    try:
        from consolve.pde.matrix.grid_map import GridMap
        from consolve.solvers.matrix.stencil import read_stencil
        from consolve.solvers.petsc.versions import PETSc
    except ModuleNotFoundError as missing:
        if missing.name != "petsc4py":
            raise
        raise ValueError(
            f"{error} (box stencils and periodic grids need petsc4py, which is not installed)"
        ) from None
    arrays = csr.indptr.astype(PETSc.IntType), csr.indices.astype(PETSc.IntType), csr.data
    mat = PETSc.Mat().createAIJWithArrays(csr.shape, arrays, comm=PETSc.COMM_SELF)
    stencil = read_stencil(mat, GridMap(shape, cells.astype(np.int32), "the grid that was given"))
    mat.destroy()
    rows = stencil.diagonal_rows.astype(np.intp)
    assert stencil.operator is not None
    return ReadMatrix(stencil.operator, stencil.sign, rows, stencil.diagonal_inverse)


def _is_dcdm(name: str) -> bool:
    return name in SHIPPED or is_dcdm_file(name)


def _dcdm(name: str, operator: GridOperator, cells: NDArray[np.int32], threads: int) -> Any:
    """A symmetric network of the deep conjugate direction method, in torch."""
    weights = load_dcdm_weights(name, operator.ndim)
    try:
        from consolve.learned.dcdm.inference import DCDMPreconditioner
    except ImportError as error:
        raise ValueError(
            f"model {name!r} runs in torch, which cannot be imported ({error}): pip install "
            "'consolve[train]', or use model='multilevel'"
        ) from None
    network = DCDMPreconditioner(operator, weights, cells, threads)
    if not network.is_symmetric:
        raise ValueError(
            f"model {name!r} is a nonlinear network, which no method of SciPy takes as a preconditioner: use "
            "-ksp_type dcd of PETSc, or model='dcdm-deep' or 'multilevel'"
        )
    return network


def _checked_threads(threads: int | None) -> int | None:
    most = numba.config.NUMBA_NUM_THREADS
    if threads is not None and not 1 <= threads <= most:
        raise ValueError(f"threads is {threads}, expected 1 to {most} (NUMBA_NUM_THREADS raises the limit)")
    return threads
