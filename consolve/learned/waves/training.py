"""Training of the wave surrogates: what propagator and generator share beside `TrainingRun`."""

from __future__ import annotations

from dataclasses import dataclass

from consolve.learned.training.run import TrainingRun
from consolve.learned.training.settings import RunSettings
from consolve.learned.waves.card import model_card
from consolve.learned.waves.format import WaveWeights, save_wave_weights


@dataclass(frozen=True)
class WaveTrainingSettings(RunSettings):
    """As `RunSettings`, with the rate of `Muon` that suits the wave surrogates."""

    rate: float = 4e-3


class WaveTraining(TrainingRun[WaveWeights]):
    """One run of a wave surrogate; `net.settings` is its size."""

    def _weights(self, record: dict[str, str]) -> WaveWeights:
        return WaveWeights(self.net.settings, self.best_tensors, record, str(self.out))

    def _save(self, weights: WaveWeights) -> None:
        save_wave_weights(weights, self.out)

    def _card(self, weights: WaveWeights) -> str:
        return model_card(weights)
