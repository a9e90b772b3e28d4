"""The shared library for PETSc's option ``-dll_prepend``: where it lies, and how it is compiled.

What is compiled in: the interpreter that builds it, its shared libpython, and where it finds its packages.
The library lies in a directory named after a hash of all that and of the sources, so that another environment
or version of consolve gets one of its own, and a library that lies there is up to date.  It is taken only if
no other user can have put it there or change it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import site
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from consolve.base.files import check_writable_directory, check_writable_file, whole_file
from consolve.plugin import locate

FOLDER = Path(__file__).parent
NAME = "libconsolve.so"
SOURCES = tuple(FOLDER / name for name in ("consolve_petsc.c", "python.c", "libraries.c"))
HEADER = FOLDER / "plugin.h"
BOOTSTRAP, LOCATE = FOLDER / "bootstrap.py", FOLDER / "locate.py"
_FLAGS = ("-shared", "-fPIC", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-fvisibility=hidden")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LIBRARIES = ("-Wl,-z,nodelete", "-Wl,-z,defs", "-ldl")


class BuildError(RuntimeError):
    """The library cannot be compiled, or nowhere be written."""


@dataclass(frozen=True)
class Environment:
    """What a program that is not Python needs to know of this Python.

    Parameters
    ----------
    program
        The interpreter; in a virtual environment that of the environment.
    version
        Such as 3.11.
    library
        Its shared libpython, or "" if there is none.
    paths
        Directories of packages, the one that holds consolve first.
    """

    program: str
    version: str
    library: str
    paths: tuple[str, ...]

    @classmethod
    def current(cls) -> Environment:
        """Of the Python that runs."""
        packages = [*site.getsitepackages(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        packages += [path for path in sys.path if path.rstrip("/").endswith("-packages")]
        found = [str(FOLDER.parents[1])]
        for path in map(os.path.abspath, filter(os.path.isdir, packages)):
            if path not in found:
                found.append(path)
        return cls(sys.executable, locate.version(), locate.shared_library(), tuple(found))


def plugin_path() -> Path:
    """The library of this environment; it is built if need be.

    Raises
    ------
    BuildError
        If it cannot be built.
    """
    name = f"plugin-{_hash(Environment.current())}"
    for folder in _folders():
        library = folder / name / NAME
        if library.is_file() and not any(map(_distrusted, (folder, folder / name, library))):
            return library
    return build_plugin()


def build_plugin(out: str | Path | None = None, compiler: str | None = None) -> Path:
    """Compile the library, in any case; returns its path.

    Parameters
    ----------
    out
        File to write, which must end in ``.so``; default: the user's cache, or the package where there is
        none.
    compiler
        C compiler, with options of its own if need be; default: ``$CC``, else ``cc``.

    Raises
    ------
    BuildError
        If it cannot be compiled or loaded, or there is no place for it.
    """
    environment = Environment.current()
    words = find_compiler(compiler)
    target = _default_target(environment) if out is None else check_writable_file(Path(out).absolute())
    if not re.fullmatch(r"[\w-]+\.so", target.name, re.ASCII):
        raise BuildError(
            f"{target.name!r}: PETSc derives the name of a function from that of the library; expected "
            "letters, digits, _ and -, and .so at the end"
        )
    function = register_function(target)
    with tempfile.TemporaryDirectory(prefix="consolve-") as folder, whole_file(target) as part:
        Path(folder, "consolve_environment.h").write_bytes(_header(environment))
        options = [*_FLAGS, f"-I{folder}", f"-DCONSOLVE_REGISTER={function}"]
        _compile([*words, *options, *map(str, SOURCES)], part)
        try:
            getattr(ctypes.CDLL(str(part)), function)
        except (OSError, AttributeError) as error:
            raise BuildError(f"{shlex.join(words)} made a library that cannot be loaded: {error}") from error
    target.chmod(target.stat().st_mode & ~_OTHERS_WRITE)
    return target


def register_function(library: Path) -> str:
    """The function that PETSc calls when it has loaded ``library``."""
    return "PetscDLLibraryRegister_" + library.stem.removeprefix("lib").replace("-", "_")


def find_compiler(compiler: str | None = None) -> list[str]:
    """The command of the C compiler: ``compiler``, else ``$CC``, else cc, gcc or clang.

    Raises
    ------
    BuildError
        If there is none.
    """
    given = compiler or os.environ.get("CC")
    words = shlex.split(given) if given else []
    if not words:
        words = [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    if not words:
        raise BuildError(
            "no C compiler (cc, gcc or clang) is on the PATH; install one (Debian: apt-get install gcc "
            "libc6-dev), or name it by --cc or CC"
        )
    if not shutil.which(words[0]):
        raise BuildError(f"there is no C compiler {words[0]!r}; name another by --cc or CC")
    return words


def _compile(words: list[str], target: Path) -> None:
    done = subprocess.run([*words, "-o", str(target), *_LIBRARIES], capture_output=True, text=True)
    if done.returncode:
        reason = "\n".join(done.stderr.splitlines()[:8]) or f"exit code {done.returncode}"
        raise BuildError(f"{words[0]} cannot compile the plugin: {reason}")


def _hash(environment: Environment) -> str:
    digest = hashlib.sha256()
    for part in (*map(str, astuple(environment)), platform.machine(), *_FLAGS, *_LIBRARIES):
        digest.update(part.encode() + b"\0")
    for source in (*SOURCES, HEADER, BOOTSTRAP, LOCATE, Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _folders() -> Iterator[Path]:
    """Where the library of a user may lie, best first."""
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache and os.path.isabs(cache):
        yield Path(cache, "consolve")
    else:
        try:
            yield Path.home() / ".cache" / "consolve"
        except RuntimeError:  # a user without a home
            pass
    yield FOLDER


def _default_target(environment: Environment) -> Path:
    problems = []
    for folder in _folders():
        own = folder / f"plugin-{_hash(environment)}"
        try:
            check_writable_directory(own)
            for place in (folder, own):
                if place != FOLDER and place.stat().st_uid == os.geteuid():
                    place.chmod(place.stat().st_mode & ~_OTHERS_WRITE)
        except OSError as error:
            problems.append(str(error))
            continue
        why = _distrusted(folder) or _distrusted(own)
        if not why:
            return own / NAME
        problems.append(why)
    raise BuildError(
        f"no place for the plugin ({'; '.join(problems)}); name one: consolve plugin build --out FILE"
    )


def _distrusted(path: Path) -> str:
    """Why programs of this user should run nothing that lies at a path: another may have put it there, or
    change it; "" if that cannot be."""
    trusted = {os.geteuid(), 0, FOLDER.stat().st_uid}  # who may change this code may change the library
    for facts in (path.lstat(), path.stat()):
        if facts.st_uid not in trusted:
            return f"{path} belongs to another user (number {facts.st_uid})"
    return f"{path} can be changed by other users" if path.stat().st_mode & _OTHERS_WRITE else ""


def _header(environment: Environment) -> bytes:
    values = {
        "PROGRAM": environment.program,
        "VERSION": environment.version,
        "LIBRARY": environment.library,
        "PATHS": "\n".join(environment.paths),
        "BOOTSTRAP": BOOTSTRAP.read_text(),
        "LOCATE": LOCATE.read_text(),
    }
    return b"".join(b"#define CONSOLVE_%s %s\n" % (k.encode(), c_string(v)) for k, v in values.items())


def c_string(text: str) -> bytes:
    """A string literal of C, whatever the text holds."""
    escaped = bytearray()
    for byte in os.fsencode(text):
        plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
        escaped += bytes([byte]) if plain else b"\\%03o" % byte
    return b'"%s"' % escaped
