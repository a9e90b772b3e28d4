"""Types of command-line values."""

from __future__ import annotations

import math
import shlex
from typing import Any

import click


class Sizes(click.ParamType):
    """``N`` or ``N,N[,N]``: whole numbers of at least ``least``."""

    name = "N[,N[,N]]"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Text to a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            sizes = ()
        if not sizes or min(sizes) < self.least:
            self.fail(
                f"{value!r}: expected whole numbers of at least {self.least}, separated by commas", param, ctx
            )
        return sizes


class Positive(click.FloatRange):
    """A number greater than 0."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)


def grid_shape(cells: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """``--cells`` as a NumPy shape: one number for all axes, or NX,NY[,NZ] turned round."""
    if len(cells) == 1:
        return cells * dim
    if len(cells) != dim:
        raise click.UsageError(f"--cells has {len(cells)} numbers, a {dim}D grid needs 1 or {dim}")
    return cells[::-1]


BYTES_PER_CELL_OF_FLOW = 150
"""Of a flow and its pressure operator during a step, at least."""


def checked_scene(name: str, shape: tuple[int, ...], seed: int) -> Any:
    """The scene of a name, shape and seed; what is not possible is wrong usage.

    Raises
    ------
    NotEnoughMemory
        If a flow in it needs more memory than there is.
    """
    from consolve.base.memory import require
    from consolve.pde.flow.scenes import make_scene

    try:
        scene = make_scene(name, shape, seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    size = " x ".join(map(str, shape[::-1]))
    require(BYTES_PER_CELL_OF_FLOW * math.prod(shape), f"a flow on {size} cells")
    return scene


def petsc_words(words: tuple[str, ...]) -> list[str]:
    """What stands after ``--``, checked to begin with an option."""
    split = [part for word in words for part in (shlex.split(word) if " " in word else [word])]
    if split and not split[0].startswith("-"):
        raise click.UsageError(
            f"unexpected argument {split[0]!r}; PETSc options go after '--', as in '-- -ksp_type dcd'"
        )
    return split


petsc_options = click.argument(
    "petsc_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- PETSC OPTIONS]"
)
