"""Training of the multilevel network: self-supervised, by unrolled conjugate gradients on random domains.

The loss is the mean over a batch of ``log10(|r_K| / |r_0|) / K``: decimals per iteration of K steps of
conjugate gradients preconditioned by the network, on random operators and right-hand sides.  No solution is
ever needed.

Every step draws its data from (seed, step) alone, so a resumed run continues exactly as an uninterrupted one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from consolve.base.files import open_in_place, whole_file
from consolve.learned.multilevel.format import Weights, save_weights
from consolve.learned.multilevel.torch.network import Hierarchy, TorchMultilevel
from consolve.learned.training.domains import random_operator, random_right_hand_side, random_shape
from consolve.learned.training.operator import operator_tensors
from consolve.learned.training.record import interrupts_deferred, plot_log, revision

CHECKPOINT_VERSION = 1
_VALIDATION_STREAM = 2**31
"""Steps from here on are never trained on: validation draws from them."""


@dataclass(frozen=True)
class TrainingSettings:
    """What a run depends on; a checkpoint resumes only with the same ones.

    Parameters
    ----------
    ndim
        2 or 3.
    network
        ``multilevel``, or ``mg`` for the classical twin (scalars only, same training).
    sweeps
        Red-black sweeps before and after the coarse correction.
    hidden
        Hidden units of the perceptrons (unused by ``mg``).
    steps, batch
        Optimiser steps, and operators in each.
    cells
        Mean number of cells of a training grid; sizes vary by a factor of two either way.
    rate
        Peak learning rate of Adam for the scalars; the perceptrons take a fifth.
    seed
        Of initial weights and data.
    """

    ndim: int
    network: str = "multilevel"
    sweeps: int = 2
    hidden: int = 16
    steps: int = 1500
    batch: int = 2
    cells: int = 0
    rate: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ndim not in (2, 3):
            raise ValueError(f"ndim must be 2 or 3, got {self.ndim}")
        if self.network not in ("multilevel", "mg"):
            raise ValueError(f"network must be 'multilevel' or 'mg', got {self.network!r}")
        for name in ("sweeps", "hidden", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}")

    @property
    def mean_cells(self) -> int:
        """``cells``, or the default of the dimension: 96^2 or 28^3."""
        return self.cells or {2: 96**2, 3: 28**3}[self.ndim]


@dataclass(frozen=True)
class Progress:
    """State of a run after a step, for callers that show it."""

    step: int
    steps: int
    loss: float
    smoothed_loss: float
    validation: float | None
    seconds: float


def conjugate_gradients(hierarchy: Hierarchy, b: Tensor, steps: int) -> Tensor:
    """|r_k| / |b| for k = 1..steps of preconditioned conjugate gradients from zero, (steps, batch);
    differentiable."""
    view = [-1] + [1] * (b.ndim - 1)

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).flatten(1).sum(1)

    norm = dot(b, b).sqrt().clamp_min(1e-30)
    r, z = b, hierarchy.apply(b)
    p, rz, history = z, dot(r, z), []
    for k in range(steps):
        q = hierarchy.product(p)
        r = r - (rz / dot(p, q).clamp_min(1e-30)).reshape(view) * q
        history.append((dot(r, r) + 1e-30).sqrt() / norm)
        if k + 1 < steps:
            z = hierarchy.apply(r)
            rz, previous = dot(r, z), rz
            p = z + (rz / previous.clamp_min(1e-30)).reshape(view) * p
    return torch.stack(history)


def decimals_per_iteration(history: Tensor) -> Tensor:
    """Mean over the batch of log10(last residual) / iterations; floor of float32 at 1e-7."""
    return (torch.log10(history[-1].clamp_min(1e-7)) / len(history)).mean()


class Training:
    """One run: weights, optimiser, checkpoint, log.

    Parameters
    ----------
    settings
        What to train.
    out
        Weights file to write; beside it stand ``NAME.checkpoint.pt``, ``NAME.csv`` and ``NAME.png``.
    device
        ``cpu`` or ``cuda``.
    resume
        Continue from the checkpoint; an error if there is none or its settings differ.
    command
        How the run was started, for the record in the file.

    Raises
    ------
    ValueError
        For settings out of range, a checkpoint that does not fit, or a device that is not there.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        out: str | os.PathLike[str],
        device: str = "cpu",
        resume: bool = False,
        command: str = "",
    ):
        self.settings, self.out, self.command = settings, Path(out), command
        if not self.out.parent.is_dir() or not os.access(self.out.parent, os.W_OK):
            raise ValueError(f"cannot write to {str(self.out.parent)!r}: no such directory, or not writable")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError("device 'cuda' was asked for, but torch finds no CUDA device; use --device cpu")
        self.device = torch.device(device)
        torch.manual_seed(settings.seed)
        hidden = settings.hidden if settings.network == "multilevel" else 0
        self.net = TorchMultilevel(settings.ndim, settings.sweeps, hidden).to(self.device)
        scalars = [p for name, p in self.net.named_parameters() if "net" not in name]
        perceptrons = [p for name, p in self.net.named_parameters() if "net" in name]
        groups = [
            {"params": scalars, "peak": settings.rate},
            {"params": perceptrons, "peak": settings.rate / 5},
        ]
        self.optimiser = torch.optim.Adam([g for g in groups if g["params"]], lr=settings.rate)
        self.step, self.seconds, self.smoothed = 0, 0.0, 0.0
        self.best, self.best_tensors = float("inf"), self.net.tensors()
        self.data_hash = hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest()
        if resume:
            self._load_checkpoint()
        else:
            self._csv.unlink(missing_ok=True)

    @property
    def _checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint.pt")

    @property
    def _csv(self) -> Path:
        return self.out.with_suffix(".csv")

    def run(self, report: Callable[[Progress], None] | None = None, validate_every: int = 100) -> Weights:
        """Train to the last step and write the weights; on Ctrl-C the checkpoint is written first.

        The weights kept are those with the best validation loss.
        """
        try:
            while self.step < self.settings.steps:
                begin = time.perf_counter()
                loss = self._train_step()
                self.seconds += time.perf_counter() - begin
                due = self.step % validate_every == 0 or self.step == self.settings.steps
                validation = self._validate() if due else None
                if due:
                    self._log(loss, validation)
                    self._save_checkpoint()
                if report:
                    p = Progress(
                        self.step, self.settings.steps, loss, self.smoothed, validation, self.seconds
                    )
                    report(p)
        except KeyboardInterrupt:
            self._save_checkpoint()
            raise
        return self._finish()

    def _batch(self, stream: int, shape: tuple[int, ...] | None = None) -> tuple[list, Tensor, int]:
        """Operators, right-hand sides and unrolled steps of one step's data."""
        rng = np.random.default_rng([self.settings.seed, stream])
        cells = self.settings.mean_cells * float(np.exp(rng.uniform(-0.7, 0.7)))
        shape = shape or random_shape(rng, self.settings.ndim, int(cells))
        operators = [random_operator(rng, shape) for _ in range(self.settings.batch)]
        b = np.stack([random_right_hand_side(rng, op) for op in operators])
        most = 5 if self.settings.sweeps > 1 else 6
        return operators, torch.from_numpy(b).to(self.device), int(rng.integers(3, most))

    def _train_step(self) -> float:
        operators, b, unrolled = self._batch(self.step)
        digest = hashlib.sha256(self.data_hash.encode() + b.cpu().numpy().tobytes())
        for op in operators:
            digest.update(op.dirichlet.tobytes() + op.active.tobytes())
        share = self.step / self.settings.steps
        factor = min(1.0, (self.step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * share)))
        for group in self.optimiser.param_groups:
            group["lr"] = float(group["peak"] * factor)
        hierarchy = self.net.setup(*operator_tensors(operators, self.device))
        loss = decimals_per_iteration(conjugate_gradients(hierarchy, b, unrolled))
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        value = float(loss.detach())
        with interrupts_deferred():  # a step counts whole or not at all
            if torch.isfinite(norm):
                self.optimiser.step()
            if np.isfinite(value):
                self.smoothed = value if self.step == 0 else 0.98 * self.smoothed + 0.02 * value
            self.data_hash = digest.hexdigest()
            self.step += 1
        return value

    def _validate(self) -> float:
        """Loss over eight batches that training never sees; remembers the best weights."""
        with torch.no_grad():
            losses = []
            for q in range(8):
                operators, b, _ = self._batch(_VALIDATION_STREAM + q)
                hierarchy = self.net.setup(*operator_tensors(operators, self.device))
                losses.append(float(decimals_per_iteration(conjugate_gradients(hierarchy, b, 4))))
        value = float(np.mean(losses))
        if value < self.best:
            self.best, self.best_tensors = value, self.net.tensors()
        return value

    def _log(self, loss: float, validation: float | None) -> None:
        new = not self._csv.exists()
        with open(self._csv, "a", newline="", opener=open_in_place) as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "seconds", "loss", "smoothed_loss", "validation_loss", "rate"])
            rate = self.optimiser.param_groups[0]["lr"]
            row = (
                self.step,
                f"{self.seconds:.1f}",
                f"{loss:.4f}",
                f"{self.smoothed:.4f}",
                f"{validation:.4f}",
            )
            writer.writerow([*row, f"{rate:.2e}"])

    def _save_checkpoint(self) -> None:
        state = {
            "version": CHECKPOINT_VERSION,
            "settings": asdict(self.settings),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "smoothed": self.smoothed,
            "best": self.best,
            "best_tensors": {k: torch.from_numpy(v.copy()) for k, v in self.best_tensors.items()},
            "data_hash": self.data_hash,
        }
        with whole_file(self._checkpoint) as part:
            torch.save(state, part)

    def _load_checkpoint(self) -> None:
        if not self._checkpoint.is_file():
            raise ValueError(f"nothing to resume: {str(self._checkpoint)!r} does not exist")
        try:
            state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:
            raise ValueError(f"{self._checkpoint}: not a readable checkpoint ({error})") from error
        if state.get("version") != CHECKPOINT_VERSION or state.get("settings") != asdict(self.settings):
            raise ValueError(
                f"{self._checkpoint}: made with {state.get('settings')}, asked for {asdict(self.settings)}; "
                "resume with the same settings, or start anew without --resume"
            )
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.smoothed = state["step"], state["seconds"], state["smoothed"]
        self.best, self.data_hash = state["best"], state["data_hash"]
        self.best_tensors = {k: v.cpu().numpy() for k, v in state["best_tensors"].items()}

    def _finish(self) -> Weights:
        scores = {
            "validation_log10_residual_per_iteration": round(self.best, 4),
            "steps": self.step,
            "training_seconds": round(self.seconds, 1),
        }
        record = {
            "command": self.command,
            "settings": json.dumps(asdict(self.settings)),
            "seed": str(self.settings.seed),
            "data_hash": self.data_hash,
            "revision": revision(),
            "scores": json.dumps(scores),
        }
        s = self.settings
        hidden = self.net.hidden
        weights = Weights(s.ndim, s.sweeps, hidden, self.best_tensors, record, str(self.out))
        save_weights(weights, self.out)
        plot_log(self._csv, self.out.with_suffix(".png"))
        return weights
