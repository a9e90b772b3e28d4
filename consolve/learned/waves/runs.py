"""From the options of ``consolve train wave`` to a training run."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from consolve.learned.separable.layers import rank_for
from consolve.learned.training.settings import ForeignOption
from consolve.learned.waves.format import GeneratorSettings, PropagatorSettings
from consolve.learned.waves.generator_training import GeneratorTraining, generator_settings
from consolve.learned.waves.propagator_training import PropagatorTraining, PropagatorTrainingSettings
from consolve.learned.waves.record import check_apart
from consolve.learned.waves.training import WaveTraining, WaveTrainingSettings
from consolve.pde.waves.data import WaveData


def compressed_ranks(shapes: list[tuple[int, ...]], compression: float) -> tuple[int, ...]:
    """Rank of each convolution (out, in, (k_t,) k_y, k_x) that leaves 1/compression of its parameters."""
    return tuple(rank_for(compression, shape[1], shape[0], shape[2:]) for shape in shapes)


def wave_training(
    network: str,
    data: str,
    validation: str,
    out: str,
    compression: float | None,
    teacher: str | None,
    device: str,
    resume: bool,
    command: str,
    **chosen: Any,
) -> WaveTraining:
    """The run for these options; `chosen` are fields of the network's and the training's settings.

    Raises
    ------
    ForeignOption
        For an option that the network does not have.
    """
    size: Any
    training: Any
    run: Any
    if network == "propagator":
        size, training, run = PropagatorSettings, PropagatorTrainingSettings, PropagatorTraining
    else:
        size, training, run = GeneratorSettings, WaveTrainingSettings, GeneratorTraining
    own = {f.name for f in fields(size)} & set(chosen)
    rest = set(chosen) - own
    foreign = rest - {f.name for f in fields(training)}
    if foreign or (teacher is not None and network != "propagator"):
        raise ForeignOption(f"--{min(foreign or {'teacher'})} is not an option of the {network}")
    options: dict[str, Any] = {"device": device, "resume": resume, "command": command}
    if teacher is not None:
        options["teacher"] = teacher
    with WaveData(data) as first, WaveData(validation) as second:
        check_apart(first, second)
        sizes = {name: chosen[name] for name in own}
        settings = size(**sizes) if network == "propagator" else generator_settings(first, **sizes)
        if compression is not None:
            settings = replace(settings, ranks=compressed_ranks(settings.kernel_shapes(), compression))
        return run(settings, training(**{name: chosen[name] for name in rest}), first, second, out, **options)
