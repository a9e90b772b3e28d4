"""Training in the energy norm: one step of the method from errors of all wavelengths, on random domains.

The published loss measures the residual b - alpha A d, of which long waves hold little: a network does well
by leaving them alone, and small kinks in long waves cost it much.  The method, however, minimises the error
in the energy norm, |e|_A = sqrt(e . A e), over its directions.  So here the error e is drawn, with its energy
spread over all octaves of the spectrum, and the loss is what of its energy is left after a step along
d = f(A e / |A e|)::

    min over alpha of |e - alpha d|_A^2 / |e|_A^2 = 1 - (d . A e)^2 / ((d . A d) (e . A e))

It lies between 0 and 1 and needs no solution of a system.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.fft import idctn
from torch import Tensor

from consolve.learned.dcdm.domains import DomainsTraining, DomainsTrainingSettings
from consolve.learned.dcdm.training import Direction
from consolve.learned.training.domains import random_operator, random_shape
from consolve.learned.training.drawn import Drawn
from consolve.learned.training.operator import TorchOperator, dot, norm
from consolve.pde.poisson.grid import GridOperator

SPREAD = 2.0
"""Amplitudes of the octaves differ by up to e^2 either way."""
SIZES = -2.0, 1.0
"""Grids have 2 to these powers times the mean cells along an axis."""


@dataclass(frozen=True)
class EnergyTrainingSettings(DomainsTrainingSettings):
    """As `DomainsTrainingSettings`; ``batch`` samples of the mean size, of smaller grids up to four times
    more."""

    batch: int = 8
    loss: str = "energy"


def energy_loss(operator: TorchOperator, direction: Direction, e: Tensor) -> Tensor:
    """Part of the energy of errors e (batch, 1, *grid) that one step leaves, (batch,)."""
    e = e * operator.active
    residual = operator.product(e)
    d = direction(residual / norm(residual)) * operator.active
    d = d / norm(d)
    along = dot(d, residual).square() / dot(d, operator.product(d)).clamp_min(1e-12)
    return (1 - along / dot(e, residual).clamp_min(1e-12)).flatten().clamp_min(1e-6)


def random_errors(rng: Generator, count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Fields (count, *shape) whose energy is spread over the octaves of the box's spectrum.

    Sums of cosines, the eigenvectors of the box with closed sides.  In an octave, where the eigenvalue lambda
    is within a factor of two, their energies, lambda times the squared coefficients, are equal in the mean
    and add up to exp(2 u), with u uniform in (-2, 2) for each octave and field.
    """
    eigenvalues = np.zeros(shape)
    for axis, n in enumerate(shape):
        along = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
        eigenvalues = eigenvalues + along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    lowest = eigenvalues[eigenvalues > 0].min()
    eigenvalues.flat[0] = lowest / 4  # the constant counts as an octave of its own
    octave = np.floor(np.log2(eigenvalues / eigenvalues.flat[0] * (1 + 1e-12))).astype(int)
    _, octave = np.unique(octave, return_inverse=True)
    octave = octave.reshape(shape)
    size = np.bincount(octave.ravel())
    amplitude = np.exp(rng.uniform(-SPREAD, SPREAD, (count, size.size))) / np.sqrt(size)
    coefficients = rng.standard_normal((count, *shape)) * amplitude[:, octave] / np.sqrt(eigenvalues)
    return idctn(coefficients, axes=tuple(range(1, len(shape) + 1)), norm="ortho").astype(np.float32)


class EnergyTraining(DomainsTraining):
    """One run by the mean of `energy_loss`.

    Parameters
    ----------
    network, settings, out, options
        As of `DCDMTraining`.
    """

    loss_name = "energy left by a step"
    score_name = "validation_energy_left"
    settings: EnergyTrainingSettings

    def _draw(self, rng: Generator) -> Drawn:
        """Errors; grids have from a fourth of to twice the mean cells along an axis."""
        s, ndim = self.settings, self.net.settings.ndim
        cells = (s.cells * 2 ** rng.uniform(*SIZES)) ** ndim
        shape = random_shape(rng, ndim, int(cells))
        count = int(np.clip(s.batch * s.cells**ndim / cells, min(2, s.batch), 4 * s.batch))
        count = max(count // self.processes, 1) * self.processes
        operators = [random_operator(rng, shape) for _ in range(count)]
        return operators, random_errors(rng, count, shape), count

    def _loss_of(self, operators: list[GridOperator], field: NDArray[np.float32], number: int) -> Tensor:
        operator = TorchOperator(operators, self.device)
        e = torch.from_numpy(field).to(self.device)[:, None]
        return energy_loss(operator, self._direction(operators), e).mean()
