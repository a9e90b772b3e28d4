"""Files of Ritz data while they grow (`consolve.base.growing_file`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import DataFile
from consolve.base.growing_file import GrowingFile, lay_out
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.ritz.data import RitzData, RitzDataError, RitzSet, chunk_digest, layout, operator_arrays


class RitzWriter(GrowingFile):
    """A file of Ritz data, gone on with if it is there.

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
    """

    kind, word = RitzData, "chunk"
    kept = "; the Lanczos steps are kept, --resume goes on from there"

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
        self.ritz_set = ritz_set
        self._head = operator_arrays(operator)
        self._head |= {"ritz_values": ritz_values, "ritz_residuals": ritz_residuals}
        low = {"low_vectors": ritz_set.low_vectors(ritz_values.size)}
        entries = ("right_hand_sides", "chunk_digest")
        super().__init__(
            path, settings, low | dict(record), layout(ritz_set, ritz_values.size), entries, resume=True
        )

    def _fill(self, file: Any) -> None:
        for name, array in self._head.items():
            packed = "gzip" if name in ("face_coefficient", "dirichlet", "active") else None
            file.create_dataset(name, data=np.asarray(array, self._layout[name][1]), compression=packed)
        for name in self._entries:
            lay_out(file, name, *self._layout[name])

    def _check_resumed(self, data: DataFile) -> None:
        assert isinstance(data, RitzData)
        own, found = self._head["ritz_values"], data.ritz_values
        if found.shape != own.shape or not np.allclose(found, own, rtol=1e-10, atol=0):
            raise RitzDataError(
                f"{self.part} holds other Ritz values than its Lanczos steps give; remove it to start over"
            )

    def _rows(self, part: int) -> slice:
        return self.ritz_set.samples_of(part)

    def _digest_of_part(self, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
        return chunk_digest(arrays["right_hand_sides"])

    def _content_digest(self, file: Any) -> str:
        return RitzData.content_digest(self._settings, file["ritz_values"][()], file["chunk_digest"][()])
