"""What packed coefficients stand for."""

import numpy as np
from numpy.typing import NDArray

from consolve.learned.multilevel.cycle.row_vectors import KEPT


def unpack(
    relax: NDArray[np.uint32], moves: NDArray[np.uint32], unit: np.float32
) -> dict[str, NDArray[np.float32]]:
    """The coefficients that packed ones stand for: smoother, diagonal, own, prolong0, prolong1, prolong2."""
    weights = [((moves >> np.uint32(shift)) & np.uint32(127)) * np.float32(unit) for shift in (14, 7, 0)]
    own = (moves >> np.uint32(21)) / np.float32(KEPT) - sum(weights)
    arrays = {
        "smoother": (relax & np.uint32(0xFFFF0000)).view(np.float32),
        "diagonal": (relax << np.uint32(16)).view(np.float32),
        "own": own,
    }
    return arrays | {f"prolong{axis}": weight for axis, weight in enumerate(weights)}
