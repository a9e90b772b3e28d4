"""The shared library: what it holds and needs, where it lies, and that it is whole or absent."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from consolve.plugin import build
from consolve.plugin.build import BuildError, Environment, build_plugin, c_string, plugin_path


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf")
def test_library_needs_the_c_library_only(library):
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.+)\]", dynamic)
    assert needed and all(re.match(r"lib(c|dl)\.so|ld-linux|libc\.musl", name) for name in needed)
    assert "NODELETE" in dynamic


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_library_leaves_no_symbol_of_petsc_or_python_open(library):
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    opened = re.findall(r" U (\w+)", symbols)
    assert "dlsym" in opened
    assert not [s for s in opened if re.match(r"_?(Py|Petsc|PC|KSP|Mat|Vec|MPI|ompi)", s)]
    assert re.findall(r" [TDBR] (\w+)", symbols) == ["PetscDLLibraryRegister_consolve"]


def test_register_function_is_named_as_petsc_expects_it(library, tmp_path):
    named = build_plugin(tmp_path / "libmy-own_2.so")
    assert hasattr(ctypes.CDLL(str(named)), "PetscDLLibraryRegister_my_own_2")


def test_outside_petsc_it_refuses_to_register(library):
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).PetscDLLibraryRegister_consolve())"
    done = subprocess.run([sys.executable, "-c", code, library], capture_output=True, text=True)
    assert done.returncode == 76
    assert done.stderr.startswith("consolve: this program has no function KSPRegister of PETSc")


@pytest.mark.parametrize("name", ["plugin.dll", "lib.x.so", "lib a.so", "libé.so"])
def test_names_that_petsc_cannot_load_are_refused(name, tmp_path):
    with pytest.raises(BuildError, match="derives the name of a function"):
        build_plugin(tmp_path / name, "true")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compiler, words", [("no-such-cc", "no C compiler"), ("false", "cannot compile")])
def test_failed_build_leaves_what_was_there(compiler, words, tmp_path):
    (tmp_path / "libold.so").write_text("old")
    with pytest.raises(BuildError, match=words):
        build_plugin(tmp_path / "libold.so", compiler)
    assert [p.name for p in tmp_path.iterdir()] == ["libold.so"]
    assert (tmp_path / "libold.so").read_text() == "old"


def test_compiler_that_makes_no_library_is_found_out(tmp_path):
    with pytest.raises(BuildError, match="cannot be loaded"):
        build_plugin(tmp_path / "libempty.so", "true")
    assert list(tmp_path.iterdir()) == []


def test_compiler_comes_from_cc(library, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-cc -O3")
    with pytest.raises(BuildError, match="'no-such-cc'"):
        build_plugin(tmp_path / "liba.so")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="no C compiler"):
        build_plugin(tmp_path / "liba.so")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_built_once_for_an_environment(library, cache, monkeypatch):
    first = plugin_path()
    assert first.is_relative_to(cache) and first.name == "libconsolve.so"
    monkeypatch.setenv("CC", "no-such-cc")
    assert plugin_path() == first
    other = replace(Environment.current(), program="/other/bin/python")
    monkeypatch.setattr(Environment, "current", classmethod(lambda cls: other))
    with pytest.raises(BuildError):
        plugin_path()
    monkeypatch.delenv("CC")
    assert plugin_path() != first and first.exists()


def test_changed_source_is_built_anew(library, cache, monkeypatch, tmp_path):
    first = plugin_path()
    changed = tmp_path / "bootstrap.py"
    changed.write_text(build.BOOTSTRAP.read_text() + "# changed\n")
    monkeypatch.setattr(build, "BOOTSTRAP", changed)
    assert plugin_path() != first


@pytest.mark.parametrize("what", [".", "..", "libconsolve.so"])
@pytest.mark.parametrize("how", ["writable", "owner", "link"])
def test_library_that_others_can_change_is_not_taken(what, how, library, cache, monkeypatch):
    """In its place, its directory's or the one around it; what lies there is built anew, or elsewhere."""
    monkeypatch.setattr(build, "FOLDER", cache.parent / "package")  # the second place
    (cache.parent / "package").mkdir()
    first = plugin_path()
    target = first.parent / what
    if how == "writable":
        target.chmod(target.stat().st_mode | 0o020)
    elif os.geteuid():
        pytest.skip("needs root")
    elif how == "owner":
        os.chown(target, 12345, -1)
    else:
        target = Path(os.path.normpath(target))
        target.rename(cache.parent / "elsewhere")
        target.symlink_to(cache.parent / "elsewhere")
        os.chown(target, 12345, -1, follow_symlinks=False)
    first.write_text("changed") if how != "link" else None
    taken = plugin_path()
    assert taken.stat().st_size > 10_000  # a library
    elsewhere = how != "writable" and what != "libconsolve.so"
    assert taken.is_relative_to(cache.parent / "package") == elsewhere
    assert not any(map(build._distrusted, (taken, taken.parent)))
    monkeypatch.setenv("CC", "no-such-cc")
    assert plugin_path() == taken


def test_no_place_that_others_cannot_change(library, cache, monkeypatch):
    if os.geteuid():
        pytest.skip("needs root")
    monkeypatch.setattr(build, "FOLDER", Path("/proc/self"))
    (cache / "consolve").mkdir(parents=True)
    os.chown(cache / "consolve", 12345, -1)
    with pytest.raises(BuildError, match=r"cache/consolve belongs to another user \(number 12345\).*--out"):
        plugin_path()


def test_package_is_the_second_place(library, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-cache")
    monkeypatch.setattr(build, "FOLDER", tmp_path / "consolve" / "plugin")
    assert plugin_path().is_relative_to(tmp_path)
    monkeypatch.setattr(build, "FOLDER", Path("/proc/a/b"))
    with pytest.raises(BuildError, match="no place for the plugin .*--out FILE"):
        plugin_path()


def test_environment_is_this_one():
    environment = Environment.current()
    assert environment.program == sys.executable
    assert Path(environment.paths[0], "consolve", "__init__.py").is_file()
    done = subprocess.run(
        [sys.executable, "-c", build.LOCATE.read_text()], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{sys.executable}\n{environment.version}\n{environment.library}\n"
    assert not environment.library or Path(environment.library).is_file()


def test_any_text_can_be_compiled_in(library, tmp_path):
    text = "a\"b\\c\n\t??/ %s é \x7f 1\\n23 #{}'" + "x" * 5000
    (tmp_path / "t.c").write_bytes(
        b"#include <stdio.h>\nint main(void) { fputs(%s, stdout); }" % c_string(text)
    )
    subprocess.run([*build.find_compiler(), tmp_path / "t.c", "-o", tmp_path / "t"], check=True)
    assert subprocess.run([tmp_path / "t"], capture_output=True, check=True).stdout == text.encode()
