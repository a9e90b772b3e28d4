"""Model cards of the wave surrogates: what a file of weights holds and how it came about."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from consolve.learned.wave_weights import WaveWeights


def card_rows(weights: WaveWeights) -> dict[str, Any]:
    """What the card says, by name: size, settings, training, domain and scores, as far as they are known."""
    record = weights.record
    rows: dict[str, Any] = {
        "weights": weights.digest,
        "parameters": f"{weights.parameters:,} ({4 * weights.parameters:,} bytes)",
        "of these in the compressible convolutions": f"{weights.convolution_parameters:,}",
    }
    rows |= {f"network: {k}": v for k, v in asdict(weights.settings).items()}
    if "command" in record:
        rows["command"] = f"`{record['command']}`"
    rows |= {
        name: record[key] for name, key in (("data", "data_hash"), ("revision", "revision")) if key in record
    }
    for name, key in (("training", "training"), ("trained for", "domain"), ("validation", "scores")):
        rows |= {f"{name}: {k}": v for k, v in json.loads(record.get(key, "{}")).items()}
    return rows


def model_card(weights: WaveWeights) -> str:
    """The card in Markdown."""
    lines = [f"# {weights.network}, {weights.layer}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in card_rows(weights).items()]
    return "\n".join(lines) + "\n"
