"""The PETSc side: importing this package registers ``-pc_type cnn`` and ``-ksp_type dcd``.

From a program that has no Python of its own, the same classes are found by
``-python -pc_type python -pc_python_type consolve.solvers.PCCNN`` and
``-ksp_type python -ksp_python_type consolve.solvers.KSPDCD``.
"""

import consolve.base.kernel_cache  # noqa: F401  (before the first kernel)
from consolve.base.floating_point import without_traps

with without_traps():  # importing Numba raises floating-point exceptions
    from consolve.base.errors import (
        InconsistentRightHandSide,
        MatrixError,
        NotConverged,
        OptionError,
        SystemFileError,
    )
    from consolve.solvers.ksp_dcd import KSPDCD
    from consolve.solvers.matrix.assembly import assemble_matrix
    from consolve.solvers.matrix.attached import attach_grid, attach_points
    from consolve.solvers.pc_cnn import PCCNN
    from consolve.solvers.petsc.registration import register
    from consolve.solvers.pressure import PressureSolver, SolveRecord, SystemSolution, solve_system

__all__ = [
    "KSPDCD",
    "PCCNN",
    "InconsistentRightHandSide",
    "MatrixError",
    "NotConverged",
    "OptionError",
    "PressureSolver",
    "SolveRecord",
    "SystemFileError",
    "SystemSolution",
    "assemble_matrix",
    "attach_grid",
    "attach_points",
    "register",
    "solve_system",
]

register()
