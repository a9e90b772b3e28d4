"""Grid operators in torch, for losses that train through products with A."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from consolve.learned.training.residual_kernels import BOTH, residual
from consolve.pde.poisson.grid import GridOperator


def operator_tensors(
    operators: Sequence[GridOperator], device: str | torch.device = "cpu"
) -> tuple[list[Tensor], Tensor]:
    """Face and Dirichlet batches of operators of one shape."""
    faces = [
        torch.from_numpy(np.stack([op.face_coefficient[a] for op in operators]).astype(np.float32)).to(device)
        for a in range(operators[0].ndim)
    ]
    dirichlet = torch.from_numpy(np.stack([op.dirichlet for op in operators]).astype(np.float32)).to(device)
    return faces, dirichlet


class TorchOperator:
    """Operators of one shape, one for each sample of a batch, or a single one for all.

    Parameters
    ----------
    operators
        One, or as many as the batches have samples.
    device
        Of the tensors.
    """

    def __init__(self, operators: Sequence[GridOperator], device: str | torch.device = "cpu"):
        self._faces, _ = operator_tensors(operators, device)
        diagonal = np.stack([op.diagonal() for op in operators]).astype(np.float32)
        self._diagonal = torch.from_numpy(diagonal).to(device)
        active = np.stack([op.active for op in operators])
        self.active = torch.from_numpy(active).to(device, torch.float32)[:, None]
        """1 at the active cells, 0 elsewhere: (operators, 1, *grid) float32."""
        self._null_space = _NullSpace.of(operators, device)

    def product(self, x: Tensor) -> Tensor:
        """A x of x (batch, 1, *grid) float32; differentiable."""
        x = x[:, 0]
        faces, diagonal = [f.expand_as(x) for f in self._faces], self._diagonal.expand_as(x)
        return -residual(BOTH, torch.zeros_like(x), x, diagonal, faces)[:, None]

    def remove_null_space(self, x: Tensor) -> Tensor:
        """x on the active cells, less its mean over each component without Dirichlet part; differentiable."""
        x = x * self.active
        return x if self._null_space is None else self._null_space.remove(x)


class _NullSpace:
    """Closed components of a batch: the component of each active cell among all of the batch's."""

    def __init__(self, cells: Tensor, component: Tensor, size: Tensor):
        self.cells, self.component, self.size = cells, component, size

    @staticmethod
    def of(operators: Sequence[GridOperator], device: str | torch.device) -> _NullSpace | None:
        cells, components, sizes, count, first = [], [], [], 0, 0
        for op in operators:
            closed = op.null_space
            inside = np.flatnonzero(closed.group >= 0)
            cells.append(op.cells[inside].astype(np.int64) + first)
            components.append(closed.group[inside].astype(np.int64) + count)
            sizes.append(closed.size)
            count, first = count + len(closed), first + op.active.size
        if count == 0:
            return None
        tensors = [torch.from_numpy(np.concatenate(a)).to(device) for a in (cells, components, sizes)]
        return _NullSpace(*tensors)

    def remove(self, x: Tensor) -> Tensor:
        operators_in_batch = x.reshape(-1)
        inside = operators_in_batch[self.cells]
        total = x.new_zeros(len(self.size)).index_add(0, self.component, inside)
        mean = (total / self.size)[self.component]
        return operators_in_batch.index_add(0, self.cells, -mean).view_as(x)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """x . y of each sample, (batch, 1, ..., 1)."""
    return (x * y).flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1))


def norm(x: Tensor) -> Tensor:
    """|x| of each sample, (batch, 1, ..., 1); its gradient is finite at 0."""
    return (dot(x, x) + 1e-30).sqrt()
