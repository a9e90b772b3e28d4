"""PC cnn refuses what it cannot serve: options, masks, weights, grids; the error says which and why."""

import numpy as np
import pytest
import scipy.sparse as sp
from petsc4py import PETSc

from consolve.learned.weights.file import WeightsError
from consolve.pde import GridOperator
from consolve.solvers import MatrixError, OptionError, SystemFileError, attach_grid


def raised(caught, error):
    """The error itself, or what newer PETSc versions give as the cause of theirs."""
    value = caught.value if isinstance(caught.value, error) else caught.value.__cause__
    assert isinstance(value, error)
    return str(value)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"pc_cnn_grid": "10,9"}, MatrixError, "10 x 9 has 90 cells, the matrix 12 rows"),
        ({"pc_cnn_grid": "12"}, OptionError, "NX,NY"),
        ({"pc_cnn_grid": "4,x"}, OptionError, "'4,x'"),
        ({"pc_cnn_grid": "4,-3"}, OptionError, "positive"),
        ({"pc_cnn_grid": "3,4"}, MatrixError, "not a neighbour"),
        ({"pc_cnn_mask": "absent.npy"}, SystemFileError, "absent.npy"),
        ({"pc_cnn_model": "multigrid"}, OptionError, "auto, multilevel, mg"),
        ({"pc_cnn_threads": "0"}, OptionError, "from 1 to"),
        ({"pc_cnn_threads": "many"}, OptionError, "'many'"),
        ({"pc_cnn_grid": "4,3", "pc_cnn_mask": "a.npy"}, OptionError, "give one"),
    ],
)
def test_bad_options(problems, options, error, words):
    mat = problems.matrix(GridOperator.from_cell_types(np.zeros((3, 4), int), outside=2).to_csr())
    with pytest.raises((error, PETSc.Error)) as caught:
        problems.ksp(mat, **options).setUp()
    assert words in raised(caught, error)


def test_mask_with_another_number_of_fluid_cells(problems, tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((3, 5), np.uint8))
    mat = problems.matrix(sp.eye(12))
    with pytest.raises((MatrixError, PETSc.Error)) as caught:
        problems.ksp(mat, pc_cnn_mask=str(tmp_path / "m.npy")).setUp()
    text = raised(caught, MatrixError)
    assert "15 fluid cells" in text and "12 rows" in text


def test_damaged_weights(problems, tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"no weights")
    operator = problems.operator((9, 10), "mixed")
    mat = problems.matrix(operator.to_csr())
    attach_grid(mat, operator)
    with pytest.raises((WeightsError, PETSc.Error)) as caught:
        problems.ksp(mat, pc_cnn_model=str(path)).setUp()
    assert "weights.h5" in raised(caught, WeightsError)


def test_unfit_dmda(problems):
    dm = PETSc.DMDA().create((4, 5), dof=2, stencil_type="star", stencil_width=1, comm=PETSc.COMM_SELF)
    mat = dm.createMatrix()
    mat.assemble()
    ksp = problems.ksp(mat)
    ksp.getPC().setDM(dm)
    with pytest.raises((MatrixError, PETSc.Error)) as caught:
        ksp.setUp()
    assert "blocks of 2" in raised(caught, MatrixError)


@pytest.mark.parametrize(
    "shape, cells, words",
    [
        ((3, 4), np.arange(11), "11 entries"),
        ((12,), None, "2 or 3"),
        ((3, 5), None, "15 cells"),
    ],
)
def test_attach_grid_checks_sizes(problems, shape, cells, words):
    with pytest.raises(ValueError, match=words):
        attach_grid(problems.matrix(sp.eye(12)), shape, cells)


@pytest.mark.parametrize("cells, words", [([0, 1, 2, 12], "0..11"), ([0, 1, 1, 2], "twice")])
def test_attached_cells_are_checked(problems, cells, words):
    mat = problems.matrix(sp.eye(4))
    attach_grid(mat, (3, 4), np.array(cells))
    with pytest.raises((MatrixError, PETSc.Error)) as caught:
        problems.ksp(mat).setUp()
    assert words in raised(caught, MatrixError)
