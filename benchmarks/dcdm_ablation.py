"""What keeps iterations from growing with the grid: networks and losses of the method, crossed.

    python benchmarks/dcdm_ablation.py                 # six trainings of 2,500 steps, about half an hour
    python benchmarks/dcdm_ablation.py --steps 100     # to try it

Networks: ``published`` (variant 64), ``published + image`` (the cell image as further input channels),
``relu U`` (the published network's residual pairs before and after each of as many averages as the grid
allows, weights shared below the finest grid), and ``dcdm-deep``.  Losses: ``residual``, the published one, on
right-hand sides of the published distribution on the empty 64^2 box, and ``energy`` on random domains.
Everything else is the same: steps, batch, optimiser, schedule.  Each network then solves box and spheres
(seeds that no training draws) by the deep conjugate direction method from 64^2 to 256^2.  Results go to
``results/dcdm_ablation.json`` and, as a table, to the terminal.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from petsc4py import PETSc
from torch import Tensor, nn

from consolve.bench import result_file
from consolve.learned.dcdm.energy import energy_loss, random_errors
from consolve.learned.dcdm.format import DCDMSettings
from consolve.learned.dcdm.layers import convolution, convolutions, residual_pairs
from consolve.learned.dcdm.network import build_network, image_channels
from consolve.learned.dcdm.training import direction_loss
from consolve.learned.training.domains import random_operator, random_shape
from consolve.learned.training.muon import Muon
from consolve.learned.training.operator import TorchOperator
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.poisson.right_hand_sides import right_hand_side
from consolve.solvers.pressure import assemble_matrix

RESULTS = Path(__file__).parent / "results" / "dcdm_ablation.json"
CELLS = 64
RATE = {"relu U": 1e-3, "published": 1e-3, "published + image": 1e-3, "dcdm-deep": 2e-3}
CAP = 300


class ReluU(nn.Module):
    """The published residual pairs over all levels: two before, two after each coarser grid, with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = convolution(2, 1, 16), convolution(2, 16, 1, taps=1)
        self.fine_down, self.fine_up, self.down, self.up, self.bottom = (
            convolutions(2, 16, 4) for _ in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self._level(self.first(x), 0))

    def _level(self, h: Tensor, level: int) -> Tensor:
        if min(h.shape[2:]) <= 4 or any(n % 2 for n in h.shape[2:]):
            return residual_pairs(self.bottom, h)
        h = residual_pairs(self.down if level else self.fine_down, h)
        c = self._level(functional.avg_pool2d(h, 2), level + 1)
        h = h + functional.interpolate(c, scale_factor=2, mode="nearest")
        return residual_pairs(self.up if level else self.fine_up, h)


def network_of(name: str) -> tuple[nn.Module, bool]:
    """The network of a name, and whether the cell image goes in."""
    torch.manual_seed(0)
    if name == "relu U":
        return ReluU(), False
    settings = DCDMSettings(2, "dcdm-deep") if name == "dcdm-deep" else DCDMSettings(2, image="image" in name)
    return build_network(settings), settings.image


def direction_of(net: nn.Module, image: bool, operators: list[GridOperator]):  # type: ignore[no-untyped-def]
    """f of residuals on the grids of these operators."""
    if not image:
        return net
    channels = torch.from_numpy(np.stack([image_channels(op) for op in operators]))
    return lambda r: net(torch.cat([r, channels.expand(len(r), *channels.shape[1:])], 1))


class PublishedData:
    """The published distribution on the box: its eigenvectors are products of those of the axes."""

    def __init__(self) -> None:
        self.operator = make_domain("box", (CELLS, CELLS)).operator()
        values, vectors = [], []
        for axis in range(2):
            line = 2 * np.eye(CELLS) - np.eye(CELLS, k=1) - np.eye(CELLS, k=-1)
            line[0, 0] = 1
            line[-1, -1] = 2 if axis == 0 else 1  # the upper side of the first axis is open
            found = np.linalg.eigh(line)
            values.append(found[0])
            vectors.append(found[1])
        eigenvalues = values[0][:, None] + values[1]
        mode = np.outer(vectors[0][:, 3], vectors[1][:, 5])
        assert np.allclose(self.operator.apply(mode), eigenvalues[3, 5] * mode)
        self.factor = np.where(eigenvalues <= np.median(eigenvalues), 9.0, 1.0)
        self.vectors = vectors

    def draw(self, rng: np.random.Generator, count: int) -> Tensor:
        """Right-hand sides (count, 1, CELLS, CELLS) of norm 1."""
        c = rng.standard_normal((count, CELLS, CELLS)) * self.factor
        b = self.vectors[0] @ c @ self.vectors[1].T
        b /= np.linalg.norm(b, axis=(1, 2), keepdims=True)
        return torch.from_numpy(b.astype(np.float32))[:, None]


