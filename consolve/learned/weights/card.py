"""Model cards in Markdown: what a file of weights holds and how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def record_rows(record: Mapping[str, str]) -> dict[str, Any]:
    """What a card says of the record in a file of weights, by name, as far as it is known."""
    rows: dict[str, Any] = {}
    if "command" in record:
        rows["command"] = f"`{record['command']}`"
    rows |= {
        name: record[key] for name, key in (("data", "data_hash"), ("revision", "revision")) if key in record
    }
    for name, key in (("training", "training"), ("trained for", "domain"), ("validation", "scores")):
        rows |= {f"{name}: {k}": v for k, v in json.loads(record.get(key, "{}")).items()}
    return rows


def card(title: str, rows: Mapping[str, Any]) -> str:
    """A title and a table of two columns."""
    lines = [f"# {title}", "", "| | |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows.items()]) + "\n"
