"""The solvers that benchmarks compare: PETSc options of each, tuned for grids of 2 and 3 dimensions.

Every solver gets the same stopping test, on the true residual, from :func:`stopping_options`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

Options = dict[str, str]
MAX_ITERATIONS = 20_000


@dataclass(frozen=True)
class Solver:
    """A solver by name.

    Attributes
    ----------
    name
        As given to ``--solver``.
    about
        One line for tables and help.
    options
        PETSc options for a dimension and a number of ranks.
    one_rank
        It runs on one rank and uses a thread a core; all others run on one rank a core.
    own_task
        Not a PETSc solver: ``direct`` is the fast transform of :mod:`consolve.bench.direct`, ``grid``
        :class:`consolve.GridSolver`.
    deflation
        Kind of the space of ``-pc_type deflation``, of :mod:`consolve.bench.deflation`; empty for none.
    """

    name: str
    about: str
    options: Callable[[int, int], Options]
    one_rank: bool = False
    own_task: str = ""
    deflation: str = ""


def stopping_options(rtol: float) -> Options:
    """|b - A x| <= rtol |b| in the 2-norm of the true residual, from a zero initial guess."""
    return {
        "ksp_rtol": repr(rtol),
        "ksp_atol": "1e-300",
        "ksp_norm_type": "unpreconditioned",
        "ksp_max_it": str(MAX_ITERATIONS),
        "options_left": "no",
    }


def _cg(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "cg", "pc_type": "none"}


def _icc(ndim: int, ranks: int) -> Options:
    if ranks == 1:
        return {"ksp_type": "cg", "pc_type": "icc"}
    return {"ksp_type": "cg", "pc_type": "bjacobi", "sub_ksp_type": "preonly", "sub_pc_type": "icc"}


def _gamg(ndim: int, ranks: int) -> Options:
    return {
        "ksp_type": "cg",
        "pc_type": "gamg",
        "pc_gamg_type": "agg",
        "pc_gamg_agg_nsmooths": "1",
        "pc_gamg_threshold": "0.0",
        "pc_gamg_aggressive_coarsening": "2" if ndim == 3 else "1",
        "mg_levels_ksp_type": "chebyshev",
        "mg_levels_pc_type": "jacobi",
    }


def _hypre(ndim: int, ranks: int) -> Options:
    options = {
        "ksp_type": "cg",
        "pc_type": "hypre",
        "pc_hypre_type": "boomeramg",
        "pc_hypre_boomeramg_coarsen_type": "HMIS",
        "pc_hypre_boomeramg_interp_type": "ext+i",
        "pc_hypre_boomeramg_P_max": "4",
        "pc_hypre_boomeramg_strong_threshold": "0.25",
    }
    if ndim == 3:
        options |= {"pc_hypre_boomeramg_strong_threshold": "0.5", "pc_hypre_boomeramg_agg_nl": "1"}
    return options


def _ml(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "cg", "pc_type": "ml"}


def _mg(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "cg", "pc_type": "cnn", "pc_cnn_model": "mg"}


def _cnn(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "cg", "pc_type": "cnn"}


def _dcd(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "dcd", "pc_type": "cnn"}


def _dcd_mg(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "dcd", "pc_type": "cnn", "pc_cnn_model": "mg"}


def _dpcg(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "cg", "pc_type": "deflation", "deflation_pc_pc_type": "jacobi"}


def _dcdm(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "dcd", "pc_type": "cnn", "pc_cnn_model": "dcdm"}


def _dcdm_image(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "dcd", "pc_type": "cnn", "pc_cnn_model": "dcdm-image"}


def _dcdm_deep(ndim: int, ranks: int) -> Options:
    return {"ksp_type": "dcd", "pc_type": "cnn", "pc_cnn_model": "dcdm-deep"}


def _none(ndim: int, ranks: int) -> Options:
    return {}


SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver("cg", "conjugate gradients, no preconditioner", _cg),
        Solver("icc", "CG + incomplete Cholesky (block Jacobi over ranks)", _icc),
        Solver("gamg", "CG + PETSc GAMG, smoothed aggregation", _gamg),
        Solver("hypre", "CG + hypre BoomerAMG, tuned", _hypre),
        Solver("ml", "CG + Trilinos ML, smoothed aggregation", _ml),
        Solver("mg", "CG + classical twin of cnn: trained scalars only", _mg),
        Solver("cnn", "CG + learned multilevel network", _cnn),
        Solver("dcd", "deep conjugate directions + learned multilevel network", _dcd, one_rank=True),
        Solver("dcd-mg", "deep conjugate directions + classical twin", _dcd_mg, one_rank=True),
        Solver("dpcg", "CG + diagonal, 16 boxes deflated", _dpcg, deflation="boxes"),
        Solver("dpcg-ritz", "CG + diagonal, 16 Ritz vectors deflated", _dpcg, deflation="ritz"),
        Solver("dcdm", "deep conjugate directions as published", _dcdm, one_rank=True),
        Solver("dcdm-image", "the same, which sees the cell image", _dcdm_image, one_rank=True),
        Solver("dcdm-deep", "deep conjugate directions, deeper network", _dcdm_deep, one_rank=True),
        Solver("grid", "GridSolver: as dcd, without a matrix", _none, one_rank=True, own_task="grid"),
        Solver(
            "fft", "direct cosine/sine transform, empty box only", _none, one_rank=True, own_task="direct"
        ),
    )
}

DEFAULT_SOLVERS = ("cg", "icc", "gamg", "hypre", "mg", "cnn", "dcd")


def find_solver(text: str) -> Solver:
    """A solver of the roster by name, or ``LABEL=PETSC OPTIONS`` as one of the user's own.

    Raises
    ------
    ValueError
        If the name is unknown or the options cannot be read.
    """
    label, equals, rest = text.partition("=")
    if not equals:
        if text not in SOLVERS:
            raise ValueError(
                f"unknown solver {text!r}; known: {', '.join(SOLVERS)}; or your own: 'LABEL=-ksp_type cg ...'"
            )
        return SOLVERS[text]
    options = parse_options(shlex.split(rest))
    if not label or not options:
        raise ValueError(f"{text!r} is no solver; expected 'LABEL=-ksp_type cg -pc_type ...'")
    return Solver(label, "own options", lambda ndim, ranks: options)


def parse_options(words: list[str]) -> Options:
    """``["-a", "1", "-b"]`` as ``{"a": "1", "b": ""}``."""
    options: Options = {}
    name = None
    for word in words:
        if word.startswith("-") and not _is_number(word):
            name = word[1:]
            options[name] = ""
        elif name is None or options[name]:
            raise ValueError(f"cannot read PETSc options at {word!r}; expected '-name value' pairs")
        else:
            options[name] = word
    return options


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
