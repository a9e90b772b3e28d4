"""Where rows lie: DMDA, size, mask, index sets and coordinates, on one rank and on several."""

import functools
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from mpi_program import needs_mpirun, result_on_ranks
from petsc4py import PETSc

from consolve.pde.matrix.grid_map import GridMap
from consolve.solvers import MatrixError, SystemFileError, attach_grid
from consolve.solvers.matrix import cell_images
from consolve.solvers.matrix.cell_images import fluid_cells, read_cell_types
from consolve.solvers.matrix.find_grid import find_grid

PROGRAM = Path(__file__).parent / "grid_map_ranks.py"
IMAGE = np.random.default_rng(1).choice(3, (5, 7, 6), p=[0.6, 0.2, 0.2]).astype(np.uint8)
on_ranks = needs_mpirun


def write_images(folder, image=IMAGE):
    np.save(folder / "mask.npy", image)
    np.savez_compressed(folder / "mask.npz", cell_type=image, other=np.zeros(3))
    np.save(folder / "fortran.npy", np.asfortranarray(image.astype(np.int64)))
    np.savez(folder / "fortran.npz", np.asfortranarray(image))
    np.save(folder / "wrong.npy", image + (np.arange(image.size).reshape(image.shape) == image.size - 1) * 7)
    with h5py.File(folder / "mask.h5", "w") as file:
        file["cell_type"] = image


@functools.cache
def found(ranks):
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        fluid = str(np.count_nonzero(IMAGE == 0))
        return result_on_ranks(ranks, PROGRAM, folder, fluid)


def sound(case):
    assert case.get("agreed") and case["dtype"] == "int64", case
    return case


@on_ranks
@pytest.mark.parametrize("ranks", [*(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (2, 3)), 4])
class TestRanks:
    @pytest.mark.parametrize("case", ["1d", "1d periodic", "2d", "3d", "periodic"])
    def test_rows_of_a_dmda(self, ranks, case):
        got = sound(found(ranks)[f"dmda {case}"])
        assert got["cells"] == got["expected"]
        shapes = {"1d": [1, 19], "1d periodic": [1, 19], "2d": [7, 9], "3d": [6, 4, 5], "periodic": [5, 8, 9]}
        assert got["shape"] == shapes[case]
        periodic = {"1d periodic": [False, True], "periodic": [False, True, False]}
        assert got["periodic"] == periodic.get(case, [False] * len(got["shape"]))

    def test_a_grid_numbers_rows_across_ranks(self, ranks):
        got = sound(found(ranks)["grid"])
        assert got["shape"] == [6, 7] and got["cells"] == list(range(42))

    def test_attached_cells(self, ranks):
        expected = np.random.default_rng(0)
        expected.permutation(24), expected.standard_normal((24, 3))  # drawn before by the program
        assert sound(found(ranks)["attached"])["cells"] == expected.permutation(60)[:42].tolist()

    @pytest.mark.parametrize("file", ["mask.npy", "mask.npz", "fortran.npy", "fortran.npz", "mask.h5"])
    @pytest.mark.parametrize("split", ["even", "one idle"])
    def test_fluid_cells_of_a_mask(self, ranks, file, split):
        got = sound(found(ranks)[f"{file} {split}"])
        assert got["shape"] == [5, 7, 6] and got["cells"] == np.flatnonzero(IMAGE == 0).tolist()

    @pytest.mark.parametrize(
        "case", ["coordinates", "coordinates with an idle rank", "coordinates in a plane"]
    )
    def test_cells_of_coordinates(self, ranks, case):
        got = sound(found(ranks)[case])
        assert got["cells"] == got["expected"]
        assert got["shape"] == ([3, 4] if "plane" in case else [2, 3, 4])

    @pytest.mark.parametrize(
        "case, words",
        [
            ("grid too small", ["MatrixError", "7 x 5 has 35 cells", "42 rows"]),
            ("attached twice", ["MatrixError", "twice (3)"]),
            ("attached outside", ["MatrixError", "60", "0..59"]),
            ("mask absent", ["SystemFileError", "absent.npy"]),
            ("mask of another size", ["MatrixError", "fluid cells of 210", "3 rows"]),
            ("mask with a wrong type", ["SystemFileError", "wrong.npy", "cell types lie in 0.."]),
            ("coordinates twice", ["MatrixError", "two rows", "4 x 3 x 2"]),
            ("coordinates of no lattice", ["MatrixError", "3000 coordinates", "no tensor grid"]),
            ("too few coordinates", ["MatrixError", "one point for each local row"]),
        ],
    )
    def test_errors_are_raised_on_all(self, ranks, case, words):
        got = found(ranks)[case]
        assert got["everywhere"]
        for word in words:
            assert word in got["error"]


@pytest.mark.parametrize("file", ["mask.npy", "mask.npz", "fortran.npy", "fortran.npz", "mask.h5"])
@pytest.mark.parametrize("block", [1, 5, 42, 50, 10**6])
def test_images_are_read_in_blocks_of_any_size(tmp_path, monkeypatch, file, block):
    write_images(tmp_path)
    monkeypatch.setattr(cell_images, "BLOCK", block)
    np.testing.assert_array_equal(read_cell_types(tmp_path / file), IMAGE)
    fluid = np.flatnonzero(IMAGE == 0)
    shape, cells = fluid_cells(tmp_path / file, None, 0, fluid.size)
    assert shape == IMAGE.shape and cells.dtype == np.int64
    np.testing.assert_array_equal(cells, fluid)


