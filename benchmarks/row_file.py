"""Results that grow row by row: a JSON file that is whole at any moment, so that a study can go on later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consolve.bench import result_file

Row = dict[str, Any]


class RowFile:
    """Rows by key, in the order in which their keys first came.

    Parameters
    ----------
    path
        The file; read if it exists, and its directory made if need be when a row is first put.
    key
        Names of the entries that tell rows apart.

    Raises
    ------
    ValueError
        If there is a file and it holds no such rows.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self.key = path, tuple(key)
        self._rows: dict[tuple, Row] = {}
        if path.exists():
            try:
                rows = result_file.read(path)["rows"]
                self._rows = {self._key_of(row): row for row in rows}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} is no file of results with the keys {', '.join(self.key)} ({error!r}): move it "
                    "away, or name another"
                ) from error

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return list(self._rows.values())

    def find(self, **key: Any) -> Row | None:
        """The row with this key, or None."""
        return self._rows.get(self._key_of(key))

    def put(self, row: Row) -> None:
        """Add a row, or replace the one with its key, and write the file; NaN and Inf become null."""
        rows = self._rows | {self._key_of(row): row}
        result_file.write(self.path, {"rows": list(rows.values())})
        self._rows = rows

    def _key_of(self, row: Row) -> tuple:
        return tuple(tuple(v) if isinstance(v, list) else v for v in (row[name] for name in self.key))
