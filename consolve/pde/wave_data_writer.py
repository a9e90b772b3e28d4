"""Files of wave data while they grow: what is in them outlives the process, the final name comes last.

All of an HDF5 file's own book-keeping is written, and all of its room on the disk taken, before the first run
comes.  From then on runs are written in place, and the digest of a run after its arrays: a process may be
killed between any two writes, the file opens, and the runs whose digests fit are done.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import consolve
from consolve.hdf5 import import_h5py
from consolve.pde.wave_data import (
    CONTENT,
    FORMAT_VERSION,
    NO_DIGEST,
    UNITS,
    WaveData,
    WaveDataError,
    content_digest,
    dataset_units,
    layout,
    megabytes,
    run_arrays,
    run_digest,
    settings,
)
from consolve.pde.wave_sampling import WaveSet


def part_path(path: str | os.PathLike[str]) -> Path:
    """Where a file of wave data grows: beside it, with ``.part`` at the end."""
    return Path(f"{os.fspath(path)}.part")


def digest_of_whole(path: str | os.PathLike[str], expected: Mapping[str, Any]) -> str:
    """Digest of a file that is whole already, if its attributes are the expected ones.

    Raises
    ------
    WaveDataError
        If they are not, or it is no such file.
    """
    with WaveData(path) as data:
        _check_settings(data, expected)
        return data.digest


def _check_settings(data: WaveData, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if data.attributes[name] != value:
            raise WaveDataError(
                f"{data.path} was begun with {name} = {data.attributes[name]}, now it is {value}; give the "
                f"options it was begun with, or remove it to start over"
            )


class GrowingFile:
    """``PATH.part``, until :meth:`finish` gives it the name PATH.

    Parameters
    ----------
    path
        Of the file to be.
    wave_set, runs, vertices, solver
        What goes into it.
    command
        For the record.
    resume
        Go on with the part file, if there is one.

    Attributes
    ----------
    done
        (runs,) bool: runs that are in the file.

    Raises
    ------
    WaveDataError
        If a part file is there and ``resume`` is not set, or is set and the file is damaged or holds
        another set; the file is left as it is.
    OSError
        If there is no room on the disk, or another process is at work on the part file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        wave_set: WaveSet,
        runs: int,
        vertices: int,
        solver: str,
        command: str = "",
        resume: bool = False,
    ) -> None:
        self.path, self.part = Path(path), part_path(path)
        self.wave_set, self.runs = wave_set, runs
        self._attributes = settings(wave_set, runs, vertices) | {"solver": solver, "command": command}
        if self.part.exists():
            if not resume:
                raise WaveDataError(
                    f"{self.part} holds an unfinished set; go on with --resume, or remove it first"
                )
            self.done = self._runs_done()
        else:
            self._create()
            self.done = np.zeros(runs, np.bool_)
        self._file = self._open_part()

    def _create(self) -> None:
        # A part file that can be resumed appears all at once.
        h5py = import_h5py()
        fresh = self.part.with_name(f".{self.part.name}-{os.getpid()}")
        try:
            # The oldest format keeps no flags of a file that is open, which would bar it after a kill.
            with h5py.File(fresh, "w", libver=("earliest", "v110")) as file:
                self._write_frame(h5py, file)
            with open(fresh, "r+b") as raw:
                os.posix_fallocate(raw.fileno(), 0, os.path.getsize(fresh))
            os.replace(fresh, self.part)
        except OSError as error:
            raise self._no_room(error) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _write_frame(self, h5py: Any, file: Any) -> None:
        file.attrs["content"] = CONTENT
        file.attrs["consolve_format"] = FORMAT_VERSION
        file.attrs["units"] = UNITS
        for name, value in self._attributes.items():
            file.attrs[name] = value
        file.attrs["consolve_version"] = consolve.__version__
        file.attrs["complete"] = np.uint8(0)
        file.attrs["digest"] = np.bytes_(NO_DIGEST)
        for name, (shape, dtype) in layout(self.wave_set, self.runs).items():
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_obj_track_times(False)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            if name == "u":
                plist.set_chunk((1, *shape[1:]))
            space = h5py.h5s.create_simple(shape)
            kind = h5py.h5t.py_create(dtype, logical=True)
            h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))
            if dataset_units(name):
                file[name].attrs["units"] = dataset_units(name)
        file["run_digest"][...] = 0
        file["time"][...] = self.wave_set.interval * np.arange(self.wave_set.snapshots)
        file["x"][...] = file["y"][...] = self.wave_set.coordinates

    def _open_part(self) -> Any:
        try:
            return import_h5py().File(self.part, "r+")
        except OSError as error:
            raise OSError(
                f"cannot open {self.part} for writing ({error}); is another process at work on it?"
            ) from error

    def _runs_done(self) -> NDArray[np.bool_]:
        try:
            data = WaveData(self.part, unfinished=True)
        except WaveDataError as error:
            raise WaveDataError(f"cannot go on; remove the part file to start over: {error}") from error
        with data:
            _check_settings(data, {k: v for k, v in self._attributes.items() if k != "command"})
            return np.array([self._is_done(data, run) for run in range(self.runs)])

    def _is_done(self, data: WaveData, run: int) -> bool:
        digest = data.run_digests[run]
        return bool(digest.any()) and bool((run_digest(self.wave_set, data.arrays(run)) == digest).all())

    def write(self, run: int, arrays: Mapping[str, Any]) -> None:
        """Write a run; when this returns it outlives the process.

        Raises
        ------
        OSError
            If the disk takes no more.  What was written before stays.
        """
        digest = run_digest(self.wave_set, arrays)
        try:
            for name in run_arrays(self.wave_set):
                self._file[name][run] = arrays[name]
            self._file.flush()
            self._file["run_digest"][run] = digest
            self._file.flush()
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"cannot write run {run} into {self.part} ({error}); the runs before it are kept: make room "
                f"and go on with --resume"
            ) from error
        self.done[run] = True

    def finish(self) -> str:
        """Give the whole file its name; returns its digest."""
        if not self.done.all():
            raise RuntimeError(f"{self.part} has {int(self.done.sum())} of {self.runs} runs, it is not whole")
        digest = content_digest(self._attributes, self._file["run_digest"][()])
        self._file.attrs.modify("digest", np.bytes_(digest.encode()))
        self._file.attrs.modify("complete", np.uint8(1))
        self.close()
        with open(self.part, "rb") as raw:
            os.fsync(raw.fileno())
        os.replace(self.part, self.path)
        return digest

    def close(self) -> None:
        """Leave the part file as it is."""
        self._file.close()

    def _no_room(self, error: OSError) -> OSError:
        free = shutil.disk_usage(self.part.parent).free / 1e6
        need = megabytes(self.wave_set, self.runs)
        why = os.strerror(error.errno) if error.errno else str(error)
        text = f"cannot make {self.part} of {need} MB in a directory with {free:.0f} MB free: {why}"
        return OSError(error.errno or errno.EIO, text)
