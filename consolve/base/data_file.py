"""Data sets in HDF5: what readers and checks of Ritz data and of wave data share.

A data set has parts (a run of waves, a chunk of right-hand sides), each with the digest of its content.
Files are made by `consolve.base.growing_file`.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from consolve.base.hdf5 import import_h5py

if TYPE_CHECKING:
    from typing_extensions import Self

RECORD = ("command", "consolve_version", "complete", "digest")
"""Attributes of every file that do not fix its content."""
_MOST = 20
"""Faults that a check tells."""

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
    part_digests
        (parts, 32) uint8: SHA-256 of each part; 0 where it is missing.

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
    settings: ClassVar[tuple[str, ...]]
    """Attributes that fix the content."""
    required: ClassVar[tuple[str, ...]]
    """Attributes that must be there, beside `settings` and `RECORD`."""
    maker: ClassVar[str]
    """The command that makes such files."""
    error: ClassVar[type[DataFileError]]
    busy: ClassVar[type[DataFileError]]
    part_digests: NDArray[np.uint8]

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

    @abstractmethod
    def arrays(self, part: int) -> dict[str, Any]:
        """All that is stored of one part, by name."""

    @abstractmethod
    def part_name(self, part: int) -> str:
        """What a part is, in words."""

    @abstractmethod
    def digest_of_part(self, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
        """SHA-256 of one part, (32,)."""

    @classmethod
    def content_digest(cls, attributes: Mapping[str, Any], *arrays: NDArray) -> str:
        """SHA-256 of a file's content: format version and the attributes `settings` as JSON with sorted keys,
        then the bytes of ``arrays``, the digests of the parts last.  How, when and by how many processes the
        file was made does not enter."""
        head = {"format": cls.version} | {name: attributes[name] for name in cls.settings}
        sha = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for array in arrays:
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def fits(self, part: int, arrays: Mapping[str, Any]) -> bool:
        """Whether these are the arrays of a part, by its digest."""
        return bool((self.digest_of_part(arrays) == self.part_digests[part]).all())

    def is_done(self, part: int) -> bool:
        """Whether a part is in the file."""
        return bool(self.part_digests[part].any()) and self.fits(part, self.arrays(part))

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
        missing = [name for name in (*self.settings, *self.required, *RECORD) if name not in attributes]
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

    def check_part(self, part: int, arrays: Mapping[str, Any]) -> None:
        """Raise `error` unless these are the arrays of a part, by its digest."""
        if not self.fits(part, arrays):
            raise self.fault(f"{self._misfit(part)}, the file was changed")

    def _misfit(self, part: int) -> str:
        return f"{self.part_name(part)}: the content does not fit its digest"

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


@dataclass
class DataCheck:
    """What a check of a file found.

    Attributes
    ----------
    faults
        What is wrong, at most 20 texts; empty if the file is good.
    """

    faults: list[str] = field(default_factory=list)

    def require(self, holds: Any, fault: str) -> None:
        """Note the fault unless the condition holds."""
        if not holds and len(self.faults) < _MOST:
            self.faults.append(fault)

    def parts(self, data: DataFile, look: Callable[[int, dict[str, Any]], None]) -> None:
        """Check every part: its digest, and by ``look(part, arrays)``."""
        for part in range(len(data.part_digests)):
            arrays = data.arrays(part)
            self.require(data.fits(part, arrays), data._misfit(part))
            look(part, arrays)
