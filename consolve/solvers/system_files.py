"""Matrices and vectors from files: PETSc binary, MatrixMarket, SciPy and NumPy archives.

The kind of a file is told by its first bytes, not by its name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp
from numpy.typing import NDArray

from consolve.base.errors import SystemFileError

_PETSC_MATRIX, _PETSC_VECTOR = 1211216, 1211214
_FEW_ROWS = 1 << 20
"""Rows that may be empty; a file with more of them has at least a byte for each."""
_KINDS = (
    (b"%%MatrixMarket", "MatrixMarket"),
    (b"PK\x03\x04", "npz"),
    (b"\x93NUMPY", "npy"),
    (np.array(_PETSC_MATRIX, ">i4").tobytes(), "PETSc matrix"),
    (np.array(_PETSC_VECTOR, ">i4").tobytes(), "PETSc vector"),
    (np.array(_PETSC_MATRIX, ">i8").tobytes(), "PETSc matrix, 64-bit"),
    (np.array(_PETSC_VECTOR, ">i8").tobytes(), "PETSc vector, 64-bit"),
)


def read_matrix(path: str | Path) -> sp.csr_matrix:
    """A real square matrix, float64 and CSR with sorted columns and no duplicates.

    Parameters
    ----------
    path
        PETSc binary (``MatView`` with a binary viewer), MatrixMarket, or ``scipy.sparse.save_npz``.

    Raises
    ------
    SystemFileError
        If the file is missing, damaged, of another kind, complex, not square or too large for 32-bit indices.
    """
    path = Path(path)
    kind = _kind(path, "matrix")
    if kind.startswith("PETSc matrix"):
        matrix = _petsc_matrix(path, ">i8" if kind.endswith("64-bit") else ">i4")
    elif kind in ("MatrixMarket", "npz"):
        reader = scipy.io.mmread if kind == "MatrixMarket" else sp.load_npz
        if kind == "MatrixMarket":
            _check_market_size(path)
        try:
            matrix = sp.csr_matrix(reader(path))
        except Exception as error:  # each reader trips over a damaged file in its own way
            raise SystemFileError(f"{path}: damaged {kind} matrix ({error}); write it again") from error
    else:
        raise SystemFileError(f"{path}: is a {kind} file, expected a matrix: {_expected('matrix')}")
    if np.iscomplexobj(matrix.data):
        raise SystemFileError(f"{path}: the matrix is complex; consolve solves real systems")
    if matrix.shape[0] != matrix.shape[1]:
        size = " x ".join(map(str, matrix.shape))
        raise SystemFileError(f"{path}: the matrix is {size}, expected a square one")
    if matrix.nnz > np.iinfo(np.int32).max:
        raise SystemFileError(f"{path}: {matrix.nnz} entries are more than 32-bit indices can count")
    matrix = matrix.astype(np.float64)
    matrix.sum_duplicates()
    return matrix


def read_vector(path: str | Path, rows: int) -> NDArray[np.float64]:
    """A real vector of ``rows`` entries.

    Parameters
    ----------
    path
        PETSc binary, MatrixMarket, ``.npy``, or ``.npz`` with one array; arrays of any shape are read in C
        order.
    rows
        Expected number of entries.

    Raises
    ------
    SystemFileError
        If the file is missing, damaged, of another kind, complex, of another size or not finite.
    """
    path = Path(path)
    kind = _kind(path, "vector")
    if kind.startswith("PETSc vector"):
        vector = _petsc_vector(path, ">i8" if kind.endswith("64-bit") else ">i4")
    elif kind.startswith("PETSc"):
        raise SystemFileError(f"{path}: is a {kind} file, expected a vector: {_expected('vector')}")
    else:
        try:
            vector = _array(path, kind)
        except SystemFileError:
            raise
        except Exception as error:
            raise SystemFileError(f"{path}: damaged {kind} vector ({error}); write it again") from error
    if vector.dtype.kind not in "iuf":
        raise SystemFileError(f"{path}: holds {vector.dtype} values, expected real numbers")
    if vector.size != rows:
        raise SystemFileError(f"{path}: the vector has {vector.size} entries, the matrix {rows} rows")
    vector = np.ascontiguousarray(vector.reshape(-1), np.float64)
    if not np.isfinite(vector).all():
        row = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise SystemFileError(f"{path}: entry {row} is {vector[row]}; every entry must be finite")
    return vector


def _kind(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise SystemFileError(f"no {what} can be read from {str(path)!r}: {error.strerror}") from error
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    raise SystemFileError(
        f"{path}: is of no known kind (it begins with {head[:8]!r}), expected a {what}: {_expected(what)}"
    )


def _expected(what: str) -> str:
    last = "SciPy .npz" if what == "matrix" else "NumPy .npy or .npz"
    return f"PETSc binary, MatrixMarket (.mtx) or {last}"


def _array(path: Path, kind: str) -> NDArray:
    if kind == "MatrixMarket":
        _check_market_size(path)
        read = scipy.io.mmread(path)
        return np.asarray(read.todense() if sp.issparse(read) else read)
    loaded = np.load(path, allow_pickle=False)
    if kind == "npy":
        return loaded
    with loaded as archive:
        if len(archive.files) != 1:
            raise SystemFileError(f"{path}: holds arrays {sorted(archive.files)}, expected a single one")
        return archive[archive.files[0]]


def _check_market_size(path: Path) -> None:
    """Raise SystemFileError if a MatrixMarket file announces more than it can hold: its reader would take the
    memory first."""
    size = path.stat().st_size
    with path.open("rb") as file:
        dense = b"array" in file.readline(1024).lower()
        line = b"%"
        while line[:1] == b"%" or (line and not line.strip()):
            line = file.readline(1 << 20)
        words = line.split()
        left = size - file.tell()
    if len(words) < 2 or not all(word.isdigit() for word in words):
        return  # the reader says what is wrong
    rows, columns, *entries = map(int, words)
    if dense:
        # One triangle of a square array may be all; a value and its end are two characters.
        count, least = rows * (rows - 1) // 2 if rows == columns else rows * columns, 2
    else:
        count, least = (entries or [0])[0], 4  # of two indices
    if least * count > left + 1 or (not dense and max(rows, columns) > max(size, _FEW_ROWS)):
        raise SystemFileError(
            f"{path}: announces {rows} rows, {columns} columns and {count} entries, and holds {left} bytes "
            "of them; the file is cut off or damaged; write it again"
        )


class _Reader:
    """Big-endian numbers of a PETSc binary file, in order."""

    def __init__(self, path: Path, integer: str) -> None:
        self.path, self.integer = path, np.dtype(integer)
        self.left = path.stat().st_size
        self.file = path.open("rb")

    def take(self, count: int, dtype: np.dtype | str) -> NDArray:
        dtype = np.dtype(dtype)
        if count < 0 or count * dtype.itemsize > self.left:
            raise SystemFileError(
                f"{self.path}: ends too early ({self.left} bytes left where {count} values are announced); "
                "the file is cut off, or was written by a PETSc of another precision"
            )
        self.left -= count * dtype.itemsize
        return np.fromfile(self.file, dtype, count)

    def integers(self, count: int) -> NDArray[np.int64]:
        return self.take(count, self.integer).astype(np.int64)

    def reals(self, count: int) -> NDArray[np.float64]:
        values = self.take(count, ">f8").astype(np.float64)
        if count and self.left == values.nbytes:
            raise SystemFileError(f"{self.path}: seems to hold complex values; consolve solves real systems")
        return values


def _petsc_matrix(path: Path, integer: str) -> sp.csr_matrix:
    reader = _Reader(path, integer)
    with reader.file:
        _, rows, columns, entries = reader.integers(4)
        if entries < 0:
            raise SystemFileError(f"{path}: holds a dense or blocked matrix; write it as AIJ (MatConvert)")
        if entries > np.iinfo(np.int32).max or rows > np.iinfo(np.int32).max:
            raise SystemFileError(f"{path}: {rows} rows, {entries} entries are more than 32 bits can count")
        lengths = reader.integers(rows)
        indices = reader.integers(entries)
        if lengths.min(initial=0) < 0 or lengths.sum() != entries:
            raise SystemFileError(f"{path}: row lengths do not add up to {entries} entries; it is damaged")
        if entries and (indices.min() < 0 or indices.max() >= columns):
            raise SystemFileError(f"{path}: a column index is outside 0..{columns - 1}; the file is damaged")
        values = reader.reals(entries)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((values, indices.astype(np.int32), indptr.astype(np.int32)), shape=(rows, columns))


def _petsc_vector(path: Path, integer: str) -> NDArray[np.float64]:
    reader = _Reader(path, integer)
    with reader.file:
        _, rows = reader.integers(2)
        return reader.reals(rows)
