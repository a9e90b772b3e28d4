"""Files of Ritz data while they grow: what is in them outlives the process, the final name comes last.

The digest of a chunk is written after it: chunks whose digests fit are done (`consolve.base.data_file`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import (
    Layout,
    create,
    give_name,
    lay_out,
    part_path,
    take_room,
    write_bytes,
    write_head,
)
from consolve.base.files import open_in_place
from consolve.base.hdf5 import import_h5py
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.ritz.data import (
    RitzData,
    RitzDataError,
    RitzSet,
    chunk_digest,
    content_digest,
    layout,
    operator_arrays,
)


class GrowingFile:
    """``PATH.part``, until :meth:`finish` gives it the name PATH.

    Parameters
    ----------
    path
        Of the file to be.
    ritz_set, settings, operator
        What goes into it; ``settings`` are those of :meth:`RitzSet.settings`.
    ritz_values, ritz_residuals
        (kept,) float64.  Those of a part file that is there must be the same to 10 digits.
    record
        The attributes ``command`` and ``revision``.

    Attributes
    ----------
    done
        (chunks,) bool: chunks that are in the file.

    Raises
    ------
    RitzDataError
        If a part file is there and is damaged or holds another set; it is left as it is.
    OSError
        If there is no room on the disk.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ritz_set: RitzSet,
        settings: Mapping[str, Any],
        operator: GridOperator,
        ritz_values: NDArray[np.float64],
        ritz_residuals: NDArray[np.float64],
        record: Mapping[str, str],
    ) -> None:
        self.path, self.part, self.ritz_set = Path(path), part_path(path), ritz_set
        self._settings = dict(settings)
        if self.part.exists():
            self.done = self._chunks_done(ritz_values)
        else:
            self._create(operator, ritz_values, ritz_residuals, record)
            self.done = np.zeros(ritz_set.chunks, np.bool_)
        with import_h5py().File(self.part, "r") as file:
            self._places = {n: file[n].id.get_offset() for n in ("right_hand_sides", "chunk_digest")}
        self._handle: int | None = open_in_place(self.part, os.O_RDWR)

    def _create(
        self,
        operator: GridOperator,
        ritz_values: NDArray[np.float64],
        ritz_residuals: NDArray[np.float64],
        record: Mapping[str, str],
    ) -> None:
        # A part file that can be resumed appears all at once.
        fresh = self.part.with_name(f"{self.part.name}.new")
        shapes = layout(self.ritz_set, ritz_values.size)
        size = 4 * int(np.prod(shapes["right_hand_sides"][0]))
        arrays = operator_arrays(operator) | {"ritz_values": ritz_values, "ritz_residuals": ritz_residuals}
        attributes = self._settings | dict(record) | {
            "low_vectors": self.ritz_set.low_vectors(ritz_values.size),
        }  # fmt: skip
        try:
            # HDF5 on a full disk would crash the process: the room is taken first.
            take_room(fresh, size + 2 * sum(a.nbytes for a in arrays.values()), new=True)
            self._write_frame(fresh, shapes, arrays, attributes)
            take_room(fresh, fresh.stat().st_size)
            os.replace(fresh, self.part)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(
                f"cannot make {self.part} of {size / 1e6:.0f} MB: {why}; the Lanczos steps are kept, "
                f"--resume goes on from there"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _write_frame(
        self, path: Path, shapes: Layout, arrays: Mapping[str, NDArray], attributes: Mapping[str, Any]
    ) -> None:
        with create(path) as file:
            write_head(file, RitzData, attributes)
            for name, array in arrays.items():
                packed = name in ("face_coefficient", "dirichlet", "active")
                file.create_dataset(
                    name, data=np.asarray(array, shapes[name][1]), compression="gzip" if packed else None
                )
            for name in ("right_hand_sides", "chunk_digest"):
                lay_out(file, name, *shapes[name])
            file["chunk_digest"][...] = 0

    def _chunks_done(self, ritz_values: NDArray[np.float64]) -> NDArray[np.bool_]:
        try:
            data = RitzData(self.part, unfinished=True)
        except RitzDataError as error:
            raise RitzDataError(f"cannot go on; remove the part file to start over: {error}") from error
        with data:
            data.check_settings(self._settings)
            same = data.ritz_values.shape == ritz_values.shape
            if not same or not np.allclose(data.ritz_values, ritz_values, rtol=1e-10, atol=0):
                raise RitzDataError(
                    f"{self.part} holds other Ritz values than its Lanczos steps give; remove it to start "
                    f"over"
                )
            return np.array([self._is_done(data, chunk) for chunk in range(self.ritz_set.chunks)])

    def _is_done(self, data: RitzData, chunk: int) -> bool:
        if not data.chunk_digests[chunk].any():
            return False
        return data.fits(chunk, data.right_hand_sides[self.ritz_set.samples_of(chunk)])

    def write(self, chunk: int, right_hand_sides: NDArray[np.float32]) -> None:
        """Write a chunk (samples of it, *shape); when this returns it outlives the process.

        Raises
        ------
        OSError
            If the disk takes it not.  What was written before stays.
        """
        assert self._handle is not None
        entry = np.ascontiguousarray(right_hand_sides, "<f4")
        samples = self.ritz_set.samples_of(chunk)
        expected = (samples.stop - samples.start, *self.ritz_set.shape)
        if entry.shape != expected:
            raise ValueError(f"chunk {chunk} has shape {entry.shape}, expected {expected}")
        each = entry.nbytes // entry.shape[0]
        try:
            place = self._places["right_hand_sides"] + samples.start * each
            write_bytes(self._handle, entry.reshape(-1).view(np.uint8).data, place)
            write_bytes(
                self._handle, chunk_digest(entry).tobytes(), self._places["chunk_digest"] + 32 * chunk
            )
        except OSError as error:
            raise OSError(
                f"cannot write into {self.part}: {error.strerror}; the {int(self.done.sum())} chunks done "
                f"are kept, --resume goes on from there"
            ) from error
        self.done[chunk] = True

    def finish(self) -> str:
        """Give the whole file its name; returns its digest."""
        if not self.done.all():
            raise RuntimeError(f"{self.part} has {int(self.done.sum())} of {self.done.size} chunks")
        assert self._handle is not None
        os.fsync(self._handle)
        self.close()
        with import_h5py().File(self.part, "r") as file:
            digest = content_digest(self._settings, file["ritz_values"][()], file["chunk_digest"][()])
        give_name(self.part, self.path, digest)
        return digest

    def close(self) -> None:
        """Leave the part file as it is."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
