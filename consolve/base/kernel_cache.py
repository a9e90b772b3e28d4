"""A place for compiled kernels: importing this makes Numba work where it may write nowhere.

Kernels are compiled once and kept by Numba (``cache=True``) in ``NUMBA_CACHE_DIR``, in the package's
``__pycache__`` directories or in the user's cache directory.  Where none of these can be written to, Numba
refuses such kernels altogether; then they go to a temporary directory that lasts as long as the process, and
one warning says so.  `consolve.base.jit` imports this module before any kernel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from consolve.base.messages import warn

_PACKAGE = Path(__file__).parents[1]
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


def prepare() -> str | None:
    """Make sure that Numba has a directory to write to.

    Returns
    -------
    The temporary directory that ``NUMBA_CACHE_DIR`` now names (also for processes started from this one), or
    None where Numba finds a place by itself.

    Raises
    ------
    RuntimeError
        If there is no directory for temporary files either.
    """
    if all(_is_writable(folder / "__pycache__") for folder in _packages()) or _numba_finds_a_place():
        return None
    advice = "set NUMBA_CACHE_DIR to a directory that can be written to"
    tried = "neither NUMBA_CACHE_DIR, nor the package's directories, nor the user's cache directory"
    import atexit
    import shutil
    import tempfile

    try:
        folder = tempfile.mkdtemp(prefix="consolve-kernels-")
    except OSError as error:
        raise RuntimeError(
            f"there is no place for compiled kernels ({tried} can be written to, and {error}): {advice}"
        ) from None
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not at the end of a forked child
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    os.environ["NUMBA_CACHE_DIR"] = folder
    sys.modules["numba"].config.CACHE_DIR = folder
    if next((os.environ[name] for name in _RANKS if name in os.environ), "0") == "0":
        warn(
            f"compiled kernels cannot be kept: {tried} can be written to; they are compiled anew in every "
            f"run, which takes up to a minute: {advice}",
            RuntimeWarning,
        )
    return folder


def _packages() -> Iterator[Path]:
    return (file.parent for file in _PACKAGE.rglob("__init__.py"))


def _is_writable(folder: Path) -> bool:
    """True if it can take files, or be made in a directory that can."""
    if folder.is_dir():
        return os.access(folder, os.W_OK | os.X_OK)
    return not folder.exists() and os.access(folder.parent, os.W_OK | os.X_OK)


def _numba_finds_a_place() -> bool:
    import numba

    def probe() -> None:
        """Never called."""

    try:
        numba.njit(cache=True)(probe)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return False
    return True


TEMPORARY = prepare()
"""Where kernels go that cannot be kept; None if they are kept."""
