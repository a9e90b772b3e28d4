"""Files of weights may come from anywhere: what is not known to be sound is read by another process."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_up_to

from consolve.base.hdf5 import import_h5py
from consolve.learned.dcdm.format import is_dcdm_file, load_dcdm_weights
from consolve.learned.multilevel.format import load_weights, save_weights
from consolve.learned.waves.format import TWINS, load_wave_weights
from consolve.learned.weights import file as weights_file
from consolve.learned.weights.file import WeightsError

h5py = import_h5py()
CAMPAIGN = Path(__file__).parents[2] / "campaigns" / "files.py"


@pytest.fixture
def mine(tmp_path):
    """A file as it is written now."""
    save_weights(load_weights("multilevel", 2), tmp_path / "mine.h5")
    return tmp_path / "mine.h5"


def test_a_full_disk_leaves_the_file_before(mine):
    before, weights = mine.read_bytes(), load_weights("multilevel", 2)
    with files_up_to(3000), pytest.raises(OSError, match="File too large: .*mine.h5"):
        save_weights(weights, mine)
    assert mine.read_bytes() == before and len(list(mine.parent.iterdir())) == 1


@pytest.fixture
def older(tmp_path):
    """A file of an earlier version, which has no seal."""
    return Path(shutil.copy(weights_file.folder() / "multilevel-2d.h5", tmp_path / "older.h5"))


@pytest.fixture
def not_here(monkeypatch):
    """HDF5 must not be used in this process."""

    def fails(*_):
        raise AssertionError("HDF5 opened the file in this process")

    monkeypatch.setattr(weights_file.reader, "contents", fails)


def test_every_shipped_file_is_in_the_list_and_as_it_says():
    found = {
        p.name: weights_file.hashlib.sha256(p.read_bytes()).hexdigest()
        for p in weights_file.folder().glob("*.h5")
    }
    assert found == weights_file.shipped_digests()


def test_what_is_written_is_sealed_and_read_back(mine):
    weights = load_weights(mine, 2)
    assert weights.digest == load_weights("multilevel", 2).digest
    with h5py.File(mine, "r") as file:  # still a plain HDF5 file
        assert file.attrs["network"] == "multilevel" and file.userblock_size == 512


@pytest.mark.parametrize("at", [600, 5_000, -40])
def test_a_changed_bit_is_seen(mine, not_here, at):
    data = bytearray(mine.read_bytes())
    data[at] ^= 16
    mine.write_bytes(data)
    with pytest.raises(WeightsError, match=str(mine)):
        load_weights(mine, 2)


def test_a_changed_number_is_refused_and_may_be_sealed(mine):
    with h5py.File(mine, "r+") as file:
        file["gamma"][0] *= 1.001
    with pytest.raises(WeightsError, match="changed since it was written.*seal"):
        load_weights(mine, 2)
    weights_file.seal(mine)
    assert load_weights(mine, 2).digest != load_weights("multilevel", 2).digest


def test_files_of_earlier_versions_are_read_by_another_process(older, not_here):
    assert load_weights(older, 2).sweeps == 2
    assert not is_dcdm_file(older)
    with pytest.raises(WeightsError, match="nothing to seal"):
        weights_file.seal(older)


def test_a_reader_that_crashes_takes_nothing_with_it(older, monkeypatch, tmp_path):
    script = tmp_path / "reader.py"
    for body, message in (
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "ended with signal 11"),
        ("import time; time.sleep(60)", "not done after"),
        ("raise MemoryError('no memory for this')", "no memory for this"),
    ):
        script.write_text(body)
        monkeypatch.setattr(weights_file.reader, "__file__", str(script))
        monkeypatch.setattr(weights_file, "SECONDS", 2.0)
        with pytest.raises(WeightsError, match=f"{older.name}: cannot be read as HDF5 .*{message}"):
            load_weights(older, 2)


def sparse(file):
    del file["alpha"]
    file.create_dataset("alpha", (1_500_000_000,), "f4", chunks=(1 << 20,))


def outside(file):
    del file["alpha"]
    file.create_dataset("alpha", (4, 2, 2), "f4", external=[("/etc/hostname", 0, 64)])


def link(file):
    del file["alpha"]
    file["alpha"] = h5py.ExternalLink("/etc/hostname", "/")


def packed(file):
    data = file["alpha"][()]
    del file["alpha"]
    file.create_dataset("alpha", data=data, compression="gzip")


def strange(file):
    file.attrs["seed"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


@pytest.mark.parametrize(
    "change, message",
    [
        (sparse, "not stored in one piece"),
        (outside, "not stored in one piece"),
        (packed, "not stored in one piece"),
        (link, "'alpha' is a link"),
        (lambda f: f.create_group("more"), "'more' is a group"),
        (lambda f: f.create_dataset("n", data=np.arange(3)), "'n' holds int64, no floating-point numbers"),
        (strange, "seed"),
        (lambda f: f.attrs.__setitem__("ndim", "abc"), "ndim is 'abc', expected 2 or 3"),
        (lambda f: f.attrs.__setitem__("ndim", 2.0), "ndim is 2.0, expected 2 or 3"),
        (lambda f: f.attrs.__setitem__("hidden", 10**9), "hidden is 1000000000, more than the 4096"),
        (lambda f: f.attrs.__setitem__("sweeps", -1), "sweeps must be an integer of at least 1, got -1"),
    ],
)
def test_what_no_network_has_is_refused_before_it_is_read(older, change, message):
    with h5py.File(older, "r+") as file:
        change(file)
    with pytest.raises(WeightsError, match=message):
        load_weights(older, 2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pairs": 30_000_000}, "pairs is 30000000, more than the 4096"),
        ({"ndim": 2.0}, "ndim is 2.0, expected 2 or 3"),
        ({"variant": [64]}, r"variant is \[64\], expected 64 or 128"),
        ({"width": True}, "width must be an integer of at least 1, got True"),
        ("[" * 60000, "is no JSON"),
    ],
)
def test_settings_are_bounded(tmp_path, change, message):
    path = Path(shutil.copy(weights_file.folder() / "dcdm-deep-2d.h5", tmp_path / "w.h5"))
    with h5py.File(path, "r+") as file:
        text = change if isinstance(change, str) else json.dumps(json.loads(file.attrs["settings"]) | change)
        file.attrs["settings"] = text
    with pytest.raises(WeightsError, match=message):
        load_dcdm_weights(path, 2)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.h5"
    with open(path, "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(WeightsError, match="3,221,225,472 bytes; weights have at most"):
        load_weights(path, 2)


def test_a_file_that_another_program_has_locked_is_read(mine):
    with open(mine, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert load_weights(mine, 2).sweeps == 2


def test_a_file_that_may_not_be_read_says_so(mine, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\)"):
        load_weights(mine, 2)


def test_shipped_files_are_checked_before_hdf5_sees_them(tmp_path, monkeypatch, not_here):
    for name in ("multilevel-2d.h5", "shipped.json"):
        shutil.copy(weights_file.folder() / name, tmp_path / name)
    data = bytearray((tmp_path / "multilevel-2d.h5").read_bytes())
    data[9000] ^= 1
    (tmp_path / "multilevel-2d.h5").write_bytes(data)
    monkeypatch.setattr(weights_file, "folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="not the file of this version"):
        load_weights("multilevel", 2)


def test_dense_twins_are_for_checkouts(tmp_path, monkeypatch):
    assert all(load_wave_weights(name).layer == "dense" for name in TWINS)
    monkeypatch.setattr(weights_file, "folder", lambda: tmp_path / "consolve" / "learned" / "weights")
    with pytest.raises(WeightsError, match="wave-propagator-dense.h5, in the folder benchmarks/weights"):
        load_wave_weights("propagator-dense")


@pytest.mark.slow
def test_damaged_files_do_no_harm():
    environment = os.environ | {"PYTHONPATH": str(CAMPAIGN.parents[2])}
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--count", "600"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
