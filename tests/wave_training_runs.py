"""Runs of trainings of wave surrogates on tiny sets, for the tests that need them."""

import csv
from dataclasses import replace

from consolve.learned.waves.format import PropagatorSettings
from consolve.learned.waves.generator_training import GeneratorTraining, generator_settings
from consolve.learned.waves.propagator_training import PropagatorTraining, PropagatorTrainingSettings
from consolve.learned.waves.runs import compressed_ranks
from consolve.learned.waves.training import WaveTrainingSettings
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.generation import generate
from consolve.pde.waves.sampling import WaveSet

SMALL = PropagatorSettings(past=3, ahead=2, factor=8, width=10, layers=3, gate_width=4)
RANKS = (7, 12, 7)
SHORT = dict(steps=7, batch=2, rate=1e-2)


def write_sets(folder):
    """Paths of a training and a validation set of both kinds."""
    paths = {}
    for name in ("propagator", "zone"):
        for split, runs in (("train", 5), ("validation", 3)):
            paths[name, split] = folder / f"{name}-{split}.h5"
            generate(paths[name, split], WaveSet(name, split), runs, vertices=64)
    return paths


def small_training(
    sets,
    folder,
    network="propagator",
    name="w",
    compressed=False,
    resume=False,
    size=SMALL,
    teacher=None,
    **changes,
):
    """A run that is not started; `changes` are of the training's settings."""
    kind = "propagator" if network == "propagator" else "zone"
    out, options = folder / f"{name}.h5", dict(resume=resume, command="consolve train wave")
    with WaveData(sets[kind, "train"]) as data, WaveData(sets[kind, "validation"]) as validation:
        if network == "propagator":
            size = replace(size, ranks=RANKS if compressed else None)
            settings = PropagatorTrainingSettings(**{**SHORT, "rollout": 4, **changes})
            return PropagatorTraining(size, settings, data, validation, out, teacher=teacher, **options)
        size = generator_settings(data, hidden=16, seeds=3, width=12, layers=3)
        if compressed:
            size = replace(size, ranks=compressed_ranks(size.kernel_shapes(), 3.0))
        return GeneratorTraining(
            size, WaveTrainingSettings(**{**SHORT, **changes}), data, validation, out, **options
        )


def rows(path, timed=False):
    """Rows of a training log; without the column of the seconds, which no two runs share."""
    with open(path, newline="") as file:
        head, *rest = csv.reader(file)
    assert head == ["step", "seconds", "loss", "smoothed_loss", "validation_loss", "rate"]
    return [row if timed else row[:1] + row[2:] for row in rest]
