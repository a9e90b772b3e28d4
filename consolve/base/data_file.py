"""Data sets in HDF5: what files of Ritz data and of wave data share.

A file grows as ``PATH.part``: HDF5 lays it out and its room on the disk is taken before the first entry
comes, entries then go to their places by plain writes, the name PATH comes last.  The process may be killed
between any two writes.  (A disk that fills up under HDF5 itself would crash the process when it ends.)
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from consolve.base.files import new_file, open_in_place
from consolve.base.hdf5 import import_h5py
from consolve.base.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

NO_DIGEST = b"0" * 64
"""Attribute ``digest`` of a file that is not complete."""
RECORD = ("command", "consolve_version", "complete", "digest")
"""Attributes of every file that do not fix its content."""

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and dtype of datasets by name."""


class DataFileError(ValueError):
    """A data set that is missing, damaged, unfinished, of another kind or of another version."""


class DataFile(ABC):
    """A data set, its head checked when opened.

    Parameters
    ----------
    path
        Of the file.
    unfinished
        Take files that are not complete too.

    Attributes
    ----------
    attributes
        All attributes of the file, as Python's own numbers, texts and lists.
    digest
        SHA-256 of the content, 64 hexadecimal digits.
    complete
        Whether all of it is there.

    Raises
    ------
    DataFileError
        Of the class `error` (`busy` while another process is writing it), if the file is missing, no HDF5,
        truncated, of another kind or version, not complete, or an attribute is missing.
    """

    content: ClassVar[str]
    """Attribute ``content``."""
    title: ClassVar[str]
    """What it holds, in words."""
    version: ClassVar[int]
    """Attribute ``consolve_format``."""
    required: ClassVar[tuple[str, ...]]
    """Attributes that must be there, beside `RECORD`."""
    maker: ClassVar[str]
    """The command that makes such files."""
    error: ClassVar[type[DataFileError]]
    busy: ClassVar[type[DataFileError]]

    def __init__(self, path: str | os.PathLike[str], unfinished: bool = False) -> None:
        self.path = Path(path)
        self._start(unfinished)

    def _start(self, unfinished: bool) -> None:
        self._file = self._open()
        self._state = self._state_on_disk()
        try:
            self._read_head(unfinished)
            self._read()
        except DataFileError:
            self.close()
            raise
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            self.close()
            raise self.fault(f"the file is damaged ({error})") from error

    @abstractmethod
    def _read(self) -> None:
        """Check the datasets and take what is held in memory."""

    def fault(self, what: str) -> DataFileError:
        """The error that says this of the file, and to make it anew."""
        return self.error(f"{self.path}: {what}; make it anew with '{self.maker}'")

    def _open(self) -> Any:
        h5py = import_h5py()
        if not self.path.is_file():
            raise self.fault("there is no such file")
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            if "lock file" in str(error):
                raise self.busy(f"{self.path}: another process is writing it; wait for it to end") from error
            why = "it is truncated" if "truncated" in str(error) else f"{error}"
            raise self.fault(f"cannot be read as HDF5 ({why})") from error

    def _read_head(self, unfinished: bool) -> None:
        attributes = {name: _plain(value) for name, value in self._file.attrs.items()}
        if attributes.get("content") != self.content or "consolve_format" not in attributes:
            raise self.fault(f"an HDF5 file, but not of {self.title}")
        if attributes["consolve_format"] != self.version:
            raise self.error(
                f"{self.path}: format version {attributes['consolve_format']}, this consolve reads "
                f"{self.version}; make the file again or install a consolve that fits"
            )
        missing = [name for name in (*self.required, *RECORD) if name not in attributes]
        if missing:
            raise self.fault(f"attribute {missing[0]!r} is missing")
        self.attributes = attributes
        self.digest, self.complete = str(attributes["digest"]), bool(attributes["complete"])
        if not self.complete and not unfinished:
            raise self.error(
                f"{self.path}: not finished; the command that makes it goes on with --resume: "
                f"{attributes['command']}"
            )

    def _check_layout(self, layout: Layout) -> None:
        for name, (shape, dtype) in layout.items():
            dataset = self._file.get(name)
            if dataset is None or not hasattr(dataset, "shape"):
                raise self.fault(f"dataset {name!r} is missing")
            if dataset.shape != shape or dataset.dtype != dtype:
                raise self.fault(
                    f"dataset {name!r} is {dataset.dtype}{dataset.shape}, expected {dtype}{shape}"
                )

    def _check_digest(self, found: str, of: str) -> None:
        if found != self.digest:
            raise self.fault(
                f"the digest of its settings and {of} is {found[:12]}, the file says {self.digest[:12]}: it "
                "was changed"
            )

    def check_part(self, fits: bool, part: str) -> None:
        """Raise `error` unless the content of a part fits its digest."""
        if not fits:
            raise self.fault(f"{part}: the content does not fit its digest, the file was changed")

    def _state_on_disk(self) -> tuple[int, ...]:
        status = os.fstat(self._file.id.get_vfd_handle())
        return status.st_size, status.st_mtime_ns

    def _refresh(self) -> None:
        """Open the file again if it was written to since: HDF5 may hold what it read before."""
        if self._state_on_disk() == self._state:
            return
        digest = self.digest
        self.close()
        self._start(not self.complete)
        if self.digest != digest:
            raise self.fault("it was replaced by another set while it was in use")

    def check_settings(self, expected: Mapping[str, Any]) -> None:
        """Raise `error` unless the attributes are the expected ones."""
        for name, value in expected.items():
            if self.attributes[name] != value:
                raise self.error(
                    f"{self.path} holds {name} = {self.attributes[name]}, asked for is {value}; give the "
                    "options it was made with, or remove it to start over"
                )

    def close(self) -> None:
        """Close the file; its datasets are of no use any more."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """An attribute as Python's own number, text or list."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


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
