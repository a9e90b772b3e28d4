"""Files of wave data while they grow: what is in them outlives the process, the final name comes last.

The digest of a run is written after its arrays: runs whose digests fit are done (`consolve.base.data_file`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import create, give_name, lay_out, part_path, take_room, write_bytes, write_head
from consolve.base.files import open_in_place
from consolve.base.hdf5 import import_h5py
from consolve.pde.waves.data import (
    UNITS,
    WaveData,
    WaveDataBusy,
    WaveDataError,
    content_digest,
    dataset_units,
    layout,
    megabytes,
    run_arrays,
    run_digest,
    settings,
)
from consolve.pde.waves.sampling import WaveSet


def digest_of_whole(path: str | os.PathLike[str], expected: Mapping[str, Any]) -> str:
    """Digest of a file that is whole already, if its attributes are the expected ones.

    Raises
    ------
    WaveDataError
        If they are not, or it is no such file.
    """
    with WaveData(path) as data:
        data.check_settings(expected)
        return data.digest


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
        If a part file is there and ``resume`` is not set, or is set and the file is damaged, holds another
        set or is open in another process; it is left as it is.
    OSError
        If there is no room on the disk.
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
        self._places = self._find_places()
        self._handle: int | None = self._lock()

    def _create(self) -> None:
        # A part file that can be resumed appears all at once.
        fresh = self.part.with_name(f"{self.part.name}.new")
        size = 1_010_000 * (1 + megabytes(self.wave_set, self.runs))  # with room for HDF5's book-keeping
        try:
            if size > shutil.disk_usage(self.part.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            take_room(fresh, size, new=True)
            with create(fresh) as file:
                self._write_frame(file)
            take_room(fresh, fresh.stat().st_size)
            os.replace(fresh, self.part)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            free = shutil.disk_usage(self.part.parent).free / 1e6
            raise OSError(
                f"cannot make {self.part} of {size / 1e6:.0f} MB where {free:.0f} MB are free: {why}"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _write_frame(self, file: Any) -> None:
        write_head(file, WaveData, {"units": UNITS} | self._attributes)
        for name, (shape, dtype) in layout(self.wave_set, self.runs).items():
            lay_out(file, name, shape, dtype, (1, *shape[1:]) if name == "u" else None)
            if dataset_units(name):
                file[name].attrs["units"] = dataset_units(name)
        file["run_digest"][...] = 0
        file["time"][...] = self.wave_set.interval * np.arange(self.wave_set.snapshots)
        file["x"][...] = file["y"][...] = self.wave_set.coordinates

    def _runs_done(self) -> NDArray[np.bool_]:
        try:
            data = WaveData(self.part, unfinished=True)
        except WaveDataBusy:
            raise
        except WaveDataError as error:
            raise WaveDataError(f"cannot go on; remove the part file to start over: {error}") from error
        with data:
            data.check_settings({k: v for k, v in self._attributes.items() if k != "command"})
            return np.array([self._is_done(data, run) for run in range(self.runs)])

    def _is_done(self, data: WaveData, run: int) -> bool:
        return bool(data.run_digests[run].any()) and data.fits(run, data.arrays(run))

    def _find_places(self) -> dict[str, NDArray[np.int64]]:
        """Where in the file the entry of each run begins, of every dataset with one for each."""
        places = {}
        with import_h5py().File(self.part, "r") as file:
            for name in (*run_arrays(self.wave_set), "run_digest"):
                dataset = file[name]
                if dataset.chunks is None:
                    size = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
                    places[name] = dataset.id.get_offset() + size * np.arange(self.runs)
                else:
                    places[name] = np.empty(self.runs, np.int64)
                    for chunk in range(dataset.id.get_num_chunks()):
                        info = dataset.id.get_chunk_info(chunk)
                        places[name][info.chunk_offset[0]] = info.byte_offset
        return places

    def _lock(self) -> int:
        handle = open_in_place(self.part, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise WaveDataBusy(f"{self.part}: another process has it open; wait for it to end") from error
        return handle

    def write(self, run: int, arrays: Mapping[str, Any]) -> None:
        """Write a run; when this returns it outlives the process.

        Raises
        ------
        OSError
            If the disk takes it not.  What was written before stays.
        """
        assert self._handle is not None
        shapes = layout(self.wave_set, self.runs)
        digest = run_digest(self.wave_set, arrays)
        try:
            for name, values in [(n, arrays[n]) for n in run_arrays(self.wave_set)] + [
                ("run_digest", digest)
            ]:
                shape, dtype = shapes[name]
                entry = np.ascontiguousarray(values, dtype)
                if entry.size != np.prod(shape[1:], dtype=int):
                    raise ValueError(f"{name} of run {run} has shape {entry.shape}, expected {shape[1:]}")
                write_bytes(self._handle, entry.tobytes(), int(self._places[name][run]))
        except OSError as error:
            raise OSError(
                f"cannot write run {run} into {self.part}: {error.strerror}; the runs done are kept, "
                f"--resume goes on from there"
            ) from error
        self.done[run] = True

    def finish(self) -> str:
        """Give the whole file its name; returns its digest."""
        if not self.done.all():
            raise RuntimeError(f"{self.part} has {int(self.done.sum())} of {self.runs} runs, it is not whole")
        assert self._handle is not None
        os.fsync(self._handle)
        self.close()
        with import_h5py().File(self.part, "r") as file:
            digest = content_digest(self._attributes, file["run_digest"][()])
        give_name(self.part, self.path, digest)
        return digest

    def close(self) -> None:
        """Leave the part file as it is, or remove it if no run is in it."""
        if self._handle is not None:
            if not self.done.any():
                self.part.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None
