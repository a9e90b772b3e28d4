"""The multilevel network in torch: differentiable setup and V-cycle.  Formulas: docs/multilevel.md.

Arrays are batches: (batch, n0, n1) or (batch, n0, n1, n2), float32.  Every level is padded to even length
along each axis that is coarsened, with cells that are not active.  The Numba engine computes the same numbers
without torch; the tests hold both to fp32 round-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from consolve.learned.multilevel.cycle.coarsest import null_vectors
from consolve.learned.multilevel.format import (
    ALPHA_MAX,
    CELL_FEATURES,
    COARSEST,
    FACE_FEATURES,
    LEVEL_CLASSES,
    OMEGA_RANGE,
    PROLONGATION_FEATURES,
    RANGE,
    Weights,
)
from consolve.learned.multilevel.torch.blocks import (
    TINY,
    at_even,
    at_odd,
    block_max,
    block_sum,
    crop,
    lower,
    over,
    pad_even,
    pad_to,
    parity,
    spread,
    squash,
    upper,
)
from consolve.learned.training.residual_kernels import BOTH, RED, colour_mask, residual


@dataclass
class TorchLevel:
    """Operator and kernels of one level; ``prolongation[a]`` is the weight of the outward coarse
    neighbour."""

    faces: list[Tensor]
    dirichlet: Tensor
    diagonal: Tensor
    smoother: Tensor
    own: Tensor
    prolongation: list[Tensor]
    factor: tuple[int, ...]
    level_class: int

    def residual(self, b: Tensor, x: Tensor, colour: int = BOTH) -> Tensor:
        """b - A x on the cells of one colour or both."""
        return residual(colour, b, x, self.diagonal, self.faces)


class Correction(nn.Module):
    """A perceptron g in (-1, 1) with g(0) = 0 for each level class: outputs vanish where all features vanish.

    ``g(phi) = tanh(V (h(phi) - h(0)))`` with ``h(phi) = relu(W2 relu(W1 phi + e_class) + b2)``.
    """

    def __init__(self, features: int, outputs: int, hidden: int):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(hidden, features) / features**0.5)
        self.e = nn.Parameter(0.1 * torch.randn(LEVEL_CLASSES, hidden))
        self.w2 = nn.Parameter(torch.randn(hidden, hidden) * (2 / hidden) ** 0.5)
        self.b2 = nn.Parameter(torch.zeros(hidden))
        self.v = nn.Parameter(0.01 * torch.randn(outputs, hidden))

    def forward(self, phi: Sequence[Tensor], level_class: int) -> list[Tensor]:
        x = torch.stack(tuple(phi), -1)
        regular = torch.zeros(x.shape[-1], dtype=x.dtype, device=x.device)
        y = (self._hidden(x, level_class) - self._hidden(regular, level_class)) @ self.v.T
        return list(torch.tanh(y).unbind(-1))

    def _hidden(self, x: Tensor, level_class: int) -> Tensor:
        h = torch.relu(x @ self.w1.T + self.e[level_class])
        return torch.relu(h @ self.w2.T + self.b2)


class TorchMultilevel(nn.Module):
    """Trainable multilevel network.

    Parameters
    ----------
    ndim
        2 or 3.
    sweeps
        Red-black sweeps before and after the coarse correction.
    hidden
        Hidden units of each perceptron; 0 for the classical twin, which has the trained scalars only.
    """

    def __init__(self, ndim: int, sweeps: int = 2, hidden: int = 16):
        super().__init__()
        self.ndim, self.sweeps, self.hidden = ndim, sweeps, hidden
        start = torch.tensor(1.0 / ALPHA_MAX)
        self.alpha = nn.Parameter(torch.full((LEVEL_CLASSES, sweeps, 2), float(torch.logit(start))))
        self.gamma = nn.Parameter(torch.full((LEVEL_CLASSES,), float(np.log(0.5))))
        self.theta = nn.Parameter(torch.full((LEVEL_CLASSES,), float(np.log(0.5))))
        self.linear = nn.Parameter(torch.full((LEVEL_CLASSES,), float(np.log(0.25))))
        self.drop = nn.Parameter(torch.full((LEVEL_CLASSES,), float(np.log(0.25))))
        if hidden:
            self.cell_net = Correction(CELL_FEATURES, 3, hidden)
            self.face_net = Correction(FACE_FEATURES, 1, hidden)
            self.prolongation_net = Correction(PROLONGATION_FEATURES, 1, hidden)

    # -- weights ------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, np.ndarray]:
        """Arrays of the weights file, in the engine's parametrisation."""
        with torch.no_grad():
            out = {
                "alpha": ALPHA_MAX * torch.sigmoid(self.alpha),
                "gamma": self.gamma.exp(),
                "theta": self.theta.exp(),
                "linear": self.linear.exp(),
                "drop": self.drop.exp(),
            }
            for name in ("cell", "face", "prolongation") if self.hidden else ():
                net = getattr(self, f"{name}_net")
                out |= {f"{name}_{key}": getattr(net, key) for key in ("w1", "e", "w2", "b2", "v")}
            return {key: value.cpu().numpy().astype(np.float32) for key, value in out.items()}

    @classmethod
    def from_weights(cls, weights: Weights) -> TorchMultilevel:
        """The trainable network of a weights file."""
        t = {key: torch.from_numpy(np.array(value)) for key, value in weights.tensors.items()}
        net = cls(weights.ndim, weights.sweeps, weights.hidden)
        with torch.no_grad():
            net.alpha.copy_(torch.logit(t["alpha"] / ALPHA_MAX))
            for name in ("gamma", "theta", "linear", "drop"):
                getattr(net, name).copy_(t[name].log())
            for name in ("cell", "face", "prolongation") if net.hidden else ():
                for key in ("w1", "e", "w2", "b2", "v"):
                    getattr(getattr(net, f"{name}_net"), key).copy_(t[f"{name}_{key}"])
        return net

    # -- setup --------------------------------------------------------------------------------------

    def setup(self, faces: Sequence[Tensor], dirichlet: Tensor) -> TorchHierarchy:
        """Every level's operator and kernels, from the operator of the finest one."""
        levels: list[TorchLevel] = []
        shape = tuple(dirichlet.shape[1:])
        faces, dirichlet = list(faces), dirichlet
        while max(shape) > COARSEST:
            factor = tuple(2 if n > 1 else 1 for n in shape)
            faces = [pad_even(f, factor) for f in faces]
            dirichlet = pad_even(dirichlet, factor)
            level = self._kernels(faces, dirichlet, factor, min(len(levels), LEVEL_CLASSES - 1))
            levels.append(level)
            faces, dirichlet = self._coarsen(level)
            shape = tuple(dirichlet.shape[1:])
        return TorchHierarchy(self, levels, _dense_inverse(faces, dirichlet))

    def _kernels(
        self, faces: list[Tensor], dirichlet: Tensor, factor: tuple[int, ...], lc: int
    ) -> TorchLevel:
        """Smoother and prolongation weights of one level."""
        dim2 = 2 * self.ndim
        d = dirichlet
        for axis, f in enumerate(faces):
            d = d + f + lower(f, axis)
        inverse = over(torch.ones_like(d), d)
        fixed = dirichlet * inverse
        own_drop = torch.exp(torch.zeros_like(d))
        omega = torch.ones_like(d)
        if self.hidden:
            phi = self._cell_features(faces, d, inverse, fixed)
            g_omega, g_drop, _ = self.cell_net(phi, lc)
            omega, own_drop = torch.exp(OMEGA_RANGE * g_omega), torch.exp(RANGE * g_drop)
        drop = (self.drop[lc].exp() * dim2 * fixed * own_drop).clamp_max(0.9)
        prolongation = []
        for axis, f in enumerate(faces):
            if factor[axis] == 1:
                prolongation.append(torch.zeros_like(d))
                continue
            odd = parity(d, axis)
            below = lower(f, axis)
            outward = torch.where(odd, f, below)
            inward = torch.where(odd, below, f)
            w = self.linear[lc].exp() * (outward > 0)
            if self.hidden:
                beyond = torch.where(odd, upper(inverse, axis), lower(inverse, axis))
                partner = torch.where(odd, lower(inverse, axis), upper(inverse, axis))
                beyond_fixed = torch.where(odd, upper(fixed, axis), lower(fixed, axis))
                partner_fixed = torch.where(odd, lower(fixed, axis), upper(fixed, axis))
                psi = (
                    dim2 * outward * inverse - 1,
                    dim2 * inward * inverse - 1,
                    fixed,
                    dim2 * outward * beyond - 1,
                    dim2 * inward * partner - 1,
                    torch.where(outward > 0, beyond_fixed, torch.zeros_like(d)),
                    torch.where(inward > 0, partner_fixed, torch.zeros_like(d)),
                )
                (g,) = self.prolongation_net(psi, lc)
                w = w * torch.exp(RANGE * g)
            prolongation.append(w)
        own = (d > 0) * (1 - drop) - sum(prolongation)
        return TorchLevel(faces, dirichlet, d, omega * inverse, own, prolongation, factor, lc)

    def _cell_features(
        self, faces: list[Tensor], d: Tensor, inverse: Tensor, fixed: Tensor
    ) -> tuple[Tensor, ...]:
        """Dirichlet share; unevenness of the faces; stiffness and Dirichlet share of the neighbours."""
        squares = torch.zeros_like(d)
        stiffness = torch.zeros_like(d)
        near_fixed = torch.zeros_like(d)
        for axis, f in enumerate(faces):
            below = lower(f, axis)
            squares = squares + f * f + below * below
            stiffness = stiffness + f * upper(inverse, axis) + lower(f * inverse, axis)
            near_fixed = near_fixed + f * upper(fixed, axis) + lower(f * fixed, axis)
        inside = d > 0
        zero = torch.zeros_like(d)
        return (
            fixed,
            torch.where(inside, 2 * self.ndim * squares * inverse * inverse - 1, zero),
            torch.where(inside, stiffness - 1, zero),
            near_fixed * inverse,
        )

    def _coarsen(self, level: TorchLevel) -> tuple[list[Tensor], Tensor]:
        """Face coefficients and Dirichlet part of the next level."""
        lc, factor = level.level_class, level.factor
        d, fixed = level.diagonal, level.dirichlet
        own_theta: Tensor | float = 1.0
        if self.hidden:
            inverse = over(torch.ones_like(d), d)
            phi = self._cell_features(level.faces, d, inverse, fixed * inverse)
            own_theta = torch.exp(RANGE * self.cell_net(phi, lc)[2])
        coarse_dirichlet = self.theta[lc].exp() * block_sum(fixed * own_theta, factor)
        block_fixed = block_sum(fixed, factor)
        links = [block_sum(at_even(f, axis), factor) for axis, f in enumerate(level.faces)]
        columns = np.prod(factor) / 2
        coarse_faces = []
        for axis, f in enumerate(level.faces):
            if factor[axis] == 1:
                coarse_faces.append(self.gamma[lc].exp() * block_sum(f, factor))
                continue
            crossing = at_odd(f, axis)
            inner = at_even(f, axis)
            left = lower(inner, axis)
            right = upper(inner, axis)
            resistance = (
                over(torch.ones_like(f), crossing)
                + 0.5 * over(torch.ones_like(f), left)
                + 0.5 * over(torch.ones_like(f), right)
            )
            series = torch.where(crossing > 0, 1 / resistance.clamp_min(TINY), torch.zeros_like(f))
            total = block_sum(crossing, factor)
            g = self.gamma[lc].exp() * total
            if self.hidden:
                largest = block_max(crossing, factor)
                lateral = sum(
                    (links[b] for b in range(self.ndim) if b != axis and factor[b] > 1),
                    torch.zeros_like(total),
                ) / max(1, self.ndim - 1)
                across = over(lateral, total), over(upper(lateral, axis), total)
                along = over(links[axis], total), over(upper(links[axis], axis), total)
                drain = over(block_fixed, total), over(upper(block_fixed, axis), total)
                open_block = total > 0
                zero = torch.zeros_like(total)
                phi = (
                    torch.where(open_block, 2 * over(block_sum(series, factor), total) - 1, zero),
                    torch.where(open_block, over(total, columns * largest) - 1, zero),
                    *(
                        torch.where(open_block, value, zero)
                        for value in (
                            squash(along[0] + along[1]) - squash(torch.full_like(total, 2.0)),
                            squash((along[0] - along[1]).abs()),
                            squash(across[0] + across[1]) - squash(torch.full_like(total, 2.0)),
                            squash((across[0] - across[1]).abs()),
                            squash(drain[0] + drain[1]),
                            squash((drain[0] - drain[1]).abs()),
                        )
                    ),
                )
                (correction,) = self.face_net(phi, lc)
                g = g * torch.exp(RANGE * correction)
            coarse_faces.append(g)
        return coarse_faces, coarse_dirichlet


