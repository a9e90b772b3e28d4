"""A network of the deep conjugate direction method from its settings or weights, in torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from consolve.learned.dcdm.deep import DeepNetwork
from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights
from consolve.learned.dcdm.layers import DirectionNetwork
from consolve.learned.dcdm.published import DCDMNetwork
from consolve.pde.poisson.grid import GridOperator


def build_network(settings: DCDMSettings) -> DirectionNetwork:
    """The network of the settings, with random weights from torch's generator."""
    return (DeepNetwork if settings.network == "dcdm-deep" else DCDMNetwork)(settings)


def network_of(weights: DCDMWeights) -> DirectionNetwork:
    """The network with these weights."""
    net = build_network(weights.settings)
    net.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.tensors.items()})
    return net


def image_channels(operator: GridOperator) -> NDArray[np.float32]:
    """What a network with `image` sees of an operator, (2, *grid).

    Channel 0 is 1 at active cells; channel 1 is the Dirichlet part over the mean of the open faces'
    coefficients (a grid without open faces: over the mean Dirichlet part).
    """
    total = sum(float(face.sum()) for face in operator.face_coefficient)
    count = sum(int(np.count_nonzero(face)) for face in operator.face_coefficient)
    if count == 0:
        total, count = float(operator.dirichlet.sum()), int(np.count_nonzero(operator.dirichlet))
    mean = total / count if count and total > 0 else 1.0
    return np.stack([operator.active, operator.dirichlet / mean]).astype(np.float32)
