"""Files of wave data: what is in them, that they survive kills, and that damage is found."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consolve.base.growing_file import part_path
from consolve.base.hdf5 import import_h5py
from consolve.pde.waves import generation as wave_generation
from consolve.pde.waves.check import check
from consolve.pde.waves.data import WaveData, WaveDataBusy, WaveDataError, layout, run_digest, settings
from consolve.pde.waves.generation import generate, solve_runs
from consolve.pde.waves.leapfrog import LeapFrog
from consolve.pde.waves.sampling import SETS, STORED_VERTICES, WaveSet
from consolve.pde.waves.writer import WaveWriter

h5py = import_h5py()
RUNS = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each set, on the coarsest grid."""
    folder = tmp_path_factory.mktemp("sets")
    made = {}
    for name in SETS:
        made[name] = folder / f"{name}.h5"
        generate(made[name], WaveSet(name, "test", 3), RUNS, STORED_VERTICES, command="a test")
    return made


@pytest.fixture
def copy(files, tmp_path):
    """A propagator file to do damage to."""
    path = tmp_path / "copy.h5"
    path.write_bytes(files["propagator"].read_bytes())
    return path


def begun(path, wave_set, runs, done):
    """A part file with some runs in it."""
    file = WaveWriter(path, wave_set, runs, STORED_VERTICES, "leap-frog")
    for run, arrays in zip(done, solve_runs(wave_set, done, STORED_VERTICES)):
        file.write(run, arrays)
    file.close()


@pytest.mark.parametrize("name", SETS)
def test_a_run_is_the_leap_frog_run_of_the_problem_that_the_file_tells(files, name):
    with WaveData(files[name]) as data:
        w = data.wave_set.window
        for run in (0, RUNS - 1):
            truth = LeapFrog(data.problem(run), STORED_VERTICES).run(data.start[run] + data.time)
            assert np.array_equal(data.u[run], truth[:, w, w].astype(np.float32))
            assert 0.1 < abs(data.u[run]).max() < 5


@pytest.mark.parametrize("name", SETS)
def test_layout_is_that_of_the_specification(files, name):
    text = (Path(__file__).parents[3] / "docs" / "wave-data.md").read_text()
    with h5py.File(files[name]) as file:
        assert set(file) == set(layout(WaveSet(name), RUNS))
        for dataset in file:
            assert f"`/{dataset}`" in text
        for attribute in file.attrs:
            assert f"`{attribute}`" in text
        assert file["u"].dtype == np.float32 and file["u"].chunks == (1, *file["u"].shape[1:])
        assert file["u"].shape == ((RUNS, 45, 64, 64) if name == "propagator" else (RUNS, 64, 32, 32))
        assert file.attrs["complete"] == 1 and len(file.attrs["digest"]) == 64


@pytest.mark.parametrize("name", SETS)
def test_a_good_file_passes_the_check(files, name):
    found = check(files[name], again=[0, RUNS - 1])
    assert found.faults == [] and found.differences == {0: 0.0, RUNS - 1: 0.0} and found.largest > 0.1


def test_the_reader_slices_and_names(files):
    with WaveData(files["zone"]) as data:
        assert data.parameter_names == ("x", "y", "frequency", "inclusion_speed")
        assert data.source_columns[:4] == ("x", "y", "frequency", "amplitude")
        assert data.u[2:4, ::2].shape == (2, 32, 32, 32) and len(data) == RUNS
        assert np.array_equal(data.parameters[:, :3], data.source[:, :3])
        assert data.x[0] == pytest.approx(32 / 63) and data.x[-1] == 1 and data.kind == ["disc"] * RUNS
        assert data.start.tolist() == pytest.approx([0.34] * RUNS)
        assert "zone" in repr(data) and data.attributes["command"] == "a test"
    with pytest.raises(ValueError):
        data.u[0]  # closed


