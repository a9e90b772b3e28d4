"""Files of wave data while they grow (`consolve.base.growing_file`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.growing_file import GrowingFile, lay_out
from consolve.pde.waves.data import UNITS, WaveData, dataset_units, layout, run_arrays, run_digest, settings
from consolve.pde.waves.sampling import WaveSet


class WaveWriter(GrowingFile):
    """A file of wave data.

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
    """

    kind, word = WaveData, "run"

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
        self.wave_set = wave_set
        fixed = settings(wave_set, runs, vertices) | {"solver": solver}
        entries = (*run_arrays(wave_set), "run_digest")
        record = {"units": UNITS, "command": command}
        super().__init__(path, fixed, record, layout(wave_set, runs), entries, resume)

    def _fill(self, file: Any) -> None:
        for name, (shape, dtype) in self._layout.items():
            lay_out(file, name, shape, dtype, (1, *shape[1:]) if name == "u" else None)
            if dataset_units(name):
                file[name].attrs["units"] = dataset_units(name)
        file["time"][...] = self.wave_set.interval * np.arange(self.wave_set.snapshots)
        file["x"][...] = file["y"][...] = self.wave_set.coordinates

    def _rows(self, part: int) -> slice:
        return slice(part, part + 1)

    def _digest_of_part(self, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
        return run_digest(self.wave_set, arrays)

    def _content_digest(self, file: Any) -> str:
        return WaveData.content_digest(self._settings, file["run_digest"][()])
