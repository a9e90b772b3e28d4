"""A trial of the plugin with real programs: what works here, and why what does not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from consolve.plugin.build import FOLDER, BuildError, Environment, find_compiler, plugin_path

PROGRAM_C, PROGRAM_PY = FOLDER / "check_program.c", FOLDER / "check_program.py"
PLAIN = ("-ksp_type", "cg", "-pc_type", "none")
LEARNED = ("-ksp_type", "cg", "-pc_type", "cnn")
RTOL, LARGEST_ERROR = ("-ksp_rtol", "1e-9"), 1e-6

_SAFE_PATH = """
import sys
sys.path[:] = [path for path in sys.path if path]  # the working directory may hold a numpy.py
"""
_PETSC = """
import ctypes
from petsc4py import PETSc
from consolve.plugin.start import library_at
address = ctypes.cast(ctypes.CDLL(PETSc.__file__).PetscInitialize, ctypes.c_void_p).value
version = ".".join(map(str, PETSc.Sys.getVersion()))
print(version, PETSc.IntType().itemsize, PETSc.ScalarType().dtype.name, library_at(address), sep="\\n")
"""


@dataclass(frozen=True)
class Step:
    """One thing that was tried.

    Parameters
    ----------
    name
        What.
    ok
        Whether it worked.
    detail
        What was found, or why it failed.
    """

    name: str
    ok: bool
    detail: str


class _Failed(Exception):
    """Why a step failed."""


@dataclass(frozen=True)
class _Petsc:
    version: str
    int_type: str
    library: str


def check_plugin(timeout: float = 600.0) -> Iterator[Step]:
    """Try the plugin step by step; the first use of the kernels compiles them, which takes about a minute.

    Parameters
    ----------
    timeout
        Seconds that one program may take.
    """
    try:
        words = find_compiler()
        yield Step("compiler", True, shlex.join(words))
        library = plugin_path()
        yield Step("library", True, str(library))
    except BuildError as error:
        yield Step("library", False, str(error))
        return
    environment = Environment.current()
    shared = environment.library or (
        f"Python {environment.version} has no shared libpython{environment.version}.so: programs that are "
        f"not Python cannot use the plugin (Debian: apt-get install libpython{environment.version})"
    )
    yield Step("libpython", bool(environment.library), shared)
    try:
        petsc = _find_petsc(timeout)
    except _Failed as failure:
        yield Step("petsc4py", False, str(failure))
        return
    yield Step("petsc4py", True, f"PETSc {petsc.version}, {petsc.library}")
    if any(letter in str(library) for letter in " ,"):
        detail = f"{library}: PETSc cannot take a path with spaces or commas; use consolve plugin build --out"
        yield Step("path", False, detail)
        return
    with tempfile.TemporaryDirectory(prefix="consolve-") as folder:
        python = [sys.executable, "-c", _SAFE_PATH + PROGRAM_PY.read_text()]
        yield _compare("Python program", lambda options: _run(python, timeout, options), library)
        if not environment.library:
            return
        try:
            program = _compile(words, petsc, Path(folder))
        except _Failed as failure:
            yield Step("C program", False, str(failure))
            return
        yield _compare("C program", lambda options: _run([str(program), *options], timeout), library)


def _find_petsc(timeout: float) -> _Petsc:
    lines = _run([sys.executable, "-c", _SAFE_PATH + _PETSC], timeout, paths=True).splitlines()
    version, size, scalar, library = lines
    if scalar != "float64":
        raise _Failed(f"PETSc {version} ({library}) is built for {scalar}; consolve needs float64")
    return _Petsc(version, "int" if size == "4" else "long long", library)


def _compile(words: list[str], petsc: _Petsc, folder: Path) -> Path:
    program = folder / "program"
    command = [*words, f"-DPetscInt={petsc.int_type}", str(PROGRAM_C), "-o", str(program), petsc.library]
    command += [f"-Wl,-rpath,{Path(petsc.library).parent}", "-Wl,--allow-shlib-undefined"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise _Failed(f"cannot be compiled: {_shortened(done.stderr)}")
    return program


def _run(command: list[str], timeout: float, options: list[str] | None = None, paths: bool = False) -> str:
    """Standard output of a command; ``options`` go to PETSc by PETSC_OPTIONS."""
    environment = os.environ | {"PETSC_OPTIONS": " ".join(options or [])}
    if paths:
        own = (str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, own))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        raise _Failed(f"still runs after {timeout:.0f} s") from None
    except OSError as error:
        raise _Failed(f"cannot be started: {error}") from None
    if done.returncode:
        raise _Failed(f"exit code {done.returncode}: {_shortened(done.stderr or done.stdout)}")
    return done.stdout


def _compare(name: str, run: Callable[[list[str]], str], library: Path) -> Step:
    try:
        plain = _result(run([*PLAIN, *RTOL]), "none")
        learned = _result(run(["-dll_prepend", str(library), *LEARNED, *RTOL]), "cnn")
    except _Failed as failure:
        return Step(name, False, str(failure))
    detail = f"{plain} iterations of plain CG, {learned} with -pc_type cnn"
    return Step(name, learned < plain, detail if learned < plain else f"{detail}: no fewer")


def _result(output: str, pc: str) -> int:
    """Iterations of a converged solve with the right solution."""
    found = re.search(r"pc (\S+) iterations (\d+) reason (-?\d+) error (\S+)", output)
    if not found or found[1] != pc:
        raise _Failed(f"unexpected output {output.strip()!r}")
    if int(found[3]) <= 0 or not float(found[4]) <= LARGEST_ERROR:
        raise _Failed(f"wrong solution with -pc_type {pc}: {found[0]}")
    return int(found[2])


def _shortened(text: str) -> str:
    """The lines that say most: consolve's own, else the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("consolve: ")]
    return " | ".join(own[:3] or lines[-4:])[:1000]
