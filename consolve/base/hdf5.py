"""h5py beside other users of HDF5 in one process."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any

from consolve.base.files import whole_file

_lock = Lock()


def import_h5py() -> ModuleType:
    """h5py, bound to the HDF5 that it brings with it.

    PETSc and DOLFINx may be linked with another HDF5.  In a compiled program, and in Python where their
    libraries were opened for all, the symbols of that one are global; h5py would find them first, and then
    fails with "Not a datatype".
    """
    import numpy  # noqa: F401  (before the flags change: they are for h5py alone)

    with _lock:  # the flags are the process's
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
        try:
            import h5py  # waits for another thread that is importing it; a look into sys.modules would not
        finally:
            sys.setdlopenflags(flags)
    return h5py


@contextmanager
def whole_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A new HDF5 file to fill, that takes its place when the block ends without an exception.

    It is put together in memory: HDF5 on a disk that fills up would crash the process.
    """
    content = io.BytesIO()
    with import_h5py().File(content, "w") as file:
        yield file
    with whole_file(path) as part:
        part.write_bytes(content.getbuffer())
