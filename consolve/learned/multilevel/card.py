"""Model cards of the multilevel network."""

from __future__ import annotations

from consolve.learned.multilevel.format import Weights
from consolve.learned.weights.card import card, record_rows


def model_card(weights: Weights) -> str:
    """The card in Markdown: what the weights are and how they came about."""
    size = {
        "weights": weights.digest,
        "parameters": f"{weights.parameters:,} ({4 * weights.parameters:,} bytes)",
        "network: sweeps": weights.sweeps,
        "network: hidden": weights.hidden,
    }
    name = "multilevel" if weights.hidden else "mg"
    return card(f"{name}, {weights.ndim}D", size | record_rows(weights.record))
