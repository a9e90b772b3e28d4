"""``consolve train``: the networks from scratch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import click

from consolve.commands.output import Progress, print_result, progress
from consolve.commands.parameters import Positive


@click.group()
def train() -> None:
    """Train a network.  Needs torch: pip install 'consolve[train]'."""


@train.command()
@click.option("--dim", type=click.Choice(["2", "3"]), required=True, help="Dimension.")
@click.option(
    "--out", metavar="FILE.h5", required=True, help="Weights; checkpoint, log, plot, card beside it."
)
@click.option(
    "--network",
    type=click.Choice(["multilevel", "mg"]),
    default="multilevel",
    show_default=True,
    help="mg: the classical twin, trained scalars only.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps.  [default: 1500]")
@click.option("--batch", type=click.IntRange(min=1), help="Operators in each step.")
@click.option("--sweeps", type=click.IntRange(min=1), help="Red-black sweeps before and after.")
@click.option("--hidden", type=click.IntRange(min=1), help="Hidden units of the perceptrons.")
@click.option("--cells", type=click.IntRange(min=64), help="Mean number of cells of a training grid.")
@click.option("--rate", type=Positive(), help="Peak learning rate.  [default: 0.02]")
@click.option("--patience", type=click.IntRange(min=1), help="Stop after so many validations without gain.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out.")
def multilevel(out: str, dim: str, device: str, resume: bool, **given: Any) -> None:
    """The multilevel network, self-supervised: by conjugate gradients on random domains, without solutions.

    Ctrl-C writes a checkpoint; the same command with --resume goes on from it, to the same result.  Under
    torchrun, each process takes its share of every batch.
    """
    _check_start(out)
    from consolve.learned.multilevel.torch.training import Training, TrainingSettings

    chosen = {name: value for name, value in given.items() if value is not None}

    def make() -> Any:
        settings = TrainingSettings(ndim=int(dim), **chosen)
        return nullcontext(Training(settings, out, device=device, resume=resume, command=_command()))

    weights = _train(make, device)
    if weights is not None:
        scores = json.loads(weights.record["scores"])
        print_result(
            f"{out}: {weights.parameters} parameters, weights {weights.digest}",
            f"validation: {-scores['validation_log10_residual_per_iteration']:.3f} decimals per iteration "
            f"after {scores['steps']} steps, {scores['training_seconds']:.0f} s",
        )


@train.command()
@click.option("--network", type=click.Choice(["propagator", "generator"]), required=True)
@click.option("--data", metavar="FILE.h5", required=True, help="Training set, by 'consolve data wave'.")
@click.option("--validation", metavar="FILE.h5", required=True, help="Validation set.")
@click.option(
    "--out", metavar="FILE.h5", required=True, help="Weights; checkpoint, log, plot, card beside it."
)
@click.option(
    "--compression",
    type=click.FloatRange(min=1, min_open=True),
    help="Convolutions of one-way filters with 1/COMPRESSION of the parameters.  [default: dense]",
)
@click.option("--width", type=click.IntRange(min=1), help="Channels of the hidden layers.")
@click.option("--layers", type=click.IntRange(min=2), help="Convolutions.")
@click.option("--ahead", type=click.IntRange(min=1), help="Propagator: snapshots that one application gives.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps.")
@click.option("--batch", type=click.IntRange(min=1), help="Samples in each.")
@click.option("--rate", type=Positive(), help="Peak learning rate.")
@click.option(
    "--rollout", type=click.IntRange(min=1), help="Propagator: snapshots a training sample is rolled for."
)
@click.option(
    "--pushforward",
    type=click.IntRange(min=0),
    help="Propagator: most snapshots rolled before, without gradient.",
)
@click.option(
    "--physics", type=click.FloatRange(min=0), help="Propagator: weight of the wave equation's residual."
)
@click.option("--teacher", metavar="FILE.h5", help="Propagator: a trained one to learn from as well.")
@click.option("--patience", type=click.IntRange(min=1), help="Stop after so many validations without gain.")
@click.option("--amp", is_flag=True, help="Convolutions of the training in bfloat16.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out.")
def wave(
    network: str,
    data: str,
    validation: str,
    out: str,
    compression: float | None,
    device: str,
    resume: bool,
    teacher: str | None,
    **given: Any,
) -> None:
    """A surrogate of wave simulations, on sets made by 'consolve data wave'.

    Ctrl-C writes a checkpoint; the same command with --resume goes on from it, to the same result.  Under
    torchrun, each process takes its share of every batch.
    """
    _check_start(out)
    from consolve.learned.waves.runs import wave_training

    _check_apart(out, data=data, validation=validation, teacher=teacher)
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}

    def make() -> Any:
        return nullcontext(
            wave_training(
                network, data, validation, out, compression, teacher,
                device=device, resume=resume, command=_command(), **chosen,
            )
        )  # fmt: skip

    weights = _train(make, device)
    if weights is not None:
        print_result(
            f"{out}: {weights.network}, {weights.layer}, {weights.parameters} parameters, "
            f"weights {weights.digest}",
            f"validation: {weights.record['scores']}",
        )


@train.command()
@click.option(
    "--data", metavar="FILE.h5", multiple=True,
    help="Training set, by 'consolve data ritz'; may be given several times, for several domains.",
)  # fmt: skip
@click.option(
    "--validation", metavar="FILE.h5", multiple=True,
    help="Validation set; may be given several times.  [default: the last 5 % of each --data, held out]",
)  # fmt: skip
@click.option(
    "--out", metavar="FILE.h5", required=True, help="Weights; checkpoint, log, plot, card beside it."
)
@click.option(
    "--loss",
    type=click.Choice(["ritz", "energy", "unrolled"]),
    default="ritz",
    show_default=True,
    help="ritz: as published, on --data; energy: error in the energy norm after a step, unrolled: residual "
    "after some steps of the method, both on random domains.",
)
@click.option("--dim", type=click.Choice(["2", "3"]), help="Dimension.  [default: that of --data]")
@click.option(
    "--network", type=click.Choice(["dcdm", "dcdm-deep"]), default="dcdm", show_default=True,
    help="dcdm: as published.",
)  # fmt: skip
@click.option("--variant", type=click.Choice(["64", "128"]), help="Published size.  [default: 64]")
@click.option("--pairs", type=click.IntRange(min=1), help="dcdm-deep: residual pairs.  [default: 1]")
@click.option("--image", is_flag=True, help="Active cells and Dirichlet parts go in as further channels.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps.  [default: 10000]")
@click.option(
    "--batch", type=click.IntRange(min=1), help="Samples in each.  [default: 10; energy 8; unrolled 6]"
)
@click.option("--rate", type=Positive(), help="Peak learning rate.  [default: adam 1e-3, muon 4e-3]")
@click.option(
    "--optimiser", type=click.Choice(["adam", "muon"]), default="adam", show_default=True,
    help="adam: as published.",
)  # fmt: skip
@click.option("--unrolled", type=click.IntRange(min=1), help="Unrolled: steps of the method.  [default: 4]")
@click.option(
    "--warm-up",
    type=click.IntRange(min=0),
    help="Unrolled: most steps before, without gradient.  [default: 0]",
)
@click.option(
    "--cells",
    type=click.IntRange(min=8),
    help="Random domains: mean cells along an axis.  [default: 64; 3D: 24]",
)
@click.option("--patience", type=click.IntRange(min=1), help="Stop after so many validations without gain.")
@click.option("--amp", is_flag=True, help="Convolutions of the training in bfloat16.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out.")
def dcdm(out: str, dim: str | None, variant: str | None, device: str, resume: bool, **given: Any) -> None:
    """A network of the deep conjugate direction method: on Ritz data, or through the iteration itself.

    Ctrl-C writes a checkpoint; the same command with --resume goes on from it, to the same result.  Under
    torchrun, each process takes its share of every batch.
    """
    _check_start(out)
    from consolve.learned.dcdm.runs import dcdm_training

    _check_apart(out, data=given["data"], validation=given["validation"])
    chosen = {name: value for name, value in given.items() if value is not None and value is not False}
    if variant is not None:
        chosen["variant"] = int(variant)

    def make() -> Any:
        return dcdm_training(
            out=out, dim=None if dim is None else int(dim), device=device, resume=resume,
            command=_command(), **chosen,
        )  # fmt: skip

    weights = _train(make, device)
    if weights is not None:
        settings = weights.settings
        print_result(
            f"{out}: {settings.network}, {settings.ndim}D, {weights.parameters} parameters, "
            f"weights {weights.digest}",
            f"validation: {weights.record['scores']}",
        )


def _train(make: Callable[[], Any], device: str) -> Any:
    """The weights that a run ends with, None in processes that do not report; `make` gives its context."""
    from consolve.learned.training.processes import processes
    from consolve.learned.training.settings import ForeignOption

    with ExitStack() as stack:
        first = stack.enter_context(processes(device))
        line = stack.enter_context(progress()) if first else Progress(None)
        try:
            run = stack.enter_context(make())
        except ForeignOption as error:
            raise click.UsageError(str(error)) from error
        line.start("training")

        def report(state) -> None:  # type: ignore[no-untyped-def]
            line.show(
                f"step {state.step}/{state.steps}  loss {state.smoothed_loss:.2e}  "
                f"best validation {state.best:.4f}  {state.seconds:.0f} s"
            )

        weights = run.run(report)
    return weights if first else None


def _check_apart(out: str, **read: str | Sequence[str] | None) -> None:
    """Refuse an output that is one of the files to read."""
    for option, paths in read.items():
        for path in [paths] if isinstance(paths, str) else paths or ():
            if Path(path).resolve() == Path(out).resolve():
                raise click.UsageError(f"--out and --{option} are the same file {out!r}")


def _check_start(out: str) -> None:
    """Find out before the work whether the weights can be written and torch is there."""
    from consolve.base.files import check_writable_file

    if not out.endswith(".h5"):
        raise click.UsageError(f"--out {out!r}: expected a name that ends in .h5")
    check_writable_file(out)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise RuntimeError(f"training needs torch ({error}): pip install 'consolve[train]'") from error


def _command() -> str:
    """How the run was started, for the record: resumed or not, it is the same run."""
    return "consolve " + " ".join(word for word in sys.argv[1:] if word != "--resume")