class TorchHierarchy:
    """All levels for one batch of operators: z = M r by a symmetric V-cycle."""

    def __init__(self, net: TorchMultilevel, levels: list[TorchLevel], coarsest_inverse: Tensor):
        self.levels, self.coarsest_inverse = levels, coarsest_inverse
        self.alpha = ALPHA_MAX * torch.sigmoid(net.alpha)

    def apply(self, r: Tensor) -> Tensor:
        """z = M r, both (batch, *shape)."""
        return self._cycle(r, 0)

    def product(self, x: Tensor) -> Tensor:
        """A x on the finest level."""
        shape = x.shape
        padded = pad_to(x, self.levels[0].diagonal.shape)
        return -crop(self.levels[0].residual(torch.zeros_like(padded), padded), shape)

    def _cycle(self, r: Tensor, depth: int) -> Tensor:
        if depth == len(self.levels):
            flat = r.reshape(r.shape[0], -1, 1)
            return (self.coarsest_inverse.to(r.dtype) @ flat).reshape(r.shape)
        level, shape = self.levels[depth], r.shape
        b = pad_to(r, level.diagonal.shape)
        alpha = self.alpha[level.level_class]
        steps = [(s, c) for s in range(alpha.shape[0]) for c in (0, 1)]
        x = alpha[0, 0] * colour_mask(RED, tuple(b.shape[1:]), b) * level.smoother * b
        for s, c in steps[1:]:
            x = x + alpha[s, c] * (level.smoother * level.residual(b, x, c))
        coarse = self._cycle(_restrict(level, level.residual(b, x)), depth + 1)
        x = x + _prolong(level, coarse)
        for s, c in reversed(steps):
            x = x + alpha[s, c] * (level.smoother * level.residual(b, x, c))
        return crop(x, shape)