def train(name: str, loss: str, steps: int) -> tuple[nn.Module, bool, dict[str, float]]:
    """A trained network, whether it sees the image, and how its training went."""
    net, image = network_of(name)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, data = Muon(net.parameters(), RATE[name]), PublishedData()
    begin, smoothed = time.process_time(), math.nan
    for step in range(steps):
        rng = np.random.default_rng([0, step])
        share = step / steps
        rate = RATE[name] * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        optimiser.param_groups[0]["lr"] = rate
        if loss == "residual":
            b = data.draw(rng, 8)
            f = direction_of(net, image, [data.operator])
            value = direction_loss(TorchOperator([data.operator]), f, b).mean()
        else:
            side = CELLS * 2 ** rng.uniform(-2, 1)
            shape = random_shape(rng, 2, int(side**2))
            if name == "relu U":
                shape = tuple(16 * max(1, round(n / 16)) for n in shape)
            count = int(np.clip(8 * (CELLS / side) ** 2, 2, 32))
            operators = [random_operator(rng, shape) for _ in range(count)]
            e = torch.from_numpy(random_errors(rng, count, shape))[:, None]
            value = energy_loss(TorchOperator(operators), direction_of(net, image, operators), e).mean()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        now = float(value.detach())
        smoothed = now if step == 0 else 0.98 * smoothed + 0.02 * now
        if step % 250 == 249:
            print(f"  {name}, {loss}: step {step + 1}, loss {smoothed:.4f}", flush=True)
    return net.eval(), image, {"final_loss": smoothed, "seconds": round(time.process_time() - begin, 1)}


class Shell:
    """The network as a PETSc preconditioner, for the KSP dcd."""

    def __init__(self, net: nn.Module, image: bool, operator: GridOperator):
        self.operator = operator
        self.direction = direction_of(net, image, [operator])

    def apply(self, pc: PETSc.PC, r: PETSc.Vec, z: PETSc.Vec) -> None:
        field = np.zeros(self.operator.shape, np.float32)
        field.flat[self.operator.cells] = r.array_r
        with torch.no_grad():
            d = self.direction(torch.from_numpy(field)[None, None])
        z.array = d.numpy().reshape(-1)[self.operator.cells].astype(float)


def iterations(net: nn.Module, image: bool, domain: str, n: int, rtol: float) -> int | None:
    """Iterations of the deep conjugate direction method; None over `CAP`."""
    operator = make_domain(domain, (n, n), seed=1001).operator()
    mat = assemble_matrix(operator)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(mat)
    ksp.setType("dcd")
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(Shell(net, image, operator))
    ksp.setTolerances(rtol=rtol, max_it=CAP)
    b = mat.createVecRight()
    b.array = right_hand_side("noise", operator, 1001).reshape(-1)[operator.cells]
    x = b.duplicate()
    ksp.solve(b, x)
    found = ksp.its if ksp.reason > 0 else None
    for held in (ksp, mat, b, x):
        held.destroy()
    return found


def main() -> None:
    """Train, solve, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--only", nargs="+", help="names of networks")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = result_file.read(options.out)["rows"] if options.out.exists() else []
    for loss in ("residual", "energy"):
        for name in RATE:
            if (options.only and name not in options.only) or (loss == "residual" and "image" in name):
                continue
            net, image, facts = train(name, loss, options.steps)
            found = {
                f"{domain} {n}": [iterations(net, image, domain, n, rtol) for rtol in (1e-4, 1e-6)]
                for domain in ("box", "spheres")
                for n in (64, 128, 256)
            }
            parameters = sum(p.numel() for p in net.parameters())
            row = {"network": name, "loss": loss, "steps": options.steps, "parameters": parameters}
            rows = [r for r in rows if (r["network"], r["loss"]) != (name, loss)]
            rows.append({**row, **facts, "iterations": found})
            result_file.write(options.out, rows)
    heads = list(rows[0]["iterations"])
    print("| network | loss | parameters | " + " | ".join(h + "²" for h in heads) + " |")
    print("|---|---|---|" + "---|" * len(heads))
    for row in rows:
        cells = (
            " / ".join(str(i) if i is not None else f"> {CAP}" for i in row["iterations"][h]) for h in heads
        )
        print(f"| {row['network']} | {row['loss']} | {row['parameters']:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
