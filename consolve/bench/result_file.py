"""Results of benchmarks as JSON files that can be read and compared line by line: one row a line.

A machine, and the versions on it, stands once in a file, under ``machines``; rows name it by its number.
``read`` puts it back in its place.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from consolve.base.files import whole_file

_MACHINES, _ROWS = "machines", "rows"


def write(path: Path, document: dict[str, Any] | list[Any]) -> None:
    """Write a document of dictionaries, lists, text and numbers, whole or not at all; NaN and Inf become
    null.  A list is kept as ``rows``."""
    machines: list[Any] = []
    content = _with(document, lambda machine: _number(machines, machine))
    content = content if isinstance(content, dict) else {_ROWS: content}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(_text({_MACHINES: machines} | content if machines else content, 0) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The document of a file.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    try:
        content = json.loads(path.read_text())
        machines = content.pop(_MACHINES, [])
        found: dict[str, Any] = _with(content, lambda at: machines[at] if isinstance(at, int) else at)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} holds no results ({error!r}): move it away, or name another") from error
    return found


def _with(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {k: change(v) if k == "machine" else _with(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_with(v, change) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(machines: list[Any], machine: Any) -> int:
    if machine not in machines:
        machines.append(machine)
    return machines.index(machine)


def _text(value: Any, depth: int) -> str:
    """Over several lines where there are rows within, else on one."""
    if not _has_rows(value):
        return json.dumps(value, allow_nan=False, default=float)
    inside, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict):
        entries = [f"{json.dumps(str(k))}: {_text(v, depth + 1)}" for k, v in value.items()]
        return "{" + inside + ("," + inside).join(entries) + end + "}"
    return "[" + inside + ("," + inside).join(_text(v, depth + 1) for v in value) + end + "]"


def _has_rows(value: Any) -> bool:
    """A list of dictionaries is rows."""
    if isinstance(value, dict):
        return any(_has_rows(v) for v in value.values())
    if isinstance(value, list | tuple):
        return any(isinstance(v, dict) or _has_rows(v) for v in value)
    return False
