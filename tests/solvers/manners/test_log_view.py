"""What -log_view and -ksp_view show of the solvers."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from petsc4py import PETSc

from consolve.learned.models import cycle_flops
from consolve.pde import GridOperator
from consolve.solvers import attach_grid
from consolve.solvers.petsc import events

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys, petsc4py
petsc4py.init(["program", *sys.argv[1:]])
import numpy as np
from petsc4py import PETSc
from consolve.pde import GridOperator
from consolve.solvers import assemble_matrix
mat = assemble_matrix(GridOperator.from_cell_types(np.zeros((30, 31), int), outside=2))
ksp = PETSc.KSP().create(PETSc.COMM_SELF)
ksp.setOperators(mat)
ksp.setFromOptions()
b, x = mat.createVecs()
b.setRandom()
ksp.solve(b, x)
print("ITERATIONS", ksp.getIterationNumber(), ksp.getPC().getPythonContext().flops)
ksp.destroy()
"""


def run(*options):
    command = [sys.executable, "-c", PROGRAM, "-ksp_rtol", "1e-8", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("kind", "fused"), [("cg", "true"), ("dcd", "true"), ("dcd", "false")])
def test_log_view_counts_setups_applications_and_flops(kind, fused):
    text = run("-log_view", "-ksp_type", kind, "-pc_type", "cnn", "-ksp_dcd_fused", fused)
    _, iterations, flops = re.search(r"(ITERATIONS) (\d+) ([\d.e+]+)", text).groups()
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line[:3] in ("CNN", "DCD")}
    applications = int(iterations) + (kind == "cg")
    assert rows["CNNSetUp"][1] == "1" and int(rows["CNNApply"][1]) == applications
    assert float(rows["CNNApply"][5]) == pytest.approx(applications * float(flops), rel=0.01)
    assert "CNNHalo" not in rows  # nothing is exchanged on one rank
    assert ("DCDOrthog" in rows) == (kind == "dcd" and fused == "false")


def test_flops_are_those_of_the_kernels(problems):
    """One level and a coarsest level, counted by hand for 4 x 4 cells: 2 x 2 sweeps in 2D."""

    class Weights:
        tensors = {"alpha": np.zeros((4, 2, 2))}

    class Level:
        def __init__(self, shape, unknowns):
            self.shape, self.unknowns = shape, unknowns

    class Network:
        weights = Weights()
        levels = (Level((4, 4), 16), Level((2, 2), 4))

    # colour 0: 2, colour 1: 4 + 2, then 4 + 5 each; their residuals: 2 more and 4 + 2
    down = 8 * 2 + 8 * (4 + 2) + 2 * 8 * (4 + 5) + 8 * 2 + 8 * (4 + 2)
    up, transfers, coarsest = 4 * 8 * (4 + 5), 16 * 2 * 2 * 3, 2 * 4 * 4
    assert cycle_flops(Network()) == down + up + transfers + coarsest


def test_an_event_costs_under_two_microseconds():
    def once():
        begin = time.perf_counter()
        for _ in range(1000):
            with events.CNN_HALO:
                pass
        return (time.perf_counter() - begin) / 1000

    assert min(once() for _ in range(20)) < 2e-6


def test_an_event_ends_when_its_block_fails():
    with pytest.raises(ZeroDivisionError), events.CNN_HALO:
        raise ZeroDivisionError
    for _ in range(3):
        with events.CNN_HALO:
            pass


@pytest.fixture
def solver(problems):
    operator = GridOperator.from_cell_types(np.zeros((20, 30), int), outside=2)
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    return problems.ksp(mat, "dcd", "cnn", pc_cnn_model="mg", ksp_dcd_directions=3)


def ascii_view(ksp, path):
    viewer = PETSc.Viewer().createASCII(str(path), comm=PETSc.COMM_SELF)
    ksp.view(viewer)
    viewer.destroy()
    return path.read_text()


def test_view_before_and_after_set_up(solver, tmp_path):
    before = ascii_view(solver, tmp_path / "before")
    assert "model mg, not set up" in before and "level 0" not in before
    solver.setUp()
    after = ascii_view(solver, tmp_path / "after")
    network = solver.getPC().getPythonContext().network
    assert "not set up" not in after
    assert f"model mg, {network.weights.parameters} parameters, weights {network.weights.digest}" in after
    assert "ranks 1, threads on each" in after and "MiB" in after
    for number, level in enumerate(network.levels):
        cells = " x ".join(map(str, level.shape[::-1]))
        assert f"level {number}: {cells} cells, {level.unknowns} unknowns, {level.bytes} bytes" in after


def test_view_of_a_system_without_couplings(problems, tmp_path):
    ksp = problems.ksp(problems.matrix(np.eye(12)), pc_cnn_grid="4,3")
    ksp.setUp()
    assert "12 without couplings" in ascii_view(ksp, tmp_path / "view")


def test_binary_viewers_are_left_alone(solver, tmp_path):
    solver.setUp()
    path = tmp_path / "ksp.bin"
    viewer = PETSc.Viewer().createBinary(str(path), "w", comm=PETSc.COMM_SELF)
    context = solver.getPC().getPythonContext()
    context.view(solver.getPC(), viewer)
    solver.getPythonContext().view(solver, viewer)
    viewer.destroy()
    assert not path.exists()


def test_string_viewer_gets_a_few_words(solver):
    import ctypes

    from consolve.solvers.petsc.versions import call, handle

    viewer, text = PETSc.Viewer().create(PETSc.COMM_SELF), ctypes.create_string_buffer(200)
    viewer.setType("string")
    call("PetscViewerStringSetString", handle(viewer), text, 200)
    solver.getPC().getPythonContext().view(solver.getPC(), viewer)
    solver.getPythonContext().view(solver, viewer)
    viewer.destroy()
    assert text.value == b" model mg directions 3"
