"""Vectors on a GPU as torch's tensors, without a copy."""

from __future__ import annotations

from typing import Any

from consolve.solvers.petsc.versions import PETSc

CPU, CUDA = 1, 2
"""Where memory lies, in DLPack's numbers."""


def shared_tensors(source: PETSc.Vec, target: PETSc.Vec, memory: int = CUDA) -> tuple[Any, Any] | None:
    """Tensors on the memory of two vectors, the first to be read and the second to be written.

    Returns
    -------
    None if either's values are not in memory of this kind now.
    """
    if any(vec.__dlpack_device__()[0] != memory for vec in (source, target)):
        return None
    from torch.utils.dlpack import from_dlpack

    return from_dlpack(source.toDLPack("r")), from_dlpack(target.toDLPack("w"))
