"""Readers: what PETSc, SciPy and NumPy write is read back; what is damaged is refused."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from petsc4py import PETSc

from consolve.base.options_table import parse_grid
from consolve.pde import GridOperator
from consolve.solvers import MatrixError, SystemFileError, solve_system
from consolve.solvers.matrix.cell_images import read_cell_types
from consolve.solvers.system_files import read_matrix, read_vector


@pytest.fixture
def csr():
    matrix = sp.random(17, 17, 0.2, random_state=1, format="csr") + sp.eye(17)
    matrix.sort_indices()
    return matrix.tocsr()


def write_petsc(petsc_object, path):
    viewer = PETSc.Viewer().createBinary(str(path), "w", comm=PETSc.COMM_SELF)
    petsc_object.view(viewer)
    viewer.destroy()
    return path


def assert_equal(a, b):
    assert a.dtype == np.float64 and a.has_sorted_indices and abs(a - b).max() < 1e-15


def test_petsc_matrix(problems, csr, tmp_path):
    assert_equal(read_matrix(write_petsc(problems.matrix(csr), tmp_path / "A.dat")), csr)


def test_petsc_matrix_with_64_bit_indices(csr, tmp_path):
    parts = [np.array([1211216, 17, 17, csr.nnz]), np.diff(csr.indptr), csr.indices]
    data = b"".join(part.astype(">i8").tobytes() for part in parts) + csr.data.astype(">f8").tobytes()
    (tmp_path / "A").write_bytes(data)
    assert_equal(read_matrix(tmp_path / "A"), csr)


@pytest.mark.parametrize("symmetry", ["general", "symmetric"])
def test_matrix_market(csr, tmp_path, symmetry):
    matrix = csr if symmetry == "general" else (csr + csr.T).tocsr()
    scipy.io.mmwrite(tmp_path / "A.mtx", matrix, symmetry=symmetry, precision=17)
    assert_equal(read_matrix(tmp_path / "A.mtx"), matrix)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_npz(csr, tmp_path, kind):
    sp.save_npz(tmp_path / "A.npz", csr.asformat(kind))
    assert_equal(read_matrix(tmp_path / "A.npz"), csr)


def test_duplicates_are_summed(tmp_path):
    sp.save_npz(tmp_path / "A.npz", sp.coo_matrix(([1.0, 2.0, 5.0], ([0, 0, 1], [0, 0, 1])), (2, 2)))
    np.testing.assert_array_equal(read_matrix(tmp_path / "A.npz").data, [3.0, 5.0])


def test_vectors(problems, tmp_path):
    b = np.random.default_rng(0).standard_normal(12)
    write_petsc(problems.vector(b), tmp_path / "petsc")
    np.save(tmp_path / "a.npy", b.reshape(3, 4))
    np.savez(tmp_path / "a.npz", anything=b)
    scipy.io.mmwrite(tmp_path / "a.mtx", b.reshape(-1, 1), precision=17)
    for name in ("petsc", "a.npy", "a.npz", "a.mtx"):
        np.testing.assert_allclose(read_vector(tmp_path / name, 12), b, rtol=1e-15)


def test_every_truncation_is_refused(problems, csr, tmp_path):
    paths = [write_petsc(problems.matrix(csr), tmp_path / "A.dat"), tmp_path / "A.npz", tmp_path / "A.mtx"]
    sp.save_npz(paths[1], csr)
    scipy.io.mmwrite(paths[2], csr)
    for path in paths:
        whole = path.read_bytes()
        for length in {0, 3, 10, 30, 200, len(whole) // 2, len(whole) - 50}:
            path.write_bytes(whole[:length])
            with pytest.raises(SystemFileError, match="A\\."):
                read_matrix(path)


def test_every_truncation_of_a_vector_is_refused(problems, tmp_path):
    paths = [
        write_petsc(problems.vector(np.ones(20)), tmp_path / "b.dat"),
        tmp_path / "b.npy",
        tmp_path / "b.npz",
    ]
    np.save(paths[1], np.ones(20))
    np.savez(paths[2], np.ones(20))
    for path in paths:
        whole = path.read_bytes()
        for length in {0, 3, 9, 100, len(whole) - 9}:
            path.write_bytes(whole[:length])
            with pytest.raises(SystemFileError, match="b\\."):
                read_vector(path, 20)


def test_damaged_petsc_matrices(csr, tmp_path):
    def write(lengths, indices, header=None):
        header = header or (1211216, 17, 17, csr.nnz)
        data = b"".join(np.asarray(p).astype(">i4").tobytes() for p in (header, lengths, indices))
        (tmp_path / "A").write_bytes(data + csr.data.astype(">f8").tobytes())
        return tmp_path / "A"

    lengths, indices = np.diff(csr.indptr), csr.indices
    assert_equal(read_matrix(write(lengths, indices)), csr)
    for path, words in (
        (lambda: write(lengths + 1, indices), "add up"),
        (lambda: write(-lengths, indices), "add up"),
        (lambda: write(lengths, indices + 9), "outside 0..16"),
        (lambda: write(lengths, indices - 9), "outside 0..16"),
        (lambda: write(lengths, indices, (1211216, 17, 17, -1)), "dense"),
        (lambda: write(lengths, indices, (1211216, 10**9, 17, csr.nnz)), "too early"),
        (lambda: write(lengths, indices, (1211216, -5, 17, csr.nnz)), "too early"),
    ):
        with pytest.raises(SystemFileError, match=words):
            read_matrix(path())


@pytest.mark.parametrize(
    "matrix, words",
    [(sp.eye(3, 4), "3 x 4"), (sp.eye(3) * 1j, "complex")],
)
def test_unfit_matrices(tmp_path, matrix, words):
    sp.save_npz(tmp_path / "A.npz", matrix)
    with pytest.raises(SystemFileError, match=words):
        read_matrix(tmp_path / "A.npz")


@pytest.mark.parametrize(
    "array, words",
    [
        (np.ones(5), "5 entries, the matrix 12 rows"),
        (np.full(12, np.nan), "entry 0 is nan"),
        (np.ones(12, complex), "complex128"),
        (np.array(["a"] * 12), "real numbers"),
        (np.array([{}] * 12, object), "damaged npy vector"),
    ],
)
def test_unfit_vectors(tmp_path, array, words):
    np.save(tmp_path / "b.npy", array)
    with pytest.raises(SystemFileError, match=words):
        read_vector(tmp_path / "b.npy", 12)


def test_wrong_kinds(problems, csr, tmp_path):
    np.save(tmp_path / "b.npy", np.ones(3))
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    write_petsc(problems.vector(np.ones(3)), tmp_path / "b.dat")
    write_petsc(problems.matrix(csr), tmp_path / "A.dat")
    (tmp_path / "text").write_text("1 2 3")
    for call, words in (
        (lambda: read_matrix(tmp_path / "b.npy"), "is a npy file, expected a matrix"),
        (lambda: read_matrix(tmp_path / "b.dat"), "PETSc vector"),
        (lambda: read_vector(tmp_path / "A.dat", 3), "PETSc matrix"),
        (lambda: read_vector(tmp_path / "two.npz", 3), "'a', 'b'"),
        (lambda: read_matrix(tmp_path / "text"), "no known kind"),
        (lambda: read_matrix(tmp_path), "directory"),
        (lambda: read_matrix(tmp_path / "none"), "No such file"),
    ):
        with pytest.raises(SystemFileError, match=words):
            call()


@pytest.mark.parametrize("text, shape", [("4,5", (5, 4)), ("4,5,6", (6, 5, 4)), (" 4, 5", (5, 4))])
def test_grid_sizes_name_the_fastest_index_first(text, shape):
    assert parse_grid(text) == shape


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((3, 4)), "float64"),
        (np.full((3, 4), 7), "7..7"),
        (np.full((3, 4), -1), "-1"),
        (np.zeros(4, int), "2 or 3 axes"),
        (np.zeros((0, 4), int), "2 or 3 axes"),
    ],
)
def test_unfit_cell_images(tmp_path, array, words):
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(SystemFileError, match=words):
        read_cell_types(tmp_path / "m.npy")


def test_unreadable_cell_images(tmp_path):
    for name in ("m.npy", "m.npz", "m.h5"):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(SystemFileError, match=f"{name}.*cannot be read"):
            read_cell_types(tmp_path / name)
    (tmp_path / "m.txt").write_text("0 1")
    with pytest.raises(SystemFileError, match="'.txt'"):
        read_cell_types(tmp_path / "m.txt")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2), int), b=np.zeros((2, 2), int))
    with pytest.raises(SystemFileError, match="cell_type"):
        read_cell_types(tmp_path / "two.npz")


def test_unsorted_rows_are_the_matrix_they_say():
    operator = GridOperator.from_cell_types(np.zeros((9, 8), int), 2)
    csr = operator.to_csr()
    rng = np.random.default_rng(0)
    indices, data = csr.indices.copy(), csr.data.copy()
    for row in range(csr.shape[0]):
        part = slice(csr.indptr[row], csr.indptr[row + 1])
        order = rng.permutation(part.stop - part.start)
        indices[part], data[part] = indices[part][order], data[part][order]
    shuffled = sp.csr_matrix((data, indices, csr.indptr), shape=csr.shape)
    b = rng.standard_normal(csr.shape[0])
    given = shuffled.indices.copy(), shuffled.data.copy()
    for matrix in (shuffled, sp.coo_matrix(0.5 * csr) + 0.5 * csr):
        solved = solve_system(matrix, b, grid="8,9")
        assert np.linalg.norm(csr @ solved.x - b) < 2e-6 * np.linalg.norm(b)
    np.testing.assert_array_equal(shuffled.indices, given[0])
    np.testing.assert_array_equal(shuffled.data, given[1])
    with pytest.raises(MatrixError, match="complex"):
        solve_system(csr.astype(complex), b, grid="8,9")


@pytest.mark.parametrize(
    "text",
    [
        "coordinate real general\n30000 30000 900000000\n1 1 2.0\n",
        "coordinate real symmetric\n% a comment\n\n900000000 900000000 3\n1 1 2.0\n2 2 2.0\n3 3 2.0\n",
        "array real general\n30000 30000\n1.0\n",
    ],
)
def test_market_files_that_announce_more_than_they_hold(text, tmp_path):
    """Said before memory of that size is taken."""
    (tmp_path / "A.mtx").write_text(f"%%MatrixMarket matrix {text}")
    with pytest.raises(SystemFileError, match="announces .* and holds .* bytes"):
        read_matrix(tmp_path / "A.mtx")
    with pytest.raises(SystemFileError, match="announces .* and holds .* bytes"):
        read_vector(tmp_path / "A.mtx", 3)


@pytest.mark.parametrize("field", ["pattern", "integer", "real"])
def test_the_shortest_market_files_are_read(field, tmp_path):
    value = "" if field == "pattern" else " 1"
    rows = "\n".join(f"{i} {j}{value}" for i in range(1, 4) for j in range(1, 4))
    (tmp_path / "A.mtx").write_text(f"%%MatrixMarket matrix coordinate {field} general\n3 3 9\n{rows}")
    np.testing.assert_array_equal(read_matrix(tmp_path / "A.mtx").toarray(), np.ones((3, 3)))
    if field != "pattern":
        (tmp_path / "b.mtx").write_text(f"%%MatrixMarket matrix array {field} general\n3 1\n1\n2\n3")
        np.testing.assert_array_equal(read_vector(tmp_path / "b.mtx", 3), [1, 2, 3])


def test_files_of_matrices_without_rows(tmp_path):
    empty = sp.csr_matrix((0, 0))
    sp.save_npz(tmp_path / "a.npz", empty)
    (tmp_path / "a.mtx").write_text("%%MatrixMarket matrix coordinate real general\n0 0 0\n")
    np.array([1211216, 0, 0, 0], ">i4").tofile(tmp_path / "a.petsc")
    for name in ("a.npz", "a.mtx", "a.petsc"):
        assert read_matrix(tmp_path / name).shape == (0, 0)
