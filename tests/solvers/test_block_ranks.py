"""PC cnn in the block of each rank (-sub_pc_type): block Jacobi, additive Schwarz, ranks without rows."""

from pathlib import Path

import numpy as np
import pytest
from mpi_program import needs_mpirun, result_on_ranks
from petsc4py import PETSc

from consolve.solvers import attach_grid

PROGRAM = Path(__file__).with_name("block_ranks.py")


@needs_mpirun
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_solutions_are_those_of_a_direct_solver(ranks):
    found = result_on_ranks(ranks, PROGRAM)
    assert len(found) == 12
    for case, facts in found.items():
        assert facts["reason"] > 0 and facts["error"] < 1e-7, (case, facts)
        assert facts["iterations"] <= (8 if case.endswith("one") else 40), (case, facts)


@pytest.mark.parametrize("where", ["", "grid", "attached", "coordinates"])
@pytest.mark.parametrize("kind", ["cg", "dcd", "preonly"])
def test_a_matrix_without_rows_is_solved(problems, where, kind):
    """The grid that an option names is that of the other ranks' blocks."""
    empty = np.zeros(1, PETSc.IntType), np.zeros(0, PETSc.IntType), np.zeros(0)
    mat = PETSc.Mat().createAIJ((0, 0), csr=empty, comm=PETSc.COMM_SELF)
    if where == "attached":
        attach_grid(mat, (5, 6), np.empty(0, int))
    options = {"pc_cnn_grid": "6,5"} if where == "grid" else {}
    ksp = problems.ksp(
        mat, kind, ksp_norm_type="none" if kind == "preonly" else "unpreconditioned", **options
    )
    if where == "coordinates":
        ksp.getPC().setCoordinates(np.empty((0, 2)))
    solved = problems.solve(ksp, np.empty(0))
    assert solved.reason > 0 and solved.x.size == 0
    assert ksp.getPC().getPythonContext().setups == 1
