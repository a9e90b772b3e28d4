"""Results that grow row by row."""

import pytest
from row_file import RowFile


def test_rows_are_found_again_and_replaced_by_key(tmp_path):
    path = tmp_path / "new" / "rows.json"
    rows = RowFile(path, ("solver", "cells"))
    rows.put({"solver": "a", "cells": 8, "s": 1.0})
    rows.put({"solver": "b", "cells": 8, "s": 2.0})
    rows.put({"solver": "a", "cells": 8, "s": 3.0})
    again = RowFile(path, ("solver", "cells"))
    assert again.rows == [{"solver": "a", "cells": 8, "s": 3.0}, {"solver": "b", "cells": 8, "s": 2.0}]
    assert again.find(solver="b", cells=8)["s"] == 2.0
    assert again.find(solver="b", cells=16) is None


def test_file_stays_whole_when_a_row_cannot_be_written(tmp_path):
    path = tmp_path / "rows.json"
    rows = RowFile(path, ("solver",))
    rows.put({"solver": "a"})
    before = path.read_text()
    with pytest.raises(TypeError):
        rows.put({"solver": "b", "s": object()})
    assert path.read_text() == before
    assert rows.rows == [{"solver": "a"}]
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    rows = RowFile(tmp_path / "rows.json", ("solver",))
    rows.put({"solver": "a", "residual": float("nan"), "s": [float("inf")], "t": 1.5})
    assert RowFile(rows.path, ("solver",)).rows == [{"solver": "a", "residual": None, "s": [None], "t": 1.5}]


def test_a_row_is_a_line_and_a_machine_stands_once(tmp_path):
    machine = {"cpu": "one", "versions": {"numpy": "1.26"}}
    rows = RowFile(tmp_path / "rows.json", ("solver",))
    for name in "abc":
        rows.put({"solver": name, "machine": machine, "history": [1.0, 0.1]})
    lines = rows.path.read_text().splitlines()
    assert sum('"solver"' in line for line in lines) == 3 and len(lines) == 10
    assert rows.path.read_text().count("1.26") == 1
    assert RowFile(rows.path, ("solver",)).rows[2]["machine"] == machine


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [{"name": 1}]}'])
def test_other_files_are_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="move it away"):
        RowFile(path, ("solver",))
    assert path.read_text() == text
