"""Matrices of known stencils, and a slow plain twin of the readers; for tests and programs on ranks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy.sparse as sp


def element_matrices(spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Stiffness and mass matrix of a Q1 element, nodes in C order."""
    stiff = [np.array([[1, -1], [-1, 1]]) / h for h in spacing]
    mass = [np.array([[2, 1], [1, 2]]) * h / 6 for h in spacing]

    def product(parts):
        result = np.ones((1, 1))
        for part in parts:
            result = np.kron(result, part)
        return result

    axes = range(len(spacing))
    return sum(product([stiff[b] if a == b else mass[b] for b in axes]) for a in axes), product(mass)


def q1(elements, spacing=None, coefficient=None, reaction=0.0, periodic=()):
    """Q1 finite elements: CSR matrix over all nodes in C order, and the shape of the grid of nodes."""
    spacing = spacing or (1.0,) * len(elements)
    stiff, mass = element_matrices(spacing)
    shape = tuple(n + (a not in periodic) for a, n in enumerate(elements))
    corners = list(np.ndindex(*(2,) * len(shape)))
    rows, columns, values = [], [], []
    for element in np.ndindex(*elements):
        nodes = [
            np.ravel_multi_index(tuple((e + o) % n for e, o, n in zip(element, c, shape)), shape)
            for c in corners
        ]
        k = 1.0 if coefficient is None else coefficient[element]
        rows += np.repeat(nodes, len(nodes)).tolist()
        columns += nodes * len(nodes)
        values += (k * (stiff + reaction * mass)).reshape(-1).tolist()
    size = math.prod(shape)
    return sp.csr_matrix((values, (rows, columns)), shape=(size, size)), shape


def fluxes(faces, dirichlet, periodic=()):
    """CSR matrix over all cells of a star stencil: sum over faces, and a Dirichlet part.

    The face of a cell leads to the next one of its axis, on periodic axes from the last to the first.
    """
    shape = dirichlet.shape
    a = np.diag(dirichlet.reshape(-1)).astype(float)
    for cell in np.ndindex(*shape):
        i = np.ravel_multi_index(cell, shape)
        for axis, n in enumerate(shape):
            if cell[axis] + 1 == n and axis not in periodic:
                continue
            j = np.ravel_multi_index((*cell[:axis], (cell[axis] + 1) % n, *cell[axis + 1 :]), shape)
            c = faces[axis][cell]
            if i != j:
                a[[i, j], [j, i]] -= c
                a[[i, j], [i, j]] += c
    return sp.csr_matrix(a)


def random_fluxes(shape, rng, periodic=(), span=2.0, closed=0.2):
    """(faces, dirichlet) with coefficients over 10^+-span, some faces closed, a few Dirichlet parts."""
    faces = []
    for axis in range(len(shape)):
        c = 10 ** rng.uniform(-span, span, shape) * (rng.random(shape) > closed)
        if axis not in periodic:
            np.moveaxis(c, axis, 0)[-1] = 0
        faces.append(c)
    return faces, rng.random(shape) * (rng.random(shape) > 0.6)


def on_rows(matrix, cells):
    """The rows and columns of these cells."""
    return sp.csr_matrix(matrix)[cells][:, cells]


def keep_dirichlet_rows(matrix, kept, value=1.0):
    """Rows ``kept`` become diagonal, with stored zeros, as by MatZeroRows: no more symmetric."""
    matrix = sp.csr_matrix(matrix, copy=True)
    for row in kept:
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        matrix.data[span] = np.where(matrix.indices[span] == row, value, 0.0)
    return matrix


def lumped(matrix, shape, cells, periodic=()):
    """Plain twin of the reader: (faces, dirichlet, active) on all cells; box stencils too."""
    a = sp.csr_matrix(matrix).toarray()
    size, ndim = len(a), len(shape)
    coupled = (a - np.diag(a.diagonal()) != 0).any(axis=1)
    at = np.array(np.unravel_index(cells, shape)).T
    row_of = {tuple(c): r for r, c in enumerate(at) if coupled[r]}
    faces, dirichlet = [np.zeros(shape) for _ in shape], np.zeros(shape)
    active = np.zeros(shape, bool)

    def beside(cell, axis, step):
        moved = list(cell)
        moved[axis] += step
        if axis in periodic:
            moved[axis] %= shape[axis]
        return tuple(moved)

    def add(cell, axis, step, c):
        faces[axis][cell if step > 0 else beside(cell, axis, -1)] += c

    for i in range(size):
        if not coupled[i]:
            continue
        cell = tuple(int(n) for n in at[i])
        active[cell] = True
        row_sum = a[i, i]
        for j in range(size):
            if i == j or not coupled[j] or a[i, j] == 0:
                continue
            c = -0.5 * (a[i, j] + a[j, i])
            row_sum -= c
            steps = []
            for axis in range(ndim):
                if at[i, axis] == at[j, axis]:
                    steps.append([0])
                else:
                    steps.append([s for s in (-1, 1) if beside(cell, axis, s)[axis] == at[j, axis]])
            ways = list(itertools.product(*steps))
            for way in ways:
                paths = []
                for order in itertools.permutations([x for x in range(ndim) if way[x]]):
                    here, path = cell, []
                    for axis in order:
                        path.append((here, axis, way[axis]))
                        here = beside(here, axis, way[axis])
                        if here not in row_of:
                            break
                    else:
                        paths.append(path)
                for path in paths:
                    for here, axis, step in path:
                        lower = here if step > 0 else beside(here, axis, -1)
                        faces[axis][lower] += 0.5 * c / (len(ways) * len(paths))
                if not paths:
                    dirichlet[cell] += max(c, 0) / len(ways)
        dirichlet[cell] += max(row_sum, 0) if row_sum > 1e-13 * a[i, i] else 0
    for face in faces:
        for i in np.flatnonzero(coupled):
            cell = tuple(at[i])
            if face[cell] < 0:
                face[cell] = 1e-10 * a[i, i]
    return faces, dirichlet, active


def to_grid(operator, shape, cells):
    """(faces, dirichlet, active) on all cells of a GridOperator, or of a RowOperator of these cells."""
    if hasattr(operator, "to_csr"):
        return list(operator.face_coefficient), operator.dirichlet, operator.active

    def spread(values):
        result = np.zeros(math.prod(shape), values.dtype)
        result[cells] = values
        return result.reshape(shape)

    faces = [spread(f) for f in operator.face_coefficient]
    return faces, spread(operator.dirichlet), spread(operator.active)
