"""The record of a training of a wave surrogate: where its data came from."""

from __future__ import annotations

from typing import Any

from consolve.pde.waves.data import WaveData


def domain_of(data: WaveData) -> dict[str, Any]:
    """What a training set says of the problems in it, for the record in the weights."""
    names = ("set", "media", "speed_range", "frequency_range", "boundaries")
    domain = {name: data.attributes[name] for name in names}
    return {**domain, "interval": data.interval, "grid": [int(n) for n in data.u.shape[2:]]}


def check_apart(data: WaveData, validation: WaveData) -> None:
    """Refuse a validation set that shares runs with the training set.

    Raises
    ------
    ValueError
        Both are of the same split and seed: run r of one is run r of the other.
    """
    if data.wave_set == validation.wave_set:
        raise ValueError(
            f"{validation.path} is of the {data.wave_set.split} split with seed {data.wave_set.seed}, as "
            f"{data.path} is: they share runs; make one with 'consolve data wave --split validation'"
        )
