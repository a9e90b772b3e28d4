"""Random Poisson systems with what direct solvers say of them, for systems.py.

``draw(seed)`` is one system: 1D to 3D, domains with holes, pockets and periodic axes, coefficients of up to
10^16 contrast, rows that are pinned, kept or empty, reactions of the wrong sign, and right-hand sides of all
sizes.  The same seed gives the same system.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import onenormest, splu

from consolve.pde.poisson.grid import GridOperator

Array = NDArray[np.float64]
MOST_CELLS = 2500
EPS = np.finfo(np.float64).eps


@dataclass
class System:
    """A x = b on cells of a grid, and what is known of it."""

    seed: int
    words: list[str]
    matrix: sp.csr_matrix
    b: Array
    shape: tuple[int, ...]
    cells: NDArray[np.int32]
    rtol: float
    model: str
    operator: GridOperator | None = None
    fault: str = ""
    """What is wrong with the system: every route must refuse it."""
    closed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Number of each row's closed component, -1 for none."""
    negative_pivots: int = 0
    """Of the factors: more than none, and fewer than all, where the matrix is not definite."""

    def __str__(self) -> str:
        return f"{self.seed}: {'x'.join(map(str, self.shape))} {self.b.size} rows, {' '.join(self.words)}"

    def relative_residual(self, x: Array) -> float:
        """|b - A x| / |b| in long double, without over- and underflow."""
        size = float(np.abs(self.b).max(initial=0))
        if size == 0:
            return 0.0 if not x.any() else np.inf
        a = self.matrix
        row = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
        product = np.zeros(a.shape[0], np.longdouble)
        np.add.at(product, row, a.data.astype(np.longdouble) * x.astype(np.longdouble)[a.indices])
        scaled = self.b.astype(np.longdouble) / size
        return float(np.linalg.norm(scaled - product / size) / np.linalg.norm(scaled))

    def round_off(self, x: Array) -> float:
        """What rounding of x and of A x leaves of the relative residual; x may be denormal."""
        size = float(np.abs(self.b).max(initial=0))
        if size == 0:
            return 0.0
        rounding = 4 * EPS * np.abs(x / size) + 5e-324 / size
        return float(np.linalg.norm(abs(self.matrix) @ rounding) / np.linalg.norm(self.b / size))

    def without_means(self, x: Array) -> Array:
        """x less its mean over each closed component."""
        result = x.copy()
        for number in range(int(self.closed.max(initial=-1)) + 1):
            part = self.closed == number
            result[part] -= result[part].mean()
        return result

    def direct(self) -> tuple[Array, float]:
        """Solution by sparse factors of the scaled matrix, refined; and the condition number, estimated.

        0 and Inf where rounding makes the matrix singular.
        """
        a = self.matrix.astype(np.float64)
        pinned = np.zeros(a.shape[0])
        numbers, first = np.unique(self.closed, return_index=True)
        diagonal = a.diagonal()
        first = first[numbers >= 0]
        pinned[first] = np.where(diagonal[first] == 0, 1.0, diagonal[first])
        regular = (a + sp.diags(pinned)).tocsr()
        largest = np.abs(regular).max(axis=1).toarray().ravel()
        s = 2.0 ** -np.round(0.5 * np.log2(largest))
        scaled = (sp.diags(s) @ regular @ sp.diags(s)).tocsc()
        try:
            factors = splu(
                scaled, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
        except RuntimeError:  # singular in double precision
            return np.zeros_like(self.b), np.inf
        signs = np.sign(factors.U.diagonal())
        self.negative_pivots = int(min((signs < 0).sum(), (signs > 0).sum()))
        exponent = int(np.frexp(np.abs(self.b).max(initial=0))[1]) if self.b.any() else 0
        size = 2.0 ** min(max(-exponent, -1000), 1000)
        x = s * factors.solve(s * (size * self.b))
        for _ in range(3):
            x += s * factors.solve(s * (size * self.b - regular @ x))
        one = sp.linalg.LinearOperator(
            a.shape,
            lambda v: s * factors.solve(s * np.ravel(v)),
            dtype=float,
            rmatvec=lambda v: s * factors.solve(s * np.ravel(v)),
        )
        small = a.shape[0] <= 4  # too few for the estimate
        largest = np.abs(np.linalg.pinv(regular.toarray())).sum(0).max() if small else onenormest(one)
        condition = float(largest * abs(regular).sum(axis=0).max())
        return self.without_means(x) / size, condition


def _shape(rng: np.random.Generator) -> tuple[int, ...]:
    style = int(rng.integers(7))
    if style == 0:  # 1D, as a grid of one line
        n = int(rng.integers(1, 200))
        return (1, n) if rng.random() < 0.7 else (n, 1)
    dim = int(rng.integers(2, 4))
    high = 6 if style == 1 else (50 if dim == 2 else 14)
    shape = [int(n) for n in rng.integers(1, high + 1, dim)]
    if style == 2:
        shape[int(rng.integers(dim))] = int(rng.integers(1, 3))
    if style == 3:
        shape = [int(n) for n in rng.integers(1, 4, dim)]
        shape[int(rng.integers(dim))] = int(rng.integers(1, 200))
    while np.prod(shape) > MOST_CELLS:
        shape[int(np.argmax(shape))] //= 2
    return tuple(shape)


def _coefficients(rng: np.random.Generator, shape: tuple[int, ...], kind: str, decades: float) -> list[Array]:
    """Of the faces above each cell, by axis; 10^0 to 10^decades."""
    strong = 10.0**decades
    dim = len(shape)
    if kind == "noise":
        return [10 ** rng.uniform(0, decades, shape) for _ in range(dim)]
    if kind == "links":
        share = rng.choice([0.02, 0.1, 0.5, 0.9])
        return [np.where(rng.random(shape) < share, 1.0, strong) for _ in range(dim)]
    if kind == "axes":
        return [np.full(shape, 10 ** rng.uniform(0, decades)) for _ in range(dim)]
    if kind == "stretched":
        lines = [10 ** (rng.uniform(0, decades) * np.linspace(0, 1, n)) for n in shape]
        faces = []
        for axis in range(dim):
            view = [1] * dim
            view[axis] = -1
            faces.append(np.broadcast_to(lines[axis].reshape(view), shape).copy())
        return faces
    k = np.ones(shape)
    if kind == "inclusions":
        for _ in range(int(rng.integers(1, 5))):
            box = tuple(slice(int(a), int(a) + int(rng.integers(1, 8))) for a in rng.integers(0, shape))
            k[box] = strong if rng.random() < 0.5 else 10 ** rng.uniform(0, decades)
        k = k if rng.random() < 0.5 else strong / k
    elif kind == "cells":
        k = 10 ** rng.uniform(0, decades, shape)
    means = [2 * k * (f := np.roll(k, -1, axis)) / (k + f) for axis in range(dim)]
    return means


def _active(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    style = int(rng.integers(5))
    active = np.ones(shape, bool)
    if style == 1:
        active = rng.random(shape) >= rng.uniform(0, 0.6)
    if style == 2:  # walls with pockets between them
        for _ in range(int(rng.integers(1, 5))):
            axis = int(rng.integers(len(shape)))
            np.moveaxis(active, axis, 0)[int(rng.integers(shape[axis]))] = False
            active[tuple(rng.integers(0, shape))] = True
    if style == 3:
        middle = [rng.uniform(0, n) for n in shape]
        index = np.indices(shape)
        far = sum((i - m) ** 2 for i, m in zip(index, middle))
        active = far > (0.3 * max(shape)) ** 2
    return active


def _fixed(rng: np.random.Generator, active: NDArray[np.bool_], decades: float) -> tuple[Array, str]:
    shape = active.shape
    kind = str(rng.choice(["none", "cell", "side", "some", "all", "sides"]))
    low = 0.0 if rng.random() < 0.8 else -float(rng.uniform(0, 14))
    value = 10 ** (low + rng.uniform(0, decades, shape if rng.random() < 0.3 else ()))
    where = np.zeros(shape, bool)
    if kind == "cell" and active.any():
        where.reshape(-1)[rng.choice(np.flatnonzero(active))] = True
    elif kind in ("side", "sides"):
        for axis in range(len(shape)) if kind == "sides" else [int(rng.integers(len(shape)))]:
            np.moveaxis(where, axis, 0)[0] = True
            np.moveaxis(where, axis, 0)[-1] |= rng.random() < 0.5
    elif kind == "some":
        where = rng.random(shape) < rng.uniform(0, 0.2)
    elif kind == "all":
        where[:] = True
    return np.where(where & active, value, 0.0), kind


def _clear(faces: list[Array], fixed: Array) -> Array:
    """Dirichlet parts without those that a row sum, 1e-12 accurate, may or may not show."""
    diagonal = fixed + sum(f + np.roll(f, 1, axis) for axis, f in enumerate(faces))
    return np.where(fixed > 1e-11 * diagonal, fixed, 0.0)


def _assemble(faces: list[Array], fixed: Array, periodic: list[bool]) -> sp.csr_matrix:
    """The matrix over all cells; the last face of a periodic axis joins its ends."""
    shape, n = fixed.shape, fixed.size
    index = np.arange(n).reshape(shape)
    coupling = sp.csr_matrix((n, n))
    for axis, face in enumerate(faces):
        up = np.roll(index, -1, axis).ravel()
        half = sp.coo_matrix((face.ravel(), (index.ravel(), up)), (n, n)).tocsr()
        coupling = coupling + half + half.T
    coupling.eliminate_zeros()
    return (sp.diags(fixed.ravel() + np.asarray(coupling.sum(1)).ravel()) - coupling).tocsr()


def _right_hand_side(rng: np.random.Generator, matrix: sp.csr_matrix) -> tuple[Array, str]:
    n = matrix.shape[0]
    kind = str(
        rng.choice(
            ["noise", "noise", "spike", "constant", "range", "huge", "tiny", "denormal", "zero", "wide"]
        )
    )
    b = rng.standard_normal(n)
    if kind == "spike":
        b[:] = 0
        b[int(rng.integers(n))] = 1
    elif kind == "constant":
        b[:] = 1
    elif kind == "range":
        b = matrix @ b
    elif kind == "huge":
        b *= 10 ** rng.uniform(10, 300)
    elif kind == "tiny":
        b *= 10 ** rng.uniform(-290, -10)
    elif kind == "denormal":
        b *= 1e-310
    elif kind == "zero":
        b[:] = 0
    elif kind == "wide":
        b *= 10 ** rng.uniform(-12, 0, n)
    return b, kind


def draw(seed: int) -> System:
    """One system."""
    rng = np.random.default_rng(seed)
    shape = _shape(rng)
    dim = len(shape)
    active = _active(rng, shape)
    if not active.any():
        active.reshape(-1)[int(rng.integers(active.size))] = True
    kind = str(rng.choice(["one", "one", "noise", "links", "axes", "stretched", "inclusions", "cells"]))
    decades = 0.0 if kind == "one" else float(rng.choice([1, 2, 4, 8, 8, 12, 16]))
    words = [kind, f"decades {decades:g}"]
    faces = _coefficients(rng, shape, kind, decades)
    periodic = [
        bool(p and n > 2) for p, n in zip(rng.random(dim) < (0.3 if rng.random() < 0.3 else 0), shape)
    ]
    fixed, how = _fixed(rng, active, decades)
    words += [f"fixed {how}"] + ["periodic"] * any(periodic)
    for axis, face in enumerate(faces):
        face *= active & np.roll(active, -1, axis)
        if not periodic[axis]:
            np.moveaxis(face, axis, 0)[-1] = 0
    if rng.random() < 0.15:
        scale = float(10 ** rng.uniform(*((-30, 30) if rng.random() < 0.8 else (-100, 100))))
        words.append(f"scale {scale:.0e}")
        faces, fixed = [scale * f for f in faces], scale * fixed
    fixed = _clear(faces, fixed)
    operator = None if any(periodic) else GridOperator(tuple(faces), fixed, active)
    cells = np.flatnonzero(active).astype(np.int32)
    matrix = _assemble(faces, fixed, periodic)[cells][:, cells].tocsr()
    matrix, operator = _changed(rng, matrix, operator, words)
    if operator is None and rng.random() < 0.3 and "kept rows" not in words:
        order = rng.permutation(cells.size)
        matrix, cells = matrix[order][:, order].tocsr(), cells[order]
    matrix.sort_indices()
    system = System(
        seed, words, matrix, np.empty(0), shape, cells, float(rng.choice([1e-4, 1e-6, 1e-6, 1e-8, 1e-10])),
        str(rng.choice(["auto", "auto", "multilevel file", "mg"])), operator,
    )  # fmt: skip
    words += [f"rtol {system.rtol:g}", system.model]
    system.closed = _closed(matrix)
    if operator is not None and len(operator.null_space) != system.closed.max(initial=-1) + 1:
        system.operator = None  # it knows of Dirichlet parts that the matrix's rounding has lost
    b, kind = _right_hand_side(rng, matrix)
    words.append(f"b {kind}")
    if not matrix.data.any():
        system.fault = "zero"
    singular = bool((system.closed >= 0).any())
    if singular and not system.fault and rng.random() < 0.1:
        rest = np.abs(b - system.without_means(b))
        if rest.max() > 1e-3 * np.abs(b).max():  # a component sums to something
            system.fault = "inconsistent"
    if not system.fault and singular:
        b = system.without_means(b)
        again = system.without_means(b)
        b = again if np.abs(again).max() > 0 else 0 * b
    system.b = b
    if system.fault:
        words.append(system.fault)
    return system


def _changed(
    rng: np.random.Generator, matrix: sp.csr_matrix, operator: GridOperator | None, words: list[str]
) -> tuple[sp.csr_matrix, GridOperator | None]:
    """Now and then: rows that are pinned, kept with their columns, of the wrong sign, integers, negative."""
    style = int(rng.integers(12))
    n = matrix.shape[0]
    if style > 4:
        return matrix, operator
    matrix = matrix.tolil(copy=True)
    rows = np.flatnonzero(rng.random(n) < rng.choice([0.02, 0.3, 1.0], p=[0.6, 0.35, 0.05]))
    if style in (0, 1) and rows.size:
        words.append("pinned" if style == 0 else "kept rows")
        value = 1.0 if rng.random() < 0.7 else float(matrix.diagonal().max()) or 1.0
        if style == 0:
            matrix[:, rows] = 0
        matrix[rows, :] = 0
        for row in rows:
            matrix[row, row] = value
    elif style == 2:
        words.append("wrong sign")
        loss = 10 ** rng.uniform(-8, -2) * matrix.diagonal()
        matrix.setdiag(matrix.diagonal() - loss)
    elif style == 3:
        words.append("negative")
        matrix = -matrix
    else:
        return matrix.tocsr(), operator
    matrix = matrix.tocsr()
    matrix.eliminate_zeros()
    return matrix, None


def _closed(matrix: sp.csr_matrix) -> NDArray[np.int64]:
    """Closed component of each row: connected rows that all sum to 0, empty rows included."""
    total = np.asarray(abs(matrix).sum(axis=1)).ravel()
    rest = np.abs(np.asarray(matrix.sum(axis=1)).ravel())
    count, label = connected_components(matrix, directed=False)
    is_open = np.bincount(label, rest > 1e-12 * total, minlength=count) > 0
    number = np.where(is_open, -1, np.cumsum(~is_open) - 1)
    return number[label]
