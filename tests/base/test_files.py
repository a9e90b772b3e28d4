"""Files are whole or absent."""

import errno
import os

import numpy as np
import pytest
from full_disk import files_up_to

from consolve.base.files import (
    check_writable_directory,
    check_writable_file,
    new_file,
    open_in_place,
    whole_file,
)
from consolve.base.growing_file import take_room
from consolve.base.hdf5 import import_h5py, whole_hdf5


def test_content_takes_the_place_at_the_end(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with whole_file(target) as part:
        assert part.suffix == ".json"
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_exception_leaves_the_old_file_alone(tmp_path, kind):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(kind), whole_file(target) as part:
        part.write_text("half")
        raise kind
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file_alone_and_is_told_of_it(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with files_up_to(100), pytest.raises(OSError, match="File too large: .*/a.json'") as told:
        with whole_file(target) as part:
            part.write_bytes(bytes(1000))
    assert told.value.filename == str(target)
    with (
        files_up_to(100),
        pytest.raises(OSError, match="File too large: .*/a.h5'"),
        whole_hdf5(tmp_path / "a.h5"),
    ):
        pass
    with files_up_to(10), pytest.raises(OSError, match=f"cannot write into {tmp_path}: File too large"):
        check_writable_file(target)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_hdf5_files_are_whole_or_absent(tmp_path):
    target = tmp_path / "a.h5"
    with whole_hdf5(target) as file:
        file["a"] = np.arange(3)
    with pytest.raises(ValueError), whole_hdf5(target) as file:
        file["b"] = 1
        raise ValueError
    with import_h5py().File(target) as file:
        assert list(file) == ["a"] and file["a"][()].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [target]


def test_places_that_cannot_be_written_are_found(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="no directory"):
        check_writable_file(tmp_path / "missing" / "x.json")
    with pytest.raises(OSError, match="is a directory"):
        check_writable_file(tmp_path)
    with pytest.raises(OSError, match="is a file"):
        check_writable_directory(tmp_path / "file")
    with pytest.raises(OSError, match="cannot"):
        check_writable_directory("/proc/consolve-out")


def test_missing_directories_are_made(tmp_path):
    assert check_writable_directory(tmp_path / "a" / "b").is_dir()


def test_nothing_is_written_through_a_symbolic_link(tmp_path):
    precious, link = tmp_path / "precious", tmp_path / "set.h5.part.new"
    precious.write_text("kept")
    for make in (lambda: new_file(link), lambda: take_room(link, 100, new=True)):
        link.unlink(missing_ok=True)
        link.symlink_to(precious)
        made = make()
        if made is not None:
            os.close(made)
        assert link.is_file() and not link.is_symlink()
    assert link.stat().st_size == 100
    link.unlink()
    link.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        take_room(link, 100)
    with pytest.raises(OSError, match="symbolic link"), open(link, "a", opener=open_in_place):
        pass
    with whole_file(link) as part:
        part.write_text("new")
    assert not link.is_symlink() and precious.read_text() == "kept"


def test_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'"),
        whole_file(tmp_path / "a.json"),
    ):
        raise OSError(errno.ENOSPC, "write failed")
    assert list(tmp_path.iterdir()) == []
