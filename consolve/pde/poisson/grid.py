"""The discrete Poisson operator of a structured grid, and how cell images and matrices become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from consolve.base.arrays import zeros
from consolve.base.memory import require
from consolve.base.threads import check_not_forked, run_lines
from consolve.pde.poisson import kernels
from consolve.pde.poisson.null_space import ClosedComponents

FLUID, SOLID, AIR = 0, 1, 2
"""Cell types: unknown pressure, homogeneous Neumann wall, homogeneous Dirichlet (free surface)."""

Sides = tuple[tuple[int, int], ...]
"""What lies outside the grid: (low, high) cell type for each axis."""


@dataclass(frozen=True)
class GridOperator:
    """A symmetric 5-point (2D) or 7-point (3D) operator on the cells of a box.

    For an active cell i::

        (A x)_i = sum over faces (i, j) of c_ij (x_i - x_j) + dirichlet_i x_i

    so A is a symmetric, diagonally dominant M-matrix, and singular exactly when some connected component
    of the active cells has no Dirichlet part.  Rows of cells that are not active are zero.  The grid
    spacing is 1: a caller with spacing h divides by h**2.

    Parameters
    ----------
    face_coefficient
        One array per axis, each of the shape of the grid: entry ``i`` is c >= 0 on the face between cell
        ``i`` and its upper neighbour along that axis, 0 on a closed face and in the last layer.
    dirichlet
        Shape of the grid, >= 0: what eliminated Dirichlet neighbours add to the diagonal.
    active
        Boolean, shape of the grid: the cells that carry an unknown.  Unknowns are numbered in C order.

    Raises
    ------
    ValueError
        If shapes or dtypes differ, a coefficient is negative or not finite, or a face is open towards a
        cell that is not active.
    """

    face_coefficient: tuple[NDArray, ...]
    dirichlet: NDArray
    active: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape, ndim = self.active.shape, self.active.ndim
        if ndim not in (2, 3):
            raise ValueError(f"a grid has 2 or 3 axes, got an array of shape {shape}")
        _check_count(shape)
        if self.active.dtype != np.bool_:
            raise ValueError(f"active must be boolean, got {self.active.dtype}")
        if len(self.face_coefficient) != ndim:
            raise ValueError(f"a {ndim}D grid needs {ndim} face arrays, got {len(self.face_coefficient)}")
        dtype = self.dirichlet.dtype
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"coefficients must be float32 or float64, got {dtype}")
        names = [f"face_coefficient[{a}]" for a in range(ndim)] + ["dirichlet"]
        for name, array in zip(names, (*self.face_coefficient, self.dirichlet)):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {dtype}{shape}")
        fault = kernels.check_operator(*self._volumes)
        if fault >= 0:
            where = tuple(int(i) for i in np.unravel_index(fault, shape))
            raise ValueError(
                f"cell {where} has a negative or non-finite coefficient, or an open face or Dirichlet part "
                "where a cell is not active; coefficients must be >= 0, and 0 at inactive cells and on the "
                "last layer of each axis"
            )

    @classmethod
    def from_cell_types(
        cls,
        cell_type: ArrayLike,
        outside: int | Sequence[Sequence[int]] = SOLID,
        mobility: ArrayLike | None = None,
        dtype: type = np.float64,
    ) -> GridOperator:
        """Operator of an image of FLUID, SOLID and AIR cells.

        A face between two fluid cells has coefficient 1, a face to AIR adds 1 to ``dirichlet`` (the
        pressure is 0 at the centre of the air cell), a face to SOLID is closed.

        Parameters
        ----------
        cell_type
            Integer array of 2 or 3 axes.
        outside
            SOLID or AIR: what surrounds the grid, for all sides or as one (low, high) pair per axis.
        mobility
            Optional positive cell values k (1 / density); faces get the harmonic mean
            2 k_i k_j / (k_i + k_j), faces to AIR get k_i.
        dtype
            float64 or float32: of the coefficients.

        Raises
        ------
        ValueError
            If an argument is not as described.
        NotEnoughMemory
            If the operator needs more memory than there is; nothing was allocated.
        """
        check_not_forked()
        shape = np.shape(cell_type)
        _check_count(shape)
        size = " x ".join(map(str, shape))
        require(operator_bytes(shape, dtype), f"the Poisson operator of {size} cells")
        types = np.ascontiguousarray(cell_type)
        if types.ndim not in (2, 3) or not np.issubdtype(types.dtype, np.integer):
            raise ValueError(
                f"cell_type must be an integer array of 2 or 3 axes, got {types.dtype}{types.shape}"
            )
        if types.size == 0:
            raise ValueError(f"cell_type is empty: shape {types.shape}")
        if types.min() < FLUID or types.max() > AIR:
            bad = np.argwhere((types < FLUID) | (types > AIR))[0]
            raise ValueError(
                f"cell {tuple(int(i) for i in bad)} has type {types[tuple(bad)]}; "
                "known types: FLUID 0, SOLID 1, AIR 2"
            )
        sides = normalised_sides(outside, types.ndim)
        types = types.astype(np.uint8)
        if mobility is None:
            k: NDArray = np.ones((1, 1, 1), dtype)
        else:
            k = np.ascontiguousarray(mobility, dtype)
            if k.shape != types.shape:
                raise ValueError(f"mobility has shape {k.shape}, the grid {types.shape}")
            if not (np.isfinite(k).all() and (k[types == FLUID] > 0).all()):
                raise ValueError("mobility must be finite, and positive in fluid cells")
        faces: tuple[NDArray, ...] = tuple(zeros(types.shape, dtype) for _ in range(types.ndim))
        dirichlet: NDArray = zeros(types.shape, dtype)
        volumes = [as_volume(a) for a in faces]
        if types.ndim == 2:
            volumes.insert(0, volumes[0])
            sides = ((SOLID, SOLID), *sides)
        image = as_volume(types)
        run_lines(
            kernels.faces_of_types, image.shape[0] * image.shape[1], numba.get_num_threads(), image,
            as_volume(k), mobility is not None, np.array(sides), *volumes, as_volume(dirichlet),
        )  # fmt: skip
        return cls(faces, dirichlet, types == FLUID)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return self.active.shape

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.active.ndim

    @property
    def dtype(self) -> np.dtype:
        """Of the coefficients: float32 or float64."""
        return self.dirichlet.dtype

    @cached_property
    def unknowns(self) -> int:
        """Number of active cells."""
        return int(np.count_nonzero(self.active))

    @cached_property
    def cells(self) -> NDArray[np.int32]:
        """C-order (lexicographic) cell index of each unknown, ascending; shape (unknowns,)."""
        return np.flatnonzero(self.active).astype(np.int32)

    @property
    def _volumes(self) -> tuple[NDArray, ...]:
        """Face arrays of three axes, Dirichlet part and active cells, all as 3D views for the kernels."""
        check_not_forked()
        faces = [as_volume(f) for f in self.face_coefficient]
        if self.ndim == 2:
            faces.insert(0, faces[0])  # never read: the first axis has one layer
        return *faces, as_volume(self.dirichlet), as_volume(self.active)

    def diagonal(self) -> NDArray:
        """Diagonal of A on all cells: the sum of a cell's face coefficients and its Dirichlet part."""
        d = np.empty(self.shape, self.dtype)
        kernels.diagonal(*self._volumes, as_volume(d))
        return d

    def apply(self, x: NDArray, out: NDArray | None = None) -> NDArray:
        """Matrix-free product A x on all cells (0 at cells that are not active).

        Parameters
        ----------
        x
            float32 or float64, shape of the grid.
        out
            Optional result array, same shape and dtype as ``x``, not ``x`` itself.
        """
        x = np.ascontiguousarray(x)
        if x.shape != self.shape:
            raise ValueError(f"x has shape {x.shape}, the grid {self.shape}")
        if out is None:
            out = np.empty_like(x)
        elif out.shape != x.shape or out.dtype != x.dtype or not out.flags.c_contiguous or out is x:
            raise ValueError("out must be another C-contiguous array of the shape and dtype of x")
        kernels.product(*self._volumes, as_volume(x), as_volume(out))
        return out

    def to_csr(self, numbering: str = "active", rows: slice | None = None) -> sp.csr_matrix:
        """Assemble A (float64, int32 indices).

        Parameters
        ----------
        numbering
            ``"active"``: one row for each active cell, in C order.  ``"all"``: one row for each cell;
            rows of inactive cells hold a unit diagonal.
        rows
            Only these rows (for one rank of a distributed matrix); columns stay global.
        """
        if numbering == "active":
            cells = self.cells
            number = np.full(self.active.size, -1, np.int32)
            number[cells] = np.arange(cells.size, dtype=np.int32)
        elif numbering == "all":
            cells = np.arange(self.active.size, dtype=np.int32)
            number = cells
        else:
            raise ValueError(f"numbering must be 'active' or 'all', got {numbering!r}")
        columns = cells.size
        cells = cells[rows] if rows is not None else cells
        indptr, indices, data = kernels.assemble(*self._volumes, cells, number)
        return sp.csr_matrix((data, indices, indptr), shape=(cells.size, columns))

    @cached_property
    def components(self) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Connected components of the active cells through open faces.

        Returns
        -------
        labels
            int32, shape of the grid: component of each active cell, -1 elsewhere.
        closed
            Boolean, one entry a component: it has no Dirichlet part, so its constant is in the null space.
        """
        labels = np.empty(self.shape, np.int32)
        has_dirichlet = kernels.label_components(*self._volumes, as_volume(labels))
        return labels, ~has_dirichlet

    @property
    def is_singular(self) -> bool:
        """True if some component has no Dirichlet part."""
        return bool(self.components[1].any())

    @property
    def is_zero(self) -> bool:
        """True if there are unknowns, and none is coupled to anything."""
        return self.unknowns > 0 and self.is_singular and len(self.null_space) == self.unknowns

    @cached_property
    def null_space(self) -> ClosedComponents:
        """Of vectors over the unknowns."""
        return ClosedComponents.of(self)

    def remove_null_space(self, b: NDArray) -> NDArray:
        """``b`` less its mean over each closed component: the part of ``b`` for which A x = b has a
        solution."""
        result = np.where(self.active, b, 0)
        if self.null_space:
            values = result[self.active].astype(np.float64)
            self.null_space.remove(values, values)
            result[self.active] = values
        return result

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"GridOperator({size} cells, {self.unknowns} unknowns, {self.dtype})"


def _check_count(shape: tuple[int, ...]) -> None:
    most = np.iinfo(np.int32).max
    if math.prod(shape) > most:
        size = " x ".join(map(str, shape))
        raise ValueError(f"a grid of {size} cells has {math.prod(shape):,}; cells are counted up to {most:,}")


def operator_bytes(shape: Sequence[int], dtype: type = np.float64) -> int:
    """What :meth:`GridOperator.from_cell_types` allocates: coefficients, cell types, active cells."""
    return math.prod(shape) * ((len(shape) + 1) * np.dtype(dtype).itemsize + 2)


def as_volume(array: NDArray) -> NDArray:
    """A 2D array as a 3D one with a single first layer; 3D arrays as they are."""
    return array if array.ndim == 3 else array.reshape(1, *array.shape)


def normalised_sides(outside: int | Sequence[Sequence[int]], ndim: int) -> Sides:
    """``outside`` as one (low, high) pair of SOLID or AIR per axis."""
    sides = [(outside, outside)] * ndim if isinstance(outside, int | np.integer) else list(outside)
    if len(sides) != ndim or any(len(tuple(s)) != 2 or not set(s) <= {SOLID, AIR} for s in sides):
        raise ValueError(
            f"outside must be SOLID (1), AIR (2) or one (low, high) pair of these for each of "
            f"{ndim} axes, got {outside!r}"
        )
    return tuple((int(low), int(high)) for low, high in sides)
