"""The one-sweep reader of regular rows, in any number of parts, against the operator of the matrix."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from consolve.pde.matrix.regular_kernels import read_regular


def periodic_matrix(shape, periodic, rng):
    """CSR matrix of random positive faces and a Dirichlet part, and the faces, over all cells in C order."""
    size, index = int(np.prod(shape)), np.arange(np.prod(shape)).reshape(shape)
    faces, matrix = [], sp.csr_matrix((size, size))
    for axis, n in enumerate(shape):
        face = rng.uniform(1, 2, shape)
        if not periodic[axis]:
            np.moveaxis(face, axis, 0)[-1] = 0
        if n == 1:
            face[:] = 0
        faces.append(face.reshape(-1))
        pair = index.reshape(-1), np.roll(index, -1, axis).reshape(-1)
        coupling = sp.coo_matrix((face.reshape(-1), pair), (size, size)).tocsr()
        matrix = matrix - coupling - coupling.T
    matrix.eliminate_zeros()
    fixed = rng.uniform(1, 2, size)
    csr = (sp.diags(fixed - np.asarray(matrix.sum(1)).reshape(-1)) + matrix).tocsr()
    csr.sort_indices()
    return csr, faces, fixed


def read(csr, shape, periodic, chunks, cells=None):
    """(accepted, faces, dirichlet) of a matrix without ghosts."""
    size, none = csr.shape[0], np.empty(0)
    faces = [np.zeros(size) for _ in range(3)]
    dirichlet, active = np.zeros(size), np.zeros(size, bool)
    ghosts = np.zeros(1, np.int32), np.empty(0, np.int32), none
    accepted = read_regular(
        csr.indptr, csr.indices, csr.data, *ghosts, none, np.arange(size) if cells is None else cells,
        np.array(shape), np.array(periodic), 1, 1e-13, *faces, dirichlet, active, np.empty(size, np.uint8),
        np.empty(size), chunks,
    )  # fmt: skip
    return accepted, faces, dirichlet


SHAPES = st.tuples(*[st.integers(1, 6).filter(lambda n: n != 2)] * 3)


@given(SHAPES, st.tuples(*[st.booleans()] * 3), st.integers(1, 7), st.integers(0, 10**6), st.booleans())
def test_parts_of_any_size_read_the_same(shape, periodic, chunks, seed, permuted):
    rng = np.random.default_rng(seed)
    csr, faces, fixed = periodic_matrix(shape, periodic, rng)
    cells = np.arange(csr.shape[0])
    if permuted:
        cells = rng.permutation(cells)
        csr = csr[cells][:, cells].tocsr()
        csr.sort_indices()
    accepted, found, dirichlet = read(csr, shape, periodic, chunks, cells)
    assert accepted
    for expected, face in zip(faces, found):
        np.testing.assert_array_equal(face, expected[cells])
    coupled = np.diff(csr.indptr) > 1
    np.testing.assert_allclose(dirichlet, np.where(coupled, fixed[cells], 0), rtol=1e-12)


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 30])
@given(st.integers(0, 10**6))
def test_one_entry_that_differs_from_its_transposed_one_is_seen(chunks, seed):
    rng = np.random.default_rng(seed)
    shape, periodic = (4, 5, 6), (True, False, True)
    csr, _, _ = periodic_matrix(shape, periodic, rng)
    row = rng.integers(csr.shape[0])
    entry = csr.indptr[row] + rng.integers(csr.indptr[row + 1] - csr.indptr[row])
    if csr.indices[entry] == row:
        return
    csr.data[entry] *= 1.0001
    csr.data[csr.indptr[row] + np.searchsorted(csr.indices[csr.indptr[row] : csr.indptr[row + 1]], row)] += 1
    assert not read(csr, shape, periodic, chunks)[0]
