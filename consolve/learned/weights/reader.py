"""What stands in an HDF5 file of weights: attributes and arrays, each looked at before it is read.

Run as a script it reads such a file from standard input, within limits of time and memory, and writes what it
found to standard output, so that a file which crashes libhdf5 or never ends takes no other process with it.
It imports nothing of consolve.
"""

import io
import json
import resource
import sys
from typing import Any

import numpy as np

MOST_MEMORY, MOST_SECONDS = 4 << 30, 10
"""Of the script: address space, and seconds of a processor."""
ATTRIBUTES = ":attributes"
"""Name of the attributes among the arrays that the script gives back."""


def contents(h5py: Any, data: bytes, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and datasets at the root.

    Raises
    ------
    ValueError
        If something in the file is of a kind that no file of weights has: links other than hard ones, data
        outside of the file, filters, numbers that are not floating point, more bytes than the file.
    """
    with h5py.File(io.BytesIO(data), "r") as file:
        attributes = {name: _plain(name, value) for name, value in file.attrs.items()}
        found = {}
        for name in file if tensors else ():
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link")
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{name!r} is a {type(dataset).__name__.lower()}")
            if dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8:
                raise ValueError(f"{name!r} holds {dataset.dtype}, no floating-point numbers")
            plain = dataset.chunks is None and not dataset.external and not dataset.is_virtual
            if not plain or dataset.shape is None:
                raise ValueError(f"{name!r} is not stored in one piece within the file")
            if dataset.nbytes > len(data):
                raise ValueError(f"{name!r} has {dataset.nbytes:,} bytes, the file {len(data):,}")
            found[name] = np.asarray(dataset[()])
    return attributes, found


def _plain(name: str, value: Any) -> Any:
    if getattr(value, "dtype", np.dtype(float)).kind not in "biufOU":
        raise ValueError(f"attribute {name!r} holds {value.dtype}")
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if not isinstance(value, str | int | float | list):
        raise ValueError(f"attribute {name!r} is {type(value).__name__}, no text and no number")
    return value


def main() -> int:
    """Read standard input, write arrays in NumPy's format ``.npz``; 1 and a line where that cannot be."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    try:
        import h5py

        attributes, tensors = contents(h5py, sys.stdin.buffer.read(), "--attributes" not in sys.argv)
        text = np.frombuffer(json.dumps(attributes).encode(), np.uint8)
        np.savez(sys.stdout.buffer, **{ATTRIBUTES: text}, **tensors)
        sys.stdout.flush()
    except Exception as error:
        print(f"{error or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
