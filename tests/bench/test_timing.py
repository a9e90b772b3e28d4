"""What is said of a solve that claims more than its residual shows."""

import pytest

pytest.importorskip("petsc4py")

from consolve.bench.timing import judged, reason_name


def test_honest_reason_stands():
    assert judged("CONVERGED_RTOL", 9.9e-7, 1e-6) == "CONVERGED_RTOL"


def test_false_claim_is_contradicted():
    assert "true residual 3.0e-05" in judged("CONVERGED_RTOL", 3e-5, 1e-6)


def test_divergence_stays_divergence():
    assert judged("DIVERGED_MAX_IT", 0.1, 1e-6) == "DIVERGED_MAX_IT"


def test_reasons_have_petsc_names():
    from petsc4py import PETSc

    assert reason_name(PETSc.KSP.ConvergedReason.CONVERGED_RTOL) == "CONVERGED_RTOL"
    assert reason_name(PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT) == "DIVERGED_MAX_IT"
    assert "999" in reason_name(999)
