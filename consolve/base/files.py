"""Files that are whole or absent, and output places that are checked before the work starts."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an exception.

    The temporary name ends like ``path``, so that writers which choose a format by suffix do so rightly.
    On any exception, Ctrl-C included, it is removed and ``path`` is left as it was.  An error of the system
    that names no file, as that of a full disk, is given the name ``path``.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(target)) from error
        if isinstance(error, OSError) and error.errno and str(error.filename) in ("None", name):
            error.filename = os.fspath(target)
        raise


def open_in_place(path: str | os.PathLike[str], flags: int) -> int:
    """A handle on a file that is written where it lies, never through a symbolic link: one may have been put
    there by somebody else.  For ``os.open``'s flags; as ``opener`` of Python's ``open`` too.

    Raises
    ------
    OSError
        If it is a symbolic link, or cannot be opened.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    raise OSError(
        errno.ELOOP, "it is a symbolic link, through which nothing is written; remove it", str(path)
    )


def new_file(path: str | os.PathLike[str], flags: int = os.O_WRONLY) -> int:
    """A handle on a new, empty file of this very name; what had the name before is gone."""
    Path(path).unlink(missing_ok=True)
    return open_in_place(path, flags | os.O_CREAT | os.O_EXCL)


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file."""
    with whole_file(path) as part:
        part.write_bytes(content)


def check_writable_file(path: str | os.PathLike[str]) -> Path:
    """``path``, if a file can be made or replaced there.

    Raises
    ------
    OSError
        If it is a directory, or its directory is missing or not writable.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a directory, a file name is expected")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {target}: there is no directory {target.parent}; make it first"
        )
    _try_writing(target.parent)
    return target


def check_writable_directory(path: str | os.PathLike[str]) -> Path:
    """``path`` as a directory that exists (it is made if need be) and takes files.

    Raises
    ------
    OSError
        If it is a file, or cannot be made or written to.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file, a directory for output is expected")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"cannot make the output directory {target}: {error.strerror}") from error
    _try_writing(target)
    return target


def _try_writing(directory: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"a full disk makes files, and holds nothing")
    except OSError as error:
        raise type(error)(f"cannot write into {directory}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
