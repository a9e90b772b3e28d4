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
from typing import Any

from numba.core import event

import consolve.base.kernel_cache  # noqa: F401  (before the first kernel)

STRICT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
FAST: dict[str, Any] = STRICT | {"fastmath": {"reassoc", "contract", "nsz", "arcp"}}


class _CollectorRests(event.Listener):
    """Compilations stand within others, and behind one lock of Numba's."""

    depth = 0
    enabled = False

    def on_start(self, event: event.Event) -> None:
        if self.depth == 0:
            self.enabled = gc.isenabled()
            gc.disable()
        self.depth += 1

    def on_end(self, event: event.Event) -> None:
        self.depth -= 1
        if self.depth == 0 and self.enabled:
            gc.enable()


event.register("numba:compile", _CollectorRests())
