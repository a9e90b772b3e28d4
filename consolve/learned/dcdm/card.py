"""Model cards of the networks of the deep conjugate direction method."""

from __future__ import annotations

from dataclasses import asdict

from consolve.learned.dcdm.format import DCDMWeights
from consolve.learned.weights.card import card, record_rows


def model_card(weights: DCDMWeights) -> str:
    """The card in Markdown: what the weights are and how they came about."""
    settings = weights.settings
    size = {
        "weights": weights.digest,
        "parameters": f"{weights.parameters:,} ({4 * weights.parameters:,} bytes)",
    }
    return card(
        f"{settings.network}, {settings.ndim}D",
        size | {f"network: {k}": v for k, v in asdict(settings).items()} | record_rows(weights.record),
    )
