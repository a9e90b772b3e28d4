"""Sets of right-hand sides made of Ritz vectors, in HDF5: layout and reader.  ``docs/ritz-data.md`` is the
specification."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.data_file import DataFile, DataFileError, Layout
from consolve.pde.poisson.grid import GridOperator

CONTENT = "ritz data"
FORMAT_VERSION = 1

LOW_WEIGHT = 9.0
"""What the coefficients of the low part of the spectrum are multiplied with."""
LEAST = 1e-8
"""Ritz values below this part of the largest are left out."""

SETTINGS = (
    "dimension", "cells", "domain", "domain_seed", "operator_digest", "seed", "vectors", "samples",
    "low_excess", "low_weight", "least", "basis", "chunk",
)  # fmt: skip
"""Attributes that fix the content of a file."""
RECORD = ("revision", "low_vectors")
"""The other ones, beside those of every data set."""


class RitzDataError(DataFileError):
    """A file of Ritz data that is missing, damaged, unfinished, of another kind or of another version."""


class RitzDataBusy(RitzDataError):
    """A file of Ritz data that another process is writing."""


@dataclass(frozen=True)
class RitzSet:
    """Which right-hand sides a file holds.

    With v_1 .. v_k the Ritz vectors of ``vectors`` Lanczos steps, by ascending Ritz value, those below
    ``LEAST`` times the largest left out::

        b = sum_i w_i c_i v_i / | ... |,    c_i ~ N(0, 1),
        w_i = 9 for the first floor(vectors / 2) + low_excess of them, 1 for the others

    Attributes
    ----------
    domain, domain_seed
        Name and seed for :func:`consolve.pde.poisson.domains.make_domain`.
    shape
        Cells along each axis, a NumPy shape.
    vectors, samples
        Number of Lanczos vectors and of right-hand sides.
    seed
        Of the Lanczos start vector and of the coefficients.
    low_excess
        By how many the weighted part exceeds half of the vectors; None: a twentieth of ``vectors``, which
        for the 10,000 of the paper is its theta of 500.
    """

    domain: str
    shape: tuple[int, ...]
    vectors: int
    samples: int
    seed: int = 0
    low_excess: int | None = None
    domain_seed: int = 0

    @property
    def excess(self) -> int:
        """``low_excess``, or what None stands for."""
        return self.vectors // 20 if self.low_excess is None else self.low_excess

    @property
    def chunk(self) -> int:
        """Right-hand sides that are made and written together."""
        return max(64, min(1024, (1 << 24) // int(np.prod(self.shape))))

    @property
    def chunks(self) -> int:
        """Number of chunks; the last may be shorter."""
        return -(-self.samples // self.chunk)

    def samples_of(self, chunk: int) -> slice:
        """Numbers of the right-hand sides of a chunk."""
        return slice(chunk * self.chunk, min((chunk + 1) * self.chunk, self.samples))

    def low_vectors(self, kept: int) -> int:
        """How many of ``kept`` Ritz vectors are weighted."""
        return min(kept, self.vectors // 2 + self.excess)

    def settings(self, operator: GridOperator, basis: str) -> dict[str, Any]:
        """The attributes ``SETTINGS``, as plain numbers, texts and lists; ``basis`` is its dtype."""
        return {
            "dimension": len(self.shape),
            "cells": [int(n) for n in self.shape[::-1]],
            "domain": self.domain,
            "domain_seed": int(self.domain_seed),
            "operator_digest": operator_digest(operator),
            "seed": int(self.seed),
            "vectors": int(self.vectors),
            "samples": int(self.samples),
            "low_excess": int(self.excess),
            "low_weight": LOW_WEIGHT,
            "least": LEAST,
            "basis": basis,
            "chunk": int(self.chunk),
        }

    @staticmethod
    def of(attributes: Mapping[str, Any]) -> RitzSet:
        """The set that the attributes of a file name."""
        shape = tuple(int(n) for n in attributes["cells"][::-1])
        a = attributes
        return RitzSet(
            a["domain"], shape, a["vectors"], a["samples"], a["seed"], a["low_excess"], a["domain_seed"]
        )


def layout(ritz_set: RitzSet, kept: int) -> Layout:
    """Shape and dtype of every dataset of a file with ``kept`` Ritz values."""
    shape, ndim = ritz_set.shape, len(ritz_set.shape)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "right_hand_sides": ((ritz_set.samples, *shape), "<f4"),
        "ritz_values": ((kept,), "<f8"),
        "ritz_residuals": ((kept,), "<f8"),
        "face_coefficient": ((ndim, *shape), "<f8"),
        "dirichlet": (shape, "<f8"),
        "active": (shape, "|u1"),
        "chunk_digest": ((ritz_set.chunks, 32), "|u1"),
    }
    return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


def operator_arrays(operator: GridOperator) -> dict[str, NDArray]:
    """The datasets that hold an operator."""
    return {
        "face_coefficient": np.stack([np.asarray(f, "<f8") for f in operator.face_coefficient]),
        "dirichlet": np.asarray(operator.dirichlet, "<f8"),
        "active": operator.active.astype(np.uint8),
    }


def operator_digest(operator: GridOperator) -> str:
    """SHA-256 over names and little-endian bytes of an operator's arrays, 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, array in operator_arrays(operator).items():
        sha.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def chunk_digest(right_hand_sides: NDArray[np.float32]) -> NDArray[np.uint8]:
    """SHA-256 of the bytes of some right-hand sides, (32,)."""
    sha = hashlib.sha256(np.ascontiguousarray(right_hand_sides, "<f4").data)
    return np.frombuffer(sha.digest(), np.uint8)


