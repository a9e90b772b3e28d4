"""Cell-type images (FLUID 0, SOLID 1, AIR 2) in files: whole, or only the part that one rank needs."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.collective import together
from consolve.base.errors import MatrixError, SystemFileError
from consolve.base.hdf5 import import_h5py
from consolve.pde.poisson.grid import FLUID

BLOCK = 1 << 22
"""Cells that are read at a time."""

Reader = Callable[[int, int], NDArray]
"""Cells from ``start`` to ``stop`` in C order, as a flat array; called with ascending ranges."""


def read_cell_types(path: str | Path) -> NDArray[np.uint8]:
    """A cell-type image (FLUID 0, SOLID 1, AIR 2) of 2 or 3 axes from ``.npy``, ``.npz`` or ``.h5``.

    In ``.npz`` and ``.h5`` the array is the one named ``cell_type``, or the only one.

    Raises
    ------
    SystemFileError
        If the file is missing, damaged or holds something else.
    """
    with open_image(path) as (shape, read):
        image = np.empty(math.prod(shape), np.uint8)
        for start in range(0, image.size, BLOCK):
            stop = min(start + BLOCK, image.size)
            image[start:stop] = _checked(read(start, stop), path)
    return image.reshape(shape)


def fluid_cells(
    path: str | Path, comm: Any, start: int, stop: int
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Shape of an image, and its fluid cells from the one numbered ``start`` to ``stop``, as int64.

    Each rank counts the fluid cells of its share of blocks, then reads the blocks where its own ones lie.

    Parameters
    ----------
    path
        As for read_cell_types.
    comm
        mpi4py communicator, or None on one rank; collective.
    start, stop
        Rows of this rank: row r is the fluid cell number r.

    Raises
    ------
    SystemFileError
        On all ranks, if one of them cannot read the file.
    MatrixError
        If the image has another number of fluid cells than the ranks have rows.
    """
    rank, ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    with together(comm):
        shape, first, counts = _count_share(path, rank, ranks)
    parts = [(shape, first, counts)] if comm is None else comm.allgather((shape, first, counts))
    before = np.concatenate(([0], np.cumsum(np.concatenate([p[2] for p in parts]))))
    rows = stop if comm is None else comm.bcast(stop, ranks - 1)
    with together(comm):
        if any(p[0] != shape for p in parts):
            raise SystemFileError(f"{path}: ranks see images of different sizes; all must see one file")
        if before[-1] != rows:
            raise MatrixError(
                f"-pc_cnn_mask {path}: the image has {before[-1]} fluid cells of {math.prod(shape)}, the "
                f"matrix {rows} rows; rows must number the fluid cells (type 0), last axis fastest"
            )
        cells = _read_own(path, before, start, stop)
    return shape, cells


