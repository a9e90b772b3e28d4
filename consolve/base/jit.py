"""The options of every Numba kernel.

``STRICT`` computes sums in the order in which they are written.  ``FAST`` lets the compiler reorder and
contract them, for loops whose speed hangs on vector instructions; NaN and Inf keep their meaning, since a
fault in a residual has to show in what is made of it.  Both keep what was compiled and release the
interpreter's lock.
"""

from __future__ import annotations

from typing import Any

import consolve.base.kernel_cache  # noqa: F401  (before the first kernel)

STRICT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
FAST: dict[str, Any] = STRICT | {"fastmath": {"reassoc", "contract", "nsz", "arcp"}}
