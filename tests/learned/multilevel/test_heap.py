"""Kernels that work by addresses write into no memory that Numba has given back.

Two threads that freed their scratch rows too early shared one, and b of the coarse level came out wrong:
seldom with glibc's own caches of each thread, nearly always with its debugging allocator, which has none.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import consolve

ROOT = Path(consolve.__file__).parent
CASES = "test_one_pass_does_what_single_steps_do and (shape10 or shape12)"


def unkept(text):
    """Names of arrays whose address a function takes, that it makes itself, and does not keep."""
    found = []
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.FunctionDef):
            used = {"address_of": set(), "keep": set()}
            for call in ast.walk(function):
                name = getattr(getattr(call, "func", None), "attr", "")
                if name in used and isinstance(call.args[0], ast.Name):
                    used[name].add(call.args[0].id)
            made = {
                node.id
                for node in ast.walk(function)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
            found += sorted((used["address_of"] & made) - used["keep"])
    return found


def test_arrays_made_in_kernels_are_kept_while_their_addresses_are_used():
    texts = {path: path.read_text() for path in ROOT.rglob("*.py")}
    assert sum("address_of(scratch)" in text for text in texts.values()) > 0
    assert not {path: names for path, text in texts.items() if (names := unkept(text))}
    assert unkept("def f():\n    a = np.empty(3)\n    g(vi.address_of(a))") == ["a"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_threads_share_no_scratch_memory():
    checked = os.environ | {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
    look = [sys.executable, "-c", "print('malloc_debug' in open('/proc/self/maps').read())"]
    if subprocess.run(look, env=checked, capture_output=True, text=True).stdout != "True\n":
        pytest.skip("glibc's debugging allocator is not there")
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-k", CASES]
    file = Path(__file__).with_name("test_cycle_kernels.py")
    done = subprocess.run(
        [*program, str(file)], env=checked, capture_output=True, text=True, timeout=300, cwd=file.parents[3]
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
