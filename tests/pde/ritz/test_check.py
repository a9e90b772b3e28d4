"""Files of Ritz data: what the reader refuses and the check finds."""

import shutil

import numpy as np
import pytest

from consolve.base.hdf5 import import_h5py
from consolve.pde.ritz.check import check
from consolve.pde.ritz.data import RitzData, RitzDataError, RitzSet
from consolve.pde.ritz.generation import generate

SMALL = RitzSet("closed-spheres", (7, 8), 30, 2100, seed=5)
"""Three chunks, the last short."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("ritz") / "small.h5"
    generate(path, SMALL, command="consolve data ritz ...", revision="abc")
    return path


def changed(small, tmp_path, change):
    path = tmp_path / "a.h5"
    shutil.copy(small, path)
    with import_h5py().File(path, "r+") as file:
        change(file)
    return path


def replace(name, value):
    def change(file):
        file.attrs[name] = value

    return change


def delete(file):
    del file["ritz_values"]


def reshape(file):
    del file["dirichlet"]
    file["dirichlet"] = np.zeros((7, 9))


def open_a_face(file):
    file["dirichlet"][2, 2] += 1


def swap(file):
    file["ritz_values"][:2] = file["ritz_values"][:2][::-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("content", "wave data"), "but not of Ritz data"),
        (replace("consolve_format", 2), "format version 2, this consolve reads 1"),
        (replace("seed", 6), "it was changed"),
        (replace("complete", np.uint8(0)), "not finished; .* --resume: consolve data ritz"),
        (lambda file: file.attrs.pop("basis"), "attribute 'basis' is missing"),
        (delete, "'ritz_values' is missing|expected .*ritz"),
        (reshape, r"'dirichlet' is float64\(7, 9\), expected float64\(7, 8\)"),
        (open_a_face, "the operator was changed"),
        (swap, "it was changed"),
    ],
)
def test_a_file_that_is_not_right_is_refused(tmp_path, small, change, message):
    with pytest.raises(RitzDataError, match=message):
        RitzData(changed(small, tmp_path, change))


def test_a_file_that_is_missing_truncated_or_no_hdf5_is_refused(tmp_path, small):
    with pytest.raises(RitzDataError, match="no such file"):
        RitzData(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(small.read_bytes()[:5000])
    with pytest.raises(RitzDataError, match="it is truncated"):
        RitzData(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_text("no HDF5")
    with pytest.raises(RitzDataError, match="cannot be read as HDF5"):
        RitzData(tmp_path / "a.h5")


def test_the_check_finds_nothing_in_a_good_file(small):
    told = []
    found = check(small, lambda done, of: told.append((done, of)))
    assert found.faults == [] and found.norm_error < 1e-6
    assert told == [(1024, 2100), (2048, 2100), (2100, 2100)]
    assert abs(found.rayleigh_quotient - found.expected_quotient) < found.quotient_tolerance < 0.5


def set_b(index, value):
    def change(file):
        file["right_hand_sides"][index] = value

    return change


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ((1500, 1, 1), np.nan, "right-hand side 1500 holds NaN or Inf"),
        ((3, 0), 0.5, "right-hand side 3 has norm"),
        (2099, 0, "right-hand side 2099 has norm 0, not 1"),
        ((5, 3, 3), 1e-3, "right-hand sides 0 to 1023: the content does not fit"),
    ],
)
def test_the_check_finds_faults(tmp_path, small, index, value, message):
    faults = check(changed(small, tmp_path, set_b(index, value))).faults
    assert any(message in fault for fault in faults) and "do" in faults[0]


def test_the_check_finds_values_outside_the_cells_and_in_the_null_space(tmp_path, small):
    with RitzData(small) as data:
        outside = tuple(int(i) for i in np.argwhere(~data.operator.active)[0])
    faults = check(changed(small, tmp_path, set_b((4, *outside), 0.1))).faults
    assert any("right-hand side 4 is not 0 outside" in fault for fault in faults)
    with RitzData(small) as data:
        b = data.right_hand_sides[6]
        b[data.operator.active] += 0.05
    faults = check(changed(small, tmp_path, set_b(6, b / np.linalg.norm(b)))).faults
    assert any("right-hand side 6 has a part of" in fault for fault in faults)


def test_the_check_finds_right_hand_sides_of_another_distribution(tmp_path, monkeypatch):
    monkeypatch.setattr("consolve.pde.ritz.generation.LOW_WEIGHT", 3.0)
    generate(tmp_path / "a.h5", RitzSet("box", (12, 12), 144, 2000))
    assert "mean Rayleigh quotient" in check(tmp_path / "a.h5").faults[0]
