"""Files of weights: float32 tensors by name in HDF5, with settings and a record as attributes.

What every format of weights shares: the shipped files, reading, checking, writing and digests.

A file may come from anywhere, and libhdf5 is not safe on damaged or hostile ones: it was seen to crash, to
hang and to allocate gigabytes.  So HDF5 looks at bytes in this process only if they are known to be what was
written: those of shipped files by ``shipped.json``, others by a *seal*, the SHA-256 of all that follows it in
the HDF5 user block at the head of the file.  Any other file, one of an earlier version or one that was
changed, is read by a process of its own (`reader`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.files import write_file
from consolve.base.hdf5 import import_h5py
from consolve.learned.weights import reader

MOST_BYTES = 1 << 30
"""Larger files hold no weights."""
MOST = 4096
"""Channels, layers, sweeps or hidden units: more of any are no network's."""
SECONDS = 30.0
"""For the process that reads a file that is not sealed."""

Tensors = dict[str, NDArray[np.float32]]
Shapes = dict[str, tuple[int, ...]]
_BLOCK = 512
_SEAL = b"consolve weights, sha256 of what follows this block: "
_AGAIN = "train or install it again"


class WeightsError(ValueError):
    """A weights file that is missing, damaged, of another version, or not for this problem."""


def folder() -> Path:
    """Where the shipped files are."""
    return Path(str(resources.files("consolve.learned") / "weights"))


@cache
def shipped_digests() -> dict[str, str]:
    """SHA-256 of each shipped file, by name, as in ``shipped.json``.

    ``python -m consolve.learned.weights`` writes it anew.
    """
    found: dict[str, str] = json.loads((folder() / "shipped.json").read_text())
    return found


@dataclass(frozen=True)
class Contents:
    """What stands in a file of weights.

    Parameters
    ----------
    path
        Of the file.
    attributes, tensors
        As in it.
    is_changed
        It is not what was written: its seal does not fit.
    """

    path: Path
    attributes: dict[str, Any]
    tensors: dict[str, NDArray]
    is_changed: bool

    def check_version(self, name: str, version: int, kind: str) -> None:
        """Take the format's version out of the attributes; ``kind`` says what the file should be."""
        found = self.attributes.pop(name, None)
        if found is None:
            raise WeightsError(f"{self.path}: not {kind} of consolve (no attribute {name!r})")
        if found != version:
            raise WeightsError(
                f"{self.path}: format version {found}, this consolve reads {version}; train again or "
                "install a consolve that fits"
            )

    def check_unchanged(self) -> None:
        """To be asked last: what is wrong in itself has a better message."""
        if self.is_changed:
            raise WeightsError(
                f"{self.path}: changed since it was written, its SHA-256 does not fit: {_AGAIN}, or if the "
                "change is wanted, consolve.learned.weights.file.seal(path)"
            )

    def settings(self, kind: Any, required: tuple[str, ...]) -> Any:
        """The dataclass ``kind`` from the attribute ``settings``, JSON text of its fields."""
        text = self.attributes.pop("settings", None)
        if not isinstance(text, str):
            raise WeightsError(f"{self.path}: attribute 'settings' is missing; the file is damaged")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WeightsError(
                f"{self.path}: attribute 'settings' is no JSON ({error}); the file is damaged"
            ) from None
        known = [f.name for f in fields(kind)]
        if not isinstance(found, dict) or not set(required) <= set(found) <= set(known):
            raise WeightsError(
                f"{self.path}: attribute 'settings' is {text[:200]}, expected the keys {', '.join(known)}"
            )
        try:
            return kind(**found)
        except (WeightsError, TypeError, ValueError, OverflowError) as error:
            raise WeightsError(f"{self.path}: the settings are not valid ({error})") from None


def path_of(name: str | os.PathLike[str], shipped: Mapping[str, Path], training: str) -> Path:
    """The file of a shipped name, or of a path.

    Raises
    ------
    WeightsError
        If there is none; ``training`` is the command that makes one.
    """
    path = shipped.get(str(name), Path(name))
    if not path.is_file():
        raise WeightsError(
            f"no weights at {str(path)!r}; give a shipped name ({', '.join(shipped)}) or an HDF5 file "
            f"made by {training!r}"
        )
    return path


