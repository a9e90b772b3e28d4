"""Wave data by DOLFINx, and on several ranks."""

import numpy as np
import pytest
from mpi_program import needs_mpirun, result_on_ranks

from consolve.pde.waves import generation as wave_generation
from consolve.pde.waves.check import check
from consolve.pde.waves.data import WaveData
from consolve.pde.waves.generation import generate, solve_runs, world
from consolve.pde.waves.sampling import STORED_VERTICES, WaveSet


def test_dolfinx_makes_the_same_runs(tmp_path):
    pytest.importorskip("dolfinx")
    wave_set = WaveSet("propagator")
    numbers = [1, 4]  # layers, obstacles
    ours, theirs = (solve_runs(wave_set, numbers, STORED_VERTICES, s) for s in ("leap-frog", "dolfinx"))
    for a, b in zip(ours, theirs):
        assert abs(a["u"] - b["u"]).max() < 1e-6 * abs(a["u"]).max()
        assert not b["u"][:, b["fixed"] > 0].any()
    generate(tmp_path / "a.h5", wave_set, 2, STORED_VERTICES, "dolfinx")
    with WaveData(tmp_path / "a.h5") as data:
        assert data.solver == "dolfinx"
    assert check(tmp_path / "a.h5", again=[0, 1]).faults == []


def test_a_launcher_without_its_mpi_is_refused(monkeypatch):
    pytest.importorskip("mpi4py")
    for name in wave_generation._SIZES:
        monkeypatch.delenv(name, raising=False)
    assert world() is None
    monkeypatch.setenv("PMI_SIZE", "7")
    with pytest.raises(RuntimeError, match="started 7 ranks"):
        world()


PROGRAM = """
import json, sys
from consolve.pde.waves.generation import generate, world
from consolve.pde.waves.sampling import WaveSet
comm = world()
path, solver = sys.argv[1:]
made = generate(path, WaveSet("zone", "test", 3), 6, 64, solver, comm=comm)
try:
    generate(path + "/none.h5", WaveSet("zone"), 1, 64, comm=comm)
except OSError as error:
    told = comm.gather(str(error))
if comm.rank == 0:
    print("RESULT " + json.dumps([made.ranks, made.solved, made.digest, len(set(told))]))
"""


@needs_mpirun
@pytest.mark.parametrize("solver", ["leap-frog", "dolfinx"])
def test_two_ranks_make_the_file_that_one_makes(tmp_path, solver):
    pytest.importorskip("mpi4py")
    if solver == "dolfinx":
        pytest.importorskip("dolfinx")
    (tmp_path / "program.py").write_text(PROGRAM)
    path = tmp_path / "a.h5"
    ranks, solved, digest, texts = result_on_ranks(2, tmp_path / "program.py", str(path), solver)
    assert (ranks, solved, texts) == (2, 6, 1)
    generate(tmp_path / "one.h5", WaveSet("zone", "test", 3), 6, STORED_VERTICES)
    with WaveData(tmp_path / "one.h5") as one, WaveData(path) as two:
        assert digest == two.digest
        assert np.allclose(one.u[()], two.u[()], rtol=0, atol=1e-6)
        if solver == "leap-frog":
            assert digest == one.digest
    assert check(path).faults == []
