"""Weights files: whole, checked, and clear about what is wrong."""

import h5py
import numpy as np
import pytest

from consolve.learned.multilevel.format import (
    SHIPPED,
    Weights,
    load_weights,
    save_weights,
    tensor_shapes,
)
from consolve.learned.weights.file import WeightsError


def random_weights(ndim=2, sweeps=2, hidden=4, seed=0):
    rng = np.random.default_rng(seed)
    shapes = tensor_shapes(sweeps, hidden)
    return Weights(
        ndim, sweeps, hidden, {k: rng.uniform(0.1, 0.9, s).astype("f4") for k, s in shapes.items()}
    )


@pytest.mark.parametrize("hidden", [0, 5])
def test_round_trip(tmp_path, hidden):
    weights = random_weights(3, 1, hidden)
    weights.record["command"] = "consolve train multilevel"
    save_weights(weights, tmp_path / "w.h5")
    read = load_weights(tmp_path / "w.h5", 3)
    assert read.digest == weights.digest
    assert read.record["command"] == "consolve train multilevel"
    assert read.parameters == sum(t.size for t in weights.tensors.values())
    assert [p.name for p in tmp_path.iterdir()] == ["w.h5"]


def test_digest_tells_weights_apart():
    assert random_weights(seed=0).digest == random_weights(seed=0).digest
    assert random_weights(seed=0).digest != random_weights(seed=1).digest


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("ndim", [2, 3])
def test_shipped_weights_record_their_making(name, ndim):
    weights = load_weights(name, ndim)
    assert weights.ndim == ndim
    assert (weights.hidden == 0) == (name == "mg")
    assert weights.record["command"].startswith("consolve train multilevel")
    assert len(weights.record["data_hash"]) == 64
    assert weights.record["seed"].isdigit()


def test_missing_file_names_path_and_remedy():
    with pytest.raises(WeightsError, match=r"no-such\.h5.*consolve train multilevel"):
        load_weights("no-such.h5", 2)


def test_wrong_dimension():
    with pytest.raises(WeightsError, match="weights are for 2D grids, this one is 3D"):
        save_and_load(random_weights(2), 3)


def save_and_load(weights, ndim, tmp=None):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.h5"
        save_weights(weights, path)
        return load_weights(path, ndim)


def damage_version(file):
    file.attrs["consolve_format"] = 99


def damage_no_version(file):
    del file.attrs["consolve_format"]


def damage_network(file):
    file.attrs["network"] = "other"


def damage_missing_tensor(file):
    del file["gamma"]


def damage_shape(file):
    del file["gamma"]
    file["gamma"] = np.ones(3, "f4")


def damage_dtype(file):
    del file["gamma"]
    file["gamma"] = np.ones(4, "f8")


def damage_nan(file):
    file["theta"][1] = np.nan


def damage_alpha(file):
    file["alpha"][0, 0, 0] = 2.5


def damage_sign(file):
    file["gamma"][0] = -1


def damage_attribute(file):
    del file.attrs["sweeps"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_version, "format version 99"),
        (damage_no_version, "not a weights file"),
        (damage_network, "network 'other'"),
        (damage_missing_tensor, "'gamma' is missing"),
        (damage_shape, r"'gamma' is float32\(3,\), expected float32\(4,\)"),
        (damage_dtype, "float64"),
        (damage_nan, "'theta' holds NaN"),
        (damage_alpha, "'alpha' must lie in"),
        (damage_sign, "'gamma' must be positive"),
        (damage_attribute, "'sweeps' is missing"),
    ],
)
def test_damage_is_named(tmp_path, damage, words):
    path = tmp_path / "w.h5"
    save_weights(random_weights(), path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(WeightsError, match=words) as caught:
        load_weights(path, 2)
    assert str(path) in str(caught.value)


def test_truncated_file(tmp_path):
    path = tmp_path / "w.h5"
    save_weights(random_weights(), path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(WeightsError, match="cannot be read as HDF5"):
        load_weights(path, 2)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.h5"
    save_weights(random_weights(seed=0), path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(KeyboardInterrupt):
        save_weights(random_weights(seed=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.h5"]