def test_a_truncated_archive_is_named(tmp_path):
    write_images(tmp_path)
    whole = (tmp_path / "mask.npz").read_bytes()
    (tmp_path / "mask.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemFileError, match=r"mask\.npz"):
        read_cell_types(tmp_path / "mask.npz")


def test_one_rank_keeps_int32(problems):
    grid = find_grid(problems.matrix(sp.eye(12)), grid="4,3")
    assert grid.cells.dtype == np.int32 and grid.periodic == (False, False)


@pytest.mark.parametrize("axis", range(3))
def test_periodic_axes_of_a_dmda_on_one_rank(axis):
    boundary = [PETSc.DM.BoundaryType.NONE] * 3
    boundary[axis] = PETSc.DM.BoundaryType.PERIODIC
    dm = PETSc.DMDA().create((3, 4, 5), boundary_type=boundary, comm=PETSc.COMM_SELF)
    grid = find_grid(dm.createMatrix(), dm)
    assert grid.shape == (5, 4, 3)
    assert grid.periodic == tuple(a == 2 - axis for a in range(3))


@pytest.mark.parametrize("around", [False, True])
def test_a_dmda_in_1d_is_a_grid_of_one_line(problems, around):
    boundary = PETSc.DM.BoundaryType.PERIODIC if around else PETSc.DM.BoundaryType.NONE
    dm = PETSc.DMDA().create((48,), boundary_type=(boundary,), stencil_width=1, comm=PETSc.COMM_SELF)
    mat = dm.createMatrix()
    for row in range(48):
        mat.setValue(row, row, 2.1)
        for beside in (row - 1, row + 1):
            if around or 0 <= beside < 48:
                mat.setValue(row, beside % 48, -1.0)
    mat.assemble()
    grid = find_grid(mat, dm)
    assert grid.shape == (1, 48) and grid.periodic == (False, around)
    ksp = problems.ksp(mat)
    ksp.getPC().setDM(dm)
    b = np.random.default_rng(0).standard_normal(48)
    solved = problems.solve(ksp, b)
    indptr, indices, data = mat.getValuesCSR()
    exact = spla.spsolve(sp.csc_matrix(sp.csr_matrix((data, indices, indptr))), b)
    assert solved.reason > 0 and solved.iterations <= 10
    np.testing.assert_allclose(solved.x, exact, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_coordinates_in_any_order(problems, dim):
    rng = np.random.default_rng(dim)
    axes = [np.sort(rng.random(n)) for n in (5, 4, 3)[:dim]]
    points = np.stack(np.meshgrid(*axes[::-1], indexing="ij"), -1).reshape(-1, dim)[:, ::-1]
    order = rng.permutation(len(points))
    grid = find_grid(problems.matrix(sp.eye(len(points))), coordinates=points[order])
    assert grid.shape == ((1, 5), (4, 5), (3, 4, 5))[dim - 1]
    np.testing.assert_array_equal(grid.cells, order)


def test_coordinates_of_single_precision(problems):
    x = (1e3 + np.arange(50) / 50).astype(np.float32)
    points = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    with pytest.raises(MatrixError, match="two rows"):
        find_grid(problems.matrix(sp.eye(2500)), coordinates=np.round(points))
    grid = find_grid(problems.matrix(sp.eye(2500)), coordinates=points)
    assert grid.shape == (50, 50)


def test_lines_without_unknowns_do_not_matter(problems):
    """An L of points on a graded grid: missing points leave cells without a row."""
    x = np.array([0, 1, 3, 7, 20.0])
    points = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    own = (points[:, 0] < 5) | (points[:, 1] < 2)
    grid = find_grid(problems.matrix(sp.eye(int(own.sum()))), coordinates=points[own])
    assert grid.shape == (5, 5)
    np.testing.assert_array_equal(grid.cells, np.flatnonzero(own))


def test_what_is_told_comes_before_what_is_seen(problems):
    """Option, attached cells, DMDA, coordinates: in this order."""
    points = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), -1).reshape(-1, 2)
    mat = problems.matrix(sp.eye(12))
    assert find_grid(mat, coordinates=points).shape == (3, 4)
    dm = PETSc.DMDA().create((6, 2), comm=PETSc.COMM_SELF)
    assert find_grid(mat, dm, coordinates=points).shape == (2, 6)
    attach_grid(mat, (12, 1))
    assert find_grid(mat, dm, coordinates=points).shape == (12, 1)
    assert find_grid(mat, dm, "3,4", coordinates=points).shape == (4, 3)


def test_an_unknown_grid_is_an_error_that_says_what_to_do(problems):
    rng = np.random.default_rng(0)
    couplings = sp.random(40, 40, 0.2, random_state=rng)
    mat = problems.matrix(sp.eye(40) * 40 - couplings - couplings.T)
    advice = (
        r"-pc_cnn_grid NX,NY.*-pc_cnn_mask.*attach_grid; for a mesh, .*attach_points.* -pc_type hypre or gamg"
    )
    with pytest.raises(MatrixError, match=advice):
        find_grid(mat)


def test_a_map_has_no_periodic_axes_unless_told():
    assert GridMap((2, 3, 4), np.arange(24), "a test").periodic == (False, False, False)
