"""Coordinates from ``PCSetCoordinates`` reach the Python context of the PC."""

import ctypes

import numpy as np
import pytest
from petsc4py import PETSc

from consolve.solvers.petsc.coordinates import set_coordinates


@pytest.fixture
def pc():
    made = PETSc.PC().create(PETSc.COMM_SELF)
    made.setType("cnn")
    yield made
    made.destroy()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_coordinates_arrive_as_given(pc, dim):
    points = np.random.default_rng(dim).standard_normal((7, dim))
    pc.setCoordinates(points)
    kept = pc.getPythonContext().coordinates
    np.testing.assert_array_equal(kept, points)
    assert kept.dtype == np.float64
    points[:] = 0
    assert kept.all(), "a copy is kept: the program may free its own"


def test_new_coordinates_replace_the_old(pc):
    pc.setCoordinates(np.zeros((3, 2)))
    pc.setCoordinates(np.ones((5, 3)))
    np.testing.assert_array_equal(pc.getPythonContext().coordinates, np.ones((5, 3)))


def test_another_type_ignores_them(pc):
    pc.setType("jacobi")
    pc.setCoordinates(np.zeros((3, 2)))
    pc.setType("cnn")
    pc.setCoordinates(np.ones((3, 2)))
    assert pc.getPythonContext().coordinates.all()


def test_coordinates_that_are_not_finite_are_an_error(pc, capfd):
    with pytest.raises(PETSc.Error):
        pc.setCoordinates(np.array([[0.0, 1.0], [np.inf, 2.0]]))
    assert "local row 1" in capfd.readouterr().err


@pytest.mark.parametrize("dim, rows", [(0, 3), (4, 3), (2, -1)])
def test_impossible_sizes_are_refused(pc, dim, rows):
    with pytest.raises(ValueError, match="expected 1, 2 or 3 coordinates"):
        set_coordinates(pc.handle, dim, rows, 0)
    with pytest.raises(ValueError, match="address 0x0"):
        set_coordinates(pc.handle, 2, 3, 0)


@pytest.mark.skipif(np.dtype(PETSc.IntType).itemsize != 4, reason="PetscInt has 64 bits")
def test_only_the_bits_of_petsc_int_count(pc):
    points = (ctypes.c_double * 4)(1, 2, 3, 4)
    garbage = 0xDEADBEEF << 32
    set_coordinates(pc.handle, garbage | 2, garbage | 2, ctypes.addressof(points))
    np.testing.assert_array_equal(pc.getPythonContext().coordinates, [[1, 2], [3, 4]])
