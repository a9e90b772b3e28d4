"""The options of ``-pc_type cnn`` and ``-ksp_type dcd``: the one table that all else is made from.

What PETSc reads (``consolve.solvers.petsc.options``), its ``-help``, ``consolve options``,
``docs/options.md`` and the docstrings of the solvers come from here.  Importing this needs neither PETSc nor
Numba.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from consolve.base.errors import OptionError


@dataclass(frozen=True)
class Option:
    """One option of a solver.

    Attributes
    ----------
    name
        Without dash and prefix, such as ``pc_cnn_model``.
    argument
        What follows it, in capitals.
    default
        In words, as it is shown.
    meaning
        What it does.
    check
        Takes the text of a value and returns the value; raises ValueError with what is expected.
    """

    name: str
    argument: str
    default: str
    meaning: str
    check: Callable[[str], Any]

    @cached_property
    def attribute(self) -> str:
        """Name of the attribute of the solver's Python context that holds the value."""
        return self.name.split("_", 2)[2]


def whole_number(least: int) -> Callable[[str], int]:
    """A check for whole numbers from ``least`` on."""

    def check(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise ValueError(f"expected a whole number, {least} or more")
        return int(text)

    return check


def one_of(*names: str) -> Callable[[str], str]:
    """A check for one of some names."""

    def check(text: str) -> str:
        if text not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return text

    return check


def _truth(text: str) -> bool:
    """As PETSc takes them; an option without a value is true."""
    words = {"": True, "true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if text.lower() not in words:
        raise ValueError("expected true or false")
    return words[text.lower()]


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text, re.ASCII):
        raise ValueError("expected cpu, cuda or cuda:N")
    return text


def _text(text: str) -> str:
    return text


def parse_grid(text: str) -> tuple[int, ...]:
    """``"NX,NY[,NZ]"`` (fastest index first) as a shape in NumPy's order: (NY, NX) or (NZ, NY, NX)."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise OptionError(
            f"grid {text!r}: expected two or three positive sizes NX,NY[,NZ], the fastest running index first"
        )
    return sizes[::-1]


def _grid(text: str) -> str | None:
    if text:
        parse_grid(text)
    return text or None


def _file(text: str) -> str | None:
    return text or None


def _sweeps(text: str) -> int | None:
    return None if text == "auto" else whole_number(0)(text)


def _threads(text: str) -> int:
    import numba

    most = numba.config.NUMBA_NUM_THREADS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise ValueError(f"expected a whole number from 1 to {most} (NUMBA_NUM_THREADS raises the limit)")
    return int(text)


CNN = (
    Option(
        "pc_cnn_model",
        "NAME|FILE",
        "auto",
        "network: auto, multilevel (learned), mg (its classical twin), in torch dcdm (as published), "
        "dcdm-image (the same, which sees walls; both for -ksp_type dcd and other flexible methods) and "
        "dcdm-deep, or a weights file",
        _text,
    ),
    Option(
        "pc_cnn_grid",
        "NX,NY[,NZ]",
        "from the DMDA",
        "rows number all cells of this grid, x fastest; the fastest index comes first",
        _grid,
    ),
    Option(
        "pc_cnn_mask",
        "FILE",
        "none",
        "rows number the fluid cells of this image (.npy, .npz, .h5): 0 fluid, 1 solid, 2 air",
        _file,
    ),
    Option(
        "pc_cnn_threads",
        "N",
        "all, shared",
        "threads of the kernels on each rank; by default Numba's, shared among the ranks of a machine",
        _threads,
    ),
    Option(
        "pc_cnn_gathered_cells",
        "N",
        "32768",
        "on several ranks: levels with at most so many cells go to one of them",
        whole_number(0),
    ),
    Option(
        "pc_cnn_precision",
        "NAME",
        "auto",
        "of networks in torch: float32, bfloat16, or auto, which is float32",
        one_of("auto", "float32", "bfloat16"),
    ),
    Option(
        "pc_cnn_device",
        "NAME",
        "cpu",
        "of networks in torch: cpu, cuda, or cuda:N",
        _device,
    ),
    Option(
        "pc_cnn_smooth",
        "N",
        "auto",
        "Gauss-Seidel sweeps with the matrix before and after the network; auto: 1 where the network's grid "
        "only comes near to the matrix (9- and 27-point stencils, meshes), else 0",
        _sweeps,
    ),
    Option(
        "pc_cnn_fallback",
        "NAME",
        "none",
        "hypre or gamg: PETSc's PC that takes the system over (options under cnn_fallback_) where no engine "
        "serves it: dcd stagnates, or memory is short; none: a warning says so",
        one_of("none", "hypre", "gamg"),
    ),
)
"""Of ``-pc_type cnn``."""

DCD = (
    Option(
        "ksp_dcd_directions",
        "M",
        "2",
        "earlier directions that a new one is made A-orthogonal to",
        whole_number(1),
    ),
    Option(
        "ksp_dcd_true_residual_every",
        "N",
        "50",
        "iterations between recomputations of b - A x (0: only before convergence is declared)",
        whole_number(0),
    ),
    Option(
        "ksp_dcd_fused",
        "BOOL",
        "true",
        "with PC cnn on one rank: iterate in grid space where the matrix allows it",
        _truth,
    ),
)
"""Of ``-ksp_type dcd``."""

TITLES = {"-pc_type cnn": CNN, "-ksp_type dcd": DCD}
_COLUMNS = ("option", "default", "meaning")


def _rows(options: tuple[Option, ...]) -> list[tuple[str, str, str]]:
    return [(f"-{option.name} {option.argument}", option.default, option.meaning) for option in options]


def plain_table(options: tuple[Option, ...], width: int = 100) -> str:
    """The options in columns, for a terminal or a docstring (a simple table of reStructuredText)."""
    rows = [_COLUMNS, *_rows(options)]
    first, second = (max(len(row[column]) for row in rows) for column in range(2))
    third = width - first - second - 4
    rule = "  ".join("=" * size for size in (first, second, third))
    lines = []
    for name, default, meaning in rows:
        for part in textwrap.wrap(meaning, third):
            lines.append(f"{name:{first}}  {default:{second}}  {part}")
            name = default = ""
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def plain_text(width: int = 100) -> str:
    """All options, for a terminal."""
    return "\n\n".join(f"{title}\n{plain_table(options, width)}" for title, options in TITLES.items())


def markdown() -> str:
    """The page ``docs/options.md``."""
    lines = [
        "# Options",
        "",
        "Each is read under the prefix of its solver: `-sub_pc_cnn_model mg` for the prefix `sub_`. `-help`",
        "lists them with the values in force. Written by `consolve options --markdown`.",
    ]
    for title, options in TITLES.items():
        lines += ["", f"## `{title}`", "", "| option | default | meaning |", "|---|---|---|"]
        for name, default, meaning in _rows(options):
            cells = (f"`{name}`", default, meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