def read(path: Path, tensors: bool = True) -> Contents:
    """Attributes and datasets of a file; with ``tensors`` False attributes only.

    Raises
    ------
    WeightsError
        If it cannot be read, is no HDF5, damaged, or holds what no file of weights does.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise WeightsError(f"{path}: {path.stat().st_size:,} bytes; weights have at most {MOST_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    is_shipped = path.parent == folder() and path.name in shipped_digests()
    if is_shipped and hashlib.sha256(data).hexdigest() != shipped_digests()[path.name]:
        raise WeightsError(
            f"{path}: not the file of this version (its SHA-256 differs): install consolve again"
        )
    is_sealed = data.startswith(_SEAL)
    is_sound = is_shipped or (is_sealed and data[:_BLOCK] == _seal(data[_BLOCK:]))
    try:
        how = reader.contents if is_sound else _elsewhere
        attributes, found = how(import_h5py(), data, tensors)
    except Exception as error:  # libhdf5's own are of many types
        raise WeightsError(f"{path}: cannot be read as HDF5 ({error}); {_AGAIN}") from error
    return Contents(path, attributes, found, is_sealed and not is_sound)


def _elsewhere(_: Any, data: bytes, tensors: bool) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """`reader.contents` in a process of its own."""
    command = [sys.executable or "python3", str(Path(reader.__file__)), *["--attributes"] * (not tensors)]
    found = os.pathsep.join(p for p in sys.path if p)  # also those of a Python within another program
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "PMIX_"))}
    environment = kept | {"PYTHONPATH": found, "PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f"not done after {SECONDS:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        ended = f"the reader ended with signal {-done.returncode}" if done.returncode < 0 else "no message"
        raise ValueError(said[-1] if said and done.returncode > 0 else ended)
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    return json.loads(content.pop(reader.ATTRIBUTES).tobytes()), content


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuse a number in settings that is no count of anything in a network."""
    if isinstance(value, int) and value > MOST:
        raise WeightsError(f"{name} is {value}, more than the {MOST} of any network")
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise WeightsError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_tensors(
    source: str, expected: Shapes, tensors: Mapping[str, NDArray], others: bool = False
) -> None:
    """Refuse tensors that are missing, ill-shaped, not float32 or not finite, and, unless ``others`` are
    allowed, those that are none of the network's."""
    for name, shape in expected.items():
        if name not in tensors:
            raise WeightsError(f"{source}: tensor {name!r} is missing; {_AGAIN}")
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise WeightsError(
                f"{source}: tensor {name!r} is {tensor.dtype}{tensor.shape}, expected float32{shape}"
            )
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{source}: tensor {name!r} holds NaN or Inf; {_AGAIN}")
    unknown = [] if others else [name for name in tensors if name not in expected]
    if unknown:
        raise WeightsError(f"{source}: tensor {unknown[0]!r} is not of this network")


def digest(settings: str, tensors: Mapping[str, NDArray]) -> str:
    """First 12 hexadecimal digits of a SHA-256 over settings and tensors."""
    sha = hashlib.sha256(settings.encode())
    for name in sorted(tensors):
        sha.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return sha.hexdigest()[:12]


def save(path: str | os.PathLike[str], attributes: Mapping[str, Any], tensors: Mapping[str, NDArray]) -> None:
    """Write and seal a file: whole or not at all."""
    content = io.BytesIO()  # HDF5 on a disk that fills up would crash the process
    with import_h5py().File(content, "w", userblock_size=_BLOCK) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, tensor in tensors.items():
            file.create_dataset(name, data=tensor, track_times=False)
    data = content.getvalue()
    write_file(path, _seal(data[_BLOCK:]) + data[_BLOCK:])


def seal(path: str | os.PathLike[str]) -> None:
    """Say of a file that was written with a user block that its content is as it should be."""
    data = Path(path).read_bytes()
    if data[_BLOCK : _BLOCK + 4] != b"\x89HDF":
        raise WeightsError(f"{path}: no HDF5 file with a user block of {_BLOCK} bytes, nothing to seal")
    with open(path, "r+b") as file:
        file.write(_seal(data[_BLOCK:]))


def _seal(content: bytes) -> bytes:
    return (_SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n").ljust(_BLOCK, b"\0")
