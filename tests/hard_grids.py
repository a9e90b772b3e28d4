"""Hard domains with axes that close to rings, as operators and matrices."""

import numpy as np
import scipy.sparse as sp

from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.periodic import PeriodicOperator


def closed_to_rings(operator, axes):
    """A GridOperator with faces from last to first cells along some axes: the harmonic mean of those next to
    them, so that coefficients are as smooth there as elsewhere."""
    faces = [f.copy() for f in operator.face_coefficient]
    for axis in axes:
        face, active = np.moveaxis(faces[axis], axis, 0), np.moveaxis(operator.active, axis, 0)
        if operator.shape[axis] > 1:
            first, last = (np.where(face[q] > 0, face[q], face[p]) for q, p in ((0, -2), (-2, 0)))
            is_open = active[0] & active[-1] & (first > 0)
            both = first * last / np.where(is_open, first + last, 1.0)
            face[-1] = np.where(is_open, 2 * both, 0)
    flat = [f.reshape(-1) for f in faces]
    rest = operator.dirichlet.reshape(-1), operator.active.reshape(-1)
    return PeriodicOperator.of_rows(operator.shape, np.arange(operator.active.size), flat, *rest)


def hard_operator(name, shape, axes=(), seed=7):
    return closed_to_rings(make_domain(name, shape, seed).operator(), axes)


def matrix_of(operator):
    """CSR over the active cells of a PeriodicOperator."""
    size, index = operator.active.size, np.arange(operator.active.size).reshape(operator.shape)
    matrix = sp.csr_matrix((size, size))
    for axis, face in enumerate(operator.face_coefficient):
        pair = index.reshape(-1), np.roll(index, -1, axis).reshape(-1)
        coupling = sp.coo_matrix((face.reshape(-1), pair), (size, size)).tocsr()
        matrix = matrix - coupling - coupling.T
    diagonal = operator.inner.dirichlet.reshape(-1) - np.asarray(matrix.sum(1)).reshape(-1)
    return (sp.diags(diagonal) + matrix).tocsr()[operator.cells][:, operator.cells]
