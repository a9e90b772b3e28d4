"""consolve: learned convolutional networks beside real solvers.

``import consolve`` is light: torch, petsc4py and dolfinx are imported only by the parts that use them.

Functions and classes
---------------------
solve
    x with A x = b, for a SciPy or dense matrix or a GridOperator; needs petsc4py.
GridSolver
    Solves on the cells of a GridOperator, without a matrix; needs Numba only.
aspreconditioner
    M ~ A^-1 as a ``scipy.sparse.linalg.LinearOperator``; needs SciPy and Numba only.

Sub-packages
------------
consolve.pde
    Grids, operators, domains, right-hand sides and flows (NumPy and Numba).
consolve.learned
    The multilevel network: setup and inference in Numba, definition and training in torch.
consolve.solvers
    The PETSc side: ``-pc_type cnn`` and ``-ksp_type dcd``; importing it registers both.
"""

from typing import TYPE_CHECKING, Any

import consolve.moved  # noqa: F401  (old addresses of modules)
from consolve.base.version import __version__ as __version__

if TYPE_CHECKING:
    from consolve.api.grid_solver import GridSolver as GridSolver
    from consolve.api.preconditioner import aspreconditioner as aspreconditioner
    from consolve.api.solve import solve as solve

_WHERE = {
    "solve": "consolve.api.solve",
    "aspreconditioner": "consolve.api.preconditioner",
    "GridSolver": "consolve.api.grid_solver",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'consolve' has no attribute {name!r}")
    from importlib import import_module

    try:
        found = getattr(import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "petsc4py":
            raise
        raise ImportError(
            f"consolve.{name} needs petsc4py, which is not installed; without PETSc, give "
            "consolve.aspreconditioner(A) to scipy.sparse.linalg.cg"
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
