"""Sets of wave runs in HDF5: layout and reader.  ``docs/wave-data.md`` is the specification."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import DataFile, DataFileError, Layout
from consolve.pde.waves.problem import Source, WaveProblem
from consolve.pde.waves.sampling import PARAMETER_NAMES, SOURCE_COLUMNS, WaveSet

CONTENT = "wave data"
FORMAT_VERSION = 1

_RUN_ARRAYS = ("u", "speed", "fixed", "source", "start", "kind", "medium_seed", "parameters")
_UNITS = {
    "u": "u",
    "speed": "side/time",
    "source": "side, side, 1/time, u*side^2/time^2, side, time",
    "parameters": "side, side, 1/time, side/time",
    "start": "time",
    "time": "time",
    "x": "side",
    "y": "side",
}
UNITS = "free of units: lengths in sides of the square, times in crossings of it at speed 1"


SETTINGS = (
    "set", "split", "seed", "runs", "fe_vertices", "interval", "boundaries", "media", "speed_range",
    "frequency_range", "place_range", "amplitude_range", "source_columns", "parameter_names",
)  # fmt: skip
"""Attributes that fix the content of a file."""
RECORD = ("solver",)
"""The other ones, beside those of every data set."""


class WaveDataError(DataFileError):
    """A file of wave data that is missing, damaged, unfinished, of another kind or of another version."""


def layout(wave_set: WaveSet, runs: int) -> Layout:
    """Shape and dtype of every dataset of a file."""
    times, points = wave_set.snapshots, wave_set.points
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "u": ((runs, times, points, points), "<f4"),
        "speed": ((runs, points, points), "<f4"),
        "fixed": ((runs, points, points), "|u1"),
        "source": ((runs, len(SOURCE_COLUMNS)), "<f8"),
        "start": ((runs,), "<f8"),
        "kind": ((runs,), "|S16"),
        "medium_seed": ((runs,), "<i8"),
        "run_digest": ((runs, 32), "|u1"),
        "time": ((times,), "<f8"),
        "x": ((points,), "<f8"),
        "y": ((points,), "<f8"),
    }
    if not wave_set.whole:
        shapes["parameters"] = ((runs, len(PARAMETER_NAMES)), "<f8")
    return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


def run_arrays(wave_set: WaveSet) -> tuple[str, ...]:
    """Names of the datasets that hold one entry for each run, in the order in which they are hashed."""
    return tuple(name for name in _RUN_ARRAYS if name != "parameters" or not wave_set.whole)


def dataset_units(name: str) -> str:
    """Unit of a dataset, empty for numbers and names."""
    return _UNITS.get(name, "")


def run_digest(wave_set: WaveSet, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
    """SHA-256 of one run, (32,): over names and little-endian bytes of its arrays."""
    sha = hashlib.sha256()
    shapes = layout(wave_set, 1)
    for name in run_arrays(wave_set):
        sha.update(name.encode() + np.ascontiguousarray(arrays[name], shapes[name][1]).tobytes())
    return np.frombuffer(sha.digest(), np.uint8)


def settings(wave_set: WaveSet, runs: int, vertices: int) -> dict[str, Any]:
    """The attributes ``SETTINGS``, as plain numbers, texts and lists."""
    return {
        "set": wave_set.name,
        "split": wave_set.split,
        "seed": int(wave_set.seed),
        "runs": int(runs),
        "fe_vertices": int(vertices),
        "interval": wave_set.interval,
        "boundaries": " ".join(f"{side}={condition}" for side, condition in wave_set.boundaries.items()),
        "media": " ".join(wave_set.kinds),
        "speed_range": list(wave_set.speeds),
        "frequency_range": list(wave_set.frequencies),
        "place_range": list(wave_set.places),
        "amplitude_range": list(wave_set.amplitudes),
        "source_columns": " ".join(SOURCE_COLUMNS),
        "parameter_names": "" if wave_set.whole else " ".join(PARAMETER_NAMES),
    }


class WaveDataBusy(WaveDataError):
    """A file of wave data that another process is writing."""


class WaveData(DataFile):
    """A file of wave data, checked when opened, read where it is sliced.

    ``with WaveData("train.h5") as data: data.u[3:5, ::2]``

    Parameters
    ----------
    path
        File made by ``consolve data wave``.
    unfinished
        Take files that are not complete too.

    Attributes
    ----------
    u, speed, fixed
        HDF5 datasets (runs, snapshots, y, x) float32, (runs, y, x) float32 and (runs, y, x) uint8; each
        slicing reads from the file.
    time, x, y
        float64: times of the snapshots after ``start``, coordinates of the stored vertices.
    start
        (runs,) float64: time of the first snapshot of each run; the source begins at 0.
    source
        (runs, 6) float64, the columns are ``source_columns``.
    parameters
        (runs, 4) float64, the columns are ``parameter_names``; (runs, 0) in the propagator set.
    kind, medium_seed
        Kinds of media (list of str), and the seeds (runs,) int64.
    wave_set
        What the runs are.
    runs, vertices, solver
        Number of runs, vertices a side of the finite-element grid, ``leap-frog`` or ``dolfinx``.
    digest
        SHA-256 of the content, 64 hexadecimal digits.
    attributes
        All attributes of the file.

    Raises
    ------
    WaveDataError
        If the file is missing, no HDF5, truncated, of another kind or version, not complete, or an attribute
        or dataset is missing, ill-shaped or (of the small ones) not finite.
    """

    content, title, version = CONTENT, "wave data", FORMAT_VERSION
    settings, required = SETTINGS, RECORD
    maker = "consolve data wave"
    error, busy = WaveDataError, WaveDataBusy

    def _read(self) -> None:
        attributes = self.attributes
        self.wave_set = WaveSet(attributes["set"], attributes["split"], attributes["seed"])
        self.runs, self.vertices = int(attributes["runs"]), int(attributes["fe_vertices"])
        self.solver = str(attributes["solver"])
        self._check_layout(layout(self.wave_set, self.runs))
        self.source_columns = SOURCE_COLUMNS
        self.parameter_names = () if self.wave_set.whole else PARAMETER_NAMES
        self.u, self.speed, self.fixed = (self._file[name] for name in ("u", "speed", "fixed"))
        self.time, self.x, self.y, self.start, self.source = (
            self._file[name][()] for name in ("time", "x", "y", "start", "source")
        )
        self.kind = [text.decode() for text in self._file["kind"][()]]
        self.medium_seed, self.part_digests = self._file["medium_seed"][()], self._file["run_digest"][()]
        self.parameters = np.empty((self.runs, 0)) if self.wave_set.whole else self._file["parameters"][()]
        if self.complete:
            self._check_small()

    def _check_small(self) -> None:
        for name in ("time", "x", "y", "start", "source", "parameters"):
            if not np.isfinite(getattr(self, name)).all():
                raise self.fault(f"dataset {name!r} holds NaN or Inf")
        self._check_digest(self.content_digest(self.attributes, self.part_digests), "runs")

    @property
    def interval(self) -> float:
        """Time between snapshots."""
        return self.wave_set.interval

    @property
    def every(self) -> int:
        """Vertices of the finite-element grid for one stored."""
        return self.wave_set.every(self.vertices)

    def problem(self, run: int) -> WaveProblem:
        """The problem of a run, from what the file says of it."""
        x, y, frequency, amplitude, radius, _ = (float(v) for v in self.source[run])
        slow, fast = self.attributes["speed_range"]
        parameters = tuple(float(v) for v in self.parameters[run])
        medium = self.wave_set.medium(self.kind[run], int(self.medium_seed[run]), parameters, (slow, fast))
        source = Source(x, y, frequency, amplitude, radius=radius)
        return WaveProblem(medium, source, self.wave_set.boundaries)

    def arrays(self, part: int) -> dict[str, Any]:
        """All that is stored of one run, by name."""
        return {name: self._file[name][part] for name in run_arrays(self.wave_set)}

    def part_name(self, part: int) -> str:
        """Which run."""
        return f"run {part}"

    def digest_of_part(self, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
        """SHA-256 of a run."""
        return run_digest(self.wave_set, arrays)

    def read(self, first: int = 0, last: int | None = None) -> dict[str, NDArray]:
        """What is stored of the runs from ``first`` to before ``last``, by name, one after the other.

        Raises
        ------
        WaveDataError
            If a run is not what its digest says.
        """
        runs = range(self.runs)[first:last]
        found = {
            name: np.empty((len(runs), *self._file[name].shape[1:]), self._file[name].dtype)
            for name in run_arrays(self.wave_set)
        }
        for place, run in enumerate(runs):
            arrays = self.arrays(run)
            self.check_part(run, arrays)
            for name, array in arrays.items():
                found[name][place] = array
        return found

    def __len__(self) -> int:
        return self.runs

    def __repr__(self) -> str:
        s = self.wave_set
        return f"WaveData({str(self.path)!r}: {s.name} {s.split}, {self.runs} runs, seed {s.seed})"


def megabytes(wave_set: WaveSet, runs: int) -> int:
    """Size of a file, in 10^6 bytes, rounded up."""
    total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout(wave_set, runs).values())
    return math.ceil(total / 1e6)
