"""Hard domains with axes that close to rings, as operators and matrices; what `dcd` takes on them.

python benchmarks/hard_grids.py           # iterations to 1e-6 with x periodic, by domain and grid
"""

import numpy as np
import scipy.sparse as sp

import consolve
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


DOMAINS = (
    "plates",
    "maze",
    "channels",
    "baffles",
    "porous",
    "two-phase",
    "flat",
    "stretched",
    "bubbles",
    "lognormal",
)


def main() -> None:
    """The table, seed 7: noise as right-hand side."""
    print("| domain | 256^2 | 64^3 |\n|---|---|---|")
    for name in DOMAINS:
        counts = []
        for shape in ((256, 256), (64, 64, 64)):
            operator = hard_operator(name, shape, (len(shape) - 1,))
            b = np.random.default_rng(0).standard_normal(operator.cells.size)
            b = operator.closed_components(operator.cells).without_means(b)
            _, info = consolve.solve(matrix_of(operator), b, grid=shape, cells=operator.cells, ksp="dcd")
            counts.append(str(info.iterations))
        print(f"| {name} | {' | '.join(counts)} |", flush=True)


if __name__ == "__main__":
    main()
