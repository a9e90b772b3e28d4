"""The networks of the deep conjugate direction method as models of PC ``cnn``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consolve.base.errors import OptionError
from consolve.learned.dcdm.format import SHIPPED, is_dcdm_file, load_dcdm_weights
from consolve.pde.poisson.grid import GridOperator


def is_dcdm(name: str) -> bool:
    """True if the model is one of these networks: by its name, or by what its file holds."""
    return name in SHIPPED or is_dcdm_file(name)


def build_dcdm(
    name: str,
    operator: GridOperator,
    cells: NDArray[np.integer],
    threads: int,
    precision: str,
    device: str,
) -> tuple[Any, str]:
    """The network ``name`` for the operator of one process.

    Returns
    -------
    A DCDMPreconditioner, and one line that names its weights.

    Raises
    ------
    OptionError
        If torch cannot be imported, or the device is not there.
    WeightsError
        If the weights cannot be loaded.
    """
    weights = load_dcdm_weights(name, operator.ndim)
    try:
        from consolve.learned.dcdm.inference import DCDMPreconditioner, checked_device
    except ImportError as error:
        raise OptionError(
            f"-pc_cnn_model {name}: this network runs in torch, which cannot be imported ({error}): "
            "pip install 'consolve[train]', or use -pc_cnn_model multilevel, which needs no torch"
        ) from None
    try:
        checked_device(device)
    except ValueError as error:
        raise OptionError(f"-pc_cnn_device {device}: {error}") from None
    line = f"{name}, {weights.parameters} parameters, weights {weights.digest}"
    return DCDMPreconditioner(operator, weights, cells, threads, precision, device), line
