"""Weights files of the DCDM networks: what is written is read, and every fault is named."""

import json

import numpy as np
import pytest

from consolve.base.hdf5 import import_h5py
from consolve.learned.dcdm.format import (
    DCDMSettings,
    DCDMWeights,
    is_dcdm_file,
    load_dcdm_weights,
    save_dcdm_weights,
)
from consolve.learned.weights.file import WeightsError

h5py = import_h5py()


def random_weights(seed=0, **settings):
    chosen = DCDMSettings(**({"ndim": 2, "width": 3} | settings))
    rng = np.random.default_rng(seed)
    tensors = {k: rng.standard_normal(s).astype(np.float32) for k, s in chosen.tensor_shapes().items()}
    return DCDMWeights(chosen, tensors, {"command": "consolve train dcdm", "seed": "3"})


@pytest.fixture
def path(tmp_path):
    save_dcdm_weights(random_weights(), tmp_path / "weights.h5")
    return tmp_path / "weights.h5"


@pytest.mark.parametrize("settings", [{}, {"ndim": 3}, {"variant": 128, "image": True}, {"width": 16}])
def test_comes_back_as_it_was(tmp_path, settings):
    weights = random_weights(**settings)
    save_dcdm_weights(weights, tmp_path / "w.h5")
    again = load_dcdm_weights(tmp_path / "w.h5", weights.ndim)
    assert again.settings == weights.settings and again.record == weights.record
    assert again.digest == weights.digest and again.source == str(tmp_path / "w.h5")
    for name, tensor in weights.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], tensor)
    assert is_dcdm_file(tmp_path / "w.h5")


def test_written_twice_it_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        save_dcdm_weights(random_weights(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_digest_tells_weights_apart():
    weights = random_weights()
    assert weights.digest != random_weights(seed=1).digest
    tensors = {k: t.copy() for k, t in weights.tensors.items()}
    tensors["last.bias"][0] += 1e-6 + abs(tensors["last.bias"][0])
    assert DCDMWeights(weights.settings, tensors).digest != weights.digest


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"ndim": 1}, "ndim is 1"),
        ({"network": "unet"}, "network is 'unet'"),
        ({"variant": 65}, "variant is 65"),
        ({"width": 0}, "width must be"),
        ({"width": 2.5}, "width must be"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(WeightsError, match=words):
        DCDMSettings(**({"ndim": 2} | settings))


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file, name, value):
    del file[name]
    file[name] = value


FAULTS = {
    "missing": (lambda f: f.__delitem__("last.bias"), "'last.bias' is missing"),
    "unknown": (lambda f: f.__setitem__("extra", np.zeros(2, np.float32)), "'extra' is not of this network"),
    "shape": (lambda f: replace(f, "last.bias", np.zeros(2, np.float32)), r"expected float32\(1,\)"),
    "dtype": (lambda f: replace(f, "last.bias", np.zeros(1)), r"is float64\(1,\)"),
    "nan": (lambda f: replace(f, "last.bias", np.full(1, np.nan, np.float32)), "'last.bias' holds NaN"),
    "version": (lambda f: f.attrs.__setitem__("consolve_dcdm_format", 99), "format version 99"),
    "no settings": (lambda f: f.attrs.__delitem__("settings"), "'settings' is missing"),
    "no JSON": (lambda f: f.attrs.__setitem__("settings", "{"), "'settings' is no JSON"),
    "other keys": (lambda f: f.attrs.__setitem__("settings", json.dumps({"ndim": 2})), "expected the keys"),
    "other format": (lambda f: f.attrs.__delitem__("consolve_dcdm_format"), "no attribute"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_are_named_with_their_fault(path, fault):
    change, words = FAULTS[fault]
    edit(path, change)
    with pytest.raises(WeightsError, match=words) as caught:
        load_dcdm_weights(path, 2)
    assert "weights.h5" in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_files(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="weights.h5"):
        load_dcdm_weights(path)


def test_files_of_other_kinds_are_not_taken(tmp_path):
    (tmp_path / "text").write_text("no weights")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["consolve_format"] = 1
    for name in ("text", "other.h5", "absent"):
        assert not is_dcdm_file(tmp_path / name)
        with pytest.raises(WeightsError, match=name):
            load_dcdm_weights(tmp_path / name)


def test_weights_of_another_dimension(path):
    assert load_dcdm_weights(path).ndim == 2
    with pytest.raises(WeightsError, match="weights are for 2D grids, this one is 3D"):
        load_dcdm_weights(path, 3)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_h5py().Group, "create_dataset", fails)
    with pytest.raises(OSError, match="No space left"):
        save_dcdm_weights(random_weights(seed=5), path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["weights.h5"]
