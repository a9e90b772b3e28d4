"""A training run: what every network that is trained by gradients of drawn batches shares.

A run is a number of optimiser steps.  Every step draws its data from (seed, step) alone, so a resumed run
continues exactly as an uninterrupted one.  Under ``torchrun`` each process takes its share of every batch and
the gradients are averaged; process 0 validates and writes; Ctrl-C in any process ends all after the same
step.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from consolve.base.files import whole_file
from consolve.learned.training.muon import Muon
from consolve.learned.training.processes import device_of
from consolve.learned.training.record import (
    TrainingLog,
    differences,
    interrupts_deferred,
    plot_log,
    revision,
)
from consolve.learned.training.settings import RunProgress, RunSettings

CHECKPOINT_VERSION = 1
_SEAL = b"\nconsolve checkpoint, sha256 of what precedes this line: "

Weights = TypeVar("Weights")


class CheckpointError(ValueError):
    """A checkpoint that is damaged or of another version."""


class TrainingDiverged(RuntimeError):
    """The loss or every validation became NaN or infinite; the last good checkpoint stays."""


class TrainingRun(ABC, Generic[Weights]):
    """One run: network, optimiser, checkpoint, log, model card.

    Parameters
    ----------
    net
        The network; `net.settings` is its size, and `net.tensors()` what is saved.
    settings
        How to train.
    data_hash
        Digest of training and validation set.
    out
        Weights file to write; beside it ``NAME.checkpoint.pt``, ``NAME.csv``, ``NAME.png`` and ``NAME.md``.
    device
        ``cpu`` or ``cuda``.
    resume
        Continue from the checkpoint; an error if there is none or it is of another run.
    command
        How the run was started, for the record in the file.

    Raises
    ------
    ValueError
        For settings out of range, a checkpoint that does not fit, or a device that is not there.
    """

    loss_name = "loss"
    plot_sign = 1.0
    """-1: the plot shows -loss, on a linear axis instead of a logarithmic one."""
    clip: float | None = None
    """Norm that gradients are cut down to."""
    every = 250
    """Steps from one validation to the next, unless `run` is told."""
    stream: tuple[int, ...] = (1,)
    """The data of a step is drawn by (seed, *stream, step)."""

    def __init__(
        self,
        net: nn.Module,
        settings: RunSettings,
        data_hash: str,
        out: str | os.PathLike[str],
        device: str = "cpu",
        resume: bool = False,
        command: str = "",
    ):
        self.settings, self.out, self.command, self.data_hash = settings, Path(out), command, data_hash
        if not self.out.parent.is_dir() or not os.access(self.out.parent, os.W_OK):
            raise ValueError(f"cannot write to {str(self.out.parent)!r}: no such directory, or not writable")
        self.processes = distributed.get_world_size() if distributed.is_initialized() else 1
        self.process = distributed.get_rank() if distributed.is_initialized() else 0
        self.device = device_of(device, self.processes)
        if settings.batch % self.processes:
            raise ValueError(f"batch {settings.batch} cannot be shared evenly by {self.processes} processes")
        self.net: Any = net.to(self.device)
        self.optimiser = self._optimiser()
        self.step, self.seconds, self.loss, self.smoothed = 0, 0.0, 0.0, 0.0
        self.judged, self.waited = 0, 0
        self.best = math.inf
        self.best_scores: dict[str, Any] = {}
        self.best_tensors = self.net.tensors()
        self._log = TrainingLog(self.out.with_suffix(".csv"))
        self._interrupts: list[int] = []
        if resume:
            self._load_checkpoint()

    @abstractmethod
    def _loss(self, rng: np.random.Generator) -> Tensor:
        """Loss of this process's share of a batch drawn from `rng` (the same on every process)."""

    @abstractmethod
    def _validate(self) -> tuple[float, dict[str, Any]]:
        """What the best weights are chosen by, and scores for the record, over the validation set."""

    @abstractmethod
    def _weights(self, record: dict[str, str]) -> Weights:
        """The weights with the best validation, and how they came about."""

    @abstractmethod
    def _save(self, weights: Weights) -> None:
        """Write the weights to `out`."""

    @abstractmethod
    def _card(self, weights: Weights) -> str:
        """Their model card, in Markdown."""

    def _optimiser(self) -> torch.optim.Optimizer:
        return Muon(self.net.parameters(), self.settings.rate)

    def _counted(self) -> None:
        """What belongs to a step beside the step of the optimiser."""

    def _more_state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the state of every run."""
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up what `_more_state` gave."""

    @property
    def domain(self) -> dict[str, Any]:
        """What the network is trained for, for the record."""
        return {}

    @property
    def _share(self) -> slice:
        size = self.settings.batch // self.processes
        return slice(self.process * size, (self.process + 1) * size)

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "network": asdict(self.net.settings),
            "training": asdict(self.settings),
            "data_hash": self.data_hash,
        }

    @property
    def _checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint.pt")

    def run(
        self, report: Callable[[RunProgress], None] | None = None, validate_every: int | None = None
    ) -> Weights:
        """Train to the last step, or until `patience` ends, and write the weights with the best validation.

        Raises
        ------
        TrainingDiverged
            If the loss is not finite; the checkpoint of the last validation stays for ``--resume``.
        KeyboardInterrupt
            On Ctrl-C, after the checkpoint was written.
        """
        validate_every = validate_every or self.every
        try:
            with self._deferred_together() as self._interrupts:
                self._judge_if_due(validate_every)  # where the run was interrupted before it
                while self.step < self.settings.steps and not self._out_of_patience():
                    self._train_step()
                    self._judge_if_due(validate_every)
                    if report:
                        s = self.settings
                        report(RunProgress(self.step, s.steps, self.smoothed, self.best, self.seconds))
        except KeyboardInterrupt:
            with interrupts_deferred():
                if self.process == 0:
                    self._save_checkpoint()
            raise
        return self._finish()

    def _deferred_together(self) -> AbstractContextManager[list[int]]:
        """Processes that each stopped where Ctrl-C met them would wait for each other."""
        return interrupts_deferred() if self.processes > 1 else nullcontext([])

    def _out_of_patience(self) -> bool:
        return bool(self.settings.patience) and self.waited >= self.settings.patience

    def _rate(self, peak: float) -> float:
        share = self.step / self.settings.steps
        return (
            peak * min(1.0, (self.step + 1) / 100) * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * share)))
        )

    def _train_step(self) -> None:
        begin = time.perf_counter()
        rng = np.random.default_rng([self.settings.seed, *self.stream, self.step])
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(group.get("peak", self.settings.rate))
        amp = torch.autocast(self.device.type, dtype=torch.bfloat16) if self.settings.amp else nullcontext()
        with amp:
            loss = self._loss(rng)
        self.optimiser.zero_grad()
        loss.backward()
        value = float(loss.detach())
        if self.processes > 1:
            caught = torch.tensor(float(len(self._interrupts)), device=self.device)
            value, interrupts = self._average(torch.stack([loss.detach().float(), caught])).tolist()
            if interrupts > 0:
                raise KeyboardInterrupt
            for p in self.net.parameters():
                p.grad = self._average(p.grad)
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        if not (math.isfinite(value) and all(torch.isfinite(g.norm()) for g in gradients)):
            raise TrainingDiverged(
                f"the loss is {value} at step {self.step + 1}; the last good state is {self._checkpoint} "
                f"(if it was reached): try a lower --rate than {self.settings.rate:g}, or another --seed"
            )
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        with interrupts_deferred():  # a step counts whole or not at all
            self.optimiser.step()
            self._counted()
            self.loss = value
            self.smoothed = value if self.step == 0 else 0.98 * self.smoothed + 0.02 * value
            self.step += 1
            self.seconds += time.perf_counter() - begin

    def _average(self, value: Tensor) -> Tensor:
        distributed.all_reduce(value)
        return value / self.processes

    def _judge_if_due(self, every: int) -> None:
        if self.judged == self.step or (self.step % every and self.step != self.settings.steps):
            return
        begin = time.perf_counter()
        score, scores = self._score()
        with interrupts_deferred():  # a validation counts whole or not at all
            if score < self.best:
                self.best, self.best_scores, self.waited = score, scores, 0
                self.best_tensors = self.net.tensors()
            else:
                self.waited += 1
            first, self.judged = self.judged == 0, self.step
            self.seconds += time.perf_counter() - begin
            if self.process == 0:
                numbers = (self.loss, self.smoothed, score, self._rate(self.settings.rate))
                with self._room():
                    self._log.append(first, self.step, self.seconds, *numbers)
                self._save_checkpoint()

    def _score(self) -> tuple[float, dict[str, Any]]:
        """Score of process 0 on all, so that all stop together; scores for the record on process 0."""
        found: tuple[float, dict[str, Any]] = (0.0, {})
        if self.process == 0:
            with torch.no_grad():
                found = self._validate()
        if self.processes == 1:
            return found
        score = torch.tensor(found[0], dtype=torch.float64, device=self.device)
        distributed.broadcast(score, 0)
        return float(score), found[1]

    def _save_checkpoint(self) -> None:
        state = {
            "version": CHECKPOINT_VERSION,
            "identity": self._identity,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            "smoothed": self.smoothed,
            "judged": self.judged,
            "waited": self.waited,
            "best": self.best,
            "best_scores": json.dumps(self.best_scores),
            "best_tensors": {k: torch.from_numpy(v.copy()) for k, v in self.best_tensors.items()},
            **self._more_state(),
        }
        with self._room(), whole_file(self._checkpoint) as part:
            part.write_bytes(sealed(state))

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Says what is left when a file cannot be written, as on a full disk."""
        try:
            yield
        except OSError as error:
            kept = f"go on from {self._checkpoint} with --resume"
            raise OSError(
                f"step {self.step} of {self.out} cannot be written ({error.strerror or error}): make room, "
                f"then {kept if self._checkpoint.exists() else 'start anew'}"
            ) from error

    def _load_checkpoint(self) -> None:
        if not self._checkpoint.is_file():
            raise ValueError(f"nothing to resume: {str(self._checkpoint)!r} does not exist")
        state = read_checkpoint(self._checkpoint, self.device)
        differing = differences(state["identity"], self._identity)
        if differing:
            raise ValueError(
                f"{self._checkpoint} is of another run: its {'; its '.join(differing)}; resume with the same "
                "settings and data, or start anew without --resume"
            )
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.smoothed = state["step"], state["seconds"], state["smoothed"]
        self.loss, self.judged = state.get("loss", self.smoothed), state.get("judged", self.step)
        self.waited, self.best = state["waited"], state["best"]
        self.best_scores = json.loads(state["best_scores"])
        self.best_tensors = {k: v.cpu().numpy() for k, v in state["best_tensors"].items()}
        self._restore(state)
        if self.process == 0:
            self._log.cut(self.judged)

    def _finish(self) -> Weights:
        if not math.isfinite(self.best):
            raise TrainingDiverged(
                f"no validation up to step {self.step} was finite, so there is nothing worth keeping: try a "
                f"lower --rate than {self.settings.rate:g}, or another --seed"
            )
        scores = {**self.best_scores, "steps": self.step, "training_seconds": round(self.seconds, 3)}
        record = {
            "command": self.command,
            "training": json.dumps(asdict(self.settings)),
            "seed": str(self.settings.seed),
            "data_hash": self.data_hash,
            "revision": revision(),
            "domain": json.dumps(self.domain),
            "scores": json.dumps(scores),
        }
        weights = self._weights(record)
        if self.process == 0:
            with self._room():
                self._save(weights)
                with whole_file(self.out.with_suffix(".md")) as part:
                    part.write_text(self._card(weights))
                if self._log.path.exists():
                    picture = self.out.with_suffix(".png")
                    plot_log(self._log.path, picture, self.loss_name, self.plot_sign, self.plot_sign > 0)
        return weights


def sealed(state: dict[str, Any]) -> bytes:
    """A checkpoint: a state as torch writes it, and a line with the SHA-256 of that."""
    content = io.BytesIO()  # torch.save to a file hides what the system says of it
    torch.save(state, content)
    data = content.getvalue()
    return data + _SEAL + hashlib.sha256(data).hexdigest().encode() + b"\n"


def read_checkpoint(path: Path, device: Any) -> dict[str, Any]:
    """The state in a checkpoint, its digest checked before torch reads it.

    Raises
    ------
    CheckpointError
        If it is damaged, or of another version.
    """
    data, seal, digest = path.read_bytes().rpartition(_SEAL)
    if seal and digest != hashlib.sha256(data).hexdigest().encode() + b"\n":
        raise CheckpointError(f"{path}: not a readable checkpoint (its SHA-256 does not fit); start anew")
    try:
        state: Any = torch.load(io.BytesIO(data or digest), map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}); start anew") from error
    known = isinstance(state, dict) and state.get("version") == CHECKPOINT_VERSION and "identity" in state
    if not (known and seal):
        raise CheckpointError(f"{path}: not a checkpoint of this version; start anew")
    found: dict[str, Any] = state
    return found
