"""Data sets in HDF5 while they grow: what is in them outlives the process, the final name comes last.

A file grows as ``PATH.part``: HDF5 lays it out and its room on the disk is taken before the first part
comes, parts then go to their places by plain writes, the digest of each after its arrays: parts whose digests
fit are done.  The process may be killed between any two writes.  (A disk that fills up under HDF5 itself
would crash the process when it ends.)
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import DataFile, DataFileError, Layout
from consolve.base.files import new_file, open_in_place
from consolve.base.hdf5 import import_h5py
from consolve.base.version import __version__

NO_DIGEST = b"0" * 64
"""Attribute ``digest`` of a file that is not complete."""


def part_path(path: str | os.PathLike[str]) -> Path:
    """Where a file grows: beside it, with ``.part`` at the end."""
    return Path(f"{os.fspath(path)}.part")


def take_room(path: Path, size: int, new: bool = False) -> None:
    """Make the disk hold ``size`` bytes for a file, which is a ``new`` one or there already, or raise
    OSError."""
    handle = new_file(path) if new else open_in_place(path, os.O_WRONLY)
    try:
        os.posix_fallocate(handle, 0, size)
    finally:
        os.close(handle)


def create(path: Path) -> Any:
    """A new HDF5 file; the oldest format keeps no flags of a file that is open, which would bar it after a
    kill."""
    return import_h5py().File(path, "w", libver=("earliest", "v110"))


def write_head(file: Any, kind: type[DataFile], attributes: Mapping[str, Any]) -> None:
    """The attributes of a file that is not complete."""
    file.attrs["content"] = kind.content
    file.attrs["consolve_format"] = kind.version
    for name, value in attributes.items():
        file.attrs[name] = value
    file.attrs["consolve_version"] = __version__
    file.attrs["complete"] = np.uint8(0)
    file.attrs["digest"] = np.bytes_(NO_DIGEST)


def lay_out(
    file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, chunk: tuple[int, ...] | None = None
) -> None:
    """A dataset whose place in the file is fixed at once, and nothing written to it."""
    h5py = import_h5py()
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    if chunk is not None:
        plist.set_chunk(chunk)
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(dtype, logical=True)
    h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))


def write_bytes(handle: int, data: bytes | memoryview, place: int) -> None:
    """Write all of ``data`` at ``place``."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(handle, rest, place)
        rest, place = rest[count:], place + count


def give_name(part: Path, path: Path, digest: str) -> None:
    """Mark a part file as complete, of this digest, and give it its name."""
    with import_h5py().File(part, "r+") as file:
        file.attrs.modify("digest", np.bytes_(digest.encode()))
        file.attrs.modify("complete", np.uint8(1))
    os.replace(part, path)


