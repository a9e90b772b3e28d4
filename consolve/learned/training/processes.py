"""The processes of a training run and their devices: one alone, or those that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed


@contextmanager
def processes(device: str) -> Iterator[bool]:
    """Joins the processes of ``torchrun``, if there are any; True in the one that writes and reports."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def device_of(name: str, processes: int) -> torch.device:
    """The device of this name; of several processes each has a CUDA device of its own."""
    if not name.startswith("cuda"):
        return torch.device(name)
    if not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch finds no CUDA device; use --device cpu")
    if processes > 1 and name == "cuda":
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise ValueError(f"process {local} of this machine has no CUDA device: torch finds {count}")
        name = f"cuda:{local}"
        torch.cuda.set_device(local)
    return torch.device(name)
