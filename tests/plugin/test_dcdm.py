"""A network in torch within a compiled program: the plugin's Python runs it."""

import pytest

torch = pytest.importorskip("torch")

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights, save_dcdm_weights  # noqa: E402
from consolve.learned.dcdm.network import build_network  # noqa: E402


def test_runs_with_dcd_and_is_refused_by_cg(programs, run_program, library, tmp_path):
    torch.manual_seed(0)
    settings = DCDMSettings(2, width=2)
    save_dcdm_weights(DCDMWeights(settings, build_network(settings).tensors()), tmp_path / "w.h5")
    options = ("-ksp_rtol", "1e-9", "-ksp_norm_type", "unpreconditioned", "-dll_prepend", library)
    options += ("-pc_type", "cnn", "-pc_cnn_model", tmp_path / "w.h5")
    plain = run_program(programs / "poisson2d", *options[:4], "-ksp_type", "cg", "-pc_type", "none")
    solved = run_program(programs / "poisson2d", *options, "-ksp_type", "dcd", "-ksp_view")
    assert solved.code == 0, solved.err
    solver, _, reason, error = solved.report
    assert solver == "dcd + cnn" and reason > 0
    assert error == pytest.approx(plain.report[3], rel=0.01)
    assert "in torch, float32 on cpu" in solved.out
    refused = run_program(programs / "poisson2d", *options, "-ksp_type", "cg")
    assert refused.code != 0 and "-ksp_type cg needs a linear preconditioner" in refused.err
