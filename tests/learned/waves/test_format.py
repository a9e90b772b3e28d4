"""Files of wave surrogates: what is read back, and what is refused."""

import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from consolve.base.hdf5 import import_h5py
from consolve.learned.waves.format import (
    SHIPPED,
    GeneratorSettings,
    PropagatorSettings,
    WaveWeights,
    convolution_shapes,
    load_wave_weights,
    save_wave_weights,
)
from consolve.learned.weights.file import WeightsError

h5py = import_h5py()

SMALL = PropagatorSettings(past=2, ahead=1, factor=2, width=6, layers=3, gate_width=4)
COMPRESSED = replace(SMALL, ranks=(3, 4, 2))
FIELD = GeneratorSettings((0.0, 1.0), (1.0, 3.0), 2.0, (8, 4, 4), 2, 8, 3, 6, 3, 2)
ALL = [SMALL, COMPRESSED, FIELD, replace(FIELD, ranks=(4, 5, 6))]


def random_weights(settings, seed=0, **record):
    rng = np.random.default_rng(seed)
    shapes = settings.tensor_shapes()
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return WaveWeights(settings, tensors, record)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.h5"
    save_wave_weights(random_weights(COMPRESSED), path)
    return path


@pytest.mark.parametrize("settings", ALL)
def test_what_is_saved_is_read_back(tmp_path, settings):
    weights = random_weights(settings, command="consolve train wave", scores='{"vrmse": 0.5}')
    save_wave_weights(weights, tmp_path / "w.h5")
    found = load_wave_weights(tmp_path / "w.h5", weights.network)
    assert found.settings == settings and found.record == weights.record and found.digest == weights.digest
    assert found.tensors.keys() == weights.tensors.keys() and found.source == str(tmp_path / "w.h5")
    for name, tensor in weights.tensors.items():
        assert found.tensors[name].dtype == np.float32 and np.array_equal(found.tensors[name], tensor)
    assert found.scores == {"vrmse": 0.5}
    assert load_wave_weights(str(tmp_path / "w.h5")).digest == weights.digest


def test_layer_and_parameter_counts():
    dense, compressed = random_weights(SMALL), random_weights(COMPRESSED)
    assert (dense.layer, compressed.layer) == ("dense", "compressed")
    channels = [(8, 6), (6, 6), (6, 4)]
    assert dense.convolution_parameters == sum(9 * i * o for i, o in channels)
    assert compressed.convolution_parameters == sum(r * (i + o + 6) for r, (i, o) in zip((3, 4, 2), channels))
    gates = (9 * 12 * 4 + 4) + (9 * 4 * 4 + 4) + (4 * 12 + 12)
    for weights in (dense, compressed):
        assert weights.parameters == weights.convolution_parameters + gates
    field, separated = random_weights(FIELD), random_weights(ALL[3])
    decoder = [(3, 6), (6, 6), (6, 8)]
    assert field.convolution_parameters == sum(27 * i * o for i, o in decoder)
    assert separated.convolution_parameters == sum(r * (i + o + 9) for r, (i, o) in zip((4, 5, 6), decoder))
    encoder = (2 * 5 * 8 + 8) + (8 * 8 + 8) + 9 * 3 * 2
    assert field.parameters == field.convolution_parameters + encoder


def test_shapes_of_one_convolution():
    assert convolution_shapes("a", 5, 4, (3, 3), None) == {"a.weight": (5, 4, 3, 3)}
    assert convolution_shapes("a", 5, 4, (2, 3, 7), 6) == {
        "a.output_factor": (5, 6),
        "a.input_factor": (6, 4),
        "a.filter_z": (6, 2),
        "a.filter_y": (6, 3),
        "a.filter_x": (6, 7),
    }
    assert {"a.filter_y", "a.filter_x"} < set(convolution_shapes("a", 5, 4, (3, 3), 6))