def test_what_is_read_of_whole_runs_is_checked(files, copy):
    with WaveData(files["propagator"]) as data:
        arrays = data.read(1, 3)
        assert {name: a.shape[0] for name, a in arrays.items()} == dict.fromkeys(arrays, 2)
        assert np.array_equal(arrays["u"], data.u[1:3]) and np.array_equal(arrays["start"], data.start[1:3])
        assert data.read(RUNS)["u"].shape == (0, *data.u.shape[1:]) and len(data.read()["u"]) == RUNS
    with h5py.File(copy, "r+") as file:
        file["fixed"][2, 5, 5] ^= 1
    with WaveData(copy) as data:
        data.read(0, 2)
        with pytest.raises(WaveDataError, match="copy.h5: run 2: the content does not fit its digest"):
            data.read()


def test_a_shorter_set_is_the_beginning_of_a_longer_one(files, tmp_path):
    generate(tmp_path / "short.h5", WaveSet("zone", "test", 3), 2, STORED_VERTICES)
    with WaveData(tmp_path / "short.h5") as short, WaveData(files["zone"]) as long:
        assert np.array_equal(short.part_digests, long.part_digests[:2])
        assert np.array_equal(short.u[()], long.u[:2])
        assert short.digest != long.digest


def test_a_part_file_is_refused_without_resume_and_resumed_to_the_same_digest(files, tmp_path):
    path, wave_set = tmp_path / "a.h5", WaveSet("propagator", "test", 3)
    begun(path, wave_set, RUNS, [4, 1])
    assert not path.exists() and part_path(path).exists()
    with pytest.raises(WaveDataError, match="--resume"):
        generate(path, wave_set, RUNS, STORED_VERTICES)
    told = []
    made = generate(path, wave_set, RUNS, STORED_VERTICES, resume=True, report=lambda *n: told.append(n))
    assert made.solved == RUNS - 2 and told[0] == (2, RUNS) and told[-1] == (RUNS, RUNS)
    assert not part_path(path).exists()
    with WaveData(path) as data, WaveData(files["propagator"]) as whole:
        assert made.digest == data.digest == whole.digest
        assert np.array_equal(data.u[()], whole.u[()])


def test_a_run_that_was_half_written_is_made_again(files, tmp_path):
    path, wave_set = tmp_path / "a.h5", WaveSet("zone", "test", 3)
    begun(path, wave_set, RUNS, [0, 1, 2])
    with h5py.File(part_path(path), "r+") as file:
        file["u"][1, 30, 10, 10] += 1  # bytes that a power cut lost
    made = generate(path, wave_set, RUNS, STORED_VERTICES, resume=True)
    with WaveData(files["zone"]) as whole:
        assert made.solved == RUNS - 2 and made.digest == whole.digest


@pytest.mark.parametrize("calls", [5, 18])  # in the first run, and in the digest of the second
def test_a_process_killed_in_the_middle_of_a_write_loses_that_run_only(tmp_path, calls):
    code = f"""
import os, signal, sys
from consolve.base import growing_file
from consolve.pde.waves.generation import generate
from consolve.pde.waves.sampling import WaveSet
write, count = growing_file.write_bytes, 0
def killed(handle, entry, place):
    global count
    count += 1
    if count == {calls}:
        write(handle, entry[: len(entry) // 2], place)
        os.kill(os.getpid(), signal.SIGKILL)
    write(handle, entry, place)
growing_file.write_bytes = killed
generate(sys.argv[1], WaveSet("zone"), 4, 64)
"""
    path = tmp_path / "a.h5"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=120)
    assert done.returncode == -9, done.stderr
    resumed = generate(path, WaveSet("zone"), 4, STORED_VERTICES, resume=True)
    writes = 9  # eight arrays and the digest
    assert resumed.solved == 4 - (calls - 1) // writes
    assert resumed.digest == generate(tmp_path / "b.h5", WaveSet("zone"), 4, STORED_VERTICES).digest
    assert check(path).faults == []


