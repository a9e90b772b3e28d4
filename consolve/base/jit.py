"""The options of every Numba kernel.

``STRICT`` computes sums in the order in which they are written.  ``FAST`` lets the compiler reorder and
contract them, for loops whose speed hangs on vector instructions; NaN and Inf keep their meaning, since a
fault in a residual has to show in what is made of it.  Both keep what was compiled and release the
interpreter's lock.

The compiler makes and drops objects by the million, which the collector of cycles would search again and
again, an eighth of the time: it rests while Numba compiles.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from numba.core import event

import consolve.base.kernel_cache  # noqa: F401  (before the first kernel)

STRICT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
FAST: dict[str, Any] = STRICT | {"fastmath": {"reassoc", "contract", "nsz", "arcp"}}


@contextmanager
def collector_rests() -> Iterator[None]:
    """No collection of cycles within."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Compilations(event.Listener):
    """They stand within others, all of them behind one lock of Numba's."""

    def __init__(self) -> None:
        self._rests: list[AbstractContextManager[None]] = []

    def on_start(self, event: event.Event) -> None:
        self._rests.append(collector_rests())
        self._rests[-1].__enter__()

    def on_end(self, event: event.Event) -> None:
        self._rests.pop().__exit__(None, None, None)


event.register("numba:compile", _Compilations())