def _prolong(level: TorchLevel, coarse: Tensor) -> Tensor:
    """P X: own X_I + sum over axes of w (outward neighbour of I)."""
    fine = level.own * spread(coarse, level.factor)
    for axis, w in enumerate(level.prolongation):
        if level.factor[axis] > 1:
            odd = parity(w, axis)
            up, down = (
                spread(upper(coarse, axis), level.factor),
                spread(lower(coarse, axis), level.factor),
            )
            fine = fine + w * torch.where(odd, up, down)
    return fine


def _restrict(level: TorchLevel, r: Tensor) -> Tensor:
    """P^T r."""
    coarse = block_sum(level.own * r, level.factor)
    for axis, w in enumerate(level.prolongation):
        if level.factor[axis] > 1:
            coarse = coarse + lower(block_sum(at_odd(w * r, axis), level.factor), axis)
            coarse = coarse + upper(block_sum(at_even(w * r, axis), level.factor), axis)
    return coarse


def _dense_inverse(faces: list[Tensor], dirichlet: Tensor) -> Tensor:
    """Pseudo-inverse of the coarsest operator in float64, (batch, cells, cells).

    With u the normalised indicators of the closed components: (A + s u u^T)^-1 - u u^T / s.
    """
    batch, shape = dirichlet.shape[0], dirichlet.shape[1:]
    cells = int(np.prod(shape))
    index = np.arange(cells).reshape(tuple(shape))
    off = torch.zeros(batch, cells, cells, dtype=torch.float64, device=dirichlet.device)
    for axis, f in enumerate(faces):
        n = shape[axis]
        if n == 1:
            continue
        low = torch.from_numpy(index.take(range(n - 1), axis).ravel()).to(f.device)
        high = torch.from_numpy(index.take(range(1, n), axis).ravel()).to(f.device)
        c = f.narrow(axis + 1, 0, n - 1).reshape(batch, -1).double()
        pair = torch.zeros_like(off)
        pair[:, low, high] = c
        off = off + pair + pair.transpose(1, 2)
    fixed = dirichlet.reshape(batch, -1).double()
    d = fixed + off.sum(2)
    null = [null_vectors(o, f) for o, f in zip(off.detach().cpu().numpy(), fixed.detach().cpu().numpy())]
    null_part = torch.from_numpy(np.stack([u.T @ u for u in null])).to(d.device)
    scale = d.mean(1).clamp_min(TINY)[:, None, None]
    empty = torch.diag_embed((d == 0).double())
    a = torch.diag_embed(d) - off + scale * (null_part + empty)
    return torch.linalg.inv(a) - (null_part + empty) / scale
