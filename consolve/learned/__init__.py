"""The networks: definition and training in torch, set-up and inference in Numba."""

import consolve.base.kernel_cache  # noqa: F401  (before the first kernel)