def _count_share(path: str | Path, rank: int, ranks: int) -> tuple[tuple[int, ...], int, NDArray[np.int64]]:
    """Shape, and number of fluid cells of each block of this rank's share."""
    with open_image(path) as (shape, read):
        size = math.prod(shape)
        blocks = -(-size // BLOCK)
        first, last = blocks * rank // ranks, blocks * (rank + 1) // ranks
        counts = np.zeros(last - first, np.int64)
        for block in range(first, last):
            types = _checked(read(block * BLOCK, min((block + 1) * BLOCK, size)), path)
            counts[block - first] = np.count_nonzero(types == FLUID)
    return shape, first, counts


def _read_own(path: str | Path, before: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Fluid cells ``start`` to ``stop``; ``before`` counts those before each block."""
    cells = np.empty(stop - start, np.int64)
    if start == stop:
        return cells
    first = int(np.searchsorted(before, start, "right")) - 1
    with open_image(path) as (shape, read):
        size, done = math.prod(shape), 0
        for block in range(first, before.size - 1):
            if before[block] >= stop:
                break
            fluid = np.flatnonzero(read(block * BLOCK, min((block + 1) * BLOCK, size)) == FLUID)
            own = fluid[max(start - before[block], 0) : stop - before[block]]
            cells[done : done + own.size] = own + block * BLOCK
            done += own.size
    if done != cells.size:
        raise SystemFileError(f"{path}: changed while it was read")
    return cells


@contextmanager
def open_image(path: str | Path) -> Iterator[tuple[tuple[int, ...], Reader]]:
    """Shape and reader of an image.

    Raises
    ------
    SystemFileError
        If the file is missing, damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise SystemFileError(f"no cell-type image at {str(path)!r}")
    openers = {".npy": _open_npy, ".npz": _open_npz, ".h5": _open_h5, ".hdf5": _open_h5}
    if path.suffix not in openers:
        raise SystemFileError(f"{path}: a cell-type image is a .npy, .npz or .h5 file, not {path.suffix!r}")
    try:
        with openers[path.suffix](path) as (shape, dtype, read):
            if len(shape) not in (2, 3) or dtype.kind not in "iub" or math.prod(shape) == 0:
                raise SystemFileError(
                    f"{path}: holds {dtype}{shape}, expected an integer image of 2 or 3 axes "
                    "with FLUID 0, SOLID 1, AIR 2"
                )
            yield shape, read
    except (SystemFileError, MatrixError):
        raise
    except Exception as error:  # damaged archives raise whatever their reader trips over
        locked = "unable to lock" in str(error)
        advice = (
            "another program has it open, or the file system has no locks: close it there, or set "
            "HDF5_USE_FILE_LOCKING=FALSE"
            if locked
            else "write it again"
        )
        raise SystemFileError(f"{path}: cannot be read ({error}); {advice}") from error


@contextmanager
def _open_npy(path: Path) -> Iterator[tuple[tuple[int, ...], np.dtype, Reader]]:
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    yield array.shape, array.dtype, lambda start, stop: _flat_range(array, array.shape, start, stop)


@contextmanager
def _open_h5(path: Path) -> Iterator[tuple[tuple[int, ...], np.dtype, Reader]]:
    h5py = import_h5py()

    with h5py.File(path, "r") as file:
        data = file[_only_array([name for name in file if isinstance(file[name], h5py.Dataset)], path)]
        yield data.shape, data.dtype, lambda start, stop: _flat_range(data, data.shape, start, stop)


@contextmanager
def _open_npz(path: Path) -> Iterator[tuple[tuple[int, ...], np.dtype, Reader]]:
    """Decompresses the stream up to what is asked for; Fortran-ordered arrays are read whole."""
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        with archive.open(_only_array(names, path) + ".npy") as stream:
            version = np.lib.format.read_magic(stream)
            header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = header(stream)
            if dtype.hasobject:
                raise SystemFileError(f"{path}: holds Python objects, expected integers")
            if fortran:
                whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
                yield shape, dtype, lambda start, stop: _flat_range(whole, shape, start, stop)
                return
            at = 0

            def read(start: int, stop: int) -> NDArray:
                nonlocal at
                while at < start:
                    skipped = len(stream.read(min(start - at, BLOCK) * dtype.itemsize)) // dtype.itemsize
                    if skipped == 0:
                        break
                    at += skipped
                data = np.frombuffer(stream.read((stop - start) * dtype.itemsize), dtype)
                if at != start or data.size != stop - start:
                    raise SystemFileError(f"{path}: ends too early; write it again")
                at = stop
                return data

            yield shape, dtype, read


def _flat_range(data: Any, shape: tuple[int, ...], start: int, stop: int) -> NDArray:
    """Entries ``start`` to ``stop`` in C order of what can be sliced; reads no more than that."""
    if len(shape) == 1:
        return np.asarray(data[start:stop])
    inner = math.prod(shape[1:])
    parts = []
    while start < stop:
        layer, end = start // inner, min((start // inner + 1) * inner, stop)
        if start % inner == 0 and stop - start >= inner:
            layers = (stop - start) // inner
            parts.append(np.asarray(data[layer : layer + layers]).reshape(-1))
            start += layers * inner
        elif len(shape) == 2:
            parts.append(np.asarray(data[layer, start - layer * inner : end - layer * inner]))
            start = end
        else:
            parts.append(
                _flat_range(_Layer(data, layer), shape[1:], start - layer * inner, end - layer * inner)
            )
            start = end
    return np.concatenate(parts)


class _Layer:
    """One layer of an array, read when it is sliced."""

    def __init__(self, data: Any, layer: int) -> None:
        self._data, self._layer = data, layer

    def __getitem__(self, where: Any) -> NDArray:
        return self._data[(self._layer, *(where if isinstance(where, tuple) else (where,)))]


def _checked(types: NDArray, path: str | Path) -> NDArray:
    if types.size and (types.min() < 0 or types.max() > 2):
        raise SystemFileError(
            f"{path}: cell types lie in {types.min()}..{types.max()}, expected FLUID 0, SOLID 1, AIR 2"
        )
    return types


def _only_array(names: list[str], path: Path) -> str:
    if "cell_type" in names:
        return "cell_type"
    if len(names) == 1:
        return names[0]
    raise SystemFileError(f"{path}: holds arrays {sorted(names)}, expected one named 'cell_type'")
