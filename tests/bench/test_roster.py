"""Names and options of the solvers that benchmarks compare."""

import pytest

from consolve.bench.roster import DEFAULT_SOLVERS, SOLVERS, find_solver, parse_options, stopping_options


def test_default_solvers_are_known():
    assert set(DEFAULT_SOLVERS) <= set(SOLVERS)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown solver 'amg'.*hypre"):
        find_solver("amg")


def test_classical_twins_differ_from_ours_in_the_network_alone():
    for ours, twin in (("cnn", "mg"), ("dcd", "dcd-mg")):
        assert SOLVERS[twin].options(3, 2) == SOLVERS[ours].options(3, 2) | {"pc_cnn_model": "mg"}
        assert SOLVERS[twin].one_rank == SOLVERS[ours].one_rank


def test_own_solver_from_options():
    solver = find_solver("sor=-ksp_type cg -pc_type sor -pc_sor_omega 1.5")
    assert solver.name == "sor" and not solver.one_rank
    assert solver.options(2, 1) == {"ksp_type": "cg", "pc_type": "sor", "pc_sor_omega": "1.5"}


def test_solvers_run_on_ranks_unless_they_have_threads_of_their_own():
    threaded = [name for name, solver in SOLVERS.items() if solver.one_rank]
    assert threaded == ["dcd", "dcd-mg", "dcdm", "dcdm-image", "dcdm-deep", "grid", "fft"]
    assert not find_solver("a=-pc_type cnn").one_rank


@pytest.mark.parametrize("text", ["a=", "=-pc_type sor", "a=pc_type sor"])
def test_own_solver_without_label_or_options_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        find_solver(text)


def test_options_with_negative_numbers_and_flags():
    assert parse_options(["-a", "-1.5", "-flag", "-b", "2"]) == {"a": "-1.5", "flag": "", "b": "2"}


def test_all_solvers_stop_on_the_true_residual():
    options = stopping_options(1e-8)
    assert options["ksp_norm_type"] == "unpreconditioned" and float(options["ksp_rtol"]) == 1e-8
    for solver in SOLVERS.values():
        for ndim in (2, 3):
            assert not set(solver.options(ndim, 2)) & set(options)


@pytest.mark.parametrize("ranks, expected", [(1, "icc"), (2, "bjacobi")])
def test_icc_is_blockwise_over_ranks(ranks, expected):
    assert SOLVERS["icc"].options(2, ranks)["pc_type"] == expected
