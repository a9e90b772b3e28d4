"""Floating-point exceptions of the program around us (``feenableexcept``, PETSc's ``-fp_trap``).

Importing NumPy and Numba raises some, and so do kernels that compute first and look at the result
afterwards: where a program traps them they would end it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ENVIRONMENT_BYTES = 256
"""Enough for ``fenv_t`` of any platform."""


def _functions() -> tuple[Any, Any, Any] | None:
    process = ctypes.CDLL(None)
    try:
        found = process.fegetexcept, process.feholdexcept, process.fesetenv
    except AttributeError:  # only the GNU library can let exceptions trap
        return None
    return found


_found = _functions()


def hold_traps() -> Any:
    """Let no floating-point exception trap on this thread; returns what `release_traps` takes, None where
    none did."""
    if _found is None or _found[0]() <= 0:
        return None
    environment = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
    _found[1](environment)
    return environment


def release_traps(held: Any) -> None:
    """Let them trap as before, without those that came in the meantime."""
    if held is not None and _found is not None:
        _found[2](held)


@contextmanager
def without_traps() -> Iterator[None]:
    """No floating-point exception traps in the block."""
    held = hold_traps()
    try:
        yield
    finally:
        release_traps(held)
