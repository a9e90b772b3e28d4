"""A DCDM network on several ranks: the first applies it for all, and does as one rank alone would."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mpi4py")

from mpi_program import needs_mpirun, result_on_ranks

from consolve.learned.dcdm.format import DCDMSettings, DCDMWeights, save_dcdm_weights
from consolve.learned.dcdm.network import build_network

PROGRAM = Path(__file__).parent / "dcdm_ranks.py"


@needs_mpirun
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_the_same_as_on_one_rank(tmp_path, ranks):
    names = []
    for ndim in (2, 3):
        settings = DCDMSettings(ndim, width=4, image=True)
        names.append(str(tmp_path / f"{ndim}.h5"))
        save_dcdm_weights(DCDMWeights(settings, build_network(settings).tensors()), names[-1])
    found = result_on_ranks(ranks, PROGRAM, *names)
    for name in ("open", "closed"):
        many, one = found[name]["ranks"], found[name]["one"]
        scale = np.abs(one["proposal"]).max()
        np.testing.assert_allclose(many["proposal"], one["proposal"], rtol=0, atol=1e-5 * scale)
        assert many["relative"] < 1.01e-8 and one["relative"] < 1.01e-8
        np.testing.assert_allclose(many["history"], one["history"], rtol=1e-3)
        assert sorted(many["closed"]) == sorted(one["closed"])
    assert found["open"]["one"]["closed"] == [] and len(found["closed"]["one"]["closed"]) >= 2
    for name, words in (("cg", "needs a linear preconditioner"), ("dimension", "weights are for 3D grids")):
        assert len(found[name]) == ranks and all(words in text for text in found[name]), found[name]