class RitzData(DataFile):
    """A file of Ritz data, checked when opened, read where it is sliced.

    ``with RitzData("box.h5") as data: data.right_hand_sides[3:5]``

    Parameters
    ----------
    path
        File made by ``consolve data ritz``.
    unfinished
        Take files that are not complete too.

    Attributes
    ----------
    right_hand_sides
        HDF5 dataset (samples, *shape) float32 of unit norm, 0 outside the active cells; each slicing reads
        from the file.
    operator
        The :class:`GridOperator`, float64.
    ritz_values
        (kept,) float64, ascending.
    ritz_residuals
        (kept,) float64: |A v - theta v| of each Ritz pair.
    ritz_set
        What the right-hand sides are.
    digest
        SHA-256 of the content, 64 hexadecimal digits.
    attributes
        All attributes of the file.

    Raises
    ------
    RitzDataError
        If the file is missing, no HDF5, truncated, of another kind or version, not complete, or an attribute
        or dataset is missing, ill-shaped or not what the digest says.
    """

    content, title, version = CONTENT, "Ritz data", FORMAT_VERSION
    settings, required = SETTINGS, RECORD
    maker = "consolve data ritz"
    error, busy = RitzDataError, RitzDataBusy

    def _read(self) -> None:
        self.ritz_set = RitzSet.of(self.attributes)
        self._check_layout(layout(self.ritz_set, self._kept()))
        self.right_hand_sides = self._file["right_hand_sides"]
        self.ritz_values = self._file["ritz_values"][()]
        self.ritz_residuals = self._file["ritz_residuals"][()]
        self.part_digests = self._file["chunk_digest"][()]
        self._checked: set[int] = set()
        self.operator = GridOperator(
            tuple(self._file["face_coefficient"][()]),
            self._file["dirichlet"][()],
            self._file["active"][()].astype(np.bool_),
        )
        if operator_digest(self.operator) != self.attributes["operator_digest"]:
            raise self.fault("the operator was changed, its digest does not fit")
        if self.complete:
            found = self.content_digest(self.attributes, self.ritz_values, self.part_digests)
            self._check_digest(found, "chunks")

    def read(self, picks: NDArray[np.int_]) -> NDArray[np.float32]:
        """Right-hand sides by their numbers, (len(picks), *shape), from chunks whose digests fit.

        A chunk is checked when it is first read, and when it is first read after the file was written to.

        Raises
        ------
        RitzDataError
            If one of the chunks is not what its digest says.
        """
        self._refresh()
        picks = np.asarray(picks)
        found = np.empty((picks.size, *self.ritz_set.shape), np.float32)
        chunks = picks // self.ritz_set.chunk
        for chunk in map(int, np.unique(chunks)):
            places = np.flatnonzero(chunks == chunk)
            samples = self.ritz_set.samples_of(chunk)
            if chunk in self._checked:
                for place in places:
                    found[place] = self.right_hand_sides[int(picks[place])]
            else:
                b = self.right_hand_sides[samples]
                self.check_part(chunk, {"right_hand_sides": b})
                found[places] = b[picks[places] - samples.start]
                self._checked.add(chunk)
        return found

    def arrays(self, part: int) -> dict[str, NDArray[np.float32]]:
        """The right-hand sides of a chunk, (samples of it, *shape)."""
        return {"right_hand_sides": self.right_hand_sides[self.ritz_set.samples_of(part)]}

    def part_name(self, part: int) -> str:
        """Which right-hand sides."""
        samples = self.ritz_set.samples_of(part)
        return f"right-hand sides {samples.start} to {samples.stop - 1}"

    def digest_of_part(self, arrays: Mapping[str, Any]) -> NDArray[np.uint8]:
        """SHA-256 of a chunk."""
        return chunk_digest(arrays["right_hand_sides"])

    def _kept(self) -> int:
        dataset = self._file.get("ritz_values")
        return dataset.size if dataset is not None and getattr(dataset, "ndim", 0) == 1 else 0

    def __len__(self) -> int:
        return self.ritz_set.samples

    def __repr__(self) -> str:
        s = self.ritz_set
        cells = " x ".join(map(str, self.attributes["cells"]))
        return (
            f"RitzData({str(self.path)!r}: {s.domain} {cells}, {s.samples} right-hand sides, seed {s.seed})"
        )
