"""Files are whole or absent."""

import pytest

from consolve.base.files import check_writable_directory, check_writable_file, whole_file


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
