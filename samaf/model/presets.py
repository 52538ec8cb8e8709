"""Named training configurations: ours, and the one of the SAMAF paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from samaf.features import FRONT_ENDS, WINDOW_FRAMES


@dataclass(frozen=True)
class Preset:
    """Everything that shapes a model, apart from the audio it is trained on.

    Attributes
    ----------
    front_end
        ``"log-mel"`` or ``"mfcc"``.
    stack
        Frames that one LSTM step sees; 100 / stack steps a window.
    units, decoder_units
        Size of the encoder's and of the decoder's LSTM.
    bits
        Code lengths, ascending; each shorter code is the beginning of the longer ones.
    hash_loss
        ``"contrast"`` or ``"pull"``; see :mod:`samaf.model.losses`.
    mse_weight, hash_weight, entropy_weight, balance_weight
        Weights of the composite loss; `balance_weight` is the guard against collapse.
    temperature
        Of the contrast form.
    renderings
        Distorted renderings of each chunk beside the clean one. 0: twins differ by jitter alone.
    jitter_s
        Twins start up to this much apart.
    neighbours, variety, overlay, overhang
        Shares of the twins that come with a look-alike, are changed alike into other music, have their distorted one
        laid over with another sound, and have but a part of it known; see :mod:`samaf.model.twins`. Variety and
        overlay are for ``"log-mel"`` alone.
    pairs, steps, learning_rate, warm_up
        Twin pairs a step, number of steps, peak rate of Adam, share of the steps that warm up.
    """

    name: str
    front_end: str = "log-mel"
    stack: int = 4
    units: int = 384
    decoder_units: int = 128
    bits: tuple[int, ...] = (64, 128, 256)
    hash_loss: str = "contrast"
    mse_weight: float = 0.1
    hash_weight: float = 1.0
    entropy_weight: float = 0.1
    balance_weight: float = 0.1
    temperature: float = 0.07
    renderings: int = 6
    jitter_s: float = 0.06
    neighbours: float = 0.4
    variety: float = 1.0
    overlay: float = 0.4
    overhang: float = 0.3
    pairs: int = 384
    steps: int = 10000
    learning_rate: float = 2e-3
    warm_up: float = 0.05

    def __post_init__(self) -> None:
        if self.front_end != "log-mel" and (self.variety or self.overlay):
            raise ValueError(f"variety and overlay work on log-mel frames, not on {self.front_end}")

    @property
    def n_steps(self) -> int:
        """LSTM steps of one window."""
        return WINDOW_FRAMES // self.stack

    @property
    def n_inputs(self) -> int:
        """Values that one LSTM step sees."""
        return FRONT_ENDS[self.front_end][0].n_values * self.stack

    def with_options(self, **options: Any) -> Preset:
        """A copy with some values changed; those given as None stay."""
        return replace(self, **{k: v for k, v in options.items() if v is not None})

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return asdict(self) | {"bits": list(self.bits)}


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("samaf"),
        # The recipe of the weights that ship: many more steps, of larger batches, than a laptop has patience for.
        Preset("samaf-4", renderings=24, pairs=1024, steps=52000),
        # Baez-Suarez et al. 2020: 13 MFCC, one LSTM each way, no distortion of the training audio.
        Preset(
            "paper",
            front_end="mfcc",
            stack=1,
            units=128,
            decoder_units=128,
            bits=(128,),
            hash_loss="pull",
            mse_weight=1.0,
            renderings=0,
            neighbours=0.0,
            variety=0.0,
            overlay=0.0,
            overhang=0.0,
            pairs=128,
            learning_rate=1e-3,
        ),
    )
}


def preset_from_json(values: dict[str, Any]) -> Preset:
    """The preset that :meth:`Preset.to_json` wrote."""
    return Preset(**values | {"bits": tuple(values["bits"])})
