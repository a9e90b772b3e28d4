"""Meshes of jittered points, and finite-element matrices on them; for tests and programs on ranks."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse as sp


def simplices(ndim, n, seed=0, hole=True, jitter=0.2):
    """Jittered points of a unit square or cube, mesh width 1 / n, and simplices; the middle is left out."""
    random = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n + 1)] * ndim, indexing="ij"), -1).reshape(-1, ndim)
    inner = ((points > 0) & (points < 1)).all(1)
    corners = np.arange((n + 1) ** ndim).reshape((n + 1,) * ndim)[(slice(0, n),) * ndim].reshape(-1)
    strides = [(n + 1) ** (ndim - 1 - axis) for axis in range(ndim)]
    paths = [np.cumsum([0, *order]) for order in itertools.permutations(strides)]  # Kuhn's simplices
    cells = np.concatenate([corners[:, None] + path for path in paths])
    points[inner] += random.uniform(-jitter, jitter, (inner.sum(), ndim)) / n
    if hole:
        cells = cells[np.linalg.norm(points[cells].mean(1) - 0.5, axis=1) > 0.2]
    used, cells = np.unique(cells, return_inverse=True)
    return points[used], cells.reshape(-1, ndim + 1)


def _gradients(points, cells):
    """Gradients of the barycentric coordinates (cells, vertices, ndim), and volumes."""
    edges = points[cells][:, 1:] - points[cells][:, :1]
    inverse = np.linalg.inv(edges)
    gradients = np.concatenate((-inverse.sum(2)[:, None], np.swapaxes(inverse, 1, 2)), 1)
    return gradients, np.abs(np.linalg.det(edges)) / (2 if points.shape[1] == 2 else 6)


def _assembled(local, cells, size):
    count = cells.shape[1]
    rows, columns = np.repeat(cells, count, 1).reshape(-1), np.tile(cells, (1, count)).reshape(-1)
    return sp.csr_matrix((local.reshape(-1), (rows, columns)), shape=(size, size))


def p1(points, cells, coefficient=1.0):
    """Stiffness matrix of linear elements; a coefficient for each cell, or one."""
    gradients, volume = _gradients(points, cells)
    local = np.einsum("cid,cjd,c->cij", gradients, gradients, volume * coefficient)
    return _assembled(local, cells, len(points))


def p2(points, cells):
    """Stiffness matrix of quadratic elements, and the points of its rows: vertices, then middles of edges."""
    gradients, volume = _gradients(points, cells)
    pairs = list(itertools.combinations(range(cells.shape[1]), 2))
    edges = np.sort(np.stack([cells[:, pair] for pair in pairs], 1), axis=2)
    unique, number = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    nodes = np.concatenate((cells, len(points) + number.reshape(len(cells), -1)), 1)
    ndim = points.shape[1]
    near = (5 + 3 * 5**0.5) / 20 if ndim == 3 else 2 / 3  # a rule that is exact for quadratics
    local = 0.0
    for corner in range(ndim + 1):
        at = np.full(ndim + 1, (1 - near) / ndim)
        at[corner] = near
        slopes = [(4 * at[i] - 1) * gradients[:, i] for i in range(ndim + 1)]
        slopes += [4 * (at[i] * gradients[:, j] + at[j] * gradients[:, i]) for i, j in pairs]
        shapes = np.stack(slopes, 1)
        local = local + np.einsum("cid,cjd,c->cij", shapes, shapes, volume / (ndim + 1))
    places = np.concatenate((points, points[unique].mean(1)))
    return _assembled(local, nodes, len(places)), places


def on_boundary(points, ndim):
    """Points on the sides of the unit square or cube."""
    return ((points[:, :ndim] < 1e-9) | (points[:, :ndim] > 1 - 1e-9)).any(1)


def system(ndim, n, degree=1, boundary="dirichlet", seed=0, coefficient=1.0):
    """Matrix and points of a Poisson problem.

    Boundaries: ``dirichlet`` (sides eliminated, hole free), ``mixed`` (one side eliminated), ``kept`` (the
    sides' rows are those of the identity) or ``neumann`` (singular).
    """
    points, cells = simplices(ndim, n, seed)
    if degree == 1:
        matrix = p1(points, cells, coefficient)
    else:
        matrix, points = p2(points, cells)
    fixed = points[:, 0] < 1e-9 if boundary == "mixed" else on_boundary(points, ndim)
    if boundary == "neumann":
        return matrix, points
    if boundary == "kept":
        free = sp.diags((~fixed).astype(float))
        return sp.csr_matrix(free @ matrix @ free + sp.diags(fixed.astype(float))), points
    free = np.flatnonzero(~fixed)
    return sp.csr_matrix(matrix[free][:, free]), points[free]