def test_an_interrupt_leaves_a_part_file_that_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(wave_generation, "_BLOCK", 1)

    def interrupt(done, of):
        if done >= 2:
            raise KeyboardInterrupt

    path, wave_set = tmp_path / "a.h5", WaveSet("zone")
    with pytest.raises(KeyboardInterrupt):
        generate(path, wave_set, 5, STORED_VERTICES, report=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5.part"]
    assert generate(path, wave_set, 5, STORED_VERTICES, resume=True).solved <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(runs=RUNS + 1), "runs = 6, asked for is 7"),
        (dict(vertices=127), "fe_vertices = 64, asked for is 127"),
        (dict(wave_set=WaveSet("zone", "test", 4)), "seed = 3, asked for is 4"),
        (dict(wave_set=WaveSet("zone", "train", 3)), "split = test, asked for is train"),
    ],
)
def test_resuming_another_set_is_refused(files, tmp_path, change, message):
    arguments = dict(wave_set=WaveSet("zone", "test", 3), runs=RUNS, vertices=STORED_VERTICES)
    begun(tmp_path / "a.h5", done=[0], wave_set=arguments["wave_set"], runs=RUNS)
    before = part_path(tmp_path / "a.h5").read_bytes()
    for path in (tmp_path / "a.h5", files["zone"]):
        with pytest.raises(WaveDataError, match=message):
            generate(path, **(arguments | change), resume=True)
    assert part_path(tmp_path / "a.h5").read_bytes() == before


