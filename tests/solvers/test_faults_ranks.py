"""Faults that one rank alone sees end the solve on all ranks, with the same words."""

from pathlib import Path

import pytest
from mpi_program import needs_mpirun, result_on_ranks
from petsc4py import PETSc

pytestmark = needs_mpirun
PROGRAM = Path(__file__).with_name("faults_ranks.py")
Reason = PETSc.KSP.ConvergedReason
TOLD = {
    "inconsistent": "sums to 2.920e+02 over a closed component of 288 rows",
    "matrix nan": "row 287 (cell (15, 17)) has a[287,269] = nan",
    "matrix positive": "a[287,269] = 3",
    "matrix asymmetric": "a[287,269] = -7",
    "grid": "the grid 18 x 17 has 306 cells, the matrix 288 rows",
    "model": "no model and no file 'nowhere.h5'",
    "threads": "-pc_cnn_threads '9999': expected a whole number from 1 to 1",
}


@pytest.mark.parametrize("ranks", [1, 3])
def test_all_ranks_are_told_the_same(ranks):
    found = result_on_ranks(ranks, PROGRAM)
    exchanges = found.pop("exchanges")  # the event CNNHalo of -log_view
    assert min(exchanges) > 10 if ranks > 1 else exchanges == [0]
    assert all(len(told) == ranks and len(set(told)) == 1 for told in found.values()), found
    for case, (told, *_) in found.items():
        kind = case.rpartition(" ")[0] if case.split()[-1] in ("cg", "dcd", "fgmres") else case
        if kind in ("fine", "zeroed"):
            assert told == Reason.CONVERGED_RTOL, case
        elif kind in ("nan", "inf", "nan closed"):
            assert told == Reason.DIVERGED_NANORINF, case
        else:
            assert TOLD[kind] in told and "another error" not in told, (case, told)
