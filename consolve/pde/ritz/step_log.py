"""The Lanczos steps of an unfinished set of Ritz data, on disk: once written, a step outlives the process."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.files import new_file
from consolve.base.growing_file import lock, write_bytes
from consolve.pde.ritz.data import RitzDataBusy, RitzDataError

_HEADER = 4096
_HEAD_TYPE = np.dtype([("alpha", "<f8"), ("beta", "<f8"), ("crc", "<u8")])
Step = tuple[float, float, NDArray[np.float64]]
"""alpha, beta and the vector to follow: what :meth:`consolve.pde.ritz.lanczos.Lanczos.restore` takes."""


def log_path(path: str | os.PathLike[str]) -> Path:
    """Where the steps stand, beside the file that is made of them."""
    return Path(f"{os.fspath(path)}.steps.part")


class StepLog:
    """A file of a header (4096 bytes: settings as JSON) and one record for each Lanczos step.

    A record holds alpha, beta, a CRC-32 and the vector to follow in float64, whatever the basis is stored in:
    the recurrence goes on exactly where it stopped.  The first record whose CRC does not fit ends the log.

    Parameters
    ----------
    path
        Of the set to be.
    settings
        :meth:`RitzSet.settings`; those of a log that is there must be the same.
    unknowns, vectors
        Length of a vector, and number of steps that the disk is asked to hold.
    resume
        Go on with a log that is there.

    Raises
    ------
    RitzDataError
        If a log is there and ``resume`` is not set, or it is of other settings, damaged or in use.
    OSError
        If there is no room on the disk.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        unknowns: int,
        vectors: int,
        resume: bool = False,
    ) -> None:
        self.path = log_path(path)
        self._size = _HEAD_TYPE.itemsize + 8 * unknowns
        self._unknowns = unknowns
        if not self.path.exists():
            self._create(settings, vectors)
        elif not resume:
            raise RitzDataError(
                f"{self.path} holds an unfinished set; go on with --resume, or remove it first"
            )
        self._handle = lock(self.path, RitzDataBusy)
        try:
            self._check_header(settings)
        except RitzDataError:
            os.close(self._handle)
            raise

    def _create(self, settings: Mapping[str, Any], vectors: int) -> None:
        # A log that can be resumed appears all at once.
        fresh = self.path.with_name(f"{self.path.name}.new")
        header = json.dumps(dict(settings)).encode().ljust(_HEADER - 1) + b"\n"
        size = len(header) + vectors * self._size
        try:
            with open(new_file(fresh), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                file.write(header)
            os.replace(fresh, self.path)
        except OSError as error:
            raise OSError(
                f"cannot make {self.path} of {size / 1e6:.0f} MB for the Lanczos vectors: {error.strerror}"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _check_header(self, settings: Mapping[str, Any]) -> None:
        found = _header(self.path)
        for name, value in settings.items():
            if found.get(name) != value:
                raise RitzDataError(
                    f"{self.path} holds {name} = {found.get(name)}, asked for is {value}; give the options "
                    f"it was made with, or remove it to start over"
                )

    def read(self, step: int) -> Step | None:
        """A step, or None if the log ends before it."""
        record = os.pread(self._handle, self._size, _HEADER + step * self._size)
        if len(record) < self._size:
            return None
        head = np.frombuffer(record, _HEAD_TYPE, 1)[0]
        following = np.frombuffer(record, "<f8", offset=_HEAD_TYPE.itemsize)
        alpha, beta = float(head["alpha"]), float(head["beta"])
        return (alpha, beta, following.copy()) if head["crc"] == _crc(alpha, beta, following) else None

    def write(self, step: int, alpha: float, beta: float, following: NDArray[np.float64]) -> None:
        """Write a step; when this returns it outlives the process.

        Raises
        ------
        OSError
            If the disk takes it not.  What was written before stays.
        """
        head = np.array([(alpha, beta, _crc(alpha, beta, following))], _HEAD_TYPE)
        try:
            write_bytes(
                self._handle,
                head.tobytes() + np.asarray(following, "<f8").tobytes(),
                _HEADER + step * self._size,
            )
        except OSError as error:
            raise OSError(
                f"cannot write step {step} into {self.path}: {error.strerror}; the steps done are kept, "
                f"--resume goes on from there"
            ) from error

    def remove(self) -> None:
        """Remove the file: the set is whole."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, which stays; without any step it is removed."""
        if self.path.exists() and self.read(0) is None:
            self.remove()
        os.close(self._handle)


def logged_basis(path: str | os.PathLike[str]) -> str | None:
    """dtype of the basis that the log of an unfinished set goes with; None if there is no log."""
    return str(_header(log_path(path)).get("basis")) if log_path(path).exists() else None


def _header(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return dict(json.loads(file.read(_HEADER)))
    except (ValueError, TypeError) as error:
        raise RitzDataError(f"{path}: its header is damaged; remove it to start over") from error


def _crc(alpha: float, beta: float, following: NDArray[np.float64]) -> int:
    # Never 0 for a record of zeros, which is what a disk holds where nothing was written.
    head = np.array([alpha, beta], "<f8").tobytes()
    return zlib.crc32(np.ascontiguousarray(following, "<f8").data, zlib.crc32(head))