def test_digest_tells_tensors_and_settings_apart():
    weights = random_weights(SMALL)
    changed = {name: tensor.copy() for name, tensor in weights.tensors.items()}
    changed["wave.1.weight"][0, 0, 0, 0] += 1e-3
    other = random_weights(replace(FIELD, scale=3.0)), random_weights(FIELD)
    digests = {w.digest for w in (weights, WaveWeights(SMALL, changed), random_weights(COMPRESSED), *other)}
    assert len(digests) == 5 and all(len(d) == 12 for d in digests)
    shuffled = dict(reversed(weights.tensors.items()))
    assert WaveWeights(SMALL, shuffled, {"seed": "3"}).digest == weights.digest


def test_a_missing_or_foreign_file_is_told(tmp_path):
    with pytest.raises(WeightsError, match="no weights at .*none.h5.*generator-dense"):
        load_wave_weights(tmp_path / "none.h5")
    with pytest.raises(WeightsError, match="no weights at"):
        load_wave_weights(tmp_path)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(WeightsError, match="text.h5: cannot be read as HDF5"):
        load_wave_weights(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["u"] = np.zeros(3)
    with pytest.raises(WeightsError, match="not a wave surrogate of consolve"):
        load_wave_weights(tmp_path / "other.h5")
    assert len(SHIPPED) == 4


def test_the_other_network_is_refused(file):
    with pytest.raises(WeightsError, match="holds a propagator, a generator is needed"):
        load_wave_weights(file, "generator")


@pytest.mark.parametrize("version", [2, "one", np.array([1, 2])])
def test_another_version_is_refused(file, version):
    with h5py.File(file, "r+") as f:
        f.attrs["consolve_wave_format"] = version
    with pytest.raises(WeightsError, match=r"format version .*, this consolve reads 1"):
        load_wave_weights(file)


@pytest.mark.parametrize("ends", [10, pytest.param(40, marks=pytest.mark.slow)])
def test_a_truncated_file_is_refused_wherever_it_ends(file, tmp_path, ends):
    content = file.read_bytes()
    part = tmp_path / "part.h5"
    for end in np.linspace(0, len(content) - 1, ends).astype(int):
        part.write_bytes(content[:end])
        with pytest.raises(WeightsError, match="part.h5"):
            load_wave_weights(part)


@pytest.mark.parametrize("damages", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_a_damaged_file_is_refused_or_read_but_never_a_crash(file, tmp_path, damages):
    """Bytes overwritten anywhere: any error is a WeightsError (HDF5 keeps no checksums of the numbers)."""
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(damages):
        damaged = bytearray(content)
        place = int(rng.integers(0, len(content)))
        damaged[place : place + 8] = rng.bytes(len(damaged[place : place + 8]))
        (tmp_path / "bad.h5").write_bytes(damaged)
        try:
            load_wave_weights(tmp_path / "bad.h5")
        except WeightsError:
            refused += 1
    assert refused > damages / 15


def edit(file, change):
    with h5py.File(file, "r+") as f:
        change(f)
    with pytest.raises(WeightsError) as error:
        load_wave_weights(file)
    assert str(file) in str(error.value)
    return str(error.value)


def put(f, name, value):
    del f[name]
    f[name] = value


def test_wrong_tensors_are_named(file):
    name = "wave.1.output_factor"
    good = random_weights(COMPRESSED).tensors[name]
    nan = good.copy()
    nan[2, 1] = np.nan
    cases = [
        (good.astype(np.float64), r"float64\(6, 4\), expected float32\(6, 4\)"),
        (good[:, :3], r"float32\(6, 3\), expected float32\(6, 4\)"),
        (np.float32(1), r"float32\(\), expected"),
        ("words", "holds object, no floating-point numbers"),
        (nan, "holds NaN or Inf"),
        (np.inf * good, "holds NaN or Inf"),
    ]
    for value, message in cases:
        found = edit(file, lambda f, value=value: put(f, name, value))
        assert name in found and re.search(message, found), found
    assert f"{name!r} is missing" in edit(file, lambda f: f.__delitem__(name))
    with h5py.File(file, "r+") as f:
        f[name] = good
        f["wave.9.weight"] = good
    with pytest.raises(WeightsError, match="tensor 'wave.9.weight' is not of this network"):
        load_wave_weights(file)


def test_settings_of_another_network_are_refused(file):
    def set_attribute(name, value):
        return edit(file, lambda f: f.attrs.__setitem__(name, value))

    assert "network 'pump', expected one of propagator, generator" in set_attribute("network", "pump")
    assert "expected the keys low, high" in set_attribute("network", "generator")
    with h5py.File(file, "r+") as f:
        f.attrs["network"] = "propagator"
    good = asdict(COMPRESSED)
    assert "is no JSON" in set_attribute("settings", "{broken")
    assert "expected the keys" in set_attribute("settings", "[1]")
    assert "expected the keys" in set_attribute("settings", json.dumps({**good, "depth": 3}))
    assert "expected the keys" in set_attribute("settings", json.dumps({k: good[k] for k in list(good)[1:]}))
    assert "width must be" in set_attribute("settings", json.dumps({**good, "width": 1.5}))
    assert "rank 0" in set_attribute("settings", json.dumps({**good, "ranks": [3, 0, 2]}))
    assert "settings are not valid" in set_attribute("settings", json.dumps({**good, "ranks": 7}))
    # Good settings of another size: the tensors do not fit.
    assert "wave.0.output_factor" in set_attribute("settings", json.dumps({**good, "width": 7}))
    assert "'wave.0.weight' is missing" in set_attribute("settings", json.dumps({**good, "ranks": None}))


def test_ranks_are_at_most_what_the_kernel_allows():
    shapes = SMALL.kernel_shapes()
    assert shapes == [(6, 8, 3, 3), (6, 6, 3, 3), (4, 6, 3, 3)]
    most = tuple(math.prod(shape) // max(shape) for shape in shapes)
    assert most == (54, 54, 36)
    random_weights(replace(SMALL, ranks=most))
    for place in range(3):
        ranks = tuple(m + (k == place) for k, m in enumerate(most))
        with pytest.raises(
            WeightsError, match=f"rank {ranks[place]} for a kernel .*expected 1 to {most[place]}"
        ):
            replace(SMALL, ranks=ranks)
    with pytest.raises(WeightsError, match="expected one for each of 3 convolutions"):
        replace(SMALL, ranks=(3, 3))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"past": 0}, "past must be an integer of at least 1, got 0"),
        ({"layers": 1}, "layers must be an integer of at least 2"),
        ({"ahead": 3}, "ahead=3 must not pass past=2"),
        ({"gate_width": "4"}, "gate_width must be"),
    ],
)
def test_bad_sizes_of_a_propagator(bad, message):
    with pytest.raises(WeightsError, match=message):
        replace(SMALL, **bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"low": (1.0, 1.0)}, "low < high"),
        ({"low": (0.0,)}, "low < high"),
        ({"low": (), "high": ()}, "low < high"),
        ({"low": (math.nan, 1.0)}, "low < high"),
        ({"high": (math.inf, 3.0)}, "low < high"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": math.nan}, "scale must be positive"),
        ({"shape": (8, 4)}, "three multiples of 4"),
        ({"shape": (8, 4, 6)}, "three multiples of 4"),
        ({"hidden": -1}, "hidden must be"),
        ({"ranks": (4, 5)}, "expected one for each of 3"),
    ],
)
def test_bad_sizes_of_a_generator(bad, message):
    with pytest.raises(WeightsError, match=message):
        replace(FIELD, **bad)


def test_a_failed_save_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()
    weights = random_weights(COMPRESSED, seed=1)
    weights.record["command"] = object()  # HDF5 cannot hold it
    with pytest.raises(TypeError):
        save_wave_weights(weights, file)
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == ["w.h5"]
