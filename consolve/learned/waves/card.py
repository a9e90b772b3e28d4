"""Model cards of the wave surrogates: what a file of weights holds and how it came about."""

from __future__ import annotations

from dataclasses import asdict

from consolve.learned.waves.format import WaveWeights
from consolve.learned.weights.card import card, record_rows


def model_card(weights: WaveWeights) -> str:
    """The card in Markdown."""
    size = {
        "weights": weights.digest,
        "parameters": f"{weights.parameters:,} ({4 * weights.parameters:,} bytes)",
        "of these in the compressible convolutions": f"{weights.convolution_parameters:,}",
    }
    network = {f"network: {k}": v for k, v in asdict(weights.settings).items()}
    return card(f"{weights.network}, {weights.layer}", size | network | record_rows(weights.record))