def lock(path: Path, busy: type[DataFileError]) -> int:
    """A handle of a file that no other process gets before it is closed; raises ``busy`` if one has it."""
    handle = open_in_place(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise busy(f"{path}: another process has it open; wait for it to end") from error
    return handle


class GrowingFile(ABC):
    """``PATH.part``, until :meth:`finish` gives it the name PATH.

    Parameters
    ----------
    path
        Of the file to be.
    settings
        Attributes that those of a part file that is there must equal.
    record
        The other attributes.
    layout
        Of all datasets.  The last dataset of `entries` is (parts, 32) uint8, the digests.
    resume
        Go on with the part file, if there is one.

    Attributes
    ----------
    done
        (parts,) bool: parts that are in the file.

    Raises
    ------
    DataFileError
        Of the class of `kind`, if a part file is there and ``resume`` is not set, or is set and the file is
        damaged, holds another set or is open in another process; it is left as it is.
    OSError
        If there is no room on the disk.
    """

    kind: ClassVar[type[DataFile]]
    word: ClassVar[str]
    """For a part, in messages."""
    kept: ClassVar[str] = ""
    """What is said where the file cannot be made."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        record: Mapping[str, Any],
        layout: Layout,
        entries: tuple[str, ...],
        resume: bool,
    ) -> None:
        self.path, self.part = Path(path), part_path(path)
        self._settings, self._layout, self._entries = dict(settings), layout, entries
        if not self.part.exists():
            self._create(record)
            self.done = np.zeros(layout[entries[-1]][0][0], np.bool_)
        elif resume:
            self.done = self._parts_done()
        else:
            raise self.kind.error(
                f"{self.part} holds an unfinished set; go on with --resume, or remove it first"
            )
        with import_h5py().File(self.part, "r") as file:
            self._places = {name: _places_of_rows(file[name]) for name in entries}
        self._handle: int | None = lock(self.part, self.kind.busy)

    @abstractmethod
    def _fill(self, file: Any) -> None:
        """Lay out the datasets and write those that are not written part by part."""

    def _check_resumed(self, data: DataFile) -> None:  # noqa: B027
        """Raise an error if a part file of the same settings is not one to go on with."""

    @abstractmethod
    def _rows(self, part: int) -> slice:
        """Rows of a part in the datasets that hold it; several rows stand together in contiguous ones."""

    @abstractmethod
    def _digest_of_part(self, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
        """As :meth:`DataFile.digest_of_part`."""

    @abstractmethod
    def _content_digest(self, file: Any) -> str:
        """By :meth:`DataFile.content_digest`, of the open file."""

    def _create(self, record: Mapping[str, Any]) -> None:
        # A part file that can be resumed appears all at once.
        fresh = self.part.with_name(f"{self.part.name}.new")
        size = sum(math.prod(shape) * t.itemsize for shape, t in self._layout.values())
        size = 1_000_000 + size + size // 100  # with room for HDF5's book-keeping
        try:
            if size > shutil.disk_usage(self.part.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            take_room(fresh, size, new=True)
            with create(fresh) as file:
                write_head(file, self.kind, self._settings | dict(record))
                self._fill(file)
                file[self._entries[-1]][...] = 0
            take_room(fresh, fresh.stat().st_size)
            os.replace(fresh, self.part)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            free = shutil.disk_usage(self.part.parent).free / 1e6
            raise OSError(
                f"cannot make {self.part} of {size / 1e6:.0f} MB where {free:.0f} MB are free: {why}"
                f"{self.kept}"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _parts_done(self) -> NDArray[np.bool_]:
        try:
            data = self.kind(self.part, unfinished=True)
        except self.kind.busy:
            raise
        except DataFileError as error:
            raise self.kind.error(f"cannot go on; remove the part file to start over: {error}") from error
        with data:
            data.check_settings(self._settings)
            self._check_resumed(data)
            return np.array([data.is_done(part) for part in range(len(data.part_digests))])

    def write(self, part: int, arrays: Mapping[str, Any]) -> None:
        """Write a part; when this returns it outlives the process.

        Raises
        ------
        ValueError
            If an array has the wrong size.
        OSError
            If the disk takes it not.  What was written before stays.
        """
        assert self._handle is not None
        *names, digests = self._entries
        rows = self._rows(part)
        blocks = []
        for name in names:
            shape, dtype = self._layout[name]
            entry = np.ascontiguousarray(arrays[name], dtype)
            expected = (rows.stop - rows.start, *shape[1:])
            if entry.size != math.prod(expected):
                raise ValueError(f"{name} of {self.word} {part} has shape {entry.shape}, expected {expected}")
            blocks.append((entry, int(self._places[name][rows.start])))
        blocks.append((self._digest_of_part(arrays), int(self._places[digests][part])))
        try:
            for entry, place in blocks:
                write_bytes(self._handle, entry.reshape(-1).view(np.uint8).data, place)
        except OSError as error:
            raise OSError(
                f"cannot write {self.word} {part} into {self.part}: {error.strerror}; the "
                f"{int(self.done.sum())} {self.word}s done are kept, --resume goes on from there"
            ) from error
        self.done[part] = True

    def finish(self) -> str:
        """Give the whole file its name; returns its digest."""
        if not self.done.all():
            raise RuntimeError(
                f"{self.part} has {int(self.done.sum())} of {self.done.size} {self.word}s, it is not whole"
            )
        assert self._handle is not None
        os.fsync(self._handle)
        self.close()
        with import_h5py().File(self.part, "r") as file:
            digest = self._content_digest(file)
        give_name(self.part, self.path, digest)
        return digest

    def close(self) -> None:
        """Leave the part file as it is, or remove it if no part is in it."""
        if self._handle is not None:
            if not self.done.any():
                self.part.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None


def _places_of_rows(dataset: Any) -> NDArray[np.int64]:
    """Where in the file each row of a dataset begins: it is contiguous, or has a chunk for each."""
    rows = dataset.shape[0]
    if dataset.chunks is None:
        size = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
        return dataset.id.get_offset() + size * np.arange(rows)
    places = np.empty(rows, np.int64)
    for chunk in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(chunk)
        places[info.chunk_offset[0]] = info.byte_offset
    return places