def test_resuming_a_whole_file_leaves_it_as_it_is(files):
    before = files["zone"].stat()
    made = generate(files["zone"], WaveSet("zone", "test", 3), RUNS, STORED_VERTICES, resume=True)
    after = files["zone"].stat()
    assert made.solved == 0 and (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_truncated_part_file_says_what_to_do(tmp_path):
    path = tmp_path / "a.h5"
    begun(path, WaveSet("zone"), 3, [0])
    part = part_path(path)
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(WaveDataError, match=r"remove the part file to start over.*truncated"):
        generate(path, WaveSet("zone"), 3, STORED_VERTICES, resume=True)


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "a.h5"
    first = WaveWriter(path, WaveSet("zone"), 2, STORED_VERTICES, "leap-frog")
    try:
        with pytest.raises(WaveDataBusy, match="another process"):
            WaveWriter(path, WaveSet("zone"), 2, STORED_VERTICES, "leap-frog", resume=True)
    finally:
        first.close()


def test_a_call_that_fails_before_the_first_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise FloatingPointError("u is not finite")

    monkeypatch.setattr(wave_generation, "solve_runs", fail)
    with pytest.raises(FloatingPointError):
        generate(tmp_path / "a.h5", WaveSet("zone"), 2, STORED_VERTICES)
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_no_disk_holds_is_refused_at_once(tmp_path):
    with pytest.raises(OSError, match=r"MB where \d+ MB are free: No space left"):
        generate(tmp_path / "a.h5", WaveSet("propagator"), 10**9, STORED_VERTICES)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_in_the_middle_keeps_the_runs_before(tmp_path, monkeypatch):
    path, pwrite = tmp_path / "a.h5", wave_generation.os.pwrite
    places = []

    def full(handle, data, place):
        places.append(place)
        if len(places) == 14:
            raise OSError(28, "No space left on device")
        return pwrite(handle, data, place)

    with monkeypatch.context() as patched:
        patched.setattr("consolve.base.growing_file.os.pwrite", full)
        with pytest.raises(OSError, match=r"cannot write run 1 .*No space left.*--resume"):
            generate(path, WaveSet("zone"), 3, STORED_VERTICES)
    assert generate(path, WaveSet("zone"), 3, STORED_VERTICES, resume=True).solved == 2


def test_a_run_of_the_wrong_shape_is_refused(tmp_path):
    file = WaveWriter(tmp_path / "a.h5", WaveSet("zone"), 2, STORED_VERTICES, "leap-frog")
    arrays = solve_runs(WaveSet("zone"), [0], STORED_VERTICES)[0]
    with pytest.raises(ValueError, match="speed of run 0 has shape"):
        file.write(0, arrays | {"speed": np.ones((3, 3))})
    with pytest.raises(RuntimeError, match="0 of 2 runs"):
        file.finish()
    file.close()


@pytest.mark.parametrize("arguments", [dict(runs=0), dict(solver="abacus"), dict(vertices=100)])
def test_unusable_arguments_are_refused_before_any_file(tmp_path, arguments):
    given = dict(wave_set=WaveSet("zone"), runs=1, vertices=STORED_VERTICES) | arguments
    with pytest.raises(ValueError):
        generate(tmp_path / "a.h5", **given)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_wave_data_are_refused(tmp_path, copy):
    with pytest.raises(WaveDataError, match="no such file"):
        WaveData(tmp_path / "none.h5")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("hello")
    for name in ("empty.h5", "text.h5"):
        with pytest.raises(WaveDataError, match="cannot be read as HDF5"):
            WaveData(tmp_path / name)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["u"] = np.zeros(3)
    with pytest.raises(WaveDataError, match="not of wave data"):
        WaveData(tmp_path / "other.h5")
    copy.write_bytes(copy.read_bytes()[:-1000])
    with pytest.raises(WaveDataError, match="truncated"):
        WaveData(copy)


def _delete(name):
    return lambda file: file.__delitem__(name)


def _set(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def _replace(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("consolve_format", 2), "format version 2"),
        (_set("complete", 0), "not finished.*--resume"),
        (_set("seed", 4), "it was changed"),
        (_set("set", "nonsense"), "unknown set"),
        (lambda file: file.attrs.__delitem__("interval"), "'interval' is missing"),
        (_delete("speed"), "'speed' is missing"),
        (_replace("start", np.zeros(3)), r"'start' is float64\(3,\)"),
        (_replace("u", np.zeros((RUNS, 45, 64, 64))), "'u' is float64"),
        (lambda file: file["source"].__setitem__((0, 0), np.nan), "'source' holds NaN"),
        (lambda file: file["run_digest"].__setitem__((0, 0), file["run_digest"][0, 0] ^ 1), "was changed"),
    ],
)
def test_damage_that_shows_at_opening_is_named(copy, change, message):
    with h5py.File(copy, "r+") as file:
        change(file)
    with pytest.raises(WaveDataError, match=message):
        WaveData(copy)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("u", (1, 5, 30, 30), np.nan, "run 1: u holds NaN or Inf"),
        ("u", (1, 5, 30, 30), 7.0, "run 1: the content does not fit its digest"),
        ("u", (1,), 0.0, "run 1: u is 0 everywhere"),
        ("u", (4,), 1.0, "run 4: u is not 0 at its fixed vertices"),
        ("speed", (2, 0, 0), 1.5, r"run 2: speeds leave \[0.5, 1.0\]"),
        ("fixed", (2, 0, 0), 3, "run 2: fixed holds other values"),
        ("source", (3, 2), 9.0, "run 3: frequency of the source is 9, not in"),
        ("source", (3, 4), -1.0, "run 3: the radius"),
        ("start", (0,), 0.33, "run 0: start 0.33 is no multiple"),
        ("start", (0,), 0.9, "run 0: start is not the first snapshot"),
        ("kind", (0,), b"smooth", "run 0: a medium of kind 'smooth' is out of turn"),
        ("time", (3,), 0.061, "time runs from"),
        ("x", (3,), 0.5, "x runs from"),
    ],
)
def test_the_check_finds_damage_inside(copy, name, place, value, message):
    with h5py.File(copy, "r+") as file:
        file[name][place] = value
    assert any(re.match(message, fault) for fault in check(copy, again=[5]).faults)


def test_the_check_solves_again_and_finds_a_forged_run(copy):
    """A run that is consistent in itself, but not the solution."""
    with h5py.File(copy, "r+") as file:
        file["u"][0] *= np.float32(1.001)
        wave_set = WaveSet("propagator", "test", 3)
        arrays = {name: file[name][0] for name in layout(wave_set, 1) if file[name].shape[0] == RUNS}
        file["run_digest"][0] = run_digest(wave_set, arrays)
        digest = WaveData.content_digest(settings(wave_set, RUNS, STORED_VERTICES), file["run_digest"][()])
        file.attrs.modify("digest", np.bytes_(digest.encode()))
    assert check(copy, again=[1]).faults == []
    found = check(copy, again=[0])
    assert found.differences[0] == pytest.approx(0.001, rel=0.01) and "run 0: u differs" in found.faults[0]
    with pytest.raises(ValueError, match="there is no run 6"):
        check(copy, again=[6])
