"""From the options of ``consolve train dcdm`` to a training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

from consolve.learned.dcdm.domains import CELLS
from consolve.learned.dcdm.energy import EnergyTraining, EnergyTrainingSettings
from consolve.learned.dcdm.format import DCDMSettings
from consolve.learned.dcdm.training import RATES, DCDMTraining, DCDMTrainingSettings, RitzTraining
from consolve.learned.dcdm.unrolled import UnrolledTraining, UnrolledTrainingSettings
from consolve.learned.training.settings import ForeignOption, RunSettings
from consolve.pde.ritz.data import RitzData


@contextmanager
def dcdm_training(
    loss: str,
    out: str,
    dim: int | None = None,
    data: Sequence[str] = (),
    validation: Sequence[str] = (),
    device: str = "cpu",
    resume: bool = False,
    command: str = "",
    **chosen: Any,
) -> Iterator[DCDMTraining]:
    """The run for these options, its data sets open; `chosen` are fields of both settings.

    Raises
    ------
    ForeignOption
        For an option that the loss does not have, or one that it needs and did not get.
    """
    own = {f.name for f in fields(DCDMSettings)} & set(chosen)
    training: Any = {
        "ritz": DCDMTrainingSettings,
        "energy": EnergyTrainingSettings,
        "unrolled": UnrolledTrainingSettings,
    }[loss]
    given = {"data": data, "validation": validation}
    foreign = set(chosen) - own - {f.name for f in fields(training)}
    if loss != "ritz":
        foreign |= {name for name, value in given.items() if value}
    if foreign:
        raise ForeignOption(f"--{min(foreign).replace('_', '-')} is not an option of --loss {loss}")
    sizes = {name: chosen[name] for name in own}
    rest = {name: value for name, value in chosen.items() if name not in own}
    rest.setdefault("rate", RATES.get(rest.get("optimiser", "adam"), RunSettings.rate))
    options: dict[str, Any] = {"device": device, "resume": resume, "command": command}
    with ExitStack() as stack:
        if loss == "ritz":
            if not data:
                raise ForeignOption("--loss ritz needs --data, a file made by 'consolve data ritz'")
            sets, others = (
                [stack.enter_context(RitzData(path)) for path in paths] for paths in (data, validation)
            )
            settings = DCDMSettings(dim or sets[0].operator.ndim, **sizes)
            yield RitzTraining(settings, training(**rest), sets, out, others, **options)
        else:
            if dim is None:
                raise ForeignOption(f"--loss {loss} needs --dim")
            rest.setdefault("cells", CELLS[dim])
            run: Any = EnergyTraining if loss == "energy" else UnrolledTraining
            yield run(DCDMSettings(dim, **sizes), training(**rest), out, **options)
